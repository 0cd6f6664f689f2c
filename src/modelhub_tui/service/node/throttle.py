"""A bandwidth cap that all transfers of one node share, changeable while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SLICE_S = 0.1
"""A changed cap is noticed after this long, and what is read at once is not worth more than this."""
_LEAST_BLOCK_BYTES = 512


class Throttle:
    """Bytes per second for everybody together. Thread-safe.

    Bytes are paid for after they were read: whoever is in debt waits before reading on, and meanwhile TCP slows the
    sender down.
    """

    def __init__(self, bytes_per_s: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """0 means no limit."""
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = max(float(bytes_per_s), 0.0)
        self._owed = 0.0
        self._at = clock()

    @property
    def bytes_per_s(self) -> float:
        """The cap in force; 0 means none."""
        return self._rate

    def set(self, bytes_per_s: float) -> None:
        """Change the cap, also for who waits now; 0 lifts it. Debts are forgiven: they were made at another speed."""
        with self._lock:
            self._rate = max(float(bytes_per_s), 0.0)
            self._owed, self._at = 0.0, self._clock()

    def block(self, most: int) -> int:
        """How many bytes to read at once, at most `most`: so few that a low cap still moves smoothly."""
        rate = self._rate
        return most if not rate else max(min(most, int(rate * _SLICE_S)), min(most, _LEAST_BLOCK_BYTES))

    def spend(self, count: int, stop: threading.Event) -> None:
        """Pay for `count` bytes; waits while there is a debt, but never longer than until `stop` is set."""
        if not self._rate:
            return
        with self._lock:
            self._settle()
            self._owed += count
        while not stop.is_set():
            with self._lock:
                self._settle()
                if not self._rate or self._owed < 1:  # less than a byte: no wait is that short
                    return
                wait_s = min(self._owed / self._rate, _SLICE_S)
            stop.wait(wait_s)

    def _settle(self) -> None:
        """Let the time that has passed pay off debts. What is not used of it is lost, but for one slice."""
        now = self._clock()
        self._owed = max(self._owed - (now - self._at) * self._rate, -self._rate * _SLICE_S)
        self._at = now
