"""`modelhub trash` and `undo`: what was deleted and can be had back."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import FAILED, OK
from modelhub_tui.cli.fleet import Connect, follow
from modelhub_tui.cli.names import MOST_CANDIDATES, has_part, only_a_part
from modelhub_tui.cli.orders import order
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.shapes import local_json, trashed_json
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import CatalogEntry, Fleet, Model, ModelState, Node, NodeStatus, Trashed
from modelhub_tui.errors import ModelHubError, Rejected
from modelhub_tui.units import human_size
from modelhub_tui.untrusted import clean
from modelhub_tui.widgets.moments import moment

if TYPE_CHECKING:
    from modelhub_tui.client.base import RouterClient

BACK_PATIENCE_S = 20.0
"""How long nodes may take to put a model's files back before we stop looking."""
FREED_PATIENCE_S = 10.0
"""How long nodes may take to remove files for good before we stop looking."""


def trash(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """List what can be had back; with `--empty` free it for good."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    patience = Patience(arguments, console)
    kept = order(connect, catalog, _kept, patience)
    chosen = tuple(_resolve(kept, name, full=arguments.empty) for name in arguments.names) or kept
    if arguments.empty:
        return _empty(arguments, console, connect, catalog, chosen, patience)
    if console.as_json:
        console.json([trashed_json(each) for each in chosen])
    elif not chosen:
        console.say("The trash is empty.")
    else:
        now = time.time()
        rows = [_row(each, now) for each in chosen]
        console.table(("NAME", "SIZE", "DELETED", "KEPT UNTIL", "NODES"), rows, right=("SIZE",), drop=("NODES", "SIZE"))
        console.say("`modelhub undo NAME` brings one back, `modelhub trash --empty` frees the space.")
        console.say("A download that needs the room frees it sooner, the oldest first.")
    return OK


def undo(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Take deletions back: those named, or the last one."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    patience = Patience(arguments, console)
    models = patience.run(_undo(arguments.names, connect, catalog, patience))
    if console.as_json:
        console.json([local_json(model) for model in models])
        return OK
    for model in models:
        back = model.state is ModelState.DOWNLOADED
        said = "is back." if back else "is registered again; its nodes put its files back, or fetch them."
        console.say(f"{model.title} {said}", "green" if back else "")
        path = next((each.path for each in model.placements if each.path), None)
        if path:
            console.print(path)
    return OK


async def _kept(client: RouterClient, _fleet: Fleet) -> tuple[Trashed, ...]:
    return await client.trash()


async def _undo(
    names: Sequence[str], connect: Connect, catalog: tuple[CatalogEntry, ...], patience: Patience
) -> list[Model]:
    """Restore models, and wait for a moment until nodes have put their files back."""
    async with follow(connect, catalog, patience) as followed:
        kept = await followed.watcher.trash()
        if not kept:
            raise Rejected("The trash is empty: there is nothing to bring back.", code="not_in_trash")
        newest = max(kept, key=lambda each: each.deleted_at)
        chosen = [_resolve(kept, name) for name in names] or [newest]
        patience.why = "Waiting for the nodes to put the files back."
        restored = [(await followed.watcher.restore(each.name)).name for each in chosen]
        by_name: dict[str, Model] = {}
        try:
            async with asyncio.timeout(BACK_PATIENCE_S):
                fleet = followed.watcher.fleet
                while True:
                    by_name = {model.name: model for model in fleet.models if model.name in restored}
                    states = {model.state for model in by_name.values()}
                    if len(by_name) == len(set(restored)) and states <= {ModelState.DOWNLOADED, ModelState.FAILED}:
                        break
                    fleet = await followed.next()
        except TimeoutError:
            pass  # it is said which of them are not back yet
        return [by_name[name] for name in dict.fromkeys(restored) if name in by_name]


def _empty(
    arguments: Namespace,
    console: Console,
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    chosen: tuple[Trashed, ...],
    patience: Patience,
) -> int:
    freed = sum(each.bytes for each in chosen)
    if chosen and not arguments.yes:
        titles = ", ".join(each.title for each in chosen)
        answer = console.confirm(f"Free {human_size(freed)} for good: {titles}?")
        if answer is None:
            raise BadUsage("There is no terminal to ask on; add --yes to empty the trash without asking.")
        if not answer:
            console.say("Nothing was freed.")
            return FAILED

    async def work(client: RouterClient, fleet: Fleet) -> str:
        if not arguments.names:
            await client.empty_trash()
        for each in chosen if arguments.names else ():
            await client.empty_trash(each.name)
        return await _until_freed(client, fleet.nodes, chosen)

    why = "Waiting for the nodes to free the space."
    said = order(connect, catalog, work, patience, why=why) if chosen else "The trash is empty."
    if console.as_json:
        console.json([trashed_json(each) for each in chosen])
    else:
        console.say(said)
    return OK


async def _until_freed(client: RouterClient, before: Sequence[Node], chosen: Sequence[Trashed]) -> str:
    """Wait until the nodes have less in their trash; the router forgets what it held before they have removed a file.

    Args:
        before: The nodes as they were while they still had it.

    Returns:
        What to say: what is free now, and what becomes of the rest.
    """
    holders = {name for each in chosen for name in each.nodes}
    had = {node.name: node.trash_bytes or 0 for node in before if node.name in holders}
    wanted = sum(each.bytes for each in chosen)
    freed, absent = 0, set(had)
    with suppress(TimeoutError, ModelHubError):  # it was done: what is not seen is said so
        async with asyncio.timeout(FREED_PATIENCE_S):
            while True:
                nodes = {node.name: node for node in (await client.report(wait_s=1.0)).nodes if node.name in had}
                has = {name: node.trash_bytes or 0 for name, node in nodes.items()}
                freed = sum(max(bytes_ - has.get(name, bytes_), 0) for name, bytes_ in had.items())
                absent = {name for name, node in nodes.items() if node.status is not NodeStatus.ONLINE and has[name]}
                # Files that two deleted models share are in both their sizes; an empty trash has nothing left to free.
                if freed >= wanted or not any(has[name] for name in has.keys() - absent):
                    break
                await asyncio.sleep(0.05)  # a router that does not hold its answer back is not to be flooded
    if freed >= wanted or (had and not absent and freed == sum(had.values())):
        return f"{human_size(freed)} freed."
    left = f"{human_size(wanted - freed)} will be"
    verb = "is" if len(absent) == 1 else "are"
    whose = f"when {' and '.join(sorted(absent))} {verb} back" if absent else "as soon as the nodes get to it"
    return f"{human_size(freed)} freed, {left} {whose}." if freed else f"{left} freed {whose}."


def _resolve(kept: Sequence[Trashed], name: str, *, full: bool = False) -> Trashed:
    """The deleted model that a name means: exactly, or (unless `full` is asked for) by words that only one has.

    Raises:
        Rejected: None has it.
        BadUsage: Several have it, or it is only a part.
    """
    wanted = name.strip().casefold()
    exact = [each for each in kept if wanted in (each.name.casefold(), each.title.casefold(), each.repo.casefold())]
    said = [each for each in kept if wanted and has_part((each.name, each.title, each.repo), wanted)]
    if full and said and not exact:
        raise only_a_part(name, [each.name for each in said[:MOST_CANDIDATES]])
    found = exact or said
    if not found:
        raise Rejected(f"{clean(name, 100)} is not in the trash; `modelhub trash` lists what is.", code="not_in_trash")
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:MOST_CANDIDATES])
        raise BadUsage(f"{clean(name, 100)!r} could be any of: {names}. Type more of the name.")
    return found[0]


def _row(each: Trashed, now: float) -> tuple[str, ...]:
    return (
        each.name,
        human_size(each.bytes),
        moment(each.deleted_at, now),
        moment(each.expires_at, now),
        ", ".join(each.nodes),
    )
