"""Servers that are no router, or a bad one."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from tests.routers.base import LoopbackServer, Request, Response, _Connection, reply, text

HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<!DOCTYPE html>\n<html><head><title>It works</title></head><body><h1>It works!</h1></body></html>"
LOGIN = b"<!DOCTYPE html>\n<html><body><form action='/oauth2/start'><input name='user'></form></body></html>"


class _WebPage(LoopbackServer):
    """Any path is the same page, as single-page applications do it."""

    def respond(self, request: Request) -> Response:
        return Response(200, PAGE, dict(HTML))


class _Ollama(LoopbackServer):
    """Knows `/api/version` in the same shape as a G4 router, and `/v1/models`, but no `/api/auth/me`."""

    def respond(self, request: Request) -> Response:
        known: dict[tuple[str, str], Response] = {
            ("GET", "/"): text(200, "Ollama is running"),
            ("GET", "/api/version"): reply({"version": "0.5.7"}),
            ("GET", "/api/tags"): reply({"models": []}),
            ("GET", "/v1/models"): reply({"object": "list", "data": None}),
        }
        return known.get((request.method, request.path)) or text(404, "404 page not found")


class _LoginProxy(LoopbackServer):
    """A single sign-on proxy: every path redirects to its login page, which is HTML with status 200."""

    def respond(self, request: Request) -> Response:
        if request.path == "/oauth2/sign_in":
            return Response(200, LOGIN, dict(HTML))
        to = f"/oauth2/sign_in?rd={request.path}"
        return Response(302, b"<a href='/oauth2/sign_in'>Found</a>", HTML | {"Location": to})


class _Hanging(LoopbackServer):
    """Accepts, reads, and never answers (until it is closed)."""

    def __init__(self) -> None:
        self.over = threading.Event()
        super().__init__()

    def respond(self, request: Request) -> Response:
        self.over.wait(60)
        return Response(503)

    def down(self) -> None:
        self.over.set()
        super().down()


class _HugeConnection(_Connection):
    def _send(self, response: Response) -> None:
        size = getattr(self.server.owner, "size")  # noqa: B009
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        if getattr(self.server.owner, "declared"):  # noqa: B009
            self.send_header("Content-Length", str(size))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        piece = b'{"name": "x", "repo": "a/b"},' * 2000
        try:
            self.wfile.write(b"[")
            sent = 1
            while sent < size:
                self.wfile.write(piece[: size - sent])
                sent += len(piece)
                self.server.owner.sent = sent  # type: ignore[attr-defined]
            self.wfile.flush()
        except OSError:
            self.close_connection = True


class _Huge(LoopbackServer):
    """Every answer is this many bytes of JSON."""

    def __init__(self, size: int, declared: bool) -> None:
        self.size, self.declared, self.sent = size, declared, 0
        super().__init__()

    def respond(self, request: Request) -> Response:
        return Response(200)

    def _bind(self, port: int) -> None:
        super()._bind(port)
        assert self._server is not None
        self._server.RequestHandlerClass = _HugeConnection


class _Lying(LoopbackServer):
    """A router by its paths, with wrong types, nonsense and hostile text in all its lists.

    Args:
        generation: Whose paths it answers; the others are 404.
    """

    def __init__(self, generation: str) -> None:
        self.generation = generation
        super().__init__()

    def respond(self, request: Request) -> Response:
        prefix = "/api" if self.generation == "G4" else "/v0"
        if self.generation == "G4" and request.path == "/api/version":
            return reply({"version": ["5", "\x1b[2J"]})
        if self.generation == "G4" and request.path == "/api/auth/me":
            return text(401, "Missing Authorization header")
        fleet = "nodes" if self.generation in ("G1", "G2") else "endpoints"
        lists: dict[str, Any] = {
            f"{prefix}/models": [*_LIES, {"name": "good/model", "repo": "good/model", "size": "large", "tags": 3}],
            f"{prefix}/models/hub": _LIES,
            "/v1/models": {"object": "list", "data": _LIES},
            f"{prefix}/{fleet}": _LIES if fleet == "nodes" else {"endpoints": _LIES, "total": "many"},
        }
        if request.path not in lists:
            return Response(404)
        # Python's JSON writes NaN and Infinity, which no JSON may hold.
        return Response(200, json.dumps(lists[request.path]).encode(), {"Content-Type": "application/json"})


_LIES: list[Any] = [
    None,
    7,
    "text",
    [],
    {},
    {"name": None, "repo": None, "id": None},
    {"name": 5, "repo": {"a": 1}, "size": float("nan"), "id": [], "loaded_models": "x", "status": 3},
    {"name": "\x1b]0;owned\x07evil/\u202emodel", "repo": "../../etc/passwd", "size": -1, "status": "dancing"},
    {"id": "n1", "machine_name": "n\x1b[31m1", "status": "dancing", "loaded_models": [None, 3, {}], "gpu_devices": 9},
    {"id": "n2", "machine_name": {}, "status": "online", "sync_state": 4, "sync_progress": "all", "last_seen": "soon"},
    {"id": "n3", "name": "e", "status": "online", "endpoint_type": 7, "latency_ms": float("inf"), "model_count": "2"},
]


class _DyingConnection(_Connection):
    def _send(self, response: Response) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b'[{"name": "a/b", ')
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class _Dying(LoopbackServer):
    """Breaks the connection in the middle of each answer."""

    def respond(self, request: Request) -> Response:
        return Response(200)

    def _bind(self, port: int) -> None:
        super()._bind(port)
        assert self._server is not None
        self._server.RequestHandlerClass = _DyingConnection


def web_page() -> LoopbackServer:
    """A web server."""
    return _WebPage()


def ollama() -> LoopbackServer:
    """An Ollama server."""
    return _Ollama()


def login_proxy() -> LoopbackServer:
    """A proxy that wants people to log in."""
    return _LoginProxy()


def hanging() -> LoopbackServer:
    """Never answers."""
    return _Hanging()


def huge(size: int = 100_000_000, *, declared: bool = True) -> LoopbackServer:
    """Answers with this many bytes; `declared` says so in Content-Length."""
    return _Huge(size, declared)


def lying(generation: str = "G2") -> LoopbackServer:
    """A router's paths, with nonsense in the answers."""
    return _Lying(generation)


def dying() -> LoopbackServer:
    """Breaks off each answer."""
    return _Dying()


__all__ = ["dying", "hanging", "huge", "login_proxy", "lying", "ollama", "web_page"]
