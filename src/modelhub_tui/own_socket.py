"""The service's own door: a Unix socket in the state folder, through which all programs of this user reach it.

A port of this machine belongs to whoever binds it first, and a service that was killed leaves it to any user. In the
state folder nobody but this user can make a socket, and the kernel says whose process is at the other end: both sides
are known before a byte is sent, and there is nothing that could be passed on, kept or answered in its place.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from contextlib import closing
from pathlib import Path

from modelhub_tui.errors import ServiceFailed
from modelhub_tui.own_folder import cannot_use, is_own_dir
from modelhub_tui.values import dataclass

SOCKET_FILE = "service.sock"
HOST = "localhost"
"""What requests through the socket say as their `Host`."""
CATALOG_HEADER = "X-Modelhub-Catalog"
"""In requests through the socket: the full path of the catalog that the program goes by, percent-encoded."""
_LONGEST_BYTES = 100
"""Of a socket's path: a kernel takes 107 (Linux) or 103 (macOS)."""


class NotOursError(OSError):
    """Another user's process is at the other end."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who made a connection's other end, as the kernel says."""

    uid: int
    pid: int
    """0 where that cannot be told."""


def listen(folder: Path) -> socket.socket:
    """The door, opened. Only for who holds the service lock: what lies in its place is removed.

    Raises:
        ServiceFailed: There can be no socket.
    """
    path = folder / SOCKET_FILE
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with closing(Address(folder)) as address:
            listener.bind(address.path)
        path.chmod(0o600)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL):
            raise ServiceFailed(
                f"{folder} is on a file system that holds no sockets.", "Choose another with MODELHUB_STATE_DIR."
            ) from error
        raise cannot_use(path, error) from error
    except BaseException:
        listener.close()
        raise
    return listener


def connect(folder: Path, timeout_s: float) -> socket.socket:
    """A connection to the service of this folder, whose process is surely ours.

    Raises:
        OSError: None listens there, or (NotOursError) somebody else's.
        ServiceFailed: The folder is not ours alone.
    """
    if not is_own_dir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with closing(Address(folder)) as address:
            connection.connect(address.path)
        other = peer(connection)
        if other is not None and other.uid != os.geteuid():
            raise NotOursError(errno.EPERM, "another user's process listens", str(folder / SOCKET_FILE))
    except BaseException:
        connection.close()
        raise
    return connection


class Address:
    """The door's path, as a socket takes it: a long one is reached through the folder, kept open until `close()`.

    Raises:
        ServiceFailed: The path is too long for this system.
        OSError: The folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = -1
        self.path = os.fspath(folder / SOCKET_FILE)
        if len(os.fsencode(self.path)) <= _LONGEST_BYTES:
            return
        if sys.platform != "linux":
            raise ServiceFailed(
                f"The path {self.path} is too long for a socket.", "Choose a shorter folder with MODELHUB_STATE_DIR."
            )
        self._fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._fd}/{SOCKET_FILE}"

    def close(self) -> None:
        """Let go of the folder."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def remove(folder: Path) -> None:
    """Take the door away. Only for who holds the service lock.

    Raises:
        OSError: It cannot be removed.
    """
    (folder / SOCKET_FILE).unlink(missing_ok=True)


def peer(connection: socket.socket) -> Peer | None:
    """Who is at the other end of a Unix socket; None where the kernel does not say, and the folder alone vouches."""
    if sys.platform == "linux":
        pid, uid, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer(uid, pid)
    if sys.platform == "darwin":
        _, uid = struct.unpack_from("II", connection.getsockopt(0, 1, 76))  # LOCAL_PEERCRED: struct xucred
        (pid,) = struct.unpack("i", connection.getsockopt(0, 2, 4))  # LOCAL_PEERPID
        return Peer(uid, pid)
    return None
