"""What is read whole is a small, regular file; nothing else is ever waited for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from modelhub_tui.small_files import NotAPlainFile, read_small


def test_a_small_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert read_small(tmp_path / "x", 3) == b"abc"
    fd = os.open(tmp_path, os.O_RDONLY)
    assert read_small(Path("x"), 3, dir_fd=fd) == b"abc"
    os.close(fd)


def test_links_are_followed_only_where_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(NotAPlainFile, match="symbolic link"):
        read_small(tmp_path / "link", 10)
    assert read_small(tmp_path / "link", 10, follow_links=True) == b"abc"


def test_one_byte_too_many(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcd")
    with pytest.raises(NotAPlainFile, match="larger than 3 bytes"):
        read_small(tmp_path / "x", 3)


@pytest.mark.timeout(10)
def test_nothing_else_is_read_or_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(NotAPlainFile, match="no regular file"):
            read_small(tmp_path / name, 100, follow_links=True)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "nothing", 100)


def test_what_others_may_have_written_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    path.chmod(0o644)
    assert read_small(path, 10, only_ours=True) == b"abc"
    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(NotAPlainFile, match="somebody else"):
            read_small(path, 10, only_ours=True)
        assert read_small(path, 10) == b"abc"
    path.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(NotAPlainFile, match="somebody else"):
        read_small(path, 10, only_ours=True)


def test_nothing_is_stored_in_a_form_that_can_run_when_it_is_read() -> None:
    source = Path(__file__).parents[2] / "src"
    found = re.compile(r"^\s*(?:import|from) (?:pickle|marshal|shelve|dill|joblib)\b", re.MULTILINE)
    assert [str(each) for each in source.rglob("*.py") if found.search(each.read_text(encoding="utf-8"))] == []
