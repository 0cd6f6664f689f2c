"""Whatever a person types or pastes becomes a repo, or a sentence that says what to type instead."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelhub_tui.errors import BadReference
from modelhub_tui.hub_refs import HubRef, check_revision, parse_hub_ref
from modelhub_tui.identifiers import safe_repo_path
from modelhub_tui.untrusted import clean

SHA = "8911e8a47f92bac19d6f5c64a2e2095bd2f7d031"

GOOD: list[tuple[str, HubRef]] = [
    ("owner/name", HubRef("owner/name")),
    ("  owner/name \n", HubRef("owner/name")),
    ("<https://huggingface.co/owner/name>", HubRef("owner/name")),
    ('"owner/name"', HubRef("owner/name")),
    ("owner/name/", HubRef("owner/name")),
    ("Owner_1/Name-2.5_x", HubRef("Owner_1/Name-2.5_x")),
    ("owner/name:q4.gguf", HubRef("owner/name", None, "q4.gguf")),
    ("owner/name:sub/q4.gguf", HubRef("owner/name", None, "sub/q4.gguf")),
    ("owner/name:", HubRef("owner/name")),
    ("owner/name/sub/q4.gguf", HubRef("owner/name", None, "sub/q4.gguf")),
    ("https://huggingface.co/owner/name", HubRef("owner/name")),
    ("HTTPS://HuggingFace.co/owner/name/", HubRef("owner/name")),
    ("http://huggingface.co/owner/name", HubRef("owner/name")),
    ("https://www.huggingface.co/owner/name", HubRef("owner/name")),
    ("https://hf.co/owner/name", HubRef("owner/name")),
    ("hf.co/owner/name", HubRef("owner/name")),
    ("huggingface.co/owner/name", HubRef("owner/name")),
    ("hf.co/owner/name:Q4_K_M", HubRef("owner/name", None, "Q4_K_M")),
    ("https://huggingface.co/models/owner/name", HubRef("owner/name")),
    ("https://huggingface.co/owner/name?show_file_info=x.gguf#usage", HubRef("owner/name")),
    ("https://huggingface.co/owner/name/tree/main", HubRef("owner/name")),
    ("https://huggingface.co/owner/name/tree/v1.0", HubRef("owner/name", "v1.0")),
    ("https://huggingface.co/owner/name/tree/main/sub/folder", HubRef("owner/name")),
    ("https://huggingface.co/owner/name/tree", HubRef("owner/name")),
    ("https://huggingface.co/owner/name/discussions/5", HubRef("owner/name")),
    ("https://huggingface.co/owner/name/commits/main", HubRef("owner/name")),
    ("https://huggingface.co/owner/name/blob/main/q4.gguf", HubRef("owner/name", None, "q4.gguf")),
    ("https://huggingface.co/owner/name/resolve/main/q4.gguf?download=true", HubRef("owner/name", None, "q4.gguf")),
    (f"https://huggingface.co/owner/name/raw/{SHA}/a/b.json", HubRef("owner/name", SHA, "a/b.json")),
    ("https://huggingface.co/owner/name/blob/refs%2Fpr%2F1/q4.gguf", HubRef("owner/name", "refs/pr/1", "q4.gguf")),
    ("https://huggingface.co/owner/name/blob/main/with%20space.gguf", HubRef("owner/name", None, "with space.gguf")),
    ("https://huggingface.co/owner/name/resolve/main", HubRef("owner/name")),
    ("hf://owner/name", HubRef("owner/name")),
    ("hf://owner/name/sub/q4.gguf", HubRef("owner/name", None, "sub/q4.gguf")),
    ("hf://owner/name@v1/q4.gguf", HubRef("owner/name", "v1", "q4.gguf")),
    ("hf://owner/name@main", HubRef("owner/name")),
    ("hf://owner/name/tree/main/x", HubRef("owner/name", None, "tree/main/x")),
]

BAD: list[tuple[str, str]] = [
    ("", "Type a repo as owner/name"),
    ("   ", "Type a repo as owner/name"),
    ("two words", "Type a repo as owner/name"),
    ("owner/na me", "Type a repo as owner/name"),
    ("owner/na\x1bme", "Type a repo as owner/name"),
    ("owner/\u202ename", "Type a repo as owner/name"),
    ("o/" + "n" * 3_000, "Type a repo as owner/name"),
    ("gpt2", "gpt2 has no owner"),
    ("https://huggingface.co", "has no owner"),
    ("https://huggingface.co/owner", "has no owner"),
    ("https://huggingface.co/datasets/owner/name", "That is a HuggingFace datasets page"),
    ("https://huggingface.co/spaces/owner/name", "That is a HuggingFace spaces page"),
    ("https://huggingface.co/collections/owner/name-1", "That is a HuggingFace collections page"),
    ("https://huggingface.co/models?search=x", "That is a HuggingFace models page"),
    ("hf://datasets/owner/name/x", "That is a HuggingFace datasets page"),
    ("https://example.com/owner/name", "example.com is not the configured hub (huggingface.co)"),
    ("https://huggingface.co.evil.com/owner/name", "huggingface.co.evil.com is not the configured hub"),
    ("https://huggingface.co:8443/owner/name", "huggingface.co:8443 is not the configured hub"),
    ("https://huggingface.co@evil.com/owner/name", "Leave user name and password out"),
    ("https://me:hf_secret@huggingface.co/owner/name", "Leave user name and password out of the URL; set HF_TOKEN"),
    ("https://@huggingface.co/owner/name", "is not the configured hub"),
    ("https://huggingface.co\\@evil.com/owner/name", "Leave user name and password out"),
    ("https:///owner/name", "No host is not the configured hub"),
    ("file:///etc/passwd", "file:// is not a HuggingFace address"),
    ("ftp://huggingface.co/owner/name", "ftp:// is not a HuggingFace address"),
    ("javascript://huggingface.co/%0aalert(1)", "javascript:// is not a HuggingFace address"),
    ("http://[", "is no valid URL"),
    ("http://[::1/owner/name", "is no valid URL"),
    ("https://huggingface.co/owner/name/blob/main/../../../etc/passwd", "The file name cannot be used"),
    ("https://huggingface.co/owner/name/blob/main/%2e%2e%2f%2e%2e%2fetc", "The file name cannot be used"),
    ("https://huggingface.co/owner/name/blob/main/a%00b", "The file name cannot be used"),
    ("https://huggingface.co/owner/name/blob/main/a%1b%5b31mb", "The file name cannot be used"),
    ("https://huggingface.co/owner/name/resolve/a%1b%5b31m/x.gguf", "is no branch, tag or commit"),
    ("https://huggingface.co/owner/name/resolve/..%2f..%2fx/x.gguf", "is no branch, tag or commit"),
    ("https://huggingface.co/owner%2fx/name", "is not a repo name"),
    ("https://huggingface.co/../owner/name", "is not a repo name"),
    ("owner/name:../x", "The file name cannot be used"),
    ("owner/name:/etc/passwd", "The file name cannot be used"),
    ("owner/name:C:\\x", "The file name cannot be used"),
    ("owner\\name", "has no owner"),
    ("../name", "is not a repo name"),
    ("owner/..", "is not a repo name"),
    ("-owner/name", "is not a repo name"),
    ("owner/name-", "is not a repo name"),
    ("owner/na--me", "is not a repo name"),
    ("owner/na..me", "is not a repo name"),
    ("owner/name.git", "is not a repo name"),
    ("owner/" + "n" * 97, "is not a repo name"),
    ("owner/näme", "is not a repo name"),
    ("owner/name?x=1", "is not a repo name"),
    ("hf://owner/name@../x", "is no branch, tag or commit"),
    ("hf://owner/name@a b", "Type a repo as owner/name"),
]


@pytest.mark.parametrize(("text", "ref"), GOOD, ids=[each[0] for each in GOOD])
def test_what_is_understood(text: str, ref: HubRef) -> None:
    assert parse_hub_ref(text) == ref


@pytest.mark.parametrize(("text", "said"), BAD, ids=[ascii(each[0])[:60] for each in BAD])
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse_hub_ref(text)
    assert said in caught.value.reason
    assert clean(caught.value.reason, 1_000) == caught.value.reason
    assert "hf_secret" not in caught.value.reason


def test_a_configured_hub_is_accepted_with_and_without_scheme() -> None:
    for text in ("http://127.0.0.1:9000/owner/name", "127.0.0.1:9000/owner/name/blob/main/x.gguf"):
        assert parse_hub_ref(text, "http://127.0.0.1:9000").repo == "owner/name"
    assert parse_hub_ref("https://huggingface.co/owner/name", "http://127.0.0.1:9000").repo == "owner/name"
    with pytest.raises(BadReference, match=r"127\.0\.0\.1:9001 is not the configured hub \(127\.0\.0\.1:9000\)"):
        parse_hub_ref("http://127.0.0.1:9001/owner/name", "http://127.0.0.1:9000")


@pytest.mark.parametrize("revision", ["main", "v1.0", SHA, "refs/pr/1", "feature/x_y-z", "release+1", "a" * 250])
def test_revisions(revision: str) -> None:
    assert check_revision(revision) == revision


NO_REVISIONS = [
    "",
    " ",
    "a b",
    "-x",
    "/x",
    "x/",
    "x.",
    ".x",
    "a..b",
    "a//b",
    "a~1",
    "a^",
    "a:b",
    "a?",
    "a*",
    "a[",
    "a\\b",
]
NO_REVISIONS += ["@{x", "a@{1}", "\x1b", "a\nb", "\u202e", "a" * 251]


@pytest.mark.parametrize("revision", NO_REVISIONS, ids=ascii)
def test_what_is_no_revision(revision: str) -> None:
    with pytest.raises(BadReference):
        check_revision(revision)


PIECES = (
    "https:// http:// hf:// file:// huggingface.co hf.co 127.0.0.1 [ ] ::1 @ : / // owner name name.gguf .. . ~ C: -"
)
PIECES += " %2e %2f %00 %1b %ff % \\ ? # tree blob resolve main datasets models \x1b \u202e \u2100 ＠ 。 \ud800"


@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*PIECES.split(), " ", "\n"]), max_size=14).map("".join))
)
@example("http://[")
@example("https://huggingface.co：80/a/b")
@example("https://\u2100/a/b")
@example("//[x]/a/b")
def test_nothing_raises_anything_else_or_gets_through_unchecked(text: str) -> None:
    try:
        ref = parse_hub_ref(text)
    except BadReference as error:
        assert error.reason
        assert clean(error.reason, 1_000) == error.reason
        return
    assert re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", ref.repo, re.ASCII)
    assert ".." not in ref.repo
    if ref.file is not None:
        assert safe_repo_path(ref.file) == ref.file
    if ref.revision is not None:
        assert check_revision(ref.revision) == ref.revision
    # What was understood can be written plainly and understood again.
    assert parse_hub_ref(ref.repo) == HubRef(ref.repo)
