"""Where the service listens, and what stands in its way, in one sentence each."""

from __future__ import annotations

import errno
import socket

from modelhub_tui.errors import ServiceFailed

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WAITING = 1024
"""Connections that may wait to be taken, as far as the system allows."""


def listen(host: str, port: int, last_port: int) -> socket.socket:
    """A bound socket: on `port`, or with 0 on last time's port if it is free, else on any.

    Raises:
        ServiceFailed: With a sentence that names the address.
    """
    tries = [port] if port else [last_port, 0] if last_port else [0]
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise ServiceFailed(
            f"{host} is no address of this machine.", "Give one with --host, such as 127.0.0.1."
        ) from error
    for number in tries:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address[0], number, *address[2:]))
            # Listening decides whether the port is really free: two sockets may bind one with SO_REUSEADDR.
            listener.listen(WAITING)
            listener.setblocking(False)
            return listener
        except OSError as error:
            listener.close()
            if number != tries[-1]:
                continue
            if error.errno == errno.EADDRINUSE:
                raise ServiceFailed(
                    f"Port {number} is in use on {host}.", "Choose another with --port, or stop what uses it."
                ) from error
            if error.errno == errno.EACCES:
                raise ServiceFailed(
                    f"No permission to listen on port {number}.", "Choose one above 1023 with --port."
                ) from error
            reason = error.strerror or "it cannot be bound"
            raise ServiceFailed(
                f"{host} is no address of this machine ({reason}).", "Give one with --host, such as 127.0.0.1."
            ) from error
    raise AssertionError("unreachable")


def local_url(host: str, port: int) -> str:
    """Where programs on this machine find a service bound to `host`."""
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
