"""Whether a file can be what its name says, by its first bytes: right by checksum is not enough where a repo (or a hub)
holds a git-lfs pointer, or nothing, in place of weights."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

HEAD_BYTES = 64
_POINTER = b"version https://git-lfs.github.com/spec/v1"
MOST_POINTER_BYTES = 1024
"""The Git LFS specification keeps pointers below this."""
_MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its own library has it."""
_EMPTY = (".bin", ".onnx", ".pt", ".pth")
"""Weights of which no more is known than that there must be something in them."""


def is_pointer(head: bytes, size: int) -> bool:
    """Whether content that begins with `head` is a git-lfs pointer."""
    return size < MOST_POINTER_BYTES and head.startswith(_POINTER)


def trouble(path: str, head: bytes, size: int) -> str | None:
    """What is wrong with a file of a repo, to go behind its name in a sentence; None if nothing is known to be.

    Args:
        path: Its name in the repo, which says what it claims to be.
        head: Its first `HEAD_BYTES`, or all of it.
        size: Of all of it, in bytes.
    """
    lower = path.lower()
    kind = "GGUF" if lower.endswith(".gguf") else "safetensors" if lower.endswith(".safetensors") else ""
    why = None
    if is_pointer(head, size):
        why = "it holds a git-lfs pointer"
    elif not size and (kind or lower.endswith(_EMPTY)):
        why = "it is empty"
    elif kind == "GGUF" and not head.startswith(b"GGUF"):
        why = "it does not begin as one"
    elif kind == "safetensors" and not 2 <= int.from_bytes(head[:8], "little") <= min(size - 8, _MOST_HEADER_BYTES):
        why = "the length of its header cannot be"
    if why is None:
        return None
    return f"is not a {kind} file: {why}" if kind else f"is no usable file: {why}"


def trouble_in(path: str, fd: int) -> str | None:
    """As `trouble()`, for an open file. Raises OSError."""
    return trouble(path, os.pread(fd, HEAD_BYTES, 0), os.fstat(fd).st_size)


def trouble_at(path: str, place: str | Path) -> str | None:
    """As `trouble()`, for a file on disk; None, too, for what is no regular file or cannot be read."""
    with contextlib.suppress(OSError):
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return trouble_in(path, fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)
    return None
