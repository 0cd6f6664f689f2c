"""A server that sends exactly what a test gives it, byte for byte and without end: no HTTP library would."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

Send = Callable[["Asked"], Iterable[bytes]]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    """By lower-case name."""


class HostileHub:
    """Answers each request with the bytes that `send` yields, until the other side hangs up; then closes. Use as a
    context manager.

    Args:
        address: An address of this machine.
        tls: Speak TLS with this.
    """

    def __init__(self, send: Send, address: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self._send, self._tls = send, tls
        self.asked: list[Asked] = []
        self.sent_bytes = 0
        self._listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://[{address}]:{self.port}" if ":" in address else f"http://{address}:{self.port}"
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
            method, path, _ = lines.readline().decode("latin-1").split(" ", 2)
            headers = {}
            while line := lines.readline().decode("latin-1").strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            asked = Asked(method, path, headers)
            self.asked.append(asked)
            for block in self._send(asked):
                connection.sendall(block)
                self.sent_bytes += len(block)


def head(status: int = 200, /, **headers: object) -> bytes:
    """A response's head; underscores in names become hyphens."""
    lines = [f"HTTP/1.1 {status} x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
