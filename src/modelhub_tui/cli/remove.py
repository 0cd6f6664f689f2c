"""`modelhub rm`: delete models, or cancel their download, and wait until the bytes are gone."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import field
from typing import TYPE_CHECKING

from modelhub_tui.actions import running
from modelhub_tui.catalog import catalog_path, load_catalog
from modelhub_tui.cli import FAILED, OK
from modelhub_tui.cli.fleet import Connect, Followed, follow
from modelhub_tui.cli.look import look
from modelhub_tui.cli.names import handle, resolve
from modelhub_tui.cli.orders import order
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.shapes import trashed_json
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.config import Settings
from modelhub_tui.domain import Ability, CatalogEntry, Fleet, Limits, Model, ModelState, NodeStatus, Trashed
from modelhub_tui.errors import ModelHubError, NotDownloaded, NotFound, Rejected
from modelhub_tui.snapshot import fleet_path, forget
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.moments import in_words, moment

if TYPE_CHECKING:
    from modelhub_tui.client.base import RouterClient

OFFLINE_PATIENCE_S = 10.0
"""How long this machine's own node may take to come."""


@dataclass(slots=True)
class _Result:
    """What became of the models, by key."""

    gone: dict[str, frozenset[str]]
    """Those that are deregistered, with the offline nodes that let go of their bytes only when they are back."""
    kept: dict[str, Trashed] = field(default_factory=dict)
    """Those that can be had back."""


def remove(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Delete models, after asking."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    fleet = look(connect, catalog)
    chosen = tuple({model.key: model for model in (_present(fleet, name) for name in arguments.names)}.values())
    moving = [model for model in chosen if running(model)]
    keep = not arguments.now and Ability.UNDO in fleet.router.abilities
    # Asked outside the event loop, whose handling of Ctrl+C would wait for the answer.
    if not arguments.yes:
        limits = _limits(connect, catalog) if keep else None
        answer = console.confirm(_question(chosen, moving, limits))
        if answer is None:
            raise BadUsage("There is no terminal to ask on; add --yes to delete without asking.")
        if not answer:
            console.say("Nothing was deleted.")
            return FAILED
    elif moving and not arguments.cancel:
        raise _being_downloaded(moving)
    patience_s = OFFLINE_PATIENCE_S if settings.embedded else 0.0
    stop = {model.key for model in moving} | ({model.key for model in chosen} if arguments.cancel else set())
    result = asyncio.run(_delete(chosen, stop, keep, console, connect, catalog, patience_s))
    with suppress(OSError):  # at worst the dashboard tells of it
        forget(fleet_path(settings.cache_dir, settings.router, str(catalog_path(settings.catalog))), result.gone)
    if console.as_json:
        console.json([_json(model, result) for model in chosen])
    else:
        for model in chosen:
            console.print(_said(model, result))
    return OK


def _limits(connect: Connect, catalog: tuple[CatalogEntry, ...]) -> Limits | None:
    """What the trash may take; None from a service that does not know."""

    async def work(client: RouterClient, _fleet: Fleet) -> Limits:
        return await client.limits()

    with suppress(ModelHubError):
        return order(connect, catalog, work)
    return None


def _said(model: Model, result: _Result) -> str:
    kept, absent = result.kept.get(model.key), result.gone[model.key]
    said = f"Deleted {handle(model)}"
    if kept is not None:
        until = moment(kept.expires_at, time.time())
        said += (
            f"; {human_size(kept.bytes)} kept in the trash until {until}, or until a download needs the room: "
            f"`modelhub undo` brings it back"
        )
    elif freed := _freed(model, result):
        said += f"; {human_size(freed)} freed"
    if not absent:
        return f"{said}."
    left = human_size(_held(model, absent))
    what = f"{left} there {'are freed' if kept is None else 'move to the trash'}"
    are, it = ("is", "it") if len(absent) == 1 else ("are", "each")
    return f"{said}. {', '.join(sorted(absent))} {are} offline; {what} when {it} is back."


def _json(model: Model, result: _Result) -> dict[str, object]:
    kept = result.kept.get(model.key)
    return {
        "id": model.catalog_id,
        "name": model.name,
        "deleted": True,
        "freed_bytes": _freed(model, result),
        "left_on": sorted(result.gone[model.key]),
        "trash": trashed_json(kept) if kept else None,
    }


async def _delete(
    chosen: tuple[Model, ...],
    stop: set[str],
    keep: bool,
    console: Console,
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    patience_s: float,
) -> _Result:
    """Delete models and wait until they are gone.

    Args:
        stop: Keys of those whose transfer may be stopped.
        keep: Ask for them to be kept in the trash, and look whether they are.
    """
    async with follow(connect, catalog) as followed:
        watcher = followed.watcher
        for model in chosen:
            if model.state is ModelState.DELETING:
                continue
            try:
                await (watcher.cancel(model, keep) if model.key in stop else watcher.delete(model, keep))
            except Rejected as error:
                # It began since we looked. The router's words are for those who speak HTTP with it.
                raise _being_downloaded([model]) if error.code == "transfer_running" else error from error
        result = _Result(await _until_gone(followed, chosen, console, patience_s=patience_s))
        if keep and any(model.placements for model in chosen):
            with suppress(ModelHubError):  # an older service has no trash: then nothing is kept
                by_name = {each.name: each for each in await watcher.trash()}
                whole = (model for model in chosen if model.key in result.gone and model.name in by_name)
                result.kept = {model.key: by_name[model.name] for model in whole}
        return result


def _being_downloaded(moving: list[Model]) -> Rejected:
    """What to do about models that cannot be deleted as they are."""
    names = ", ".join(handle(model) for model in moving)
    one = "it" if len(moving) == 1 else "them"
    return Rejected(
        f"{names}: being downloaded just now. Add --cancel to stop that, or hold {one} with `modelhub pause`.",
        code="transfer_running",
    )


def _present(fleet: Fleet, name: str) -> Model:
    """The model a name means: of those that are there, if it means one of them."""
    present = tuple(model for model in fleet.models if model.state is not ModelState.AVAILABLE)
    try:
        model = resolve(present, name)
    except NotFound:
        raise NotDownloaded(handle(resolve(fleet.models, name))) from None  # or says who is unknown, or ambiguous
    if model.found:
        said = handle(model)
        raise Rejected(
            f"{said} is in the cache, but not registered, so it may be somebody else's. "
            f"`modelhub adopt {said}` registers it; then it can be deleted."
        )
    return model


async def _until_gone(
    followed: Followed, models: tuple[Model, ...], console: Console, *, patience_s: float
) -> dict[str, frozenset[str]]:
    """Wait until no node that is there has the models any more.

    A node that is offline removes them when it comes back. That is waited for only for a moment: the node of a service
    that was just started needs one to come.

    Returns:
        By key, the offline nodes that may still hold a model's bytes.
    """
    patient_until = asyncio.get_running_loop().time() + patience_s
    gone: dict[str, frozenset[str]] = {}
    offline: dict[str, frozenset[str]] = {}
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
        return gone | offline


def _progress(fleet: Fleet, models: tuple[Model, ...]) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """Which models are gone, and which only absent nodes still hold; by key, with the absent nodes.

    The router forgets at once what a lost node was fetching, so that of a model that is gone the node may have bytes.
    """
    by_key = {model.key: model for model in fleet.models}
    online = {node.name for node in fleet.nodes if node.status is NodeStatus.ONLINE}
    absent = {node.name for node in fleet.nodes if node.status is NodeStatus.OFFLINE} - online
    gone: dict[str, frozenset[str]] = {}
    offline: dict[str, frozenset[str]] = {}
    for model in models:
        now = by_key.get(model.key)
        if now is None or now.state is ModelState.AVAILABLE:
            gone[model.key] = frozenset(_holders(model) & absent)
            continue
        holders = _holders(now)
        if now.state is ModelState.DELETING and holders and not holders & online:
            offline[model.key] = frozenset(holders | (_holders(model) & absent))
    return gone, offline


def _holders(model: Model) -> set[str]:
    """The nodes that hold a model, whole or in part."""
    return {each.node for each in model.placements} | {each.node for each in model.transfers}


def _question(models: tuple[Model, ...], moving: list[Model], limits: Limits | None) -> str:
    """What is asked before anything is deleted: it names models, bytes and nodes, and whether there is a way back.

    Args:
        moving: Those of them that are being downloaded.
        limits: What the trash may take; None if nothing goes there.
    """
    parts = []
    for model in models:
        nodes = ", ".join(sorted(_holders(model)))
        parts.append(f"{handle(model)} ({human_size(_held(model))}{f' on {nodes}' if nodes else ''})")
    said = [f"{', '.join(handle(model) for model in moving)}: being downloaded; that is stopped."] if moving else []
    whole = [model for model in models if model.placements]
    if limits is not None and limits.trash_seconds and any(_whole(model) <= limits.trash_bytes for model in whole):
        span = in_words(limits.trash_seconds)
        said.append(f"It can be undone for {span} with `modelhub undo`, unless a download needs the room before.")
    elif whole:
        said.append("It cannot be undone.")
    return " ".join([f"Delete {', '.join(parts)}?", *said])


def _held(model: Model, on: frozenset[str] | None = None) -> int:
    """Bytes that the nodes hold of a model, whole or in part.

    Args:
        on: Only these nodes; None for all.
    """
    return _whole(model, on) + sum(each.bytes_done for each in model.transfers if on is None or each.node in on)


def _whole(model: Model, on: frozenset[str] | None = None) -> int:
    return sum(each.disk_bytes or 0 for each in model.placements if on is None or each.node in on)


def _freed(model: Model, result: _Result) -> int:
    """Bytes that are free now; what is in the trash is not, nor what an offline node still has."""
    there = frozenset(_holders(model)) - result.gone[model.key]
    return _held(model, there) - (_whole(model, there) if model.key in result.kept else 0)
