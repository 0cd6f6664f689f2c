"""One reading of the environment's proxies."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from modelhub_tui.proxies import BadProxy, Proxy, proxy_for

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def url_of(proxy: Proxy | None) -> str | None:
    return None if proxy is None else proxy.url


def test_each_scheme_has_its_variable_and_all_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("https://hub.example/x") is None
    monkeypatch.setenv("ALL_PROXY", "http://all.example:1")
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert url_of(proxy_for("https://hub.example/x")) == "http://proxy.example:3128"
    assert url_of(proxy_for("http://hub.example/x")) == "http://all.example:1"
    monkeypatch.setenv("HTTP_PROXY", "http://[fd00::1]")
    assert url_of(proxy_for("http://hub.example/x")) == "http://[fd00::1]:80"


def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:1")
    for host in (
        "127.0.0.1",
        "127.9.9.9",
        "localhost",
        "LOCALHOST.",
        "x.localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
    ):
        assert proxy_for(f"https://{host}:8443/x") is None, host
    assert proxy_for("https://10.0.0.1/") is not None


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("*", "hub.example 10.0.0.1 [fd00::1]", ""),
        ("corp.example", "corp.example a.corp.example CORP.example.", "notcorp.example corp.example.org"),
        (".corp.example", "corp.example a.b.corp.example", "xcorp.example"),
        ("*.corp.example", "a.corp.example", "xcorp.example"),
        ("10.0.0.0/8", "10.1.2.3 0x0a010203 167837955", "11.0.0.1 ten.example"),
        ("[fd00::]/8", "[fd12::1]", "[2001:db8::1] fd00.example"),
        ("fd00::/8,::ffff:0:0/96", "[fd12::1]", "[2001:db8::1]"),
        ("[fd00::1]", "[fd00::1] [fd00:0::1]:99", "[fd00::2]"),
        ("[fd00::1]:8443", "[fd00::1]:8443", "[fd00::1]"),
        ("host:8443", "host:8443 a.host:8443", "host host:443"),
        ("10.0.0.1:80", "", "10.0.0.1 10.0.0.1:8080"),
        ("10.0.0.1:443", "10.0.0.1 10.0.0.1:443", "10.0.0.1:80"),
        ("10.0.0.0/8, [fd00::]/8 ,host:8443,.corp.example", "10.9.9.9 [fd00::7] host:8443 x.corp.example", "host"),
        ("https://only.example", "only.example", ""),
        ("http://only.example", "", "only.example"),
        ("10.0.0.0/99,[::/8,:80,::::,/,.,[],%", "", "10.0.0.1 hub.example [fd00::1]"),
        ("", "", "hub.example"),
    ],
)
def test_who_is_excepted(monkeypatch: pytest.MonkeyPatch, no_proxy: str, direct: str, proxied: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert [each for each in direct.split() if proxy_for(f"https://{each}/x")] == []
    assert [each for each in proxied.split() if not proxy_for(f"https://{each}/x")] == []


def test_a_proxy_that_is_not_understood_is_called_that_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, expected in [
        ("socks://me:secret@proxy.example:1080", "ALL_PROXY=socks://proxy.example:1080 is not understood"),
        ("socks4://me:secret@proxy.example", "ALL_PROXY=socks4://proxy.example is not understood"),
        ("ftp://proxy.example", "ALL_PROXY=ftp://proxy.example is not understood"),
        ("http://me:secret@", "ALL_PROXY=http:// is not understood"),
        ("http://me:secret@proxy.example:99999", "ALL_PROXY is not understood"),
        ("http://me:secret@proxy.example:x", "ALL_PROXY is not understood"),
        ("http://me:secret@[::1", "ALL_PROXY is not understood"),
        ("http://me:secret@a\x1b.example", "ALL_PROXY=http://a"),
        ("http://me:1/secret@proxy.example", "ALL_PROXY is not understood"),
        ("http://me:1#secret@proxy.example", "ALL_PROXY is not understood"),
    ]:
        monkeypatch.setenv("ALL_PROXY", said)
        with pytest.raises(BadProxy) as caught:
            proxy_for("https://hub.example")
        sentence = str(caught.value)
        assert sentence.startswith(expected) and sentence.endswith("."), sentence
        assert "secret" not in sentence and "\x1b" not in sentence


def test_user_and_password_are_used_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://m%40e:s%3Acret@proxy.example:3128")
    made = proxy_for("https://hub.example")
    assert made is not None and (made.user, made.password) == ("m@e", "s:cret")
    assert "cret" not in repr(made) + made.url


def test_a_socks_proxy_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://me:secret@proxy.example")
    found: Any = None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(BadProxy, match=r"socks5h://proxy.example:1080 is a SOCKS proxy.*modelhub-tui\[socks\]"):
        proxy_for("https://hub.example")
    found = object()
    assert url_of(proxy_for("https://hub.example")) == "socks5h://proxy.example:1080"
