"""Bounds for whoever connects: a request has to arrive, an answer has to be taken, and there are only so many at once.

uvicorn limits neither the time that a request takes to arrive nor the length of its head: half-sent ones would stay for
ever, and a thousand of them would lock everybody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from modelhub_tui import own_socket
from modelhub_tui.service.router.auth import ADMIN, LOCAL, PID, ROLE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REQUEST_S = 20.0
"""A request has to be there whole, body included, this long after its first byte (or after the connection was made)."""
ANSWER_S = 60.0
"""Who takes nothing of an answer for this long has gone."""
MAX_HEAD_BYTES = 64 * 1024
MAX_CONNECTIONS = 400
"""Through the port, and as many through the own socket, which nobody else can fill. Beyond it, one has to go."""
ACCEPTED_AT_ONCE = 32
"""In one round of the loop. Those it takes are neither counted nor closed before the next: they come on top."""
_DESCRIPTORS = 1024
"""What a process usually gets."""
_OTHERS = _DESCRIPTORS - 2 * MAX_CONNECTIONS
"""Those just taken or just closing, and files, the hub, the node."""


def have_room() -> None:
    """Raise this process's limit of descriptors, where it is lower than usual and may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """How many there may be of each kind: fewer than `MAX_CONNECTIONS` where descriptors are scarce."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(8, (soft - _OTHERS) // 2))


class Bounds(asyncio.Protocol):
    """What is added to a protocol of uvicorn's; httptools' and h11's are the same in what is used here."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    connections: set[Any]
    app: Any
    cycle: Any
    """The last request whose head has come, and its answer; None before the first."""
    send_400_response: Callable[[str], None]

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._request_limit: asyncio.TimerHandle | None = None
        self._answer_limit: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._since = 0.0
        self._local = False
        self._given_up = False

    @property
    def asks_nothing(self) -> bool:
        """True while no whole request is being answered."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    @property
    def known(self) -> bool:
        """True if its last request was let in by a key."""
        return self.cycle is not None and ROLE in self.cycle.scope

    @property
    def follows(self) -> bool:
        """True while a program of a person's has it open; who asks the service to stop, or counts, is none."""
        if self.cycle is None or self.transport.is_closing():
            return False
        scope = self.cycle.scope
        return bool(scope.get(ROLE) == ADMIN and scope["path"] not in ("/v0/service/stop", "/metrics"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; somebody else may have to go for it."""
        super().connection_made(transport)
        found = transport.get_extra_info("socket")
        self._local = found is not None and found.family == socket.AF_UNIX
        if self._local:
            other = own_socket.peer(found)
            self.app = Local(self.app, other.pid if other else 0)
        self._since = self.loop.time()
        self._arm()
        # Closing ones count until they are closed: their descriptors are in use until then.
        alike = [each for each in self.connections if each._local is self._local]
        if len(alike) > most_connections():
            waiting = [each for each in alike if each.asks_nothing and not each._given_up and each is not self]
            # Who has shown a key goes after all who have not; then who has asked nothing for longest goes first.
            min(waiting, key=lambda each: (each.known, each._since), default=self)._give_up()

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request."""
        super().data_received(data)
        if not self.asks_nothing:
            self._since = self.loop.time()
            self._disarm()
            return
        self._arm()
        if self.cycle is None or self.cycle.response_complete:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The other side is slow to take its answer."""
        super().pause_writing()
        if self._answer_limit is None:
            self._answer_limit = self.loop.call_later(ANSWER_S, self._give_up)

    def resume_writing(self) -> None:
        """The other side takes it after all."""
        super().resume_writing()
        if self._answer_limit is not None:
            self._answer_limit.cancel()
            self._answer_limit = None

    def _arm(self) -> None:
        if self._request_limit is None:
            self._request_limit = self.loop.call_later(REQUEST_S, self._give_up)

    def _disarm(self) -> None:
        self._head_bytes = 0
        if self._request_limit is not None:
            self._request_limit.cancel()
            self._request_limit = None

    def _give_up(self) -> None:
        self._given_up = True
        # Not closed: that would first wait for what is still to be written.
        self.transport.abort()


class BoundedProtocol(Bounds, AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol, whichever it has, with these bounds."""


class Local:
    """ASGI middleware: marks what came through the service's own socket.

    Args:
        pid: Of the process at the other end; 0 where that cannot be told.
    """

    def __init__(self, app: ASGIApp, pid: int) -> None:
        self._app, self._pid = app, pid

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[LOCAL], scope[PID] = True, self._pid
        await self._app(scope, receive, send)


class Dated:
    """ASGI middleware: every answer says when it was given. Clients tell by it how old what they read is.

    uvicorn would do that with a loop that wakes ten times a second; ours does not run it, and its `Date` stands still.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.time) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Any) -> None:
            if message["type"] == "http.response.start":
                now = formatdate(self._clock(), usegmt=True).encode()
                message = {**message, "headers": [(b"date", now), *message.get("headers", ())]}
            await send(message)

        await self._app(scope, receive, dated)
