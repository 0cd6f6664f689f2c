"""How we open HTTP connections: one set of rules for routers and hubs.

httpx is imported only when a client is made, and nothing else that a quick command can do without either.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelhub_tui import __version__
from modelhub_tui.identifiers import whole_number

if TYPE_CHECKING:
    from json import JSONDecoder

    import httpx

    from modelhub_tui.hub_reach import Reach

USER_AGENT = f"modelhub-tui/{__version__}"
_FIRST_IMPORT = threading.Lock()


class TooLargeError(Exception):
    """A body is longer than we are willing to hold."""


def new_client(
    url: str,
    *,
    connect_s: float = 3.0,
    read_s: float = 10.0,
    headers: Mapping[str, str] | None = None,
    max_connections: int = 8,
    transport: httpx.AsyncBaseTransport | None = None,
    reach: Reach | None = None,
) -> httpx.AsyncClient:
    """Make the one long-lived client for an upstream. Blocks for up to 150 ms, so make it in a thread.

    It follows no redirects, keeps no cookies, and asks for no compression (a size cap then means what it says).
    Proxies and certificates are those of `proxies` and `tls`.

    Args:
        url: The upstream; every request has to stay at its origin.
        transport: Replaces the network, in tests.
        reach: For a hub: connections end up where it may lead, or nothing is sent.

    Raises:
        NoWay: The environment names a proxy or certificates that cannot be used.
    """
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    spare_httpx_its_command()
    import httpx

    # The first request would import it on the loop, which takes 25 ms.
    with contextlib.suppress(ImportError):
        importlib.import_module("anyio._backends._asyncio")
    return httpx.AsyncClient(
        trust_env=False,
        transport=transport or new_transport(url, max_connections=max_connections, reach=reach),
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(read_s, connect=connect_s, pool=None),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})},
    )


def own_transport(folder: Path) -> httpx.AsyncBaseTransport:
    """Connections to this user's own service, through the socket in its state folder; see `own_socket`.

    Raises:
        OSError: The folder cannot be opened.
    """
    import ssl

    spare_httpx_its_command()
    import httpx

    from modelhub_tui.own_socket import Address

    class Through(httpx.AsyncHTTPTransport):
        def __init__(self) -> None:
            self._address = Address(folder)
            limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
            # Plain HTTP: a bare context trusts nobody and costs nothing.
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            super().__init__(uds=self._address.path, verify=tls, trust_env=False, limits=limits)

        async def aclose(self) -> None:
            await super().aclose()
            self._address.close()

    return Through()


def new_transport(url: str, *, max_connections: int = 8, reach: Reach | None = None) -> httpx.AsyncHTTPTransport:
    """The network for an upstream, as `new_client()` uses it.

    Raises:
        NoWay: The environment names a proxy or certificates that cannot be used.
    """
    import httpx

    from modelhub_tui import tls

    proxy = _httpx_proxy(url)
    made = httpx.AsyncHTTPTransport(
        verify=tls.context_for(url),
        trust_env=False,
        proxy=proxy,
        limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
    )
    if reach is not None:
        if proxy is None:
            _guard(made, reach)
        else:
            reach.check_text(urlsplit(url).hostname or "")
    return made


def new_sync_client(url: str, *, timeout_s: float) -> httpx.Client:
    """A client for one question, with the same proxies and certificates.

    Raises:
        NoWay: The environment names a proxy or certificates that cannot be used.
    """
    spare_httpx_its_command()
    import httpx

    from modelhub_tui import tls

    return httpx.Client(
        verify=tls.context_for(url),
        trust_env=False,
        proxy=_httpx_proxy(url),
        timeout=httpx.Timeout(timeout_s),
        follow_redirects=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


def _httpx_proxy(url: str) -> httpx.Proxy | None:
    import httpx

    from modelhub_tui import tls
    from modelhub_tui.proxies import proxy_for

    proxy = proxy_for(url)
    if proxy is None:
        return None
    context = tls.context() if proxy.scheme == "https" else None
    return httpx.Proxy(proxy.url, auth=(proxy.user, proxy.password) if proxy.user else None, ssl_context=context)


def _guard(transport: httpx.AsyncHTTPTransport, reach: Reach) -> None:
    """Let a transport connect only to where a hub may lead."""
    import httpcore

    class Guarded(httpcore.AsyncNetworkBackend):
        def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
            self._inner = inner

        async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
            made = await self._inner.connect_tcp(host, port, *args, **kwargs)
            try:
                reach.check(host, str(made.get_extra_info("server_addr")[0]))
            except BaseException:
                await made.aclose()
                raise
            return made

        async def sleep(self, seconds: float) -> None:
            await self._inner.sleep(seconds)

    pool: Any = transport._pool
    # No public argument for it. If it is called otherwise one day, nothing must go out unguarded.
    if not isinstance(pool._network_backend, httpcore.AsyncNetworkBackend):
        raise TypeError("httpx has changed: its connections cannot be guarded")
    pool._network_backend = Guarded(pool._network_backend)


def spare_httpx_its_command() -> None:
    """Import httpx without the command-line tool in it: that alone pulls in rich, click and pygments (40 ms)."""
    import sys

    # Threads may come here together: none may put the mark back while another takes it away.
    with _FIRST_IMPORT:
        if "httpx" not in sys.modules:
            sys.modules["httpx._main"] = None  # type: ignore[assignment]  # cannot be imported, which httpx expects
            try:
                import httpx  # noqa: F401
            finally:
                del sys.modules["httpx._main"]


def is_loopback(host: str) -> bool:
    """True for this machine's own names and addresses."""
    import ipaddress

    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def read_capped(response: httpx.Response, limit_bytes: int) -> bytes:
    """Read a streamed body of at most `limit_bytes`.

    Raises:
        TooLargeError: It announces, sends or unpacks to more.
        ValueError: It is packed in a way that is not understood, though we asked for none.
    """
    if (whole_number(response.headers.get("Content-Length")) or 0) > limit_bytes:
        raise TooLargeError
    chunks: list[bytes] = []
    size = 0
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    packed = encoding not in ("", "identity")
    # A library unpacks a whole block before anybody can count it.
    stream: AsyncIterator[bytes] = response.aiter_raw() if packed else response.aiter_bytes()
    async for chunk in stream:
        size += len(chunk)
        if size > limit_bytes:
            raise TooLargeError
        chunks.append(chunk)
    body = b"".join(chunks)
    if packed and len(body := unpacked(body, encoding, limit_bytes)) > limit_bytes:
        raise TooLargeError
    return body


def unpacked(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Unpack a body whose sender was asked not to pack it; at most one byte more than `limit_bytes`, however small the
    body: a bomb costs no more than what it may become.

    Raises:
        ValueError: It is damaged, or packed in another way than gzip and deflate.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError("an encoding that is not understood")
    import zlib

    try:
        return zlib.decompressobj(wbits=47).decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise ValueError("a damaged body") from error


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait after a 429 or 503, at most an hour; None if not told.

    Read from `Retry-After` (seconds or a date), else from the hub's `RateLimit`.

    Args:
        headers: Of the answer; looked up by their lower-case names.
        now: Seconds since the epoch; by the clock if None.
    """
    said = headers.get("retry-after", "").strip()
    wait_s: float | None = whole_number(said)
    if wait_s is None and said:
        wait_s = _until_s(said[:100], time.time() if now is None else now)
    if wait_s is None:
        # The hub's own form: RateLimit: "api";r=0;t=55
        for part in headers.get("ratelimit", "")[:1000].split(";"):
            name, _, value = part.strip().partition("=")
            if name == "t":
                wait_s = whole_number(value)
    return None if wait_s is None else min(max(wait_s, 0.0), 3600.0)


def _until_s(date: str, now: float) -> float | None:
    """Seconds until an HTTP date, negative if it has passed; None if it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


LONGEST_JSON_BYTES = 8 << 20
"""Parsing takes up to thirty times as much, and lets no other thread run meanwhile."""
PARSED_LIMIT_BYTES = 200 * 1024 * 1024
"""What an answer may take in memory once it is parsed: `[[],[],...` takes twenty times its length, and the listing of
100,000 files at most 170 MB."""


def loads(body: bytes, limit_bytes: int = LONGEST_JSON_BYTES) -> Any:
    """Parse JSON from outside: NaN and infinities become null, and every way to fail is a ValueError."""
    from json import detect_encoding

    if len(body) > limit_bytes or parsed_bytes(body) > PARSED_LIMIT_BYTES:
        raise ValueError("too long")
    try:
        return decoder().decode(body.decode(detect_encoding(body), "surrogatepass"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@cache
def decoder() -> JSONDecoder:
    """What `loads()` parses with. Kept: `json.loads` makes one for each of thousands of lines."""
    from json import JSONDecoder

    return JSONDecoder(parse_constant=lambda _: None)


def parsed_bytes(body: bytes) -> int:
    """An upper bound, nearly, of what JSON takes in memory when it is parsed: counted by what begins each value."""
    if len(body) < 1 << 20:
        return 0
    lists, dicts, commas, quotes = (body.count(each) for each in (b"[", b"{", b",", b'"'))
    return 64 * lists + 232 * dicts + 40 * commas + 30 * quotes + len(body)
