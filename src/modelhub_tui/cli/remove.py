"""`modelhub rm`: delete models, or cancel their download, and wait until the bytes are gone."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import FAILED, OK
from modelhub_tui.cli.fleet import Connect, Followed, follow
from modelhub_tui.cli.look import look
from modelhub_tui.cli.names import handle, resolve
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.config import Settings
from modelhub_tui.domain import CatalogEntry, Fleet, Model, ModelState, NodeStatus
from modelhub_tui.errors import NotFound
from modelhub_tui.units import human_size

OFFLINE_PATIENCE_S = 10.0
"""How long this machine's own node may take to come."""


def remove(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Delete models, after asking."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    fleet = look(connect, catalog)
    chosen = tuple({model.key: model for model in (_present(fleet, name) for name in arguments.names)}.values())
    # Asked outside the event loop, whose handling of Ctrl+C would wait for the answer.
    if not arguments.yes:
        answer = console.confirm(_question(chosen))
        if answer is None:
            raise BadUsage("There is no terminal to ask on; add --yes to delete without asking.")
        if not answer:
            console.say("Nothing was deleted.")
            return FAILED
    patience_s = OFFLINE_PATIENCE_S if settings.embedded else 0.0
    gone = asyncio.run(_delete(chosen, console, connect, catalog, patience_s))
    results = [
        {"id": model.catalog_id, "name": model.name, "deleted": model.key in gone, "freed_bytes": _freed(model, gone)}
        for model in chosen
    ]
    if console.as_json:
        console.json(results)
    else:
        for model in chosen:
            if model.key in gone:
                console.print(f"Deleted {handle(model)}; {human_size(_freed(model, gone))} freed.")
    return OK if len(gone) == len(chosen) else FAILED


async def _delete(
    chosen: tuple[Model, ...],
    console: Console,
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    patience_s: float,
) -> set[str]:
    """Delete models and wait; the keys of those that are gone."""
    async with follow(connect, catalog) as followed:
        for model in chosen:
            if model.state is not ModelState.DELETING:
                await followed.watcher.delete(model)
        return await _until_gone(followed, chosen, console, patience_s=patience_s)


def _present(fleet: Fleet, name: str) -> Model:
    """The model a name means: of those that are there, if it means one of them."""
    present = tuple(model for model in fleet.models if model.state is not ModelState.AVAILABLE)
    try:
        return resolve(present, name)
    except NotFound:
        model = resolve(fleet.models, name)  # says who is unknown, or ambiguous
    raise NotHere(handle(model))


class NotHere(NotFound):
    """A supported model that nobody pulled."""


async def _until_gone(
    followed: Followed, models: tuple[Model, ...], console: Console, *, patience_s: float
) -> set[str]:
    """Wait until no node has the models any more; return the keys of those that are gone.

    A node that is offline deletes when it comes back. That is said, and waited for only for a moment: the node of a
    service that was just started needs one to come.
    """
    patient_until = asyncio.get_running_loop().time() + patience_s
    offline: dict[str, str] = {}
    gone: set[str] = set()
    try:
        async with asyncio.timeout(None) as limit:
            fleet = followed.watcher.fleet
            while True:
                gone, offline = _progress(fleet, models)
                if len(gone) == len(models):
                    return gone
                left = ", ".join(handle(model) for model in models if model.key not in gone)
                console.show_live(f"Deleting {left} ...")
                limit.reschedule(patient_until if len(gone) + len(offline) == len(models) else None)
                fleet = await followed.next()
    except TimeoutError:
        for sentence in offline.values():
            console.say(sentence)
        return gone


def _progress(fleet: Fleet, models: tuple[Model, ...]) -> tuple[set[str], dict[str, str]]:
    """Which models are gone, and what to say about those that only absent nodes still hold; by key."""
    by_key = {model.key: model for model in fleet.models}
    online = {node.name for node in fleet.nodes if node.status is NodeStatus.ONLINE}
    gone: set[str] = set()
    offline: dict[str, str] = {}
    for model in models:
        now = by_key.get(model.key)
        if now is None or now.state is ModelState.AVAILABLE:
            gone.add(model.key)
            continue
        holders = {each.node for each in now.placements} | {each.node for each in now.transfers}
        if now.state is ModelState.DELETING and holders and not holders & online:
            absent = ", ".join(sorted(holders))
            offline[model.key] = f"{handle(model)}: {absent} is offline; it deletes when it is back."
    return gone, offline


def _question(models: tuple[Model, ...]) -> str:
    """What is asked before anything is deleted: it names models, bytes and nodes."""
    parts = []
    for model in models:
        nodes = ", ".join(sorted({each.node for each in model.placements} | {each.node for each in model.transfers}))
        parts.append(f"{handle(model)} ({human_size(_held(model))}{f' on {nodes}' if nodes else ''})")
    return f"Delete {', '.join(parts)}?"


def _held(model: Model) -> int:
    """Bytes that the nodes hold of a model, whole or in part."""
    whole = sum(each.disk_bytes or 0 for each in model.placements)
    return whole + sum(each.bytes_done for each in model.transfers)


def _freed(model: Model, gone: set[str]) -> int:
    return _held(model) if model.key in gone else 0
