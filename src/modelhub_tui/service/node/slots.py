"""The queue: who may transfer now, and who is next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """A limited number of places, given to the waiting in their own order (not in the order of asking)."""

    def __init__(self, count: int) -> None:
        self._free = max(1, count)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ties = itertools.count()

    @asynccontextmanager
    async def hold(self, order: int) -> AsyncIterator[None]:
        """Wait for a place and keep it; a lower `order` goes first."""
        await self._acquire(order)
        try:
            yield
        finally:
            self._free += 1
            self._hand_out()

    async def _acquire(self, order: int) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (order, next(self._ties), place))
        self._hand_out()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # Given and cancelled in the same moment: somebody else's turn.
                self._free += 1
                self._hand_out()
            raise

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            _, _, place = heapq.heappop(self._waiting)
            if not place.done():
                self._free -= 1
                place.set_result(None)
