"""Read a small file that somebody else may have put there: in the cache, in the state folder, or named in a setting.

A path can lead to a device that never ends, a pipe that never answers, a link into somebody's home or a file of 100 GB.
Nothing that is read whole is read in any other way than by `read_small()`.
"""
# Read before the first frame: only what every interpreter has loaded is imported.

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class NotAPlainFile(OSError):
    """A link, a device, a pipe, a socket, a folder, or a file larger than what is expected there."""

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        super().__init__(errno.EINVAL, what, os.fspath(path))


def read_small(
    path: Path | str,
    limit_bytes: int,
    *,
    follow_links: bool = False,
    dir_fd: int | None = None,
    only_ours: bool = False,
    check: Callable[[os.stat_result], None] = lambda _: None,
) -> bytes:
    """Read a regular file of at most `limit_bytes`, without ever waiting for anybody.

    Args:
        follow_links: For files that a person names (settings, keys): those may be links, to a regular file.
        dir_fd: A relative `path` is meant from this open folder.
        only_ours: For what this program wrote for itself: the file belongs to us, and nobody else may write it.
        check: Called with the status of the open file before it is read; what it raises is raised.

    Raises:
        NotAPlainFile: It is something else, or larger.
        OSError: It cannot be opened or read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAPlainFile(path, "it is a symbolic link") from error
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):
            raise NotAPlainFile(path, "it is no regular file") from error
        raise
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise NotAPlainFile(path, "it is no regular file")
        if only_ours and (state.st_uid != os.geteuid() or state.st_mode & 0o022):
            raise NotAPlainFile(path, "somebody else may have written it")
        check(state)
        chunks: list[bytes] = []
        left = limit_bytes + 1
        while left and (chunk := os.read(fd, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
        if not left:
            raise NotAPlainFile(path, f"it is larger than {limit_bytes:,} bytes")
        return b"".join(chunks)
    finally:
        os.close(fd)
