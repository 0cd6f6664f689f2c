"""Who may ask: the key, the Host and the Origin of every request, checked before anything else looks at it."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ADMIN, NODE = "admin", "node"
ROLE = "modelhub.role"
"""Key in the ASGI scope under which the role of the caller stands."""
PID = "modelhub.pid"
"""Key in the ASGI scope of the same: the process at the other end, or 0."""
LOCAL = "modelhub.local"
"""Key in the ASGI scope of what came through the service's own socket; see `connections.Bounds`."""
METRICS = "/metrics"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


FOUND_S = 1.0
"""How long after a program has found the service it may still be on its way to use it."""


class Hosts:
    """The `Host` values that requests may carry: rebinding DNS to us makes a browser send another name.

    Args:
        port: The port that the service listens on.
        names: Configured names beside loopback's.
        any_address: Accept every IP address: for a service bound to all interfaces; rebinding needs a name.
    """

    def __init__(self, port: int, names: Iterable[str] = (), *, any_address: bool = False) -> None:
        self._port, self._any_address = port, any_address
        self._names = frozenset(each.lower() for each in (*LOOPBACK, *names))
        self._seen: dict[bytes, bool] = {}

    @classmethod
    def for_bind(cls, host: str, port: int) -> Hosts:
        """The hosts to accept for a service bound to `host`."""
        everywhere = host in ("", "0.0.0.0", "::")  # noqa: S104
        names = {socket.gethostname(), socket.getfqdn()} if everywhere else {host}
        return cls(port, names, any_address=everywhere)

    def __call__(self, header: bytes) -> bool:
        """True if this `Host` header is ours."""
        found = self._seen.get(header)
        if found is None:
            found = self._check(header.decode("latin-1").strip().lower())
            if len(self._seen) < 64:
                self._seen[header] = found
        return found

    def _check(self, header: str) -> bool:
        name, _, port = header.rpartition(":") if not header.endswith("]") and ":" in header else (header, "", "80")
        if port != str(self._port):
            return False
        name = name.removeprefix("[").removesuffix("]")
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address


class Use:
    """How much people's programs use the service. Nodes do not count: they ask all the time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.active = 0
        """Requests being answered now, those that wait for a change among them."""
        self.last_at = clock()

        self._finders: dict[int, float] = {}

    def touch(self) -> None:
        """Somebody uses it now."""
        self.last_at = self._clock()

    def found_by(self, pid: int) -> None:
        """A program has looked for the service and found it: it is about to use it."""
        now = self._clock()
        self._finders = {each: at for each, at in self._finders.items() if now - at < FOUND_S}
        self._finders[pid] = now

    def about_to_be_used(self, asker: int) -> bool:
        """Whether a program other than this one has found the service just now, and still runs."""
        now = self._clock()
        return any(now - at < FOUND_S and pid not in (0, asker) and _runs(pid) for pid, at in self._finders.items())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Guard:
    """ASGI middleware: refuses what must not get in, and writes the caller's role into the scope.

    Args:
        use: Told of each request that is let in, unless it comes from a node.
        open_metrics: `GET /metrics` needs no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        admin_key: str,
        node_key: str,
        hosts: Callable[[bytes], bool],
        use: Use | None = None,
        open_metrics: bool = False,
    ) -> None:
        self._app, self._hosts, self._use = app, hosts, use or Use()
        self._free = frozenset({"/health", METRICS} if open_metrics else {"/health"})
        self._keys = ((admin_key.encode(), ADMIN), (node_key.encode(), NODE))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        status, text = self._refusal(scope)
        if status:
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            await PlainTextResponse(text, status, headers)(scope, receive, send)
            return
        if scope.get(ROLE) == NODE:
            await self._app(scope, receive, send)
            return
        self._use.touch()
        self._use.active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._use.active -= 1
            self._use.touch()

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        """(0, "") to let in, else the status and text of the answer. Texts are upstream's where it has one."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers and name == b"host":
                return 421, "Two Host headers"
            headers[name] = value
        # No web page's request ever comes through a Unix socket, whatever its Host.
        local = scope.get(LOCAL) is True
        if not local and not self._hosts(headers.get(b"host", b"")):
            return 421, "This host name is not served here; use 127.0.0.1 or localhost with the service's port"
        if b"origin" in headers:
            return 403, "Requests from web pages are refused"
        if scope["path"] in self._free and scope["method"] in ("GET", "HEAD"):
            self._use.found_by(scope.get(PID, 0))
            return 0, ""
        if not _is_ours(scope["path"]):
            return 404, ""
        key = headers.get(b"x-api-key")
        if key is None:
            said = headers.get(b"authorization")
            if said is None and local:
                # Who can open the socket could read the key beside it. The node shows its own, which opens less.
                scope[ROLE] = ADMIN
                return 0, ""
            if said is None:
                return 401, "Missing X-API-Key header or Authorization header"
            if not said.startswith(b"Bearer "):
                return 401, "Invalid Authorization header format. Expected 'Bearer <token>'"
            key = said[7:]
        role = None
        for known, whose in self._keys:
            # Both are compared, whatever the first says: the time must not tell which key was nearly right.
            if hmac.compare_digest(key, known) and role is None:
                role = whose
        if role is None:
            return 401, "Invalid API key"
        scope[ROLE] = role
        if role == NODE and not _open_to_nodes(scope["method"], scope["path"]):
            return 403, "Admin scope required"
        return 0, ""


def _is_ours(path: str) -> bool:
    """False for what no key opens: there upstream answers 404 before it asks for one, and clients tell routers apart by
    that. Source: router-api, sections 1.1 and 5.5.
    """
    return path in ("/openapi.json", METRICS) or (
        path.startswith(("/v0/", "/v1/")) and not path.startswith("/v0/auth/")
    )


def _open_to_nodes(method: str, path: str) -> bool:
    """What a node key opens. Source: router-api, section 1.3."""
    if method in ("GET", "HEAD"):
        return path in ("/v0/models", "/v0/models/hub", "/openapi.json") or path.startswith("/v0/models/registry/")
    return method == "POST" and path in ("/v0/nodes", "/v0/health")
