"""What a served file is made of: bytes in memory, a file on disk, or content generated while it is sent."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@functools.lru_cache(maxsize=64)
def _noise(seed: int) -> bytes:
    """One MiB that differs by seed."""
    return random.Random(seed).randbytes(MIB)


@dataclass(frozen=True, slots=True)
class Generated:
    """`size` bytes that depend only on `seed` (and begin with `head`), at no cost in memory or on disk.

    Every MiB differs from the others, so bytes put at a wrong place change the hash.
    """

    size: int
    seed: int = 0
    head: bytes = b""

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield bytes `start`..`stop` (exclusive) in order."""
        head = len(self.head)
        if start < head:
            yield memoryview(self.head)[start : min(stop, head)]
        noise = memoryview(_noise(self.seed))
        at = max(start, head)
        while at < stop:
            number, within = divmod(at, MIB)
            end = min(stop, (number + 1) * MIB)
            mark = number.to_bytes(8, "little")
            if within < 8:
                yield memoryview(mark)[within : within + min(8 - within, end - at)]
                at += min(8 - within, end - at)
                within = at - number * MIB
            if at < end:
                yield noise[within : within + end - at]
            at = end


Source = bytes | str | Path | Generated
"""What a test may give as a file's content; text is encoded as UTF-8."""


@functools.lru_cache(maxsize=4096)
def _hashes(source: bytes | Generated | tuple[str, int, int], size: int, *, git: bool) -> tuple[str, str]:
    """SHA-256 of the content and, with `git`, git's SHA-1 of it as a blob. One process computes them once."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    reader = Path(source[0]) if isinstance(source, tuple) else source
    for piece in _pieces(reader, 0, size):
        sha256.update(piece)
        if git:
            sha1.update(piece)
    return sha256.hexdigest(), sha1.hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text git holds in place of an LFS object. Source: the Git LFS specification."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _pieces(source: bytes | Path | Generated, start: int, stop: int) -> Iterator[memoryview]:
    if isinstance(source, Generated):
        yield from source.pieces(start, stop)
    elif isinstance(source, Path):
        with source.open("rb") as file:
            file.seek(start)
            while start < stop and (block := file.read(min(MIB, stop - start))):
                start += len(block)
                yield memoryview(block)
    else:
        yield memoryview(source)[start:stop]


@dataclass(frozen=True, slots=True)
class Blob:
    """One file's content with its identity. `lfs` says in which of the hub's two ways it is served."""

    source: bytes | Path | Generated
    size: int
    lfs: bool

    @classmethod
    def of(cls, source: Source, *, lfs: bool) -> Blob:
        """Wrap what a test gave; a path must exist."""
        if isinstance(source, str):
            source = source.encode()
        if isinstance(source, Path):
            size = source.stat().st_size
        else:
            size = source.size if isinstance(source, Generated) else len(source)
        return cls(source, size, lfs)

    @property
    def identity(self) -> bytes | Generated | tuple[str, int, int]:
        """Changes when the content does; cheap for files on disk."""
        if isinstance(self.source, Path):
            return str(self.source), self.size, self.source.stat().st_mtime_ns
        return self.source

    @property
    def sha256(self) -> str:
        """64 hex digits over the content."""
        return _hashes(self.identity, self.size, git=not self.lfs)[0]

    @property
    def oid(self) -> str:
        """Git's id of what is in the tree: of the content, or of the LFS pointer. 40 hex digits."""
        if self.lfs:
            return hashlib.sha1(b"blob %d\0" % len(self.pointer) + self.pointer).hexdigest()
        return _hashes(self.identity, self.size, git=True)[1]

    @property
    def etag(self) -> str:
        """What the hub names it by: sha256 of an LFS object, git's id of a small file."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer(self) -> bytes:
        """The LFS pointer file."""
        return pointer(self.sha256, self.size)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """Yield bytes `start`..`stop` (exclusive) in order, in pieces of at most one MiB unless they are in memory."""
        return _pieces(self.source, start, self.size if stop is None else stop)

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces())
