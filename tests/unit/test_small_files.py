"""What is read whole is a small, regular file; nothing else is ever waited for."""

from __future__ import annotations

import os
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
