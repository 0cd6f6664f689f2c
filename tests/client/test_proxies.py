"""Real proxies: an HTTP and a SOCKS5 one in between, for each of our HTTP clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import pytest

from modelhub_tui import net
from modelhub_tui.cli import checks_far
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.config import load_settings
from modelhub_tui.errors import NoWay
from modelhub_tui.hub_reach import Reach
from modelhub_tui.service.node import faults
from modelhub_tui.service.node import hub as node_hub
from modelhub_tui.service.node.asking import lost
from modelhub_tui.service.node.transport import HttpTransport
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.hub import Hub
from tests.hub.hostile import Asked, HostileHub, head
from tests.tls import CA, server_context

COMMIT = "a" * 40
BODY = b'{"id":"acme/x","sha":"%s","siblings":[]}' % COMMIT.encode()
SECRET = "proxypass1"


class Proxy:
    """Carries everything to one server, whatever host it is asked for; notes what it was asked for."""

    def __init__(self, server_port: int, *, socks: bool = False) -> None:
        self._server_port, self._socks = server_port, socks
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.where = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            server = socket.create_connection(("127.0.0.1", self._server_port))
            with server:
                if self._socks:
                    self._greet(client)
                else:
                    said = client.recv(65536)
                    self.asked.append(said.partition(b"\r\n")[0].decode())
                    assert b"Proxy-Authorization: Basic" in said or b"proxy-authorization: Basic" in said.lower()
                    if said.startswith(b"CONNECT"):
                        client.sendall(b"HTTP/1.1 200 here you are\r\n\r\n")
                    else:
                        server.sendall(said)
                back = threading.Thread(target=_carry, args=(server, client), daemon=True)
                back.start()
                _carry(client, server)
                back.join(10)

    def _greet(self, client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"\x05\x02")
        assert SECRET.encode() in client.recv(1000)
        client.sendall(b"\x01\x00")
        said = client.recv(1000)
        assert said[3] == 3, "the proxy looks up the name"
        self.asked.append(said[5 : 5 + said[4]].decode())
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def facts(url: str) -> None:
    assert Hub(url, sleep=lambda _: None).facts("acme/x", None).commit == COMMIT


def find(url: str) -> None:
    assert node_hub.Hub(url).find("acme/x", COMMIT, "x.gguf").size == 10


def content(url: str) -> None:
    transport = HttpTransport(Reach(url), connect_s=5, stall_s=5)
    try:
        body = transport.open(f"{url}/x", {})
    except OSError as error:
        raise lost(url.partition("//")[2], error) from error
    assert body.read_into(memoryview(bytearray(100))) > 0
    transport.close()


def router(url: str) -> None:
    async def ask() -> None:
        http = RouterHttp(url, None)
        try:
            assert (await http.request("GET", "/health")).status == 200
        finally:
            await http.aclose()

    asyncio.run(ask())


def statistics(url: str) -> None:
    async def ask() -> None:
        async with net.new_client(url, reach=Reach(url)) as http:
            assert (await http.get(f"{url}/api/models/acme/x")).status_code == 200

    asyncio.run(ask())


def doctor(url: str) -> None:
    found = checks_far.hub(load_settings(env={"HOME": "/nonexistent", "HF_ENDPOINT": url}))
    if found.status != checks_far.OK:
        raise NoWay(found.what)


WAYS = (facts, find, content, router, statistics, doctor)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from huggingface_hub.utils import close_session

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    close_session()
    yield
    close_session()


def answer(asked: Asked) -> Iterable[bytes]:
    if asked.method == "HEAD":
        yield head(X_Repo_Commit=COMMIT, ETag=f'"{"b" * 64}"', Content_Length=10)
    else:
        yield head(Content_Length=len(BODY)) + BODY


@pytest.fixture
def server() -> Iterator[HostileHub]:
    with HostileHub(answer) as running:
        yield running


@pytest.fixture
def secure_server() -> Iterator[HostileHub]:
    with HostileHub(answer, tls=server_context("elsewhere")) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_an_http_proxy_carries_every_client(
    server: HostileHub, monkeypatch: pytest.MonkeyPatch, way: Callable[[str], None], variable: str
) -> None:
    with Proxy(server.port) as proxy:
        monkeypatch.setenv(variable, f"http://me:{SECRET}@{proxy.where}")
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,[fd00::]/8,host:8443,.corp.example")
        way("http://elsewhere.example")
    assert proxy.asked and all(" http://elsewhere.example/" in each for each in proxy.asked)


@pytest.mark.parametrize("way", WAYS)
def test_an_http_proxy_gives_a_tunnel_to_https(
    secure_server: HostileHub, monkeypatch: pytest.MonkeyPatch, way: Callable[[str], None]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CA))
    with Proxy(secure_server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@{proxy.where}")
        way("https://elsewhere.example")
    assert proxy.asked and all(each.startswith("CONNECT elsewhere.example:443 ") for each in proxy.asked)


@pytest.mark.parametrize("way", WAYS)
def test_a_socks_proxy_carries_every_client(
    server: HostileHub, monkeypatch: pytest.MonkeyPatch, way: Callable[[str], None]
) -> None:
    pytest.importorskip("socksio")
    with Proxy(server.port, socks=True) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:{SECRET}@{proxy.where}")
        way("http://elsewhere.example")
    assert set(proxy.asked) == {"elsewhere.example"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", ["socks://me:proxypass1@127.0.0.1:9", "http://me:proxypass1@127.0.0.1:x"])
def test_a_proxy_that_is_not_understood_is_named_by_every_client(
    monkeypatch: pytest.MonkeyPatch, way: Callable[[str], None], said: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", said)
    with pytest.raises((NoWay, Refused, faults.Fault)) as caught:
        way("http://elsewhere.example")
    sentence = getattr(caught.value, "reason", None) or str(caught.value)
    assert "ALL_PROXY" in sentence and "is not understood" in sentence and SECRET not in sentence, sentence


@pytest.mark.parametrize("way", WAYS)
def test_this_machine_is_asked_directly(
    server: HostileHub, monkeypatch: pytest.MonkeyPatch, way: Callable[[str], None]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://nonsense")
    way(server.url)
    assert server.asked


def test_no_proxy_is_held_by_every_client(server: HostileHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is this machine's, but does not look like it."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **named: real("127.0.0.1" if "corp.example" in str(host) else host, *rest, **named),
    )
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", f"[fd00::]/8,.corp.example:{server.port}")
    for way in WAYS:
        server.asked.clear()
        way(f"http://hub.corp.example:{server.port}")
        assert server.asked, way
