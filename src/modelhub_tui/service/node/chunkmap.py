"""Which bytes of an unfinished file are on disk, when they did not come in order: a small file beside the part.

Layout, little-endian: a header (magic, size of the whole file, size of a chunk, the boot it was written in), then for
each chunk four bytes that say how many of its bytes, from its start, are written, then the same again for how many
survive a power cut. It is allocated in full when it is made and only ever overwritten in place, so a full disk cannot
take it away, and entries are four bytes within one page, so they are never half written.

Written counts follow each write at once: what a killed process wrote is in the kernel's hands. After a reboot they
prove nothing, because the kernel may have written the map and lost the data; then only the durable counts are used,
which are noted after an fdatasync of the data.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from array import array
from pathlib import Path

from modelhub_tui.service.node.folders import PLAIN_FLAGS, is_ours

CHUNK_BYTES = 4 * 1024 * 1024
_MAGIC = b"modelhub map 1\n\0"
_HEADER = struct.Struct("<16sQQ36s")
_ENTRY = struct.Struct("<I")
_MOST_CHUNKS = 1 << 22
"""More than the largest file that today's file systems hold, 16 TiB, has."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ChunkMap:
    """One part's map, open. Not thread-safe: the part locks."""

    def __init__(self, path: Path, fd: int, size: int, chunk_bytes: int, written: array[int]) -> None:
        """Use `create` or `load`."""
        self.path, self.size, self.chunk_bytes = path, size, chunk_bytes
        self._fd, self._written = fd, written
        self.total = sum(written)
        """Bytes that are on disk."""
        self._first_gap = 0

    @classmethod
    def create(cls, path: Path, size: int, prefix: int, chunk_bytes: int = CHUNK_BYTES) -> ChunkMap:
        """Make the map of a part whose first `prefix` bytes are there, lasting before it has its name.

        Raises:
            OSError: No room, or no permission, or larger than any file is.
        """
        if _count(size, chunk_bytes) > _MOST_CHUNKS:
            raise OSError(errno.EFBIG, "too large", os.fspath(path))
        full, rest = divmod(prefix, chunk_bytes)
        written = array("I", [chunk_bytes]) * full
        written.extend([rest] if rest else [])
        written.extend(array("I", [0]) * (_count(size, chunk_bytes) - len(written)))
        return cls._store(path, size, chunk_bytes, written)

    @classmethod
    def load(cls, path: Path, size: int, chunk_bytes: int = CHUNK_BYTES, *, only_look: bool = False) -> ChunkMap | None:
        """Open the map of a part that will be `size` bytes long, and bring it up to date after a reboot.

        Nothing is read or allocated before the map's own length is what such a part's map has.

        Returns:
            None: there is no map, or none to be trusted.

        Raises:
            OSError: It is there but cannot be read.
        """
        try:
            fd = os.open(path, PLAIN_FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP):
                return None  # a link, a socket: none of ours
            raise
        try:
            if not is_ours(fd):
                raise ValueError
            head = os.pread(fd, _HEADER.size, 0)
            if len(head) < _HEADER.size:
                raise ValueError
            magic, told_size, told_chunk, boot = _HEADER.unpack(head)
            count = _count(size, chunk_bytes)
            if (
                (magic, told_size, told_chunk) != (_MAGIC, size, chunk_bytes)
                or count > _MOST_CHUNKS
                or os.fstat(fd).st_size != _HEADER.size + 2 * 4 * count
            ):
                raise ValueError
            same_boot = bool(_boot_id()) and boot == _boot_id()
            entries = _entries(os.pread(fd, 4 * count, _HEADER.size + (0 if same_boot else 4 * count)))
            last = size - (count - 1) * chunk_bytes
            if len(entries) != count or (count and (max(entries) > chunk_bytes or entries[-1] > last)):
                raise ValueError
        except ValueError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if same_boot or only_look:
            return cls(path, fd, told_size, chunk_bytes, entries)
        os.close(fd)
        return cls._store(path, told_size, chunk_bytes, entries)

    @classmethod
    def _store(cls, path: Path, size: int, chunk_bytes: int, written: array[int]) -> ChunkMap:
        temporary = new_map(path)
        temporary.unlink(missing_ok=True)  # not emptied: whoever made it may have given it a second name
        fd = os.open(temporary, PLAIN_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            data = _HEADER.pack(_MAGIC, size, chunk_bytes, _boot_id()) + _bytes(written) * 2
            view = memoryview(data)
            at = 0
            while at < len(view):
                at += os.pwrite(fd, view[at:], at)
            os.fsync(fd)
            temporary.replace(path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return cls(path, fd, size, chunk_bytes, written)

    def add(self, at: int, count: int) -> None:
        """`count` bytes more are written from `at` on, which is where their chunk ended so far."""
        while count:
            index, within = divmod(at, self.chunk_bytes)
            step = min(count, self.chunk_bytes - within)
            assert self._written[index] == within, "written out of order within a chunk"
            self._written[index] += step
            os.pwrite(self._fd, _ENTRY.pack(self._written[index]), _HEADER.size + 4 * index)
            self.total += step
            at, count = at + step, count - step

    def prefix(self) -> int:
        """Bytes from the start without a gap."""
        while self._first_gap < len(self._written) and self._is_full(self._first_gap):
            self._first_gap += 1
        if self._first_gap == len(self._written):
            return self.size
        return self._first_gap * self.chunk_bytes + self._written[self._first_gap]

    def end(self) -> int:
        """One past the last byte that is said to be there: the part is at least this long, or the map is not its."""
        for index in range(len(self._written) - 1, -1, -1):
            if self._written[index]:
                return index * self.chunk_bytes + self._written[index]
        return 0

    def gaps(self) -> list[tuple[int, int]]:
        """What is missing: (start, end), in order. Each begins where some chunk ended so far, and ends with a chunk."""
        found: list[tuple[int, int]] = []
        for index in range(len(self._written)):
            if self._is_full(index):
                continue
            start = index * self.chunk_bytes + self._written[index]
            end = min((index + 1) * self.chunk_bytes, self.size)
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def copy_fd(self) -> int:
        """Another descriptor of the map, for `note_durable`; the caller closes it."""
        return os.dup(self._fd)

    def entries(self) -> bytes:
        """The written counts at this moment, for `note_durable`."""
        return _bytes(self._written)

    def close(self) -> None:
        """Let go of the file; it stays."""
        os.close(self._fd)

    def _is_full(self, index: int) -> bool:
        return self._written[index] == min(self.chunk_bytes, self.size - index * self.chunk_bytes)


def note_durable(fd: int, entries: bytes) -> None:
    """Note counts whose data have been made durable since they were taken."""
    os.pwrite(fd, entries, _HEADER.size + len(entries))


def new_map(path: Path) -> Path:
    """The name under which a map is made; a left-over is overwritten by the next try."""
    return path.with_name(path.name + ".new")


def mapped_bytes(path: Path, length: int, size: int) -> int | None:
    """Bytes that are there of a part, according to its map; None without one for it.

    Args:
        length: Of the part as it is.
        size: Of the whole file.
    """
    try:
        found = ChunkMap.load(path, size, only_look=True)
    except OSError:
        return None
    if found is None:
        return None
    found.close()
    return found.total if 0 < found.end() <= length <= found.size else None


def _count(size: int, chunk_bytes: int) -> int:
    return -(-size // chunk_bytes)


def _entries(raw: bytes) -> array[int]:
    entries = array("I", raw[: len(raw) - len(raw) % 4])
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def _bytes(entries: array[int]) -> bytes:
    if sys.byteorder == "big":
        entries = entries[:]
        entries.byteswap()
    return entries.tobytes()


def _boot_id() -> bytes:
    """36 characters that change with each boot; empty where the system has none."""
    try:
        return _BOOT_ID.read_bytes().strip()[:36]
    except OSError:
        return b""
