"""The quick look by plain socket: the same report as the whole client's, and nothing clever."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from modelhub_tui.client import quick
from modelhub_tui.client.v0 import V0Client
from tests.client.payloads import HEALTH, MODEL, NODE


class Server(socketserver.ThreadingTCPServer):
    """Answers each path with prepared bytes, on a real socket."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, bytes] = {}
        self.heads: list[str] = []
        for path, told in (("/health", HEALTH), ("/v0/models", [MODEL]), ("/v0/nodes", [NODE])):
            self.say(path, json.dumps(told).encode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

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
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


async def test_it_says_what_the_whole_client_says(server: Server) -> None:
    client = V0Client(server.url, "sk_key")
    try:
        assert quick.report(server.url, "sk_key") == await client.report()
    finally:
        await client.aclose()
    assert "Authorization: Bearer sk_key\r\n" in server.heads[0] and "Connection: close\r\n" in server.heads[0]


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
        quick.report(server.url, "k")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://127.0.0.1:1", "k"),
        ("http://127.0.0.1:9", "k"),
        ("http://127.0.0.1", "k"),
        ("http://127.0.0.1:9", "a\nb"),
    ],
)
def test_addresses_and_keys_that_are_not_simple(url: str, key: str) -> None:
    with pytest.raises(quick.NotSimpleError):
        quick.report(url, key)


def test_it_is_quick_because_it_imports_next_to_nothing() -> None:
    heavy = ["asyncio", "httpx", "pydantic", "ssl", "email.utils", "http.client"]
    code = f"import sys, modelhub_tui.client.quick; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
