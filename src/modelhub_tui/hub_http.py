"""The HTTP client that `huggingface_hub` uses here: a hub's metadata within limits, however the hub behaves.

The library reads whatever it is sent, for as long as that takes, follows redirects anywhere and unpacks what is
compressed. So it gets a client of ours. Each call of the library is made within `asking()`, and all requests of that
call together (redirects and pages too) have one allowance of bytes and of time, counted where bytes leave the socket:
heads, bodies, interim answers and trailers alike.

Importing this costs half a second (the library); import it in a thread.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore2
import httpx2
from huggingface_hub.utils import set_client_factory
from huggingface_hub.utils._http import hf_request_event_hook

from modelhub_tui import tls
from modelhub_tui.errors import NoWay
from modelhub_tui.hub_reach import LeadsAstray, Reach, reach_of
from modelhub_tui.identifiers import whole_number
from modelhub_tui.net import PARSED_LIMIT_BYTES, parsed_bytes, unpacked
from modelhub_tui.proxies import Proxy, proxy_for
from modelhub_tui.untrusted import clean

LIMIT_BYTES = 64 * 1024 * 1024
"""Of one call. The listing of a repo of 100,000 files is 25 to 40 MB."""
DEADLINE_S = 60.0
"""Of one call: 40 MB at 6 Mbit/s."""
CONNECT_S = 10.0
MAX_REDIRECTS = 5
_ERROR_BYTES = 64 * 1024
"""More of an error's body is not read: it holds a sentence."""
_HEAD_BYTES = 256 * 1024
"""What may come before a body, interim answers and the proxy's own included."""
_PADDING_BYTES = 1024 * 1024
"""What a body's framing may take, beside an eighth of it."""
_NO_BODY = frozenset({204, 304})
_NO_HEAD = frozenset({405, 501})
"""How a mirror says that it knows no HEAD."""
_KEPT = ("http_version", "reason_phrase")


class TooMuch(NoWay):
    """An answer that is larger than any honest one, or takes longer."""


class Call:
    """The allowance of one call."""

    def __init__(self, endpoint: httpx2.URL, reach: Reach, deadline_s: float) -> None:
        self.endpoint, self.reach = endpoint, reach
        self._until = time.monotonic() + deadline_s
        self._deadline_s, self._head_left = deadline_s, 0
        self.taken_bytes = 0
        self._in_head = True
        self.was_https = False
        self.host = ""

    def left_s(self) -> float:
        """Seconds left. Raises TooMuch when it is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooMuch(f"{clean(self.host, 120)} has not answered in full within {self._deadline_s:.0f} s.")
        return left

    def at_most(self, timeout_s: float | None) -> float:
        """A timeout, cut to what is left. Raises TooMuch when nothing is."""
        left_s = self.left_s()
        return left_s if timeout_s is None else min(timeout_s, left_s)

    def took(self, count: int) -> None:
        """Count bytes off. Raises TooMuch."""
        self.taken_bytes += count
        self._head_left -= count
        if self.taken_bytes > LIMIT_BYTES + _HEAD_BYTES or (self._in_head and self._head_left < 0):
            raise self.too_large()

    def begin_head(self) -> None:
        """An answer's head is awaited."""
        self._in_head, self._head_left = True, _HEAD_BYTES

    def end_head(self) -> None:
        """It has come; what follows is a body."""
        self._in_head = False

    def too_large(self) -> TooMuch:
        return TooMuch(f"{clean(self.host, 120)} answers with more than we take; is HF_ENDPOINT a HuggingFace hub?")


_CALL: ContextVar[Call | None] = ContextVar("hub_call", default=None)
_install_lock = threading.Lock()
_installed = False


def _now() -> Call:
    call = _CALL.get()
    assert call is not None  # the transport has made one
    return call


@contextlib.contextmanager
def asking(endpoint: str, *, deadline_s: float | None = None) -> Iterator[None]:
    """Make calls of the library within this: one allowance, and no way to where `endpoint` may not lead.

    In it the library may raise any NoWay beside its own exceptions.
    """
    install()
    token = _CALL.set(Call(httpx2.URL(endpoint), reach_of(endpoint), DEADLINE_S if deadline_s is None else deadline_s))
    try:
        yield
    finally:
        _CALL.reset(token)


def install() -> None:
    """Make the library use our client, from now on."""
    global _installed
    with _install_lock:
        if not _installed:
            set_client_factory(_client)
            _installed = True


def _client() -> httpx2.Client:
    return httpx2.Client(
        transport=_Transport(),
        trust_env=False,
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


class _Transport(httpx2.BaseTransport):
    """Sends requests within the allowance of the call that they belong to, and hands over whole, plain answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[tuple[bool, Proxy | None], httpx2.HTTPTransport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = _CALL.get()
        if call is not None:
            return self._within(call, request)
        # Nobody said which hub is asked; then this request is the whole call, and its own host the hub.
        token = _CALL.set(call := Call(request.url, Reach(str(request.url)), DEADLINE_S))
        try:
            return self._within(call, request)
        finally:
            _CALL.reset(token)

    def close(self) -> None:
        with self._lock:
            lines = [*self._lines.values()]
            self._lines.clear()
        for each in lines:
            each.close()

    def _within(self, call: Call, request: httpx2.Request) -> httpx2.Response:
        is_https, call.host = request.url.scheme == "https", request.url.host
        if call.was_https and not is_https:
            raise LeadsAstray(f"{clean(call.host, 120)} is to be asked without encryption, by a hub that has it.")
        call.was_https = is_https
        call.left_s()
        proxy = proxy_for(str(request.url))
        if proxy is not None:
            call.reach.check_text(request.url.host)
        request.headers["Accept-Encoding"] = "identity"
        if not _is_own(call.endpoint, request.url):
            # The library itself would send it with each page of a list, wherever the hub says that the page is.
            request.headers.pop("Authorization", None)
        try:
            call.begin_head()
            line = self._line(is_https, proxy)
            answer = line.handle_request(request)
            if request.method == "HEAD" and answer.status_code in _NO_HEAD:
                answer.close()
                call.begin_head()
                answer = _as_head(line.handle_request(_for_one_byte(request)))
            call.end_head()
            with contextlib.closing(answer):
                body = b"" if request.method == "HEAD" else _body(call, answer)
        except httpx2.TransportError as error:
            refused = tls.refusal(error, call.host)
            if refused is not None:
                raise refused from error
            if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
                call.left_s()
            raise
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() != b"content-encoding"]
        return httpx2.Response(
            answer.status_code,
            headers=answer.headers.raw if request.method == "HEAD" else headers,
            stream=httpx2.ByteStream(body),
            extensions={each: answer.extensions[each] for each in _KEPT if each in answer.extensions},
        )

    def _line(self, is_https: bool, proxy: Proxy | None) -> httpx2.HTTPTransport:
        """The connections of one kind; the certificates are read only when https is used."""
        with self._lock:
            if (is_https, proxy) not in self._lines:
                self._lines[is_https, proxy] = _open_line(is_https, proxy)
            return self._lines[is_https, proxy]


def _for_one_byte(request: httpx2.Request) -> httpx2.Request:
    """A GET in place of a HEAD: of its answer only the head is read."""
    headers = {**request.headers, "Range": "bytes=0-0"}
    return httpx2.Request("GET", request.url, headers=headers, extensions=request.extensions)


def _as_head(answer: httpx2.Response) -> httpx2.Response:
    """The answer to `_for_one_byte()`, with what a HEAD would have said of the whole."""
    _, _, total = answer.headers.get("Content-Range", "").rpartition("/")
    if answer.status_code == 206 or (answer.status_code == 416 and total == "0"):
        answer.status_code = 200
        answer.headers["Content-Length"] = total
    return answer


def _is_own(endpoint: httpx2.URL, url: httpx2.URL) -> bool:
    """Whether a URL is the hub's own: of the same origin, or the same host's https on its usual port."""
    if url.host.lower() != endpoint.host.lower():
        return False
    ports = {"http": 80, "https": 443}
    port, own_port = url.port or ports.get(url.scheme), endpoint.port or ports.get(endpoint.scheme)
    upgraded = (endpoint.scheme, own_port, url.scheme, port) == ("http", 80, "https", 443)
    return upgraded or (url.scheme, port) == (endpoint.scheme, own_port)


def _open_line(is_https: bool, proxy: Proxy | None) -> httpx2.HTTPTransport:
    verify = tls.context() if is_https else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    via = None
    if proxy is not None:
        auth = (proxy.user, proxy.password) if proxy.user else None
        via = httpx2.Proxy(proxy.url, auth=auth, ssl_context=tls.context() if proxy.scheme == "https" else None)
    made = httpx2.HTTPTransport(verify=verify, trust_env=False, proxy=via)
    pool: Any = made._pool
    # No public argument for it. If it is called otherwise one day, nothing must go out unguarded.
    if not isinstance(pool._network_backend, httpcore2.NetworkBackend):
        raise TypeError("httpx2 has changed: its connections cannot be guarded")
    pool._network_backend = _Network(guarded=proxy is None)
    return made


class _Network(httpcore2.NetworkBackend):
    """Connects only where the call may lead, and counts what comes."""

    def __init__(self, *, guarded: bool) -> None:
        self._inner, self._guarded = httpcore2.SyncBackend(), guarded

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        call = _now()
        timeout = call.at_most(timeout)
        made = self._inner.connect_tcp(host, port, timeout, local_address, socket_options or [])
        if self._guarded:
            try:
                call.reach.check(host, str(made.get_extra_info("server_addr")[0]))
            except BaseException:
                made.close()
                raise
        return _Counted(made)

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Counted(httpcore2.NetworkStream):
    """A connection whose every byte and wait is paid by the call that uses it."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        call = _now()
        block = self._inner.read(max_bytes, call.at_most(timeout))
        call.took(len(block))
        return block

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _now().at_most(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Counted(self._inner.start_tls(ssl_context, server_hostname, _now().at_most(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _body(call: Call, answer: httpx2.Response) -> bytes:
    """An answer's body, whole and plain; of an error its beginning, of a redirect nothing."""
    if answer.has_redirect_location or answer.status_code in _NO_BODY:
        return b""
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if answer.status_code >= 400:
        return b"" if encoding not in ("", "identity") else _read(call, answer, _ERROR_BYTES)
    if (whole_number(answer.headers.get("Content-Length")) or 0) > LIMIT_BYTES:
        raise call.too_large()
    body = _read(call, answer, LIMIT_BYTES)
    if len(body) == LIMIT_BYTES:
        del body
        raise call.too_large()
    try:
        body = unpacked(body, encoding, LIMIT_BYTES)
    except ValueError as error:
        raise TooMuch(f"{clean(call.host, 120)} compresses its answers in a way that is not understood.") from error
    if len(body) > LIMIT_BYTES or parsed_bytes(body) > PARSED_LIMIT_BYTES:
        del body
        raise call.too_large()
    return body


def _read(call: Call, answer: httpx2.Response, limit_bytes: int) -> bytes:
    """At most this much of a body, as it came."""
    body, before = bytearray(), call.taken_bytes
    for chunk in answer.iter_raw():
        body += chunk[: limit_bytes - len(body)]
        if len(body) == limit_bytes:
            break
        # Chunks of a byte or two are much work for nothing.
        if call.taken_bytes - before > 1.125 * len(body) + _PADDING_BYTES:
            body.clear()  # an exception keeps its frames, and they what they hold
            raise call.too_large()
    return bytes(body)
