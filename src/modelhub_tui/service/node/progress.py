"""Honest progress of one transfer: bytes that are on disk, a speed that falls to zero, an ETA only when known."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelhub_tui.domain import Phase
from modelhub_tui.service.node.faults import Fault

WINDOW_S = 5.0
_SLOT_S = 0.25


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

    def as_wire(self) -> dict[str, Any]:
        """As a heartbeat carries it (docs/wire.md)."""
        wire: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        wire["phase"] = str(self.phase)
        for name in ("bytes_per_s", "eta_s", "retry_in_s"):
            wire[name] = None if wire[name] is None else round(wire[name], 1)
        return wire


class Progress:
    """One transfer's progress: written by its worker thread, read by the heartbeat."""

    def __init__(
        self,
        name: str,
        *,
        max_attempts: int = 0,
        on_phase: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock, self._on_phase = clock, on_phase
        self._lock = threading.Lock()
        self._meter = RateMeter(clock)
        self._phase = Phase.WAITING
        self._sizes: list[int | None] = []
        self._have: list[int] = []
        self._paths: list[str] = []
        self._at = -1
        self._attempt, self._max_attempts = 0, max_attempts
        self._retry_at: float | None = None
        self._fault: Fault | None = None

    def plan(self, files: list[tuple[str, int | None, int]]) -> None:
        """Set what there is to fetch, in order: (path, size if known, bytes already there)."""
        with self._lock:
            self._paths = [path for path, _, _ in files]
            self._sizes = [size for _, size, _ in files]
            self._have = [have for _, _, have in files]
            self._at = -1

    def begin_file(self, index: int, size: int, have: int) -> None:
        """Turn to a file. `have` bytes of it are on disk already and count as done, never as speed."""
        with self._lock:
            self._at, self._sizes[index], self._have[index] = index, size, have

    def advanced(self, count: int) -> None:
        """`count` new bytes of the current file are on disk."""
        with self._lock:
            self._have[self._at] += count
            self._meter.add(count)
            if self._attempt or self._fault:
                self._attempt, self._fault, self._retry_at = 0, None, None

    def dropped_file(self) -> None:
        """The current file's bytes turned out to be wrong and are gone."""
        with self._lock:
            self._have[self._at] = 0

    def phase(
        self, phase: Phase, fault: Fault | None = None, *, attempt: int = 0, retry_in_s: float | None = None
    ) -> None:
        """Change what is going on, and tell whoever reports it."""
        with self._lock:
            changed = phase is not self._phase or fault is not self._fault
            if phase is Phase.FETCHING and self._phase is not Phase.FETCHING:
                self._meter.start()
            if phase is not Phase.FETCHING or fault is not None:
                self._fault = fault
                self._attempt = attempt
            self._phase = phase
            self._retry_at = None if retry_in_s is None else self._clock() + retry_in_s
        if changed:
            self._on_phase()

    def missing_bytes(self) -> int:
        """Bytes still to be written, of the files whose size is known."""
        with self._lock:
            return sum(max((size or 0) - have, 0) for size, have in zip(self._sizes, self._have, strict=True))

    def snapshot(self) -> Snapshot:
        with self._lock:
            moving = self._phase is Phase.FETCHING
            rate = self._meter.rate() if moving else None
            total = None if not self._sizes or None in self._sizes else sum(size or 0 for size in self._sizes)
            done = sum(self._have)
            eta = (total - done) / rate if total is not None and rate and rate > 0 else None
            return Snapshot(
                name=self.name,
                phase=self._phase,
                bytes_done=done,
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
            )
