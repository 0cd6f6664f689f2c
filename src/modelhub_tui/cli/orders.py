"""Ask a router for one thing and be done: connect, look at the fleet, ask, close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from modelhub_tui.cli.names import resolve
from modelhub_tui.domain import CatalogEntry, Connection, Fleet, Link, Model
from modelhub_tui.errors import NotFound
from modelhub_tui.states import join_models

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect
    from modelhub_tui.client.base import RouterClient

T = TypeVar("T")

Work = Callable[["RouterClient", Fleet], Awaitable[T]]


def order(connect: Connect, catalog: tuple[CatalogEntry, ...], work: Work[T]) -> T:
    """Do some work with a client, which is given the fleet as it is now.

    Raises:
        ModelHubError: The router cannot be reached, or refuses.
    """
    return asyncio.run(_order(connect, catalog, work))


async def _order(connect: Connect, catalog: tuple[CatalogEntry, ...], work: Work[T]) -> T:
    client = await connect()
    try:
        return await work(client, await seen(client, catalog))
    finally:
        await client.aclose()


async def seen(client: RouterClient, catalog: tuple[CatalogEntry, ...]) -> Fleet:
    """The fleet at this moment."""
    router = await client.info()  # first: it knows best what somebody who is no router looks like
    report = await client.report()
    models = join_models(catalog, report)
    return Fleet(models, report.nodes, router, Connection(Link.LIVE), unheard=report.unheard)


def choose(likely: Sequence[Model], models: Sequence[Model], names: Sequence[str]) -> tuple[Model, ...]:
    """The models that are meant, each once, in the order of their names; of the likely ones if a name fits one of them.

    Raises:
        NotFound, BadUsage: As for `names.resolve()`.
    """
    chosen: dict[str, Model] = {}
    for name in names:
        try:
            model = resolve(likely, name)
        except NotFound:
            model = resolve(models, name)  # says who is unknown, or ambiguous
        chosen.setdefault(model.key, model)
    return tuple(chosen.values())
