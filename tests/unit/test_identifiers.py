"""Words that become paths, addresses or checksums have one form each."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui import identifiers
from modelhub_tui.identifiers import (
    BadIdentifier,
    OutsideError,
    below,
    is_blob_name,
    is_checksum,
    plain_number,
    whole_number,
)

SHA1, SHA256 = "0a" * 20, "0b" * 32
HOSTILE = [
    "../../../../home/somebody/site-packages",
    "..",
    ".",
    "",
    "a/../b/c",
    "/etc/passwd",
    "main\x00",
    "evil\x07/x",
    "\x1b[2J/x",
    "a\u202eb/x",
    "a\ud800/x",
    "x" * 300 + "/y",
    "C:/x",
    "\\\\host\\share",
    SHA1 + "\n",
    SHA1.upper(),
    " " + SHA1,
    "deadbeef",
    "main",
    None,
    7,
    ["a", "b"],
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_is_no_commit_and_no_checksum(text: object) -> None:
    assert not identifiers.is_commit(text)
    assert not is_checksum(text)
    with pytest.raises(BadIdentifier) as caught:
        identifiers.commit(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize("text", [SHA1, SHA256])
def test_commits_and_checksums(text: str) -> None:
    assert identifiers.commit(text) == text
    assert is_checksum(text)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_is_no_repo(text: object) -> None:
    with pytest.raises(BadIdentifier) as caught:
        identifiers.repo_id(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["a/b", "TheBloke/Llama-2-7B-GGUF", "Qwen/Qwen2.5_x", "a/" + "x" * 96])
def test_repos(text: str) -> None:
    assert identifiers.repo_id(text) == text


@pytest.mark.parametrize("text", ["a", "a/b/c", "a/b.git", "a--b/c", "a/-b", "a/b.", "a/" + "x" * 97, "a/b\n"])
def test_other_words_that_are_no_repo(text: str) -> None:
    with pytest.raises(BadIdentifier):
        identifiers.repo_id(text)


@pytest.mark.parametrize("text", ["refs/pr/1", "main", "v1.0", "x" * 250])
def test_revisions(text: str) -> None:
    assert identifiers.revision(text) == text


@pytest.mark.parametrize("text", ["a/.hidden", "../x", "a/../b", "\u00e9" * 200, None, "a b", "x\ud800"], ids=ascii)
def test_what_is_no_revision(text: object) -> None:
    with pytest.raises(BadIdentifier):
        identifiers.revision(text)


def test_a_blob_is_never_called_like_a_file_of_ours() -> None:
    for name in ("x.modelhub.part", "x.modelhub.trash", "x.incomplete", "x.lock", "../x", ".x", "x/y", "", None):
        assert not is_blob_name(name)
    for name in (f"{SHA256}.MODELHUB.PART", f"{SHA256}.Incomplete", "CON", "nul.x"):
        assert not is_blob_name(name), "the same name to many file systems, or a device"
    for name in (SHA1, SHA256, f"{SHA256}-gzip", "deadbeef", "0123456789abcdef0123456789abcdef"):
        assert is_blob_name(name)


@given(st.text(max_size=40))
def test_what_passes_stays_in_its_folder(text: str) -> None:
    for check in (identifiers.repo_id, identifiers.revision, identifiers.safe_repo_path, identifiers.commit):
        try:
            word = check(text)
        except BadIdentifier:
            continue
        root = Path("/top/models--x")
        assert below(root, root / word).is_relative_to(root)
        assert ".." not in Path(word).parts


def test_below_follows_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "in").mkdir(parents=True)
    outside.mkdir()
    (root / "out").symlink_to(outside)
    (root / "back").symlink_to(root / "in")
    assert below(root, root / "in" / "x") == root / "in" / "x"
    assert below(root, root / "back" / "x") == root / "back" / "x"
    assert below(root, root / "out") == root / "out", "the link itself may be made or removed"
    for path in (root / "out" / "x", root / ".." / "outside" / "x", root, root / "..", outside / "x"):
        with pytest.raises(OutsideError) as caught:
            below(root, path)
        assert caught.value.errno == errno.ENOTDIR
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    assert below(linked, linked / "in" / "x"), "a root that is a link is entered"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("42", 42),
        (b"42", 42),
        ("9007199254740991", 2**53 - 1),
        ("9007199254740992", None),
        ("9" * 400, None),
        ("\u00b2", None),
        ("\u0661", None),
        ("1_000", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1.5", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_whole_numbers(text: object, value: int | None) -> None:
    assert whole_number(text) == value


def test_whole_numbers_have_a_most() -> None:
    assert whole_number("65535", 65535) == 65535
    assert whole_number("65536", 65535) is None


NO_NUMBERS = ["", " ", "²", "١", "1_0", "9" * 400, "nan", "inf", "1e999", "-1", "+1", "0x1", " 1", "1\n", None, 1, 1.5]


@pytest.mark.parametrize("text", NO_NUMBERS, ids=ascii)
def test_what_is_no_number(text: object) -> None:
    assert whole_number(text) is None
    assert plain_number(text) is None


@pytest.mark.parametrize("text", ["1.", ".5", "1.5.0", "1.²", "1.1_0", "1,5", "1.-5"])
def test_what_is_no_number_with_a_point(text: str) -> None:
    assert plain_number(text) is None


def test_numbers_with_a_point() -> None:
    assert (plain_number("0"), plain_number("90"), plain_number("0.05")) == (0, 90, 0.05)


def test_nobody_else_asks_whether_a_text_is_digits() -> None:
    """What `isdigit()` takes, `int()` may refuse; so both stand in one place."""
    source = Path(identifiers.__file__).parent
    files = [path for path in source.rglob("*.py") if path.name != "identifiers.py"]
    assert len(files) > 100
    found = [path for path in files if re.search(r"\.is(?:digit|decimal|numeric)\(", path.read_text())]
    assert found == []
    unbounded = [path for path in files if re.search(r"\\d", path.read_text())]
    assert unbounded == [], "in a pattern for text, this matches the digits of all scripts; write [0-9]"


def test_a_file_in_very_many_folders_is_none() -> None:
    assert identifiers.safe_repo_path("d/" * 99 + "m.gguf")
    with pytest.raises(BadIdentifier):
        identifiers.safe_repo_path("d/" * 100 + "m.gguf")
