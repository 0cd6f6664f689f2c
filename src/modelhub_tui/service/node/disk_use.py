"""What files really take on disk: allocated blocks, as `du` counts them; a file with several names counts once.

Blocks and not lengths: a part file with holes takes less than its length, a small file more.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the file system's own blocks are."""


def used_by(paths: Iterable[Path]) -> int:
    """Bytes on disk of all these files together. Links are followed; what is missing counts nothing."""
    return used_by_each(paths)[0]


def used_by_each(*groups: Iterable[Path]) -> tuple[int, ...]:
    """As `used_by()` of each group; what is in several counts in the first. Each file is looked at once: two looks
    would not agree while files go."""
    seen: set[tuple[int, int]] = set()
    used = []
    for paths in groups:
        used.append(0)
        for path in paths:
            try:
                told = path.stat()
            except OSError:
                continue
            if (told.st_dev, told.st_ino) not in seen:
                seen.add((told.st_dev, told.st_ino))
                used[-1] += told.st_blocks * _BLOCK_BYTES
    return tuple(used)


def freed_by_removing(path: Path) -> int:
    """Bytes that come free when this name of a file goes: none while it has another."""
    try:
        told = path.lstat()
    except OSError:
        return 0
    return told.st_blocks * _BLOCK_BYTES if told.st_nlink == 1 else 0
