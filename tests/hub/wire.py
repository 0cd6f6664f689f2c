"""HTTP/1.1 with full control of the socket: one thread per connection, keep-alive, throttling, every fault on demand.

Knows nothing of repos: asks a `route` function for an `Answer`, lets a `Fault` spoil it, sends it and keeps a record.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from tests.hub.blobs import MIB
from tests.hub.faults import Fault, Server, retold
from tests.hub.messages import EXPIRED, Answer, Record

_RESET = struct.pack("ii", 1, 0)


class Pacer:
    """Spreads bytes over time. `bps` (bytes per second, None for no limit) may be changed while in use."""

    def __init__(self, bps: float | None = None) -> None:
        self.bps = bps
        self._free_at = 0.0
        self._lock = threading.Lock()

    def book(self, count: int) -> float:
        """Reserve the time for `count` bytes; return the seconds to wait before sending them."""
        with self._lock:
            if not self.bps:
                return 0.0
            now = time.monotonic()
            # A link that was idle has no credit beyond one step.
            begin = max(self._free_at, now)
            self._free_at = begin + count / self.bps
            return begin - now


class Listener:
    """One server on 127.0.0.1 that can go down and come back on the same port."""

    def __init__(self, name: Server, host: Host, tls: ssl.SSLContext | None = None) -> None:
        self.name, self.tls = name, tls
        self.host = host
        # Bound but never listening: holds the port while the server is down, so that nobody else gets it.
        self._reserve = _bound(0)
        self.port: int = self._reserve.getsockname()[1]
        self.closing = threading.Event()
        self._listener: socket.socket | None = None
        self._wake: socket.socket | None = None
        self._threads: set[threading.Thread] = set()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its origin."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen; nothing happens if it already does."""
        if self._listener is not None:
            return
        self.closing = threading.Event()
        self._listener = _bound(self.port)
        self._listener.listen(256)
        wake, self._wake = socket.socketpair()
        acceptor = threading.Thread(target=self._accept, args=(self._listener, wake, self.closing), daemon=True)
        self._threads.add(acceptor)
        acceptor.start()

    def down(self) -> None:
        """Refuse connections and reset those that are open."""
        if self._listener is None or self._wake is None:
            return
        self.closing.set()
        self._wake.close()
        with self._lock:
            for connection in self._connections:
                _abort(connection)
        for thread in list(self._threads):
            thread.join(5.0)
        self._threads.clear()
        self._listener.close()
        self._listener = self._wake = None

    def close(self) -> None:
        """Go down for good."""
        self.down()
        self._reserve.close()

    def drop_connections(self) -> None:
        """Reset every open connection; new ones are welcome."""
        with self._lock:
            for connection in self._connections:
                _abort(connection)

    def _accept(self, listener: socket.socket, wake: socket.socket, closing: threading.Event) -> None:
        with wake:
            while not closing.is_set():
                ready, _, _ = select.select([listener, wake], [], [])
                if wake in ready:
                    return
                try:
                    connection, address = listener.accept()
                except OSError:
                    continue
                with self._lock:
                    self._connections.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection, address, closing), daemon=True)
                thread.start()  # before it is known to `down()`, which waits for all that are
                self._threads.add(thread)

    def _serve(self, connection: socket.socket, address: tuple[str, int], closing: threading.Event) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                plain, connection = connection, self.tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._connections.discard(plain)
                    self._connections.add(connection)
            if not closing.is_set():
                Handler(connection, address, self)  # type: ignore[arg-type]
        except OSError:
            pass  # the other side went away, or `down()` cut it off
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()
            self._threads.discard(threading.current_thread())


@dataclass
class Host:
    """What a listener needs of the hub around it."""

    route: Callable[[Record], Answer]
    log: list[Record]
    faults: list[Fault]
    total: Pacer
    """Shared by all responses that carry a file."""
    connection_bps: float | Callable[[str], float | None] | None = None
    """Limit of each such response; a function gets its label (`owner/name/path`)."""
    latency_s: float = 0.0
    """Wait before each answer."""

    def limit(self, label: str) -> float | None:
        """Bytes per second of one response."""
        return self.connection_bps(label) if callable(self.connection_bps) else self.connection_bps


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Listener  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self.closing = self.server.closing

    def log_message(self, format: str, *args: object) -> None:
        """The record is the log."""

    def do_GET(self) -> None:
        host = self.server.host
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        record = Record(
            self.server.name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body
        )
        host.log.append(record)
        answer = host.route(record)
        # Decided after routing, which knows what file a signed URL stands for.
        fault = next(
            (each for each in list(host.faults) if each.take(record.server, record.method, record.path, record.label)),
            None,
        )
        if fault is not None:
            record.fault = fault
            answer = _spoil(answer, fault)
        if host.latency_s:
            self.closing.wait(host.latency_s)
        if fault is not None and fault.delay_s:
            self._wait(fault, fault.delay_s)
        record.status, record.length = answer.status, 0 if self.command == "HEAD" else answer.length
        try:
            if fault is not None and fault.reset_at_once:
                self._reset()
            self._send_head(answer, fault)
            self._send_body(answer, fault, record)
        except OSError:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _send_head(self, answer: Answer, fault: Fault | None) -> None:
        headers: dict[str, str] = {"Content-Length": str(answer.length), **answer.headers}
        for name, value in (fault.headers if fault else {}).items():
            for known in [each for each in headers if each.lower() == name.lower()]:
                del headers[known]
            if value is not None:
                headers[name] = value
            if name.lower() == "content-length":
                # After a wrong length nothing more can be said on this connection.
                self.close_connection = True
        if self.close_connection:
            headers.setdefault("Connection", "close")
        reason = http.client.responses.get(answer.status, "On Purpose")
        lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.connection.sendall("\r\n".join(lines).encode("latin-1", "replace"))

    def _send_body(self, answer: Answer, fault: Fault | None, record: Record) -> None:
        pieces: Iterator[memoryview] = iter(answer.pieces()) if self.command != "HEAD" else iter(())
        if fault is not None and fault.flip_at is not None and answer.blob:
            pieces = _flipped(pieces, fault.flip_at - answer.start)
        ends = [each for each in (fault.reset_after, fault.close_after) if each is not None] if fault else []
        end = min(ends, default=None)
        stall = fault.stall_after if fault else None
        own = Pacer(self.server.host.limit(record.label) if answer.blob else None)
        paced = (self.server.host.total, own) if answer.blob else ()
        most = fault.drip_bytes if fault is not None and fault.drip_bytes else MIB
        for piece in pieces:
            if record.sent == end:
                break
            at = 0
            while at < len(piece) and record.sent != end:
                if record.sent == stall and fault is not None:
                    self._wait(fault, fault.stall_s)
                    stall = None
                step = min(len(piece) - at, _step(paced), most)
                for boundary in (end, stall):
                    if boundary is not None and boundary > record.sent:
                        step = min(step, boundary - record.sent)
                wait = max((pacer.book(step) for pacer in paced), default=0.0)
                if fault is not None and fault.drip_bytes and record.sent:
                    wait += fault.drip_s
                if (wait and self.closing.wait(wait)) or self.closing.is_set():
                    raise ConnectionAbortedError
                # Counted first: whoever has the last byte finds it in the log.
                record.sent += step
                record.file_bytes += step if answer.blob else 0
                self.connection.sendall(piece[at : at + step])
                at += step
        if fault is not None and record.sent == end:
            if fault.reset_after == end:
                self._reset()
            self.close_connection = True

    def _wait(self, fault: Fault, seconds: float | None) -> None:
        """Stand still until the rule is released, the time is over (None: never), or either side goes away."""
        until = None if seconds is None else time.monotonic() + seconds
        fault.stalled.set()
        while not fault.released.wait(0.02) and (until is None or time.monotonic() < until):
            if self.closing.is_set() or _gone(self.connection):
                raise ConnectionAbortedError

    def _reset(self) -> None:
        _drain(self.connection)
        # Sent as RST by the `close()` at the end of `Listener._serve`, once the reader's hold on the socket is gone.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close_connection = True
        raise ConnectionAbortedError

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            self.rfile.close()


def _spoil(answer: Answer, fault: Fault) -> Answer:
    if fault.ignore_range and answer.blob and answer.status == 206:
        headers = {name: value for name, value in answer.headers.items() if name != "Content-Range"}
        answer = Answer(200, headers, blob=answer.blob, stop=answer.blob.size)
    if fault.expired:
        return Answer(403, {"Content-Type": "application/xml"}, EXPIRED)
    if fault.json and answer.body and "json" in answer.headers.get("Content-Type", ""):
        told = json.loads(answer.body)
        for way, word in fault.json.items():
            retold(told, way, word)
        answer = Answer(answer.status, answer.headers, json.dumps(told).encode())
    if fault.status is not None:
        answer = Answer(fault.status, {"Content-Type": "application/json"}, fault.body or b'{"error":"on purpose"}')
    return answer


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def _step(pacers: Iterable[Pacer]) -> int:
    """Bytes to send at once: small enough that a throttled stream moves about twenty times a second."""
    limits = [pacer.bps for pacer in pacers if pacer.bps]
    return max(min(int(min(limits) / 20), MIB), 1) if limits else MIB


def _flipped(pieces: Iterator[memoryview], offset: int) -> Iterator[memoryview]:
    for piece in pieces:
        if 0 <= offset < len(piece):
            changed = bytearray(piece)
            changed[offset] ^= 1
            piece = memoryview(changed)
        offset -= len(piece)
        yield piece


def _drain(connection: socket.socket) -> None:
    """Wait until the other side's kernel has what was sent: a reset throws away the rest."""
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        waiting = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        if not waiting:
            return
        time.sleep(0.001)


def _abort(connection: socket.socket) -> None:
    """Cut a connection off from another thread: its own thread wakes up, and closing then sends RST."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is gone already


def _gone(connection: socket.socket) -> bool:
    """True once the other side has closed."""
    ready, _, _ = select.select([connection], [], [], 0)
    return bool(ready) and connection.recv(1, socket.MSG_PEEK) == b""
