"""Look at the fleet once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from modelhub_tui.cli.waiting import Patience
from modelhub_tui.domain import CatalogEntry, Connection, Fleet, Link, RouterInfo, RouterReport
from modelhub_tui.errors import NotHeard
from modelhub_tui.states import join_models

if TYPE_CHECKING:
    from modelhub_tui.client.base import RouterClient

    Connect = Callable[[], Awaitable[RouterClient]]

HEARD_S = 20.0
"""How long a node that was just started may take to say what is on its disk."""
_ASK_S = 5.0
"""The router may hold an answer back for this long while nothing changes."""


def look(connect: Connect, catalog: tuple[CatalogEntry, ...], patience: Patience, *, heard: bool = False) -> Fleet:
    """Ask once.

    Args:
        heard: Wait until the router's own node has told what it holds: before that, nothing that is not listed is known
            not to be there.

    Raises:
        NotHeard: It does not tell in time.
        ModelHubError: The router cannot be reached, or refuses.
    """
    patience.why = "Waiting for the router to answer."
    at_once: Callable[[], tuple[RouterInfo, RouterReport] | None] | None = getattr(connect, "at_once", None)
    seen = patience.call(at_once) if at_once is not None else None
    if seen is None or (heard and seen[1].unheard):
        seen = patience.run(_ask(connect, patience, heard=heard))
    return as_fleet(*seen, catalog)


def as_fleet(router: RouterInfo, report: RouterReport, catalog: tuple[CatalogEntry, ...]) -> Fleet:
    """The fleet that a report tells of."""
    models = join_models(catalog, report)
    return Fleet(models, report.nodes, router, Connection(Link.LIVE), report.notices, unheard=report.unheard)


async def _ask(connect: Connect, patience: Patience, *, heard: bool) -> tuple[RouterInfo, RouterReport]:
    client = await connect()
    try:
        router = await client.info()  # first: it knows best what somebody who is no router looks like
        return router, await (report_heard(client, patience) if heard else client.report())
    finally:
        await client.aclose()


async def report_heard(client: RouterClient, patience: Patience) -> RouterReport:
    """What the router says once its own node has told what it holds.

    Raises:
        NotHeard: It does not tell in time.
    """
    import asyncio

    report = await client.report()
    if not report.unheard:
        return report
    try:
        async with asyncio.timeout(HEARD_S):
            while report.unheard:
                patience.why = report.unheard
                report = await client.report(wait_s=_ASK_S)
    except TimeoutError:
        raise NotHeard(report.unheard) from None
    return await client.report()  # the lists come one by one: that of the nodes may be from before
