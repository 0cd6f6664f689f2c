"""A checksum that runs behind the writer, so that a file is verified very soon after its last byte is written."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from enum import Enum

from modelhub_tui.identifiers import is_blob_id, is_sha256

BLOCK_BYTES = 1024 * 1024
_FLUSH_BYTES = 64 * BLOCK_BYTES


class Verdict(Enum):
    """What is known of a file's content once all of it has been read."""

    GOOD = "good"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"
    """There is no checksum to compare it with. Never a kind of good: whoever asks has to say what that means there."""


class Digests:
    """The hashes of a file's content that its checksum may be one of.

    64 hex digits are a sha256. 40 are git's sha1 of a blob, which is what the hub gives for small files, or the plain
    sha1 of the content, which is what mirrors give in its place; or git's sha1 of the pointer that lies in git in place
    of a large file, where a listing does not tell that it is one: the pointer holds the content's sha256 and size.
    Nobody can make other bytes that fit any of the three.
    """

    def __init__(self, digest: str | None, size: int) -> None:
        """`digest` None, or of a form that is no checksum: there is nothing to compare with, and nothing is hashed."""
        self._wanted, self._size = digest, size
        self._running: tuple[hashlib._Hash, ...] = ()
        if is_sha256(digest):
            self._running = (hashlib.sha256(),)
        elif is_blob_id(digest):
            git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            self._running = (git, hashlib.sha1(usedforsecurity=False), hashlib.sha256())

    def __bool__(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self._running)

    def update(self, data: memoryview) -> None:
        for each in self._running:
            each.update(data)

    def are(self, digest: str | None) -> bool:
        """Whether the content is what this checksum names."""
        if digest is None or not self._running:
            return False
        told = [each.hexdigest() for each in self._running]
        return digest in told or digest == _pointer(told[-1], self._size)  # the last is the sha256, always

    def verdict(self) -> Verdict:
        if not self._running:
            return Verdict.UNKNOWN
        return Verdict.GOOD if self.are(self._wanted) else Verdict.DAMAGED


def _pointer(sha256: str, size: int) -> str:
    """Git's sha1 of the text that stands in git for a file of this content (the large-file storage's, version 1)."""
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256.encode(), size)
    return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()


class Hasher:
    """Reads a growing file behind its writer.

    It reads from the page cache instead of being handed blocks: so a resumed file's first part, which nobody wrote just
    now, is nothing special, and a slow hash never holds up the network.
    """

    def __init__(self, fd: int, digest: str | None, size: int) -> None:
        """`fd` is borrowed until `close()`; reads use pread and never move its position.

        `digest` is what the content's checksum should be; None where nobody told any.
        """
        self._fd, self._size = fd, size
        self._digests = Digests(digest, size)
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

    def verdict(self) -> Verdict:
        """Whether the content is what the checksum promises, after `finished()`. Raises OSError: it was unreadable."""
        if self._error is not None:
            raise self._error
        return self._digests.verdict()

    def read(self, digest: str | None) -> bool:
        """Whether the content that was read is what another checksum of the same kind names."""
        return self._digests.are(digest)

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
                if self._digests:
                    count = os.preadv(self._fd, [view[: min(len(view), known - at)]], at)
                    self._digests.update(view[:count])
                else:
                    count = known - at
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


def look_at(path: str, digest: str | None, size: int, stop: threading.Event) -> Verdict:
    """Read a whole file on disk and compare it with its checksum; DAMAGED also when told to stop half way."""
    digests = Digests(digest, size)
    # Never waits for a pipe, and reads no device: what is in the cache may be anything.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb", buffering=0) as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode) or told.st_size != size:
            return Verdict.DAMAGED
        if not digests:
            return Verdict.UNKNOWN
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while count := file.readinto(buffer):
            digests.update(buffer[:count])
            if stop.is_set():
                return Verdict.DAMAGED
    return digests.verdict()
