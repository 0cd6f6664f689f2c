"""One file over several connections: each fetches a range of its own into the part, and more are added while it helps.

Links that are slow for each connection are common (a CDN's limit, a long way); others gain nothing, and there one
connection costs least. So it begins with one, and the speed decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import field
from urllib.parse import urlsplit

from modelhub_tui.service.node import faults
from modelhub_tui.service.node.asking import WriteFailed, bytes_to_skip, lost, open_range
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.part import Flusher, Part
from modelhub_tui.service.node.throttle import Throttle
from modelhub_tui.service.node.transport import BadHTTP, Body, Transport
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

BLOCK_BYTES = 512 * 1024
_LEAST_RUN_BYTES = 8 * 1024 * 1024
_MOST_RUN_BYTES = 48 * 1024 * 1024
_ROOM_CHECK_BYTES = 64 * 1024 * 1024
_FLUSH_S = 1.0
_LOOK_S = 0.05
_SETTLED_S = 30.0
_TAKE_OVER_S = 4.0


class RangeIgnored(Exception):
    """The server sends the whole file whatever it is asked for: several connections are of no use."""


@dataclass(slots=True, eq=False)
class _Run:
    """A stretch of the file that one connection is at."""

    at: int
    end: int
    """May be lowered by another connection that has nothing left to do."""
    began: float = 0.0
    began_at: int = 0

    def left_s(self, now: float) -> float:
        """Seconds until it is done at its speed so far; infinite while there is none."""
        done = self.at - self.began_at
        return (now - self.began) * (self.end - self.at) / done if done > 0 else float("inf")


@dataclass(slots=True, eq=False)
class _Line:
    """One connection and its thread."""

    transport: Transport
    run: _Run | None = None
    moving: bool = False
    """Bytes of its first answer have arrived."""
    writing: threading.Lock = field(default_factory=threading.Lock)
    """Held while it writes: nobody closes the file under it."""


class Lines:
    """How many connections are worth it, learned from the speed; kept from one file to the next."""

    STEPS = (1, 4, 8)
    GAIN = 1.2
    """A step up stays when everything together is this much faster."""
    FIRST_WINDOW_S, WINDOW_S = 0.1, 0.2
    """How long to look before the first step, which is cheap to take back, and before each later one."""

    def __init__(self, most: int, fast_bps: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`most` connections at any time. From `fast_bps` on one is enough: the processor is the limit then."""
        self._most, self._fast_bps, self._clock = max(1, most), fast_bps, clock
        self.wanted = 1
        self._before: tuple[int, float] | None = None
        """Connections and bytes per second before the step that is being tried."""
        self._settled_until = 0.0
        self._from: tuple[float, int] | None = None
        self._hold_until = 0.0

    def begin(self) -> None:
        """A new file, or a new try at one: what was learned stays, the window starts anew."""
        self._from = None

    def slow_down(self, pause_s: float) -> None:
        """The server asked for fewer requests."""
        self._most = self.wanted = max(1, self.wanted // 2)
        self._before, self._settled_until = None, float("inf")
        self._hold_until = self._clock() + pause_s

    def pause_s(self) -> float:
        """How long no request may be made, in seconds."""
        return max(self._hold_until - self._clock(), 0.0)

    def expected(self) -> int:
        """For how many connections to share out the work: while that is being tried out, for the most there can be."""
        return self.wanted if self._clock() < self._settled_until else self._most

    def watch(self, moving: int, done_bytes: int) -> None:
        """Look at the speed: `moving` connections have brought their first byte, `done_bytes` are there by now."""
        now = self._clock()
        if now < self._settled_until or moving < min(self.wanted, self._most):
            self._from = None
            return
        if self._from is None:
            self._from = (now, done_bytes)
            return
        took = now - self._from[0]
        if took < (self.WINDOW_S if self.wanted > 1 else self.FIRST_WINDOW_S):
            return
        rate, self._from = (done_bytes - self._from[1]) / took, None
        if self._before is not None and rate < self._before[1] * self.GAIN:
            self.wanted = self._before[0]
            self._settle(now)
            return
        more = next((step for step in self.STEPS if step > self.wanted), 0)
        if not more or self.wanted >= self._most or rate >= self._fast_bps:
            self._settle(now)
            return
        self._before = (self.wanted, rate)
        self.wanted = min(more, self._most)

    def _settle(self, now: float) -> None:
        self._before, self._settled_until = None, now + _SETTLED_S


class Ranges:
    """Fetches what is missing of a split part. One use; `run()` blocks in the transfer's own thread."""

    def __init__(
        self,
        part: Part,
        url: str,
        *,
        hub: Hub,
        transport: Transport,
        lines: Lines,
        throttle: Throttle,
        tuning: Tuning,
        stop: threading.Event,
        on_bytes: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        """`on_bytes` is told of new bytes, from any thread; `check` may raise, and is called every 64 MiB."""
        self._part, self._url, self._hub, self._transport = part, url, hub, transport
        self._lines, self._throttle, self._tuning = lines, throttle, tuning
        self._stop, self._on_bytes, self._check = stop, on_bytes, check
        self._host = urlsplit(url).netloc
        self._lock = threading.Lock()
        self._changed = threading.Event()
        """A connection ended."""
        self._closing = threading.Event()
        self._open: list[_Line] = []
        self._free = [_Run(start, end) for start, end in part.split().gaps()]
        self._error: BaseException | None = None
        """Ends everything."""
        self._fault: faults.Fault | None = None
        """Ended one connection; the others go on."""
        self._again_at = 0.0

    def run(self) -> None:
        """Return when the part is whole.

        Raises:
            Fault: No connection is left.
            RangeIgnored, Expired, Stopped: As their names say.
            OSError: The disk said no.
        """
        self._lines.begin()
        checked = self._part.have
        flusher = threading.Thread(target=self._flush, args=(self._part.flusher(),), name="flush", daemon=True)
        flusher.start()
        try:
            while self._part.have < self._part.size:
                self._staff()
                self._changed.wait(_LOOK_S)
                self._changed.clear()
                if self._stop.is_set():
                    raise faults.Stopped
                if self._error is not None:
                    raise self._error
                if self._part.have - checked >= _ROOM_CHECK_BYTES:
                    checked = self._part.have
                    self._check()
                self._lines.watch(sum(line.moving for line in self._open), self._part.have)
        finally:
            self._close()

    def _staff(self) -> None:
        """Open connections up to what is wanted. Raises the fault that ended the last one."""
        with self._lock:
            alive = len(self._open)
            fault, work = self._fault, self._has_work()
        if self._error is not None:
            return
        if fault is not None and not alive:
            raise fault
        now = time.monotonic()
        # One that was lost is tried again after a pause, while others show that the link works.
        if fault is not None and now < self._again_at:
            return
        if self._lines.pause_s() and alive:
            return
        self._fault = None
        while work and alive < self._lines.wanted:
            line = _Line(self._transport.another())
            with self._lock:
                self._open.append(line)
            threading.Thread(target=self._work, args=(line,), name=f"range {alive}", daemon=True).start()
            alive += 1

    def _has_work(self) -> bool:
        return bool(self._free) or any(self._stealable(line.run) for line in self._open)

    def _work(self, line: _Line) -> None:
        """One connection's life."""
        buffer = memoryview(bytearray(BLOCK_BYTES))
        try:
            while (run := self._next(line)) is not None:
                self._fetch(line, run, buffer)
        except faults.Fault as fault:
            if fault.passing and fault.code != "no_space":
                self._lost_one(fault)
            else:
                self._error = self._error or fault
        except BaseException as error:
            if not isinstance(error, faults.Stopped):
                self._error = self._error or error
        finally:
            line.transport.close()
            with self._lock:
                if line.run is not None and line.run.at < line.run.end:
                    self._free.append(line.run)
                    self._free.sort(key=lambda run: run.at)
                line.run = None
                self._open.remove(line)
            self._changed.set()

    def _lost_one(self, fault: faults.Fault) -> None:
        log.info("%s: a connection is lost: %s", self._host, fault)
        with self._lock:
            if fault.code == "rate_limited":
                self._lines.slow_down(min(fault.retry_after_s or 0.0, self._tuning.retry_after_cap_s))
            self._fault = fault
            self._again_at = time.monotonic() + self._tuning.backoff_base_s

    def _next(self, line: _Line) -> _Run | None:
        """The next stretch for a connection; None when there is no more, or it is one too many."""
        with self._lock:
            line.run = None
            if self._closing.is_set() or (len(self._open) > self._lines.wanted) or self._lines.pause_s():
                return None
            line.run = run = self._from_front() if self._free else self._from_slowest()
            if run is not None:
                run.began, run.began_at = time.monotonic(), run.at
            return run

    def _from_front(self) -> _Run:
        """The first missing stretch: long while there is much to do, so that few requests are made; short at the end,
        so that all end together, and always from the front, so that the checksum is never far behind."""
        chunk = self._part.split().chunk_bytes
        left = sum(run.end - run.at for run in self._free)
        most = min(max(int(left / (1.33 * self._lines.expected())), _LEAST_RUN_BYTES), _MOST_RUN_BYTES)
        first = self._free[0]
        end = max((first.at + most) // chunk, first.at // chunk + 1) * chunk
        if end >= first.end:
            return self._free.pop(0)
        self._free[0] = _Run(end, first.end)
        return _Run(first.at, end)

    def _stealable(self, run: _Run | None) -> bool:
        """Whether a connection is so slow that another should take over the chunks that it has not begun.

        What is on its way to it is then sent for nothing, so it must be worth it.
        """
        if run is None or run.end - run.at <= 2 * self._part.split().chunk_bytes:
            return False
        now = time.monotonic()
        return now - run.began >= _TAKE_OVER_S / 2 and run.left_s(now) >= _TAKE_OVER_S

    def _from_slowest(self) -> _Run | None:
        """Half of what the connection with most to do has not begun; well ahead of what it may be writing now."""
        runs = [line.run for line in self._open if line.run is not None and self._stealable(line.run)]
        if not runs:
            return None
        chunk = self._part.split().chunk_bytes
        most = max(runs, key=lambda run: run.end - run.at)
        middle = ((most.at + most.end) // 2 + chunk - 1) // chunk * chunk
        if middle >= most.end:
            return None
        taken = _Run(middle, most.end)
        most.end = middle
        return taken

    def _fetch(self, line: _Line, run: _Run, buffer: memoryview) -> None:
        """One request."""
        body: Body | None = None
        try:
            body = open_range(line.transport, self._hub, self._url, run.at, run.end)
            if bytes_to_skip(body, run.at, self._part.size, self._host, self._part.name) or body.status == 200:
                raise RangeIgnored
            since, since_at = time.monotonic(), run.at
            while run.at < run.end:
                count = body.read_into(buffer[: min(self._throttle.block(BLOCK_BYTES), run.end - run.at)])
                if not count:
                    raise faults.connection_lost(self._host, f"it ended {run.end - run.at} bytes too early")
                self._write(line, run, buffer[: min(count, run.end - run.at)])
                self._throttle.spend(count, self._stop)
                now = time.monotonic()
                if now - since > 4 * self._tuning.stall_s:
                    if run.at - since_at < self._tuning.slow_bytes and not self._throttle.bytes_per_s:
                        raise faults.stalled(self._host, now - since)
                    since, since_at = now, run.at
        except TimeoutError as error:
            self._raise_if_over()
            raise faults.stalled(self._host, self._tuning.stall_s) from error
        except WriteFailed as error:
            raise error.error from error
        except (OSError, BadHTTP) as error:
            self._raise_if_over()
            raise lost(self._host, error) from error
        finally:
            if body is not None:
                body.close()

    def _write(self, line: _Line, run: _Run, data: memoryview) -> None:
        while data:
            with line.writing:
                self._raise_if_over()
                try:
                    count = self._part.put(data, run.at)
                except OSError as error:
                    raise WriteFailed(error) from error
                run.at += count
                self._on_bytes(count)
            data = data[count:]
        line.moving = True

    def _raise_if_over(self) -> None:
        if self._stop.is_set() or self._closing.is_set():
            raise faults.Stopped

    def _flush(self, flusher: Flusher) -> None:
        """Make bytes last, once in a while, in a thread of its own: it may block."""
        try:
            while not self._closing.wait(_FLUSH_S):
                flusher.flush()
        except OSError as error:
            self._error = self._error or error
            self._changed.set()
        finally:
            flusher.close()

    def _close(self) -> None:
        """End all connections. A thread that still waits for an answer ends later, and writes nothing any more."""
        self._closing.set()
        with self._lock:
            lines = [*self._open]
        for line in lines:
            line.transport.abort()
            with line.writing:
                pass
