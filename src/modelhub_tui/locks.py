"""Locks of files that end with their process, on every file system.

`flock` where there is one. Some network and user-space file systems have none; there, as `huggingface_hub` does, a file
that exists is the lock, and says who holds it (`filelock.SoftFileLock`): one whose holder is seen to be gone is broken.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import SoftFileLock

_NONE_HERE = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})


def flock(fd: int, how: int) -> bool | None:
    """As `fcntl.flock`: True if it is done, False if somebody else holds it, None if this file system has no locks.

    Raises:
        OSError: Anything else.
    """
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NONE_HERE:
            return None
        raise
    return True


class SoftLock:
    """The lock that a file at `path` is while it exists."""

    def __init__(self, path: Path) -> None:
        from filelock import SoftFileLock

        # Not local to a thread: it may be let go of in another.
        self._lock: SoftFileLock = SoftFileLock(path, timeout=0, mode=0o664, thread_local=False)

    def acquire(self) -> bool:
        """Take it; False if a process that is alive, or on another machine, holds it. Raises OSError."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        _held.add(self)
        return True

    def release(self) -> None:
        """Let go of it, if it was taken."""
        with contextlib.suppress(OSError):
            self._lock.release()
        _held.discard(self)


_held: set[SoftLock] = set()
"""What is taken stays so until it is let go of, also when nobody refers to it any more, as with a descriptor."""


def tidy(path: Path) -> None:
    """Remove what a process that is gone left of a `SoftLock`."""
    if os.path.lexists(path):
        lock = SoftLock(path)
        with contextlib.suppress(OSError):
            lock.acquire()
        lock.release()
