"""The quick look by the service's socket: the same report as the whole client's, and nothing clever."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhub_tui import own_socket
from modelhub_tui.client import quick
from modelhub_tui.client.v0 import V0Client
from modelhub_tui.net import own_transport
from tests.client.payloads import HEALTH, MODEL, NODE


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers each path with prepared bytes, on a real socket."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(str(folder / own_socket.SOCKET_FILE), Handler)
        self.answers: dict[str, bytes] = {}
        self.heads: list[str] = []
        for path, told in (("/health", HEALTH), ("/v0/models", [MODEL]), ("/v0/nodes", [NODE])):
            self.say(path, json.dumps(told).encode())

    def say(self, path: str, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        length = "" if "Transfer-Encoding" in headers else f"Content-Length: {len(body)}\r\n"
        self.answers[path] = f"HTTP/1.1 {status}\r\n{length}{headers}\r\n".encode() + body


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(65536)
        self.server.heads.append(head.decode())
        self.request.sendall(self.server.answers[head.split()[1].decode()])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


async def test_it_says_what_the_whole_client_says(server: Server) -> None:
    client = V0Client("http://127.0.0.1:9", None, transport=own_transport(server.folder))
    try:
        assert quick.report(server.folder) == await client.report()
    finally:
        await client.aclose()
    assert "Connection: close\r\n" in server.heads[0]
    assert len(server.heads) == 4 and not any("authorization" in head.lower() for head in server.heads)


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"[]", "401 Unauthorized", ""),
        (b"[]", "500 Oops", ""),
        (b"<html>", "200 OK", ""),
        (b"{}", "200 OK", ""),
        (b"2\r\n[]\r\n0\r\n\r\n", "200 OK", "Transfer-Encoding: chunked\r\n"),
        (b"[]", "200 OK", "Content-Length: 9\r\nTransfer-Encoding: x\r\n"),
    ],
)
def test_what_is_not_simple_is_left_to_the_whole_client(server: Server, body: bytes, status: str, headers: str) -> None:
    server.say("/v0/nodes", body, status, headers)
    with pytest.raises(quick.NotSimpleError):
        quick.report(server.folder)


def test_no_service_is_not_simple(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(quick.NotSimpleError):
            quick.report(folder)


def test_it_is_quick_because_it_imports_next_to_nothing() -> None:
    heavy = ["asyncio", "httpx", "pydantic", "ssl", "email.utils", "http.client"]
    code = f"import sys, modelhub_tui.client.quick; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
