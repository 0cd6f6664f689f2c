"""Which router answers at an address: asked once, without a credential, before anybody is shown one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelhub_tui import net
from modelhub_tui.client import wire
from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.base import RouterClient
from modelhub_tui.client.llmlb import LlmlbClient
from modelhub_tui.client.problems import to_error
from modelhub_tui.client.transport import Answer, RouterHttp
from modelhub_tui.client.upstream import UpstreamClient
from modelhub_tui.client.v0 import V0Client
from modelhub_tui.errors import NotARouter
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    import httpx

_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


async def open_router(
    url: str, credentials: Credentials, *, transport: httpx.AsyncBaseTransport | None = None
) -> RouterClient:
    """Find out which generation answers, and return the client for it.

    Raises:
        Unreachable: Nobody answers.
        NotARouter: Somebody else does; the sentence says who.
        RouterFault: It fails, or its answers cannot be read.
        BadSettings: A credential cannot be sent.
    """
    http = await asyncio.to_thread(RouterHttp, url, None, transport=transport)
    try:
        generation, version = await _detect(http)
        if generation != "local":
            if generation in ("G3", "G4"):
                return LlmlbClient(http, credentials, generation, version)
            return UpstreamClient(http, credentials)
    except BaseException:
        await http.aclose()
        raise
    await http.aclose()
    label = f"modelhub {version} at {urlsplit(http.url).netloc}"
    return await asyncio.to_thread(V0Client, url, credentials.api_key, transport=transport, label=label)


async def _detect(http: RouterHttp) -> tuple[str, str]:
    """The generation and, where it tells, the version."""
    health, me = await asyncio.gather(
        http.request("GET", "/health"), http.request("GET", "/api/auth/me"), return_exceptions=True
    )
    for answer in (health, me):
        if isinstance(answer, BaseException):
            raise answer
    assert isinstance(health, Answer) and isinstance(me, Answer)
    own = wire.read_health(health.body) if health.status == 200 else None
    if own is not None:
        return "local", own
    _refuse_page(http, me)
    if me.status in (401, 500):
        return "G4", await _version(http)
    if me.status in (502, 503, 504):
        raise to_error(me.status, me.headers, me.body)
    for path, generation in (("/v0/nodes", "G1"), ("/v0/endpoints", "G3")):
        answer = await http.request("GET", path)
        _refuse_page(http, answer)
        if answer.status in (401, 403) or (answer.status == 200 and answer.body.lstrip()[:1] in (b"[", b"{")):
            return generation, ""
        if answer.status >= 500:
            raise to_error(answer.status, answer.headers, answer.body)
    raise NotARouter(http.url, await _guess(http))


async def _version(http: RouterHttp) -> str:
    """The version of a router of the `/api` family.

    Raises:
        NotARouter: It is one of the builds that nobody has described.
    """
    answer = await http.request("GET", "/api/version")
    told = _object(answer)
    if answer.status == 200 and "version" in told:
        version = told["version"]
        return clean(version, 40) if isinstance(version, str) else ""
    if answer.status >= 500 and answer.status != 500:
        raise to_error(answer.status, answer.headers, answer.body)
    raise NotARouter(http.url, "an llmlb older than 4.7.1, whose protocol is unknown (update it)")


def _refuse_page(http: RouterHttp, answer: Answer) -> None:
    """Raise if this is a page for people: a web site, or the login page of a proxy in between."""
    if not answer.body[:2000].lstrip().lower().startswith(_PAGE):
        return
    text = answer.body[:20_000].lower()
    asks = answer.status in (401, 403) or any(
        word in text for word in (b'type="password"', b"type='password'", b"sign in", b"log in", b"login", b"oauth2/")
    )
    if asks:
        raise NotARouter(http.url, "a proxy's login page")
    if answer.status == 200:
        raise NotARouter(http.url, "a web page")
    if answer.status >= 500:
        raise to_error(answer.status, answer.headers, answer.body)


async def _guess(http: RouterHttp) -> str:
    """Say what somebody who is not a router looks like."""
    root, system = await asyncio.gather(http.request("GET", "/"), http.request("GET", "/api/system"))
    if b"ollama is running" in root.body[:200].lower():
        return "an Ollama server"
    if "xllm_version" in _object(system):
        return "an xLLM server"
    if root.body[:2000].lstrip().lower().startswith(_PAGE):
        return "a web page"
    return "some other server"


def _object(answer: Answer) -> dict[str, Any]:
    try:
        told = net.loads(answer.body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
