"""The second transport: files that the hub keeps in Xet storage, through the `hf_xet` package.

`hf_xet` comes with `huggingface_hub`, but costs memory and threads, so it is imported when the first such file is due.
Plain HTTP works for these files too, except for very large ones (docs/decisions/0009-plain-http-before-xet.md).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from modelhub_tui.hub_reach import Reach
from modelhub_tui.net import loads
from modelhub_tui.proxies import proxy_for
from modelhub_tui.service.node.transport import HttpTransport
from modelhub_tui.tls import use_for_libraries
from modelhub_tui.values import dataclass

_RANGE = re.compile(r"bytes=([0-9]{1,20})-[0-9]*\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_TRUE = {"1", "ON", "YES", "TRUE"}
_WATCH_S = 0.5
_SCHEMES = ("https", "http")
_MOST_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class XetFile:
    """Where a file is in Xet storage."""

    hash: str
    """64 hex digits; not the sha256 of the content."""
    route: str
    """Address on the hub that hands out a short-lived access token for the storage."""


def xet_file(hash: object, route: object) -> XetFile | None:
    """What a hub says about a file, checked; None when it makes no sense."""
    if isinstance(hash, str) and isinstance(route, str) and _HASH.match(hash) and route:
        return XetFile(hash, route)
    return None


def is_available(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `hf_xet` is installed, and the user did not switch it off with HF_HUB_DISABLE_XET."""
    return environ.get("HF_HUB_DISABLE_XET", "").upper() not in _TRUE and importlib.util.find_spec("hf_xet") is not None


class XetTransport:
    """`Transport` of one file in Xet storage. `open` takes the token route and a Range that goes to the end."""

    def __init__(self, hash: str, size: int, reach: Reach, *, connect_s: float, stall_s: float) -> None:
        self._hash, self._size, self._reach = hash, size, reach
        self._connect_s, self._stall_s = connect_s, stall_s
        self._http = HttpTransport(reach, connect_s=connect_s, stall_s=stall_s)
        self._lock = threading.Lock()
        self._aborted = False
        self._body: _XetBody | None = None

    def open(self, url: str, headers: Mapping[str, str]) -> _XetBody:
        """Raises OSError: no token, or no storage."""
        asked = _RANGE.match(headers.get("Range", "bytes=0-"))
        start = int(asked[1]) if asked else 0
        token = {name: value for name, value in headers.items() if name.lower() == "authorization"}
        self._raise_if_aborted()
        with _as_os_error():
            endpoint, access, expires_at = self._access(url, token)
            library: Any = importlib.import_module("hf_xet")
            group = library.XetSession().new_download_stream_group(
                endpoint=endpoint, token=access, token_expiry_unix_secs=expires_at
            )
            stream = group.download_stream(library.XetFileInfo(self._hash, self._size), start=start)
        body = _XetBody(stream, start, self._size, self._stall_s)
        with self._lock:
            self._body = body
            aborted = self._aborted
        if aborted:
            body.cancel()
        return body

    def another(self) -> XetTransport:
        """Never several at once: the library itself fetches in parallel."""
        return XetTransport(self._hash, self._size, self._reach, connect_s=self._connect_s, stall_s=self._stall_s)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            body = self._body
        self._http.abort()
        if body is not None:
            body.cancel()

    def close(self) -> None:
        """Let go of the connection for the token."""
        self._http.close()

    def _access(self, route: str, headers: Mapping[str, str]) -> tuple[str, str, int]:
        """Ask the hub for the storage's address, a token, and until when that is good (seconds since the epoch).

        The library would ask by itself, and follow wherever the answer leads. So it never learns the route: when the
        token has expired the stream breaks, and what is missing is asked for with a new one.
        """
        body = self._http.open(route, {**headers, "Accept-Encoding": "identity"})
        try:
            if body.status != 200:
                raise ConnectionError(f"the hub gives no access to the storage ({body.status})")
            said, view = bytearray(), memoryview(bytearray(16 * 1024))
            while len(said) < _MOST_ANSWER_BYTES and (count := body.read_into(view)):
                said += view[:count]
        finally:
            body.close()
        told = loads(bytes(said))
        if not isinstance(told, dict):
            raise ConnectionError("the hub's answer about the storage is not understood")
        endpoint, access, expires_at = told.get("casUrl"), told.get("accessToken"), told.get("exp")
        if not (isinstance(endpoint, str) and isinstance(access, str) and type(expires_at) is int):
            raise ConnectionError("the hub's answer about the storage is not understood")
        at = urlsplit(endpoint)
        if at.scheme not in _SCHEMES or (at.scheme == "http" and route.startswith("https:")):
            raise ConnectionError("the storage is at an unsafe address")
        if at.scheme in ("http", "https"):
            # The library connects by itself: a name can only be checked just before.
            (self._reach.check_name if proxy_for(endpoint) is None else self._reach.check_text)(at.hostname or "")
            use_for_libraries()
        return endpoint, access, expires_at

    def _raise_if_aborted(self) -> None:
        if self._aborted:
            raise ConnectionAbortedError("aborted")


class _XetBody:
    """`Body` of a stream: bytes from `start` to the end, in order."""

    status = 206

    def __init__(self, stream: Any, start: int, size: int, stall_s: float) -> None:
        self.headers: dict[str, str] = {"content-range": f"bytes {start}-{size - 1}/{size}"}
        self._stream, self._left = stream, size - start
        self._block = memoryview(b"")
        self._over = threading.Event()
        self._stalled = False
        self._stall_s = stall_s
        self._waiting_since: float | None = None
        # The library offers no time limit, and waits for ever on a storage that has gone quiet.
        threading.Thread(target=self._watch, name="xet watch", daemon=True).start()

    def read_into(self, view: memoryview) -> int:
        if not self._left:
            return 0
        if not self._block:
            self._waiting_since = time.monotonic()
            try:
                with _as_os_error():
                    self._block = memoryview(next(self._stream, b""))
            finally:
                self._waiting_since = None
            if self._stalled:
                raise TimeoutError
            if not self._block:  # also what a cancelled stream, or one of a hash that is not there, does
                raise ConnectionError("the storage sent less than the whole file")
        count = min(len(view), len(self._block), self._left)
        view[:count] = self._block[:count]
        self._block = self._block[count:]
        self._left -= count
        return count

    def cancel(self) -> None:
        """From any thread; a reader that waits is let go within milliseconds."""
        self._over.set()
        with contextlib.suppress(Exception):  # it may have ended in this moment
            self._stream.cancel()

    def close(self) -> None:
        if self._left:
            self.cancel()
        self._over.set()
        self._block = memoryview(b"")

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_S):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._stall_s:
                self._stalled = True
                self.cancel()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """`hf_xet` raises kinds of its own, and plain RuntimeError; all of them mean that this way is closed now."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ConnectionError(str(error).partition("\n")[0] or type(error).__name__) from error
