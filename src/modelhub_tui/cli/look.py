"""Look at the fleet once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from modelhub_tui.domain import CatalogEntry, Connection, Fleet, Link, RouterInfo, RouterReport
from modelhub_tui.states import join_models

if TYPE_CHECKING:
    from modelhub_tui.client.base import RouterClient

    Connect = Callable[[], Awaitable[RouterClient]]


def look(connect: Connect, catalog: tuple[CatalogEntry, ...]) -> Fleet:
    """Ask once.

    Raises:
        ModelHubError: The router cannot be reached, or refuses.
    """
    at_once: Callable[[], tuple[RouterInfo, RouterReport] | None] | None = getattr(connect, "at_once", None)
    seen = at_once() if at_once is not None else None
    if seen is None:
        import asyncio

        seen = asyncio.run(_ask(connect))
    router, report = seen
    models = join_models(catalog, report)
    return Fleet(models, report.nodes, router, Connection(Link.LIVE), unheard=report.unheard)


async def _ask(connect: Connect) -> tuple[RouterInfo, RouterReport]:
    client = await connect()
    try:
        router = await client.info()  # first: it knows best what somebody who is no router looks like
        return router, await client.report()
    finally:
        await client.aclose()
