"""Follow the fleet until a command is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from modelhub_tui.cli.trouble import RouterLost
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.client.base import RouterClient
from modelhub_tui.domain import CatalogEntry, Fleet, Link
from modelhub_tui.errors import Unreachable
from modelhub_tui.watch import FleetWatcher

Connect = Callable[[], Awaitable[RouterClient]]

PATIENCE_S = 60.0
"""How long a router that went away may stay away while we wait for something."""


class Followed:
    """A router that is followed until the command is done."""

    def __init__(self, watcher: FleetWatcher, fleets: AsyncGenerator[Fleet, None], patience: Patience) -> None:
        self.watcher, self._fleets, self._patience = watcher, fleets, patience
        self.fleet = Fleet()

    async def next(self) -> Fleet:
        """The next snapshot with a live router.

        Raises:
            ModelHubError: It refuses, or stays away for a minute.
        """
        why = self._patience.why
        try:
            async with asyncio.timeout(None) as limit:
                async for fleet in self._fleets:
                    self.fleet = fleet
                    if fleet.connection.link is Link.LIVE:
                        return fleet
                    if fleet.connection.link is Link.REFUSED:
                        raise self.watcher.problem or Unreachable()
                    self._patience.why = f"{fleet.connection.problem} Trying again."
                    if limit.when() is None:
                        limit.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
        except TimeoutError:
            raise RouterLost(fleet.router.url) from self.watcher.problem
        finally:
            self._patience.why = why
        raise RouterLost(self.fleet.router.url)


@asynccontextmanager
async def follow(
    connect: Connect, catalog: tuple[CatalogEntry, ...], patience: Patience
) -> AsyncGenerator[Followed, None]:
    """Connect and follow; the first snapshot is live.

    Raises:
        ModelHubError: The router cannot be reached, or refuses.
    """
    patience.why = "Waiting for the router to answer."
    watcher = FleetWatcher(connect, catalog)
    async with aclosing(watcher.fleets()) as fleets:
        async for fleet in fleets:
            if fleet.connection.link is Link.LIVE:
                break
            if fleet.connection.link is not Link.CONNECTING:
                raise watcher.problem or Unreachable()
        patience.why = ""
        followed = Followed(watcher, fleets, patience)
        followed.fleet = fleet
        yield followed
