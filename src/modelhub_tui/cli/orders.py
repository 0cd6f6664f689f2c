"""Ask a router for one thing and be done: connect, look at the fleet, ask, close."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from modelhub_tui.cli.look import as_fleet, report_heard
from modelhub_tui.cli.names import resolve
from modelhub_tui.domain import CatalogEntry, Fleet, Model
from modelhub_tui.errors import NotFound

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect
    from modelhub_tui.cli.waiting import Patience
    from modelhub_tui.client.base import RouterClient

T = TypeVar("T")

Work = Callable[["RouterClient", Fleet], Awaitable[T]]


def order(
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    work: Work[T],
    patience: Patience,
    *,
    why: str = "Waiting for the router to do that.",
    heard: bool = False,
) -> T:
    """Do some work with a client, which is given the fleet as it is now.

    Args:
        why: What is said of the work if it takes long.
        heard: As for `look.look()`.

    Raises:
        ModelHubError: The router cannot be reached, or refuses, or the work takes too long.
    """

    async def run() -> T:
        patience.why = "Waiting for the router to answer."
        client = await connect()
        try:
            router = await client.info()  # first: it knows best what somebody who is no router looks like
            report = await (report_heard(client, patience) if heard else client.report())
            patience.why = why
            return await work(client, as_fleet(router, report, catalog))
        finally:
            await client.aclose()

    return patience.run(run())


async def seen(client: RouterClient, catalog: tuple[CatalogEntry, ...]) -> Fleet:
    """The fleet at this moment."""
    return as_fleet(await client.info(), await client.report(), catalog)


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
