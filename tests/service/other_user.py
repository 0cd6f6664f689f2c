"""A second user of this machine: processes that have given up root's rights, and what they try."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UID = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second user")

_DROP = f"""
import fcntl, os, socket, sys, threading, time
said = os.fdopen(int(sys.argv[1]), "ab", buffering=0)
os.setgroups([]); os.setgid({UID}); os.setuid({UID}); os.chdir("/")
def ready():
    print("ready", flush=True)
"""

PORT_TAKER = """
# Takes a port as soon as it is free, writes down whatever is said to it, and answers as the real service did or does.
port, how, health, real = int(sys.argv[2]), sys.argv[3], sys.argv[4].encode(), int(sys.argv[5])
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
while True:
    try:
        taken.bind(("127.0.0.1", port))
        taken.listen(100)
        break
    except OSError:
        time.sleep(0.001)
ready()
def talk(connection):
    with connection:
        request = connection.recv(65536)
        said.write(request)
        if how == "relay":
            with socket.create_connection(("127.0.0.1", real)) as other:
                other.sendall(request.replace(b":%d" % port, b":%d" % real))
                while block := other.recv(65536):
                    connection.sendall(block)
        elif how == "redirect":
            head = b"HTTP/1.1 307 Go\\r\\nLocation: http://127.0.0.1:%d/\\r\\nContent-Length: 0\\r\\n\\r\\n"
            connection.sendall(head % real)
        else:
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(health), health))
while True:
    threading.Thread(target=talk, args=[taken.accept()[0]], daemon=True).start()
"""

SOCKET_TAKER = """
# Listens where the service's own socket should be.
taken = socket.socket(socket.AF_UNIX)
taken.bind(sys.argv[2])
taken.listen(100)
ready()
while True:
    connection, _ = taken.accept()
    with connection:
        connection.settimeout(1)
        try:
            said.write(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
        except OSError:
            pass
"""

LOCK_HOLDER = """
# Was handed an open lock file when it still could be, and does not let go.
fcntl.flock(int(sys.argv[2]), fcntl.LOCK_EX)
ready()
time.sleep(600)
"""

LINKER = """
# Makes a link.
os.symlink(sys.argv[2], sys.argv[3])
ready()
"""


@contextmanager
def other_user(
    code: str, heard: Path, *arguments: object, pass_fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run code as the second user, from the moment when it says that it is ready; what it hears is in `heard`."""
    with heard.open("ab") as file:
        command = [sys.executable, "-I", "-c", _DROP + code, str(file.fileno()), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(file.fileno(), *pass_fds))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_ready(process: subprocess.Popen[str]) -> None:
    """Wait until it has done what it was started for."""
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
