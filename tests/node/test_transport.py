"""The byte transport by itself: keep-alive, chunks, proxies, and stopping at once."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from modelhub_tui.hub_reach import Reach
from modelhub_tui.service.node.transport import BadHTTP, Body, HttpTransport
from tests.hub.hostile import Asked, HostileHub

CONTENT = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[int, str, dict[str, str]]] = []
        self.hang_up_after_answer = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.client_address[1], self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.send_response(200)
        if self.path.endswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(CONTENT), 60_000):
                block = CONTENT[at : at + 60_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path.endswith("/stall"):
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            self.rfile.read(1)  # until the client goes
            return
        self.wfile.write(CONTENT)
        # No `Connection: close`: the client finds out only when it asks again.
        self.close_connection = self.server.hang_up_after_answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport(Reach("http://127.0.0.1"), connect_s=5, stall_s=20)
    yield made
    made.close()


def read_all(body: Body) -> bytes:
    out, view = bytearray(), memoryview(bytearray(32 * 1024))
    while count := body.read_into(view):
        out += view[:count]
    body.close()
    return bytes(out)


def test_one_connection_serves_many_files(server: Server, transport: HttpTransport) -> None:
    for path in ("/a", "/chunked", "/b"):
        assert read_all(transport.open(server.url + path, {"X-Mine": "1"})) == CONTENT
    assert [path for _, path, _ in server.seen] == ["/a", "/chunked", "/b"]
    assert len({port for port, _, _ in server.seen}) == 1
    assert all(headers["x-mine"] == "1" for _, _, headers in server.seen)


def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(server: Server, transport: HttpTransport) -> None:
    server.hang_up_after_answer = True
    for path in ("/a", "/b"):
        assert read_all(transport.open(server.url + path, {})) == CONTENT
    assert len({port for port, _, _ in server.seen}) == 2


def test_an_answer_not_read_to_its_end_is_not_mixed_with_the_next(server: Server, transport: HttpTransport) -> None:
    body = transport.open(server.url + "/a", {})
    assert body.read_into(memoryview(bytearray(10))) == 10
    body.close()
    assert read_all(transport.open(server.url + "/b", {})) == CONTENT


def test_a_stalled_read_is_stopped_at_once_from_another_thread(server: Server, transport: HttpTransport) -> None:
    body = transport.open(server.url + "/stall", {})
    view = memoryview(bytearray(1 << 16))
    assert body.read_into(view) == 1000
    ended: list[float] = []

    def read() -> None:
        try:
            body.read_into(view)
        except (OSError, BadHTTP):
            pass
        ended.append(time.monotonic())

    thread = threading.Thread(target=read)
    thread.start()
    at = time.monotonic()
    transport.abort()
    thread.join(10)
    assert ended and ended[0] - at < 1.0
    with pytest.raises(OSError, match="aborted"):
        transport.open(server.url + "/a", {})


def test_a_proxy_of_the_environment_is_used(
    server: Server, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://user:p%40ss@"))
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    for _ in range(2):
        assert read_all(transport.open("http://hub.example/x?y=1", {})) == CONTENT
    expected = "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert [(path, headers["host"], headers["proxy-authorization"]) for _, path, headers in server.seen] == [
        ("http://hub.example/x?y=1", "hub.example", expected)
    ] * 2


def test_other_schemes_and_dead_ports_are_errors(transport: HttpTransport) -> None:
    with pytest.raises(BadHTTP):
        transport.open("file:///etc/passwd", {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            transport.open(f"http://127.0.0.1:{free.getsockname()[1]}/", {})


@pytest.mark.parametrize("drip", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x"])
def test_a_head_that_never_ends_is_given_up(drip: bytes) -> None:
    over = threading.Event()

    def send(asked: Asked) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX: " if drip == b"x" else b""
        while not over.wait(0.02):
            yield drip

    transport = HttpTransport(Reach("http://127.0.0.1"), connect_s=5, stall_s=0.25)
    with HostileHub(send) as hub, pytest.raises(TimeoutError):
        transport.open(hub.url, {})
    over.set()


@pytest.mark.parametrize("drip", [b"x: y\r\n", b"0"], ids=["trailers", "a chunk's length"])
def test_chunks_that_never_end_are_given_up(drip: bytes) -> None:
    over = threading.Event()

    def send(asked: Asked) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGGUF\r\n"
        yield b"0\r\n" if drip != b"0" else b""
        while not over.wait(0.02):
            yield drip

    transport = HttpTransport(Reach("http://127.0.0.1"), connect_s=5, stall_s=0.25)
    with HostileHub(send) as hub:
        body = transport.open(hub.url, {})
        view = memoryview(bytearray(100))
        assert body.read_into(view) == 4
        with pytest.raises(TimeoutError):
            body.read_into(view)
        body.close()
    over.set()


def test_a_name_that_is_none_is_an_ordinary_error(transport: HttpTransport) -> None:
    for url in (f"http://{'a' * 70}.example/", "http://a..b/", "http://x:99999/", "http://[::1/", "http:///x"):
        with pytest.raises((OSError, BadHTTP)):
            transport.open(url, {})
