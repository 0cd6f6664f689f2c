"""Honest progress of one transfer: bytes that are on disk, a speed that falls to zero, an ETA only when known.

`bytes_done` counts what is durably on disk, or has once been: when bytes turn out to be lost or wrong and are fetched
again, it waits for them to catch up, and `refetched_bytes` counts them. So a total never goes backwards, and nobody is
told that nothing happens either. ETA and disk plan count what is really there; so does `bytes_done` once a transfer has
failed, when nothing is to catch up any more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from modelhub_tui.domain import Phase
from modelhub_tui.service.node.faults import Fault
from modelhub_tui.service.node.totals import Totals
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass

WINDOW_S = 5.0
STALLED_S = 3.0
"""No byte for this long is worth telling."""
MAX_EVENTS = 10
_SLOT_S = 0.25

History = tuple[tuple[float, str], ...]
"""(seconds since the epoch, sentence), the oldest first, at most `MAX_EVENTS`."""


class RateMeter:
    """Bytes per second over a moving window. Not thread-safe; its owner locks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, window_s: float = WINDOW_S) -> None:
        self._clock, self._window_s = clock, window_s
        self._slots: deque[tuple[float, int]] = deque()
        """(end of the slot, bytes in it): a slot a quarter of a second long keeps the deque short at any speed."""
        self._since: float | None = None

    def start(self) -> None:
        """Measure from now on: time spent before (waiting, retrying) is no part of the speed."""
        self._slots.clear()
        self._since = self._clock()

    def add(self, count: int) -> None:
        now = self._clock()
        if self._since is None:
            self._since = now
        if self._slots and now - self._slots[-1][0] < _SLOT_S:
            at, have = self._slots[-1]
            self._slots[-1] = (at, have + count)
        else:
            self._slots.append((now, count))

    def rate(self) -> float | None:
        """Bytes per second; None before there is half a second to judge by; 0 after a window without a byte."""
        if self._since is None:
            return None
        now = self._clock()
        while self._slots and self._slots[0][0] < now - self._window_s:
            self._slots.popleft()
        span = min(now - self._since, self._window_s)
        if span < 0.5:
            return None
        return sum(count for _, count in self._slots) / span


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A transfer at one moment."""

    name: str
    phase: Phase
    bytes_done: int
    bytes_total: int | None
    bytes_per_s: float | None
    eta_s: float | None
    file: str | None
    file_index: int
    file_count: int
    attempt: int
    max_attempts: int
    retry_in_s: float | None
    error: str | None
    error_code: str | None
    stalled_s: float | None
    refetched_bytes: int
    history: History

    def as_wire(self) -> dict[str, Any]:
        """As a heartbeat carries it (docs/wire.md)."""
        wire: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        wire["phase"] = str(self.phase)
        wire["history"] = [{"at": at, "what": what} for at, what in self.history]
        for name in ("bytes_per_s", "eta_s", "retry_in_s"):
            wire[name] = None if wire[name] is None else round(wire[name], 1)
        if self.stalled_s is not None:
            wire["stalled_s"] = float(int(self.stalled_s))  # whole seconds: a stall alone is reported once a second
        return wire


class Progress:
    """One transfer's progress: written by its worker threads, read by the heartbeat."""

    def __init__(
        self,
        name: str,
        *,
        max_attempts: int = 0,
        history: History = (),
        on_phase: Callable[[], None] = lambda: None,
        totals: Totals | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_phase` is called from whichever thread changes the phase; so is `on_event`, with the new history.

        `totals` counts for the whole node.
        """
        self._totals = totals or Totals()
        self.name = name
        self.on_event: Callable[[History], None] = lambda _history: None
        self._clock, self._wall_clock, self._on_phase = clock, wall_clock, on_phase
        self._lock = threading.Lock()
        self._meter = RateMeter(clock)
        self._phase = Phase.WAITING
        self._sizes: list[int | None] = []
        self._have: list[int] = []
        self._reached: list[int] = []
        """The most that was ever there of each file."""
        self._refetched = 0
        self._paths: list[str] = []
        self._at = -1
        self._attempt, self._max_attempts = 0, max_attempts
        self._retry_at: float | None = None
        self._fault: Fault | None = None
        self._last_byte_at: float | None = None
        """When bytes last arrived, or fetching began; None while nothing is to arrive."""
        self._history = history
        self._retries: tuple[str, int] = ("", 0)
        """What the last event was about, if it was a retry, and how often in a row."""

    def plan(self, files: list[tuple[str, int | None, int]]) -> None:
        """Set what there is to fetch, in order: (path, size if known, bytes already there)."""
        with self._lock:
            reached = dict(zip(self._paths, self._reached, strict=True))
            self._paths = [path for path, _, _ in files]
            self._sizes = [size for _, size, _ in files]
            self._have = [have for _, _, have in files]
            self._reached = [max(have, reached.get(path, 0)) for path, _, have in files]
            self._at = -1

    def start_over(self) -> None:
        """The name stands for other files now, or all was lost: what was once there counts no more."""
        with self._lock:
            self._paths, self._sizes, self._have, self._reached = [], [], [], []
            self._at, self._refetched = -1, 0

    def begin_file(self, index: int, size: int, have: int) -> None:
        """Turn to a file, perhaps beside others. `have` bytes of it are on disk already: done, but never speed."""
        with self._lock:
            self._at, self._sizes[index], self._have[index] = index, size, have
            self._reached[index] = min(max(self._reached[index], have), size)

    def advanced(self, index: int, count: int) -> None:
        """`count` new bytes of a file are on disk."""
        with self._lock:
            before, reached = self._have[index], self._reached[index]
            self._have[index] = now = before + count
            again = max(min(now, reached) - before, 0)
            self._refetched += again
            self._reached[index] = max(now, reached)
            self._meter.add(count)
            if count:
                self._last_byte_at = self._clock()
            if self._attempt or self._fault:
                self._attempt, self._fault, self._retry_at = 0, None, None
        self._totals.fetched(count, again_bytes=again)

    def verified(self, index: int) -> None:
        """A file is whole, and its checksum is right."""
        with self._lock:
            size = self._sizes[index] or 0
        self._totals.verified(size)

    def dropped_file(self, index: int) -> None:
        """A file's bytes turned out to be wrong and are gone; they are to be fetched again."""
        with self._lock:
            self._have[index] = 0
            path = self._paths[index]
        self._totals.retried("checksum")
        self.note(f"{path} was damaged: all of it has to be fetched again.")

    def phase(
        self, phase: Phase, fault: Fault | None = None, *, attempt: int = 0, retry_in_s: float | None = None
    ) -> None:
        """Change what is going on, and tell whoever reports it."""
        with self._lock:
            changed = phase is not self._phase or fault is not self._fault
            if phase is Phase.FETCHING:
                if self._phase is not Phase.FETCHING:
                    self._meter.start()
                if self._last_byte_at is None:
                    self._last_byte_at = self._clock()
            elif phase is not Phase.RETRYING:
                self._last_byte_at = None
            if phase is Phase.FAILED:
                self._reached = [*self._have]
            if phase is not Phase.FETCHING or fault is not None:
                self._fault = fault
                self._attempt = attempt
            self._phase = phase
            self._retry_at = None if retry_in_s is None else self._clock() + retry_in_s
        if fault is not None and phase is Phase.RETRYING:
            self._totals.retried(fault.code)
        if changed and fault is not None and phase in (Phase.RETRYING, Phase.FAILED):
            self._note_fault(fault, retried=phase is Phase.RETRYING)
        elif changed and fault is not None and phase is Phase.WAITING and retry_in_s is not None:
            self.note(f"Waits for the line: {fault}")
        if changed:
            self._on_phase()

    def note(self, what: str) -> None:
        """Add an event to the history; a sentence."""
        with self._lock:
            self._retries = ("", 0)
            history = self._append(what)
        self.on_event(history)

    def _note_fault(self, fault: Fault, *, retried: bool) -> None:
        """A bad line may break a hundred times: one cause in a row is one event, with a count."""
        with self._lock:
            code, times = self._retries
            again = retried and code == fault.code
            times = times + 1 if again else 1
            at = human_size(sum(self._reached))
            how_often = f"{times} times, last at {at}" if times > 1 else f"at {at}"
            self._retries = (fault.code, times) if retried else ("", 0)
            if again:
                self._history = self._history[:-1]
            history = self._append(f"{fault.sentence} Tried again {how_often}." if retried else f"Failed: {fault}")
        self.on_event(history)

    def _append(self, what: str) -> History:
        self._history = (*self._history, (round(self._wall_clock(), 3), what))[-MAX_EVENTS:]
        return self._history

    def missing_bytes(self) -> int:
        """Bytes still to be written, of the files whose size is known."""
        with self._lock:
            return self._missing()

    def _missing(self) -> int:
        return sum(max((size or 0) - have, 0) for size, have in zip(self._sizes, self._have, strict=True))

    @property
    def bytes_done(self) -> int:
        """As in a snapshot."""
        with self._lock:
            return sum(self._reached)

    @property
    def current_phase(self) -> Phase:
        """As in a snapshot."""
        return self._phase

    @property
    def fault_code(self) -> str | None:
        """As `error_code` in a snapshot."""
        fault = self._fault
        return fault.code if fault else None

    @property
    def history(self) -> History:
        """What has happened to this transfer."""
        return self._history

    def snapshot(self) -> Snapshot:
        """Everything about it at this moment."""
        with self._lock:
            moving = self._phase is Phase.FETCHING
            rate = self._meter.rate() if moving else None
            total = None if not self._sizes or None in self._sizes else sum(size or 0 for size in self._sizes)
            eta = self._missing() / rate if total is not None and rate else None
            silent_s = 0.0 if self._last_byte_at is None else self._clock() - self._last_byte_at
            return Snapshot(
                name=self.name,
                phase=self._phase,
                bytes_done=sum(self._reached),
                bytes_total=total,
                bytes_per_s=rate,
                eta_s=eta,
                file=self._paths[self._at] if 0 <= self._at < len(self._paths) else None,
                file_index=self._at + 1,
                file_count=len(self._paths),
                attempt=self._attempt,
                max_attempts=self._max_attempts,
                retry_in_s=None if self._retry_at is None else max(self._retry_at - self._clock(), 0.0),
                error=self._fault.sentence if self._fault else None,
                error_code=self._fault.code if self._fault else None,
                stalled_s=silent_s if silent_s >= STALLED_S else None,
                refetched_bytes=self._refetched,
                history=self._history,
            )
