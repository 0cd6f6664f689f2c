"""One router's HTTP connection: timeouts, size caps, no redirects, and every failure as one of our errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from modelhub_tui import net, tls
from modelhub_tui.errors import BadSettings, NotARouter, NoWay, RouterFault, Unreachable
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

CONNECT_S, READ_S = 3.0, 10.0
BODY_S = 50.0
"""How much longer than the first byte a whole answer may take: 64 MB at little more than 1 MB/s."""
BODY_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer."""

    status: int
    headers: Mapping[str, str]
    """Looked up by any case."""
    body: bytes

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300


class RouterHttp:
    """Requests to one router. Making it blocks for up to 150 ms (TLS), so make it in a thread.

    Args:
        url: Base URL without trailing slash; nothing is ever sent to another origin.
        api_key: Sent as a bearer token; None sends none.
        transport: Replaces the network, in tests.
        more: Headers of every request.

    Raises:
        BadSettings: The key cannot be sent in a header.
        NoWay: The environment names a proxy or certificates that cannot be used.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise BadSettings("The API key has characters that no router accepts; copy it again.")
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json", **(more or {})}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = net.new_client(
            self.url, connect_s=CONNECT_S, read_s=READ_S, headers=headers, max_connections=16, transport=transport
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float = READ_S,
    ) -> Answer:
        """Send one request and read its whole answer; any status is an answer.

        Args:
            path: From the root, percent-encoded.
            body: Sent as JSON.
            read_s: How long to wait for each part of the answer.

        Raises:
            Unreachable: No connection within 3 s, or no answer within `read_s`; NoWay if that has a cause of its own.
            NotARouter: A redirect, or something that does not speak HTTP.
            RouterFault: The answer is too large or cannot be decoded.
        """
        for attempt in (1, 2):
            try:
                async with asyncio.timeout(read_s + BODY_S):
                    return await self._once(method, path, body, headers, read_s)
            except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                # A connection kept alive may be closed by the router just as it is used again: once is no failure.
                if "disconnected" in str(error) or isinstance(error, httpx.ReadError):
                    if method == "GET" and attempt == 1:
                        continue
                    raise Unreachable(self.url, "connection lost") from error
                raise NotARouter(self.url, "a server that does not speak HTTP") from error
            except (httpx.DecodingError, ValueError) as error:
                raise RouterFault("its answer cannot be decoded.") from error
            except net.TooLargeError as error:
                raise RouterFault("its answer is too large.") from error
            except NoWay:
                raise
            except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
                refused = tls.refusal(error, urlsplit(self.url).netloc)
                if refused is not None:
                    raise refused from error
                raise Unreachable(self.url, clean(error) or type(error).__name__) from error
            except RuntimeError as error:
                if "closed" not in str(error):
                    raise
                raise Unreachable(self.url, "closed") from error
        raise Unreachable(self.url)

    async def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        read_s: float,
    ) -> Answer:
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = {**(headers or {}), **({} if body is None else {"Content-Type": "application/json"})}
        timeout = httpx.Timeout(read_s, connect=CONNECT_S, pool=CONNECT_S)
        async with self._http.stream(
            method, self.url + path, content=content, headers=sent, timeout=timeout
        ) as response:
            if response.is_redirect and response.status_code != 304:
                target = urlsplit(response.headers.get("Location", "")).netloc or "another page"
                raise NotARouter(self.url, f"a server that sends us on to {clean(target, 80)}")
            return Answer(response.status_code, response.headers, await net.read_capped(response, BODY_LIMIT))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()
