"""What a machine has on disk that nobody asked for."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from modelhub_tui import locks

_UNFINISHED = (".modelhub.part", ".modelhub.map", ".modelhub.tmp", ".tmp", ".incomplete")


def unfinished(cache: Path) -> list[Path]:
    """Parts, maps and temporary files below the model folder."""
    return sorted(each for each in _entries(cache) if each.name.endswith(_UNFINISHED))


def held_locks(cache: Path) -> list[Path]:
    """Lock files that some process still holds. The library leaves the empty files; they hold nobody up."""
    held = []
    for path in _entries(cache / ".locks"):
        try:
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            if locks.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
                held.append(path)
        finally:
            os.close(fd)
    return held


def orphans(cache: Path) -> list[Path]:
    """Blobs that no snapshot links to, and links that lead nowhere."""
    linked: set[tuple[int, int]] = set()
    lost: list[Path] = []
    blobs: list[Path] = []
    for path in _entries(cache):
        within = path.relative_to(cache).parts
        if path.is_symlink() and "snapshots" in within[:2]:
            if path.exists():
                linked.add(_inode(path))
            else:
                lost.append(path)
        elif "blobs" in within[:2] and not path.name.endswith((*_UNFINISHED, ".trash")):
            blobs.append(path)
    return sorted([*lost, *(each for each in blobs if each.exists() and _inode(each) not in linked)])


def _inode(path: Path) -> tuple[int, int]:
    at = path.stat()
    return at.st_dev, at.st_ino


def left_behind(cache: Path) -> list[Path]:
    """All of it."""
    return [*unfinished(cache), *held_locks(cache), *orphans(cache)]


def anything(cache: Path) -> list[Path]:
    """Every file below the model folder, for when there should be none."""
    return sorted(each for each in _entries(cache) if each.name != "CACHEDIR.TAG")


def _entries(folder: Path) -> list[Path]:
    """All files and links below; a folder that goes while it is walked is none any more (`Path.rglob` fails then)."""
    return [Path(inside) / name for inside, _, names in os.walk(folder) for name in names]
