"""An unfinished file on disk: contiguous, or with gaps that its map knows of."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType

from modelhub_tui import locks
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache, drop_file, sync_dir
from modelhub_tui.service.node.chunkmap import ChunkMap, note_durable
from modelhub_tui.service.node.folders import PLAIN_FLAGS, is_ours
from modelhub_tui.service.node.manifest import File


class Part:
    """An unfinished file, open and ours alone: a lock keeps a second process (or transfer) off the same bytes."""

    def __init__(self, cache: Cache, file: File, size: int) -> None:
        """Raises Fault `busy` when somebody else is at it, OSError when the disk says no."""
        assert file.etag and file.commit
        cache.prepare(file.repo, file.commit)
        self.path = cache.part(file.repo, file.etag)
        self.map_path = cache.map(file.repo, file.etag)
        self.size, self.name = size, file.path
        self.map: ChunkMap | None = None
        self._lock = threading.Lock()
        self.fd = _open(self.path)
        self._soft: locks.SoftLock | None = None
        try:
            try:
                # Published or removed between open and lock: then this is no longer the file at that path.
                same = self._locked(cache, file) and os.path.samestat(os.fstat(self.fd), self.path.lstat())
            except FileNotFoundError:
                same = False
            if not same:
                raise faults.elsewhere()
            self.have = 0
            """Bytes that are there, wherever."""
            self._take_stock()
        except BaseException:
            self._let_go()
            raise
        self._cache, self._blob = cache, (file.repo, file.etag)
        cache.writing.add(self._blob)

    def _locked(self, cache: Cache, file: File) -> bool:
        taken = locks.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if taken is None:
            self._soft = locks.SoftLock(cache.part_lock(file.repo, file.etag or ""))
            taken = self._soft.acquire()
        return taken

    def _let_go(self) -> None:
        os.close(self.fd)
        if self._soft is not None:
            self._soft.release()

    def _take_stock(self) -> None:
        length = os.fstat(self.fd).st_size
        self.map = ChunkMap.load(self.map_path, self.size)
        if self.map is not None and 0 < self.map.end() <= length <= self.size:
            self.have = self.map.total
            return
        # No map, or that of a part that was removed: what is here came in order.
        self._drop_map()
        if length > self.size:
            self.restart()
            return
        self.have = length if not length else contiguous_bytes(self.fd, length)
        if self.have < length:
            os.ftruncate(self.fd, self.have)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cache.writing.discard(self._blob)
        if self.map is not None:
            self.map.close()
        self._let_go()

    @property
    def prefix(self) -> int:
        """Bytes from the start without a gap."""
        return self.have if self.map is None else self.map.prefix()

    def append(self, data: memoryview) -> None:
        """Write all of `data` after what is there. A full disk may take a part of it: what is there then counts."""
        assert self.map is None
        while data:
            count = os.pwrite(self.fd, data, self.have)
            self.have += count
            data = data[count:]

    def split(self) -> ChunkMap:
        """Let bytes come out of order from now on. The map is on disk, with its name, before the first gap can be."""
        if self.map is None:
            self.map = ChunkMap.create(self.map_path, self.size, self.have)
            sync_dir(self.map_path.parent)
        return self.map

    def put(self, data: memoryview, at: int) -> int:
        """Write bytes of a split part, from any thread; each chunk's bytes must come in order.

        Returns:
            How many: fewer than given when the disk took only some of them.
        """
        assert self.map is not None
        count = os.pwrite(self.fd, data, at)
        with self._lock:
            self.map.add(at, count)
            self.have = self.map.total
        return count

    def whole_upto(self) -> int:
        """As `prefix`, from any thread."""
        with self._lock:
            return self.prefix

    def flusher(self) -> Flusher:
        """What makes a split part's bytes last, now and then, in a thread of the caller's."""
        assert self.map is not None
        return Flusher(self.fd, self.map, self._lock)

    def join(self) -> int:
        """Give up what lies behind the first gap, so that bytes come in order again. Returns how many that were."""
        if self.map is None:
            return 0
        lost, keep = self.have - self.prefix, self.prefix
        os.ftruncate(self.fd, keep)
        self._drop_map()
        self.have = keep
        return lost

    def restart(self) -> None:
        """Throw away all bytes."""
        os.ftruncate(self.fd, 0)
        self._drop_map()
        self.have = 0

    def remove(self) -> None:
        """Delete the part and its map."""
        drop_file(self.path)
        self._drop_map()

    def _drop_map(self) -> None:
        """Always after the data: a part with gaps must not be found without its map."""
        if self.map is not None:
            self.map.close()
            self.map = None
        drop_file(self.map_path)


class Flusher:
    """Writes a split part's data through to the disk, then says so in its map. Owns descriptors of its own."""

    def __init__(self, fd: int, chunks: ChunkMap, lock: threading.Lock) -> None:
        self._chunks, self._lock = chunks, lock
        self._data, self._map = os.dup(fd), chunks.copy_fd()

    def flush(self) -> None:
        """May block as long as the disk likes. Raises OSError."""
        with self._lock:
            entries = self._chunks.entries()
        os.fdatasync(self._data) if hasattr(os, "fdatasync") else os.fsync(self._data)
        note_durable(self._map, entries)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._map)


def _open(path: Path) -> int:
    """Open a part, made if there is none. What is not ours alone under this name loses the name, and is not written to:
    a link, a pipe, a device, a file that has another name elsewhere."""
    for _ in range(3):
        try:
            fd = os.open(path, PLAIN_FLAGS | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP):
                raise
        else:
            if is_ours(fd):
                return fd
            os.close(fd)
        drop_file(path)
    raise faults.elsewhere()


def contiguous_bytes(fd: int, length: int) -> int:
    """Bytes of a file before its first hole.

    A part without a map should have none. Where somebody removed the map, the file system still knows of the gaps; the
    block before a gap may be half empty, so it does not count.
    """
    try:
        hole = os.lseek(fd, 0, os.SEEK_HOLE) if hasattr(os, "SEEK_HOLE") else length
    except OSError:
        return length
    if hole >= length:
        return length
    block = max(os.fstat(fd).st_blksize, 4096)
    return max(hole - 1, 0) // block * block
