"""Frames no faster than the terminal shows them, told by its answers to a status query behind each frame.

Pty, sshd and TCP take megabytes before they push back: five quick pages on a link of 50 kbit/s are seconds of frames
nobody wants any more. So on a slow link the next frame waits until the last one has arrived; what changes meanwhile is
merged into it. A terminal that never answers is never waited for, and soon not asked any more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

QUERY = "\x1b[5n"
"""Device status report; the answer is `ANSWER`, or ends in `3n` when something is wrong."""
ANSWERS = frozenset({"\x1b[0n", "\x1b[3n"})

WINDOW_BYTES = 1000
"""On their way at most before the next frame has to wait: an echo and the list that follows it go together."""
FAST_S = 0.03
"""A terminal that usually answers sooner is not waited for within this time."""
SLOW_S, QUICK_S = 0.12, 0.06
"""All of the last answers took longer: the link is slow. One took less: it is not any more."""
LATEST_S = 2.0
"""An answer that takes this long, or four times as long as usual, will not come."""
PROBE_S, PROBES = 10.0, 3
"""A terminal that has not answered so many queries within this time does not answer queries."""
_REMEMBERED = 4


class Pace:
    """When the next frame may go. Answers come from the input thread, everything else from the event loop.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._in_flight: deque[tuple[float, int]] = deque()
        """Frames behind which no answer has come yet: when they were written, and their bytes."""
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._lost = 0
        self._unasked = 0
        """Bytes of frames behind which nobody asked, because the last answer came at once."""
        self.answers = False
        """The terminal has answered at least once."""
        self.silent = False
        """It does not answer: it is not asked."""
        self.slow = False
        """Answers take long: spare the link."""

    @property
    def waiting(self) -> bool:
        """Whether an answer may still come."""
        return bool(self._in_flight)

    @property
    def usual_s(self) -> float:
        """How long the last answers took at least."""
        return min(self._took, default=0.0)

    def sent(self, count: int) -> str:
        """Note a frame of `count` bytes; return the query to write behind it, "" for none."""
        with self._lock:
            now = self._clock()
            self._forget_lost(now)
            if self.silent or (not self.answers and len(self._in_flight) >= PROBES):
                return ""
            self._unasked += count
            if self._took and self._took[-1] < FAST_S and self._unasked < WINDOW_BYTES:
                return ""  # an answer is one more thing to wake up for
            self._in_flight.append((now, self._unasked))
            self._unasked = 0
            return QUERY

    def answered(self) -> None:
        """The terminal has shown the oldest frame that is on its way."""
        with self._lock:
            self.answers, self.silent, self._lost = True, False, 0
            if not self._in_flight:
                return
            took_s = self._clock() - self._in_flight.popleft()[0]
            self._took.append(took_s)
            if took_s < QUICK_S:
                self.slow = False
            elif len(self._took) == _REMEMBERED and min(self._took) > SLOW_S:
                self.slow = True

    def wait_s(self) -> float:
        """Seconds the next frame should wait for an answer at most; 0 if it may go now."""
        with self._lock:
            now = self._clock()
            self._forget_lost(now)
            if not self.answers or not self._in_flight:
                return 0.0
            age_s = now - self._in_flight[0][0]
            if self.usual_s < FAST_S and age_s < FAST_S:
                return 0.0
            if sum(count for _, count in self._in_flight) < WINDOW_BYTES:
                return 0.0
            return max(self._latest_s - age_s, 0.001)

    @property
    def _latest_s(self) -> float:
        return max(LATEST_S, 4 * self.usual_s) if self.answers else PROBE_S

    def _forget_lost(self, now: float) -> None:
        """Give up on answers that are overdue: a terminal multiplexer that moved to another terminal lost them."""
        if self._in_flight and now - self._in_flight[0][0] > self._latest_s:
            self._in_flight.clear()
            self._lost += 1
            self.silent = not self.answers or self._lost >= PROBES
