"""The queue: who may transfer now, and who is next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Any

from modelhub_tui.values import dataclass


@dataclass(slots=True, eq=False)
class _Ticket:
    """Somebody who has a place, or waits for one."""

    order: Callable[[], Any]
    give_up: Callable[[], None]
    place: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    leaving: bool = False
    """Has been asked to give its place up."""


class Slots:
    """A changeable number of places, given to the waiting in their own order (not in the order of asking)."""

    def __init__(self, count: int) -> None:
        self._count = max(1, count)
        self._waiting: list[_Ticket] = []
        self._inside: list[_Ticket] = []

    @asynccontextmanager
    async def hold(
        self, order: Callable[[], Any], give_up: Callable[[], None] = lambda: None, *, push: bool = False
    ) -> AsyncIterator[None]:
        """Wait for a place and keep it.

        Args:
            order: Says what place in the queue this has now; a smaller value goes first.
            give_up: Called when the place is to be left to somebody else; leave it soon.
            push: Take the place of somebody who is behind in the queue, if need be.
        """
        ticket = _Ticket(order, give_up)
        self._waiting.append(ticket)
        if push:
            self.rearrange()
        else:
            self._hand_out()
        try:
            await ticket.place
            yield
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                self._inside.remove(ticket)
                self._hand_out()

    def resize(self, count: int) -> None:
        """Change the number of places: new ones are given out at once, the last in the queue leave theirs."""
        self._count = max(1, count)
        self.rearrange()

    def rearrange(self) -> None:
        """Enforce the order also on those that have a place: who has fallen behind leaves it to who is first now.

        Not done by itself: somebody who looks in again and again (for room on the disk) must not push others out.
        """
        staying = [each for each in self._inside if not each.leaving]
        entitled = sorted([*staying, *self._waiting], key=lambda each: each.order())[: self._count]
        for ticket in staying:
            if ticket not in entitled:
                ticket.leaving = True
                ticket.give_up()
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and len(self._inside) < self._count:
            ticket = min(self._waiting, key=lambda each: each.order())
            self._waiting.remove(ticket)
            self._inside.append(ticket)
            if not ticket.place.done():
                ticket.place.set_result(None)
