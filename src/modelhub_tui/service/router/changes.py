"""Tell waiting readers that something changed, at most a few times a second."""

from __future__ import annotations

import asyncio

ANNOUNCE_GAP_S = 0.25
"""Shortest time between two announcements: a fleet that moves all the time wakes its readers four times a second."""


class Changes:
    """A counter of changes, and a bell that rings for them. Used on the event loop only."""

    def __init__(self, gap_s: float = ANNOUNCE_GAP_S) -> None:
        self.revision = 0
        """Grows with every change, announced or not; what was built at this number is still right at this number."""
        self.closed = False
        self.waiting = 0
        """How many readers wait right now."""
        self._gap_s = gap_s
        self._bell = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._rang_at = float("-inf")

    @property
    def pending(self) -> bool:
        """True between a change and its announcement."""
        return self._timer is not None

    def touch(self) -> None:
        """Note a change; announce it now, or when the gap since the last announcement is over."""
        self.revision += 1
        if self._timer is None and not self.closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._rang_at + self._gap_s), self._ring)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next announcement; False when none came in time or the service is stopping."""
        if self.closed:
            return False
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._bell.wait()
        except TimeoutError:
            return False
        finally:
            self.waiting -= 1
        return not self.closed

    def close(self) -> None:
        """Send every waiting reader home, now and from now on."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._bell.set()

    def _ring(self) -> None:
        self._timer = None
        self._rang_at = asyncio.get_running_loop().time()
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
