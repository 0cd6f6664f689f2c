"""FleetWatcher: follows a router and turns what it says into immutable snapshots of the fleet.

One request for news is in flight at a time, held open by the router until something changes, so an idle fleet costs
nothing. What a person just asked for is shown at once, on top of the last report, until a report that was *requested
later* says how it went: answers that cross never make a model flicker backwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from modelhub_tui.client.base import RouterClient
from modelhub_tui.domain import (
    CatalogEntry,
    Connection,
    Fleet,
    HubStats,
    Link,
    RouterInfo,
    RouterReport,
)
from modelhub_tui.errors import (
    Forbidden,
    ModelHubError,
    Unauthorised,
    Unforeseen,
    Unreachable,
    explain,
)
from modelhub_tui.fleet_state import FleetJoin, Intent, Intents, steady, steady_nodes
from modelhub_tui.wishes import Wishes

log = logging.getLogger(__name__)

T = TypeVar("T")

WAIT_S = 25.0
"""How long a router may hold an answer back while nothing changes."""
PACE_S = 0.25
"""Snapshots, and requests for news, are at least this far apart: four a second."""
POLL_S = 1.0
"""Pace of requests to a router that does not hold answers back."""
STATS_S = 30.0
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
UNDONE_S = 360.0
"""G1 and G2 undo a delete within five minutes; what comes back within six was not registered by somebody else."""


class StatsSource(Protocol):
    """Where hub stats come from when the router does not tell them. `hub_stats.HubStatsService` is one."""

    async def load(self, repos: Iterable[str]) -> dict[str, HubStats]:
        """Return what is known now, by lower-case repo."""
        ...

    async def refresh(self, repos: Iterable[str]) -> bool:
        """Fetch what is missing or old; True if `load()` now answers differently."""
        ...


class FleetWatcher(Wishes):
    """Follows one router.

    Args:
        connect: Makes a client; called again after every loss, and may then start a service anew.
        catalog: The supported models.
        kept: What an earlier session, or watcher, knew last; shown until the router has answered, else the catalog is.
        stats: Asked for hub stats if the router does not supply them.
        clock: Seconds since the epoch.
        monotonic: Clock for pauses and deadlines.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[RouterClient]],
        catalog: tuple[CatalogEntry, ...],
        *,
        kept: Fleet | None = None,
        stats: StatsSource | None = None,
        notices: tuple[str, ...] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._connect, self._stats = connect, stats
        self.pace_s: float | None = None
        """Seconds between two snapshots at least; None means `PACE_S`."""
        self._clock, self._monotonic, self._sleep = clock, monotonic, sleep
        self._client: RouterClient | None = None
        self._leases: Counter[RouterClient] = Counter()
        self._router = kept.router if kept else RouterInfo(label="")
        self._heard_at = kept.connection.heard_at if kept else None
        self._connection = Connection(heard_at=self._heard_at)
        self._problem: ModelHubError | None = None
        self._failures = 0
        self._report: RouterReport | None = None
        self._requests = 0
        self._told_stats: Mapping[str, HubStats] = {}
        self._joined = FleetJoin(catalog, kept.models if kept else None)
        self._models = self._joined.models
        self._nodes = kept.nodes if kept else ()
        self._unlisted = kept.unlisted if kept else 0
        self._intents = Intents()
        self._own_notices = notices
        self._undone: tuple[str, ...] = ()
        self._turns: dict[str, asyncio.Lock] = {}
        self._last: Fleet | None = None
        self._changed, self._urgent, self._wake = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def fleets(self) -> AsyncGenerator[Fleet, None]:
        """Yield a snapshot at once, and a new one whenever something changed, at most four a second.

        Models and nodes that did not change are the same objects as in the snapshot before.

        Raises:
            Exception: The following has ended by a bug; without an end here everybody would wait for ever.
        """
        if self._closed or self._tasks:
            raise RuntimeError("a FleetWatcher is followed once")
        following = asyncio.create_task(self._follow(), name="follow the router")
        following.add_done_callback(lambda _: self._changed.set())
        self._tasks = [following]
        if self._stats is not None:
            self._tasks.append(asyncio.create_task(self._follow_stats(self._stats), name="follow hub stats"))
        try:
            while not self._closed:
                self._changed.clear()
                self._urgent.clear()
                fleet = self._snapshot()
                if fleet is not self._last:
                    self._last = fleet
                    yield fleet
                    await self._unless(self._urgent, self._sleep(self.pace_s or PACE_S))
                await self._changed.wait()
                if following.done() and not self._closed:
                    following.result()
        finally:
            await self.aclose()

    @property
    def fleet(self) -> Fleet:
        """The fleet at this moment, with what was just asked for; the stream of snapshots comes to the same."""
        return self._snapshot()

    @property
    def problem(self) -> ModelHubError | None:
        """Why there is no connection; None while there is one, or before the first attempt has ended."""
        return self._problem

    def _now(self) -> float:
        return self._monotonic()

    def refresh(self) -> None:
        """Ask the router now: ends a wait for news as well as a wait before the next attempt to connect."""
        self._wake.set()

    async def aclose(self) -> None:
        """Stop following and close the connection. Downloads go on."""
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._changed.set()
        self._urgent.set()
        self._announce_link()

    # -- what people ask for ---------------------------------------------------------------------------------------

    async def _act(self, key: str, intent: Intent, work: Callable[[RouterClient], Awaitable[T]]) -> T:
        """Show an intent at once, do the work, then keep showing it until a later report tells."""
        self._intents.add(key, intent)
        self._show(urgent=True)
        try:
            async with self._turns.setdefault(key, asyncio.Lock()):  # requests about one model keep their order
                client = await self._connected()
                self._leases[client] += 1
                try:
                    return await work(client)
                finally:
                    self._leases[client] -= 1
                    if client is not self._client:
                        await self._retire(client)
        except BaseException:
            self._intents.withdraw(key, intent)
            self._show(urgent=True)
            raise
        finally:
            intent.done_at, intent.agreed_at = self._requests, self._monotonic()
            self.refresh()

    async def _connected(self) -> RouterClient:
        """The client, waiting for the first attempt to connect; raises what went wrong with the last one."""
        while self._client is None:
            if self._closed or not self._tasks:
                raise Unreachable(self._router.url)
            if self._connection.link in (Link.LOST, Link.REFUSED):
                raise self._problem or Unreachable(self._router.url)
            await self._moved.wait()
        return self._client

    # -- the router ------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Connect, listen, and start over when that fails, for ever."""
        while True:
            client: RouterClient | None = None
            try:
                client = await self._connect()
                self._router = await client.info()
                await self._listen(client)
            except ModelHubError as error:
                problem = error
            except Exception as error:  # a job's boundary: a bug here must not leave a silent, frozen screen
                log.exception("following the router failed")
                problem = Unforeseen()
                problem.__cause__ = error
            finally:
                self._client = None
                if client is not None:
                    await self._retire(client)
            await self._lost(problem)

    async def _lost(self, problem: ModelHubError) -> None:
        """Say what is wrong, then wait for the next attempt, or to be woken."""
        self._failures += 1
        self._problem = problem
        told = explain(problem)
        delay_s: float | None = None
        link = Link.LOST
        if isinstance(problem, Unauthorised | Forbidden):
            link = Link.REFUSED
            # The key of a service that was restarted is a new one: connecting again finds it. Another 401 is final.
            delay_s = 0.0 if self._connection.link is Link.LIVE else None
        else:
            doubled_s = FIRST_RETRY_S * 2 ** min(self._failures - 1, 10)
            delay_s = min(doubled_s * random.uniform(0.8, 1.2), LAST_RETRY_S)  # noqa: S311
        retry_at = None if delay_s is None else self._clock() + delay_s
        if delay_s != 0.0:
            self._connection = Connection(link, told.what, told.todo, self._heard_at, retry_at)
            self._announce_link()
            self._show()
            if delay_s is None:
                await self._wake.wait()
            else:
                await self._unless(self._wake, self._sleep(delay_s))
        else:
            self._connection = replace(self._connection, link=Link.CONNECTING)
        self._wake.clear()

    async def _listen(self, client: RouterClient) -> None:
        """Ask for news until that fails."""
        wait_s, holds = 0.0, True
        while True:
            self._wake.clear()
            self._requests += 1
            number, began = self._requests, self._monotonic()
            report = await self._unless(self._wake, client.report(wait_s=wait_s))
            if report is None:  # woken: what was on its way may be older than what woke us
                wait_s = 0.0
                continue
            unchanged = report is self._report
            if wait_s and unchanged and self._monotonic() - began < POLL_S:
                holds = False
            if not unchanged and self._router.generation != "local":
                # What it can do depends on what it has listed, such as endpoints that take downloads. No request.
                self._router = await client.info()
            self._apply(number, report)
            if self._client is None:
                self._live(client)
            if not (unchanged and (holds or not wait_s)):
                await self._unless(self._wake, self._sleep(PACE_S if holds else POLL_S))
            wait_s = 0.0 if self._wake.is_set() else WAIT_S

    def _live(self, client: RouterClient) -> None:
        self._client, self._failures, self._problem = client, 0, None
        self._connection = Connection(Link.LIVE, heard_at=self._heard_at)
        self._announce_link()
        self._show(urgent=True)

    def _apply(self, number: int, report: RouterReport) -> None:
        """Take over what request `number` brought."""
        self._heard_at = self._clock()
        settled = self._intents.settle(number, self._monotonic())
        if report is not self._report:
            self._note_undone(report)
            self._report, self._unlisted = report, 0
            self._nodes = steady_nodes(self._nodes, report.nodes)
            self._join()
        elif settled:
            self._show()

    def _note_undone(self, report: RouterReport) -> None:
        """Say once about each delete of ours that the router has undone."""
        if not self._deleted or self._router.generation not in ("G1", "G2"):
            self._deleted.clear()
            return
        now = self._monotonic()
        before = {each.name for each in self._report.models if each.registered} if self._report else set()
        for each in report.models:
            at = self._deleted.get(each.name)
            # Only what was gone can come back: a list asked for before the delete still has it.
            if at is None or not each.registered or each.name in before:
                continue
            del self._deleted[each.name]
            if now - at <= UNDONE_S:
                why = "its own consistency task does that); it will stay until the router is updated."
                self._undone += (f"The router brought {each.name} back ({why}",)
        self._deleted = {name: at for name, at in self._deleted.items() if now - at <= UNDONE_S}

    async def _retire(self, client: RouterClient) -> None:
        """Close a client, unless an action still uses it; the last one closes it then."""
        if self._leases[client] <= 0:
            del self._leases[client]
            with contextlib.suppress(ModelHubError):
                await client.aclose()

    # -- hub stats -------------------------------------------------------------------------------------------------

    async def _follow_stats(self, stats: StatsSource) -> None:
        """Fill in downloads and likes, for as long as the router does not."""
        while True:
            while self._client is None or self._router.supplies_stats:
                await self._moved.wait()
            repos = tuple({model.repo.lower(): model.repo for model in self._models}.values())
            try:
                self._take_stats(await stats.load(repos))
                if await stats.refresh(repos):
                    self._take_stats(await stats.load(repos))
            except Exception:  # statistics are never worth a message, but a bug in them should be found
                log.exception("following hub statistics failed")
            await self._sleep(STATS_S)

    def _take_stats(self, stats: Mapping[str, HubStats]) -> None:
        if stats != self._told_stats:
            self._told_stats = stats
            self._join()

    # -- snapshots -------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        self._models = self._joined.join(self._report, self._told_stats)
        self._show()

    def _show(self, *, urgent: bool = False) -> None:
        """Have a snapshot made; an urgent one answers a key and does not keep the pace."""
        self._changed.set()
        if urgent:
            self._urgent.set()

    def _announce_link(self) -> None:
        """Wake everybody who waits for the connection to change."""
        self._moved.set()
        self._moved = asyncio.Event()

    def _snapshot(self) -> Fleet:
        """The fleet now; the last snapshot itself if nothing a person could see has changed."""
        models = self._intents.cover(self._models)
        last = self._last
        if last is not None:
            models = steady(last.models, models)
            connection = replace(last.connection, heard_at=self._connection.heard_at)
            if (
                models is last.models
                and self._nodes == last.nodes
                and self._router == last.router
                and self._notices == last.notices
                and self._connection == connection
                and self._unheard == last.unheard
            ):
                return last
        connection = self._connection
        if connection.link is Link.LIVE:
            connection = replace(connection, heard_at=self._heard_at)
        return Fleet(models, self._nodes, self._router, connection, self._notices, self._unlisted, self._unheard)

    @property
    def _notices(self) -> tuple[str, ...]:
        return self._own_notices + (self._report.notices if self._report else ()) + self._undone

    @property
    def _unheard(self) -> str:
        return self._report.unheard if self._report else ""

    async def _unless(self, event: asyncio.Event, work: Awaitable[T]) -> T | None:
        """Await `work`, but give up, cancel it and return None as soon as `event` is set."""
        task: asyncio.Future[T] = asyncio.ensure_future(_coroutine(work))
        waiter = asyncio.ensure_future(event.wait())
        both: tuple[asyncio.Future[Any], ...] = (task, waiter)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            waiter.cancel()
            await asyncio.gather(task, waiter, return_exceptions=True)


async def _coroutine(work: Awaitable[T]) -> T:
    return await work
