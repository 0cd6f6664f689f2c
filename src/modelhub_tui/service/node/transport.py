"""Where bytes come from: a small interface, and its one implementation so far, plain HTTP ranges over `http.client`.

Why the standard library: on loopback it moves a GiB for 1.6 s of CPU where httpx takes 4.1 s, and a thread that reads a
socket can be stopped at once by shutting that socket down. One transport belongs to one worker thread; only `abort()`
may be called from another.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from modelhub_tui.hub_reach import Reach
from modelhub_tui.proxies import PORTS, BadProxy, proxy_for
from modelhub_tui.service.node.tunnels import login, through_http, through_socks
from modelhub_tui.tls import context
from modelhub_tui.values import dataclass

BadHTTP = http.client.HTTPException
"""The other side broke the protocol; connection trouble is an OSError, TimeoutError included."""


class Body(Protocol):
    """An answer whose head has arrived."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    def read_into(self, view: memoryview) -> int:
        """Read what has arrived, at least a byte; 0 at the end of the body. Raises OSError or BadHTTP."""
        ...

    def close(self) -> None:
        """Let go of the connection, or keep it for the next request if the body was read to its end."""
        ...


class Transport(Protocol):
    """Opens a range of a URL."""

    def open(self, url: str, headers: Mapping[str, str]) -> Body:
        """Send one GET; redirects are the caller's business. Raises OSError or BadHTTP."""
        ...

    def another(self) -> Transport:
        """One more, for another thread, with a connection of its own; this one's `abort()` reaches it too."""
        ...

    def abort(self) -> None:
        """Make the running and every later call fail at once. From any thread."""
        ...

    def close(self) -> None: ...


class HttpTransport:
    """`Transport` over HTTP/1.1, with keep-alive and one TLS context, going only where a hub may lead."""

    def __init__(self, reach: Reach, *, connect_s: float, stall_s: float, tls: Tls | None = None) -> None:
        self._reach, self._connect_s, self._stall_s, self._tls = reach, connect_s, stall_s, tls or Tls()
        self._lock = threading.Lock()
        self._others: weakref.WeakSet[HttpTransport] = weakref.WeakSet()
        self._aborted = False
        self._kept: _Line | None = None
        self._socket: socket.socket | None = None

    def open(self, url: str, headers: Mapping[str, str]) -> Body:
        try:
            at = urlsplit(url)
            usable = at.scheme in ("http", "https") and at.hostname and at.port != 0
        except ValueError as error:
            raise BadHTTP("not an address") from error
        if not usable:
            raise BadHTTP(f"not an http address: {at.scheme}")
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        kept, self._kept = self._kept, None
        if kept is not None and kept.key == (at.scheme, at.netloc):
            # The other side may have closed an idle connection: then, and only then, a fresh one is worth a second try.
            with contextlib.suppress(OSError, BadHTTP):
                return self._ask(kept, target, headers)
            self._raise_if_aborted()
        elif kept is not None:
            kept.connection.close()
        return self._ask(self._connect(at), target, headers)

    def another(self) -> HttpTransport:
        made = HttpTransport(self._reach, connect_s=self._connect_s, stall_s=self._stall_s, tls=self._tls)
        with self._lock:
            self._others.add(made)
            made._aborted = self._aborted
        return made

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            others = [*self._others]
            if self._socket is not None:
                _shut(self._socket)
        for each in others:
            each.abort()

    def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.connection.close()

    def keep(self, line: _Line) -> None:
        """Called by a body that was read to its end: the next request to that host may use its connection."""
        self.close()
        self._kept = line

    def _raise_if_aborted(self) -> None:
        if self._aborted:
            raise ConnectionAbortedError("aborted")

    def _connect(self, at: SplitResult) -> _Line:
        assert at.hostname
        port = at.port or PORTS[at.scheme]
        proxy = proxy_for(at.geturl())
        prefix, extra = "", {}
        if proxy is None:
            sock = self._reach.connect(at.hostname, port, self._connect_s)
        else:
            self._reach.check_text(at.hostname)
            sock = socket.create_connection((proxy.host, proxy.port), self._connect_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None and proxy.is_socks:
                through_socks(sock, proxy, at.hostname, port)
            elif proxy is not None and proxy.scheme == "https":
                todo = "a proxy that is itself asked over https does not do for downloads; give its http:// address"
                raise BadProxy(f"{proxy.variable}={proxy.url}: {todo}.")
            elif proxy is not None and at.scheme == "https":
                through_http(sock, proxy, at.hostname, port)
            elif proxy is not None:
                prefix, extra = f"{at.scheme}://{at.netloc.rpartition('@')[2]}", login(proxy)
            if at.scheme == "https":
                sock = self._tls.context().wrap_socket(sock, server_hostname=at.hostname)
        except BaseException:
            sock.close()
            raise
        sock.settimeout(self._stall_s)
        made = http.client.HTTPConnection(at.hostname, port)
        made.response_class = functools.partial(_Response, patience_s=4 * self._stall_s)  # type: ignore[assignment]
        # Signed addresses are signed for a Host without the port that goes without saying.
        made.default_port = PORTS[at.scheme]
        made.auto_open = 0  # never a second connection behind our back
        made.sock = sock
        return _Line((at.scheme, at.netloc), made, prefix, extra)

    def _ask(self, line: _Line, target: str, headers: Mapping[str, str]) -> _HttpBody:
        connection = line.connection
        try:
            with self._lock:
                self._raise_if_aborted()
                self._socket = connection.sock
            connection.request(
                "GET", line.prefix + target, headers={"User-Agent": "modelhub-tui", **headers, **line.extra}
            )
            response = connection.getresponse()
            assert isinstance(response, _Response)
            return _HttpBody(self, line, response)
        except BaseException:
            connection.close()
            raise


@dataclass(frozen=True, slots=True)
class _Line:
    """An open connection."""

    key: tuple[str, str]
    connection: http.client.HTTPConnection
    prefix: str
    """Goes before the target when a proxy is asked; empty otherwise."""
    extra: dict[str, str]
    """Headers for the proxy."""


class _Response(http.client.HTTPResponse):
    """An answer that is read within a time.

    A socket's timeout is for each piece that comes. A head that drips, interim answers, a chunk's length or trailers
    without end are many pieces, and http.client would go on reading them for ever.
    """

    def __init__(self, sock: socket.socket, *args: Any, patience_s: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.patience = _Patience(self.fp.detach(), patience_s)
        self.fp = io.BufferedReader(self.patience)


class _Patience(io.RawIOBase):
    """Hands over what a socket brings, for so long after `renew()`."""

    def __init__(self, inner: io.RawIOBase, patience_s: float) -> None:
        self._inner, self._patience_s = inner, patience_s
        self.renew()

    def renew(self) -> None:
        self._until = time.monotonic() + self._patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._until:
            raise TimeoutError
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


class _HttpBody:
    """`Body` of an HTTP/1.1 answer."""

    def __init__(self, transport: HttpTransport, line: _Line, response: _Response) -> None:
        self._transport, self._line, self._response = transport, line, response
        self.status = response.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in response.getheaders()}
        self._left = None if response.chunked else response.length
        self._ended = self._left == 0
        self._fresh = True

    def read_into(self, view: memoryview) -> int:
        self._response.patience.renew()
        if self._left is None:
            block = self._response.read1(len(view))  # chunked, or until the connection ends
            view[: len(block)] = block
            self._ended = self._ended or not block
            return len(block)
        if self._left == 0:
            return 0
        # HTTPResponse.readinto would wait until the whole view is full, and forget what it has when the connection
        # breaks; readinto1 of the buffered reader below it hands over what one recv brought, without a copy.
        wanted = view[: self._left] if self._left < len(view) else view
        if self._fresh:
            # What came along with the head. readinto1 would wait for more behind it, and lose it when nothing comes.
            self._fresh = False
            block = self._response.fp.read1(min(len(wanted), 8192))
            count = len(block)
            wanted[:count] = block
        else:
            count = self._response.fp.readinto1(wanted)
        self._left -= count
        self._ended = self._left == 0
        if not count:
            self._left = 0
        return count

    def close(self) -> None:
        if self._ended and not self._response.will_close:
            if self._left is not None:
                # Read past http.client's own count; it takes a next request only once it knows of the end.
                self._response.length = 0
                self._response.read()
            self._transport.keep(self._line)
            return
        self._response.close()
        self._line.connection.close()


class Tls:
    """One TLS context for several transports, made when the first of them needs it: it costs 20 ms and half a MiB."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        with self._lock:
            self._context = self._context or context()
            return self._context


def _shut(sock: socket.socket) -> None:
    """End all reading and writing, from any thread."""
    # Not SSLSocket.shutdown(): that one drops the TLS layer under a reading thread, which would then be handed the
    # encrypted bytes.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
