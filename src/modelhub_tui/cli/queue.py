"""`modelhub pause`, `resume` and `move`: the queue of downloads."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import OK
from modelhub_tui.cli.names import handle
from modelhub_tui.cli.orders import choose, order, seen
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.shapes import event_json
from modelhub_tui.cli.trouble import exit_code
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import IN_FLIGHT, Fleet, Model, ModelState, Place
from modelhub_tui.errors import ModelHubError, NotPulled, explain
from modelhub_tui.units import human_size
from modelhub_tui.widgets.moments import ordinal

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect
    from modelhub_tui.client.base import RouterClient

Ask = Callable[["RouterClient", str], Awaitable[None]]


def pause(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Hold downloads; what they have fetched stays."""

    def said(model: Model) -> str:
        kept = sum(each.bytes_done for each in model.transfers)
        at = f" at {human_size(kept)}" if kept else ""
        return f"{handle(model)} is paused{at}. `modelhub resume {handle(model)}` lets it go on."

    return _each(arguments, settings, console, connect, lambda client, name: client.pause(name), said)


def resume(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Let held downloads go on."""

    def said(model: Model) -> str:
        return f"{handle(model)} goes on{_place(model, ', ')}."

    return _each(arguments, settings, console, connect, lambda client, name: client.resume(name), said)


def move(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Change a download's place in the queue."""
    arguments.names = [arguments.name]
    to = Place(arguments.to)

    def said(model: Model) -> str:
        return f"{handle(model)}{_place(model, ' is ') or ' is not in the queue any more'}."

    return _each(arguments, settings, console, connect, lambda client, name: client.move(name, to), said)


def _each(
    arguments: Namespace,
    settings: Settings,
    console: Console,
    connect: Connect,
    ask: Ask,
    said: Callable[[Model], str],
) -> int:
    """Ask the same for several models, and print where they are then. A refusal does not stop the others."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)

    async def work(client: RouterClient, fleet: Fleet) -> tuple[list[Model], int]:
        moving = [model for model in fleet.models if model.state in IN_FLIGHT]
        done, code = set(), OK
        for model in choose(moving, fleet.models, arguments.names):
            try:
                if not model.registered and model.state is ModelState.AVAILABLE:
                    raise NotPulled(handle(model))  # our list knows it; the router would say that it does not
                await ask(client, model.name)
            except ModelHubError as error:
                text = str(explain(error))
                console.error(text if model.name in text or handle(model) in text else f"{handle(model)}: {text}")
                code = code or exit_code(error)
            else:
                done.add(model.key)
        now = await seen(client, catalog) if done else fleet
        return [model for model in now.models if model.key in done], code

    models, code = order(connect, catalog, work, Patience(arguments, console))
    if console.as_json:
        console.json([event_json(model) for model in models])
    else:
        for model in models:
            console.say(said(model))
    return code


def _place(model: Model, before: str) -> str:
    return "" if model.queue_position is None else f"{before}{ordinal(model.queue_position)} in the queue"
