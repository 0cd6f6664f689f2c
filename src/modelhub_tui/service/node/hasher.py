"""A checksum that runs behind the writer, so that a file is verified very soon after its last byte is written."""

from __future__ import annotations

import hashlib
import os
import stat
import threading

BLOCK_BYTES = 1024 * 1024
_FLUSH_BYTES = 64 * BLOCK_BYTES


def digest_for(etag: str, size: int) -> hashlib._Hash | None:
    """The running hash whose hex digest is `etag`: sha256, or git's blob sha1. None for any other kind of etag."""
    if len(etag) == 64:
        return hashlib.sha256()
    if len(etag) == 40:
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return None


class Hasher:
    """Reads a growing file behind its writer.

    It reads from the page cache instead of being handed blocks: so a resumed file's first part, which nobody wrote just
    now, is nothing special, and a slow hash never holds up the network.
    """

    def __init__(self, fd: int, etag: str, size: int) -> None:
        """`fd` is borrowed until `close()`; reads use pread and never move its position."""
        self._fd, self._size = fd, size
        self._hash = digest_for(etag, size)
        self._etag = etag
        self._known = 0
        self._stop = False
        self._error: OSError | None = None
        self._more = threading.Condition()
        self.hashed = 0
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def written(self, upto: int) -> None:
        """The file is right up to this byte. From any thread; who is late says nothing new."""
        with self._more:
            self._known = max(self._known, upto)
            # Waking for each small piece would cost more than hashing it.
            if upto - self.hashed >= BLOCK_BYTES or upto >= self._size:
                self._more.notify()

    def finished(self, timeout_s: float) -> bool:
        """Wait for the whole file to be read; False if it takes longer."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def matches(self) -> bool:
        """Whether the content is what the etag promises, after `finished()`. Raises OSError if it was unreadable."""
        if self._error is not None:
            raise self._error
        return self._hash is None or self._hash.hexdigest() == self._etag

    def close(self) -> None:
        """Stop; the file may be closed after this."""
        with self._more:
            self._stop = True
            self._more.notify()
        self._thread.join()

    def _run(self) -> None:
        at = flushed = 0
        buffer = bytearray(min(BLOCK_BYTES, max(self._size, 1)))
        view = memoryview(buffer)
        while at < self._size:
            with self._more:
                while self._known - at < min(BLOCK_BYTES, self._size - at) and not self._stop:
                    self._more.wait()
                known = self._known
                if self._stop:
                    return
            try:
                if self._hash is None:
                    count = known - at
                else:
                    count = os.preadv(self._fd, [view[: min(len(view), known - at)]], at)
                    self._hash.update(view[:count])
                at += count
                if at - flushed >= _FLUSH_BYTES:
                    # Keeps the kernel's pile of unwritten pages short, so that the last fsync is quick and a power cut
                    # costs little. Here, because it may block.
                    os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
                    flushed = at
            except OSError as error:
                self._error = error
                return
            if not count:
                self._error = OSError(5, "the file became shorter while it was being read")
                return
            self.hashed = at


def file_matches(path: str, etag: str, size: int, stop: threading.Event) -> bool:
    """Whether a whole file on disk has the content its etag promises; False also when told to stop half way."""
    digest = digest_for(etag, size)
    # Never waits for a pipe, and reads no device: what is in the cache may be anything.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb", buffering=0) as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode) or told.st_size != size:
            return False
        if digest is None:
            return True
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if stop.is_set():
                return False
    return digest.hexdigest() == etag
