"""What every fake router stands on: a real loopback HTTP/1.1 server on threads, routing as axum does it, a clock.

A fake is a state machine under one lock. Time passes only when a test says so (`clock.advance`); before each request
the fake settles what the time since the last one has brought about.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

BODY_LIMIT = 2 * 1024 * 1024


class Clock:
    """Seconds since the epoch. Stands still until told; starts at the real time, which clients compare with."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self.now += seconds


def instant(at: float, *, zone: str = "Z") -> str:
    """RFC 3339 with nine fractional digits, as the router's serializer writes it."""
    whole = int(at)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{int((at - whole) * 1e9):09d}{zone}"


def offset_instant(at: float) -> str:
    """The other form: times that the router stores as strings."""
    return instant(at, zone="+00:00")


@dataclass
class Request:
    """One request as it came; `path` is not percent-decoded, header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    params: dict[str, str] = field(default_factory=dict)
    """Percent-decoded, filled by routing."""
    principal: Any = None
    """Who asks, filled by the route's access rule."""
    status: int = 0
    """How it was answered; 0 if the connection broke."""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Response:
    """One answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Answered(Exception):
    """Ends a request with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def text(status: int, words: str) -> Response:
    """Error shape 1."""
    return Response(status, words.encode(), {"Content-Type": "text/plain; charset=utf-8"})


def reply(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def failure(status: int, sentence: str, code: str | None = None) -> Response:
    """Error shape 2, or shape 3 with a code."""
    return reply({"error": sentence} | ({"code": code} if code else {}), status)


def openai_failure(status: int, message: str) -> Response:
    """Error shape 4, of an unknown model."""
    told = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return reply({"error": told}, status)


@dataclass(frozen=True)
class Field:
    """One member of a request body. An optional one may be absent or null."""

    check: Callable[[Any], bool]
    required: bool = False
    what: str = "a valid value"


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_whole(limit: int) -> Callable[[Any], bool]:
    """An unsigned integer below `limit`."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def read_body(request: Request, members: dict[str, Field]) -> dict[str, Any]:
    """The JSON object in the body; unknown members are ignored, wrong ones answered as the framework does."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Answered(text(415, "Expected request with `Content-Type: application/json`"))
    if len(request.body) > BODY_LIMIT:
        raise Answered(text(413, "Failed to buffer the request body: length limit exceeded"))
    try:
        value = json.loads(request.body)
    except ValueError:
        words = "Failed to parse the request body as JSON: EOF while parsing a value at line 1 column 0"
        raise Answered(text(400, words)) from None
    prefix = "Failed to deserialize the JSON body into the target type: "
    if not isinstance(value, dict):
        raise Answered(text(422, f"{prefix}invalid type: expected a struct at line 1 column 1"))
    for name, member in members.items():
        given = value.get(name)
        if given is None:
            if member.required:
                raise Answered(text(422, f"{prefix}missing field `{name}` at line 1 column {len(request.body)}"))
        elif not member.check(given):
            raise Answered(text(422, f"{prefix}{name}: invalid value, expected {member.what} at line 1 column 1"))
    return {name: value.get(name) for name in members}


Handler = Callable[[Request], Response]
Access = Callable[[Request], Any]


def open_to_all(request: Request) -> None:
    """The access rule of public routes."""


@dataclass(frozen=True)
class Route:
    """`{x}` in the pattern takes one segment, `{*x}` all that is left."""

    method: str
    pattern: str
    handler: Handler
    access: Access

    def match(self, segments: list[str]) -> tuple[tuple[int, ...], dict[str, str]] | None:
        """How exact the match is (smaller is better) and the parameters, undecoded."""
        rank: list[int] = []
        params: dict[str, str] = {}
        parts = self.pattern.split("/")[1:]
        for index, part in enumerate(parts):
            if part.startswith("{*"):
                rest = "/".join(segments[index:])
                if not rest:
                    return None
                return (*rank, 2), params | {part[2:-1]: rest}
            if index >= len(segments):
                return None
            if part.startswith("{"):
                if not segments[index]:
                    return None
                params[part[1:-1]] = segments[index]
                rank.append(1)
            elif part == segments[index]:
                rank.append(0)
            else:
                return None
        return (tuple(rank), params) if len(segments) == len(parts) else None


class LoopbackServer:
    """An HTTP/1.1 server on 127.0.0.1 with a log of what it was asked. Subclasses answer in `respond()`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """Every request, in the order they came."""
        self.intercept: Callable[[Request], Response | None] | None = None
        """Answers instead of the fake when it returns something."""
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._bind(0)
        self.port = self._server.server_address[1] if self._server else 0
        self.url = f"http://127.0.0.1:{self.port}"

    def respond(self, request: Request) -> Response:
        """Answer one request; runs on a thread of its own."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(self, *exc: object) -> None:
        self.down()

    def up(self) -> Self:
        """Answer, on the same port as before."""
        if self._server is None:
            self._bind(self.port)
        assert self._server is not None
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def down(self) -> None:
        """Refuse connections and break those that are open, until `up()`."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._thread is not None:
            server.shutdown()
            self._thread.join()
        server.server_close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Break what is open."""
        for each in list(self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was faster

    def asked(self, method: str, path: str) -> list[Request]:
        """The log, for one method and one undecoded path."""
        return [each for each in list(self.requests) if (each.method, each.path) == (method, path)]

    def _bind(self, port: int) -> None:
        self._server = _Listener(("127.0.0.1", port), self)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], owner: LoopbackServer) -> None:
        self.owner = owner
        super().__init__(address, _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is not worth a traceback on stderr."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.owner._open.add(self.connection)

    def finish(self) -> None:
        self.server.owner._open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """The owner keeps the log."""

    def parse_request(self) -> bool:
        """Any method is dispatched: a framework answers 405 where the stdlib would say 501."""
        if not super().parse_request():
            return False
        setattr(self, f"do_{self.command}", self._serve)
        return True

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        url = urlsplit(self.path)
        request = Request(
            self.command,
            url.path,
            dict(parse_qsl(url.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )
        owner = self.server.owner
        owner.requests.append(request)
        response = (owner.intercept(request) if owner.intercept else None) or owner.respond(request)
        request.status = response.status
        self._send(response)

    def _send(self, response: Response) -> None:
        clock = getattr(self.server.owner, "clock", time.time)
        self.send_response_only(response.status)
        self.send_header("Date", formatdate(clock(), usegmt=True))
        for name, value in response.headers.items():
            for each in value if isinstance(value, list) else [value]:
                self.send_header(name, each)
        if response.status not in (204, 304):
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD" and response.status not in (204, 304):
            self.wfile.write(response.body)
        self.wfile.flush()


class RoutedServer(LoopbackServer):
    """Finds the route, checks access, then the method: a wrong method is 405 only for who may see the route."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.lock = threading.RLock()
        self.routes: list[Route] = []
        super().__init__()

    def route(self, method: str, pattern: str, handler: Handler, access: Access = open_to_all) -> None:
        """Add a route. The first one on a path says who gets past it to a 405."""
        self.routes.append(Route(method, pattern, handler, access))

    def settle(self) -> None:
        """Do what the passing of time brings about."""

    def respond(self, request: Request) -> Response:
        """Answer as the framework and the handlers do."""
        segments = request.path.split("/")[1:]
        found = [(match, each) for each in self.routes if (match := each.match(segments))]
        if not found:
            return Response(404)
        best = min(match[0] for match, _ in found)
        there = [(match[1], each) for match, each in found if match[0] == best]
        method = "GET" if request.method == "HEAD" else request.method
        mine = next(((params, each) for params, each in there if each.method == method), None)
        params, route = mine or there[0]
        with self.lock:
            self.settle()
            try:
                request.principal = route.access(request)
                if mine is None:
                    return Response(405, headers={"Allow": ",".join(each.method for _, each in there)})
                request.params = {name: unquote(value, errors="strict") for name, value in params.items()}
                return route.handler(request)
            except Answered as answered:
                return answered.response
            except UnicodeDecodeError:
                return text(400, "Invalid URL: Invalid UTF-8 in path")
