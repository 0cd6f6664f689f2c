"""A hub and a router with a certificate of their own CA, on this machine as through an ssh tunnel: each way to them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui import net, tls
from modelhub_tui.cli import checks_far
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.config import load_settings
from modelhub_tui.errors import NoWay
from modelhub_tui.hub_reach import reach_of
from modelhub_tui.service.node import faults
from modelhub_tui.service.node import hub as node_hub
from modelhub_tui.service.node.asking import lost, open_range
from modelhub_tui.service.node.transport import HttpTransport
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.hub import Hub
from tests.faults.machine import Machine
from tests.hub import Generated, HubRepo, LoopbackHub
from tests.node.harness import start_process
from tests.node.stub_router import StubRouter, manifest_of
from tests.tls import CA, server_context

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
SIZE = 300_000
REPO = "acme/Secure-GGUF"


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library's client is made anew: it has read the environment."""
    from huggingface_hub.utils import close_session

    close_session()
    yield
    close_session()


@pytest.fixture
def secure(request: pytest.FixtureRequest) -> Iterator[LoopbackHub]:
    repo = HubRepo(REPO, {"x.gguf": Generated(SIZE, seed=3)})
    with LoopbackHub([repo], tls=server_context(getattr(request, "param", "server"))) as running:
        yield running


def facts(hub: LoopbackHub) -> None:
    assert len(Hub(hub.url, sleep=lambda _: None).facts(REPO, None).files) >= 1


def find(hub: LoopbackHub) -> None:
    assert node_hub.Hub(hub.url).find(REPO, hub.repo(REPO).sha, "x.gguf").size == SIZE


def content(hub: LoopbackHub) -> None:
    transport = HttpTransport(reach_of(hub.url), connect_s=5, stall_s=5)
    url = f"{hub.url}/{REPO}/resolve/main/x.gguf"
    try:
        body = open_range(transport, node_hub.Hub(hub.url), url, 0, 1000)
    except OSError as error:
        raise lost(hub.url.removeprefix("https://"), error) from error
    view = memoryview(bytearray(2000))
    assert body.read_into(view) > 0
    transport.close()


def router(hub: LoopbackHub) -> None:
    async def ask() -> None:
        http = RouterHttp(hub.url, None)
        try:
            await http.request("GET", "/health")
        finally:
            await http.aclose()

    asyncio.run(ask())


def statistics(hub: LoopbackHub) -> None:
    async def ask() -> None:
        async with net.new_client(hub.url, reach=reach_of(hub.url)) as http:
            try:
                await http.get(f"{hub.url}/api/models/{REPO}")
            except Exception as error:
                raise (tls.refusal(error, "the hub") or error) from error

    asyncio.run(ask())


def doctor(hub: LoopbackHub) -> None:
    found = checks_far.hub(load_settings(env={"HOME": "/nonexistent", "HF_ENDPOINT": hub.url}))
    if found.status == checks_far.PROBLEM:
        assert found.todo
        raise NoWay(found.what)


WAYS = (facts, find, content, router, statistics, doctor)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variable", VARIABLES)
def test_certificates_that_the_environment_names_hold_everywhere(
    secure: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: Callable[..., None], variable: str
) -> None:
    named = CA
    if variable == "SSL_CERT_DIR":
        named = tmp_path / "certificates"
        named.mkdir()
        shutil.copy(CA, named / f"{hash_of(CA)}.0")
    monkeypatch.setenv(variable, str(named))
    way(secure)


def hash_of(certificate: Path) -> str:
    """The name under which OpenSSL looks for a CA in a folder."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)]
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to name a CA as OpenSSL wants it")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("secure", "reason", "trusted"),
    [
        ("server", "unable to get local issuer certificate); set SSL_CERT_FILE to its CA.", False),
        ("expired", "certificate has expired); check this machine's clock", True),
        ("elsewhere", "certificate is not valid for '127.0.0.1'); use the name", True),
    ],
    indirect=["secure"],
)
def test_a_certificate_that_is_not_accepted_is_called_that(
    secure: LoopbackHub, monkeypatch: pytest.MonkeyPatch, way: Callable[..., None], reason: str, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CA))
    with pytest.raises((NoWay, Refused, faults.Fault)) as caught:
        way(secure)
    sentence = getattr(caught.value, "reason", None) or str(caught.value)
    assert "he certificate of " in sentence and "is not accepted" in sentence and reason in sentence, sentence
    assert ("127.0.0.1" in sentence) or way is statistics


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["missing", "empty", "no certificate", "device", "pipe", "folder", "nul folder"])
def test_certificates_that_cannot_be_read_are_an_error_of_their_own(
    secure: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: Callable[..., None], kind: str
) -> None:
    path, variable = tmp_path / "ca.pem", "SSL_CERT_FILE"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "no certificate":
        path.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nul folder":
        variable = "SSL_CERT_DIR"
    monkeypatch.setenv(variable, str(path))
    with pytest.raises((NoWay, Refused, faults.Fault)) as caught:
        way(secure)
    assert f"{variable} names {path}, which" in (getattr(caught.value, "reason", None) or str(caught.value))
    if isinstance(caught.value, faults.Fault):
        assert not caught.value.passing


def test_plain_http_asks_for_no_certificates(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    assert Hub(hub.url).facts(hub.repos[0].id, None).commit
    router(hub)


def test_without_a_name_those_of_the_system_and_of_certifi_are_accepted() -> None:
    import ssl

    import certifi

    alone = ssl.create_default_context(cafile=certifi.where())
    assert tls.context().cert_store_stats()["x509_ca"] >= alone.cert_store_stats()["x509_ca"] > 50


def test_a_pull_over_tls_with_an_own_ca_from_beginning_to_end(secure: LoopbackHub, tmp_path: Path) -> None:
    with Machine(tmp_path / "trusting", secure.url, env={"SSL_CERT_FILE": str(CA)}) as machine:
        told = machine.ask("POST", "/v0/models/register", {"repo": REPO, "filename": "x.gguf"})
        machine.until(
            lambda: any(
                each["name"] == told["name"] and each.get("status") in ("downloaded", "cached", "ready")
                for each in machine.ask("GET", "/v0/models")
            ),
            "the model is there",
        )
    assert secure.served_bytes("*x.gguf") >= SIZE


def test_a_node_process_says_what_is_wrong_with_the_certificate(secure: LoopbackHub, tmp_path: Path) -> None:
    with StubRouter() as running:
        running.register("acme/x", manifest_of(secure.repo(REPO), "x.gguf"))
        process = start_process(running, secure, tmp_path)
        try:
            said: list[Any] = []

            def seen() -> bool:
                told = running.transfer("acme/x") or {}
                said.append(told)
                return "certificate" in str(told)

            running.wait(seen)
        finally:
            process.terminate()
            process.wait(20)
    assert "The certificate of 127.0.0.1" in str(said[-1]) and "set SSL_CERT_FILE to its CA" in str(said[-1])


def test_a_command_says_what_is_wrong_with_the_certificate(secure: LoopbackHub, tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "MODELHUB_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "modelhub_tui", "list", "--router", secure.url]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "The certificate of 127.0.0.1" in done.stderr and "set SSL_CERT_FILE to its CA" in done.stderr, done.stderr
