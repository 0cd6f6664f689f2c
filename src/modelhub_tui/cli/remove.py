"""`modelhub rm`: delete models, or cancel their download, and wait until the bytes are gone."""

from __future__ import annotations

import asyncio
import math
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
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import Ability, CatalogEntry, Fleet, Limits, Model, ModelState, NodeStatus, Trashed
from modelhub_tui.errors import ModelHubError, NotDownloaded, NotFound, Rejected
from modelhub_tui.snapshot import fleet_path, forget
from modelhub_tui.states import also_registered
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.moments import in_words, moment

if TYPE_CHECKING:
    from modelhub_tui.client.base import RouterClient

OFFLINE_PATIENCE_S = 10.0
"""How long this machine's own node may be away."""


@dataclass(slots=True)
class _Result:
    """What became of the models, by key."""

    gone: dict[str, frozenset[str]] = field(default_factory=dict)
    """Those that are deregistered, with the offline nodes that let go of their bytes only when they are back."""
    left: dict[str, str] = field(default_factory=dict)
    """Those that are still there, with a sentence that says why."""
    kept: dict[str, Trashed] = field(default_factory=dict)
    """Those that can be had back."""


def remove(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Delete models, after asking."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    patience = Patience(arguments, console)
    fleet = look(connect, catalog, patience, heard=True)
    chosen = tuple({model.key: model for model in (_present(fleet, name) for name in arguments.names)}.values())
    moving = [model for model in chosen if running(model)]
    keep = not arguments.now and Ability.UNDO in fleet.router.abilities
    # Asked outside the event loop, whose handling of Ctrl+C would wait for the answer.
    if not arguments.yes:
        limits = _limits(connect, catalog, patience) if keep else None
        answer = console.confirm(_question(chosen, moving, limits))
        if answer is None:
            raise BadUsage("There is no terminal to ask on; add --yes to delete without asking.")
        if not answer:
            console.say("Nothing was deleted.")
            return FAILED
    elif moving and not arguments.cancel:
        raise _being_downloaded(moving)
    away_s = OFFLINE_PATIENCE_S if settings.embedded else 0.0
    stop = {model.key for model in moving} | ({model.key for model in chosen} if arguments.cancel else set())
    result = patience.run(_delete(chosen, stop, keep, console, connect, catalog, patience, away_s))
    with suppress(OSError):  # at worst the dashboard tells of it
        forget(fleet_path(settings.cache_dir, settings.router, str(catalog_path(settings.catalog))), result.gone)
    if console.as_json:
        console.json([_json(model, result) for model in chosen])
    for model in chosen:
        if model.key in result.left:
            console.error(f"{handle(model)}: {result.left[model.key]}")
        elif not console.as_json:
            console.print(_said(model, result))
    return FAILED if result.left else OK


def _limits(connect: Connect, catalog: tuple[CatalogEntry, ...], patience: Patience) -> Limits | None:
    """What the trash may take; None from a service that does not know."""

    async def work(client: RouterClient, _fleet: Fleet) -> Limits:
        return await client.limits()

    with suppress(ModelHubError):
        return order(connect, catalog, work, patience)
    return None


def _said(model: Model, result: _Result) -> str:
    kept, absent = result.kept.get(model.key), result.gone[model.key]
    if model.unusable:  # nobody knows any more what was registered, so no node is told to remove anything
        return f"Deleted the record of {handle(model)}. Files of it on a disk stay."
    said = f"Deleted {handle(model)}"
    if shared := also_registered({handle(model): model}):
        said += f". {shared[:-1]}"
    if kept is not None and kept.bytes:
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
        "deleted": model.key in result.gone,
        "reason": result.left.get(model.key),
        "freed_bytes": _freed(model, result) if model.key in result.gone else 0,
        "left_on": sorted(result.gone.get(model.key, ())),
        "trash": trashed_json(kept) if kept else None,
    }


async def _delete(
    chosen: tuple[Model, ...],
    stop: set[str],
    keep: bool,
    console: Console,
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    patience: Patience,
    away_s: float,
) -> _Result:
    """Delete models and wait until they are gone.

    Args:
        stop: Keys of those whose transfer may be stopped.
        keep: Ask for them to be kept in the trash, and look whether they are.
    """
    async with follow(connect, catalog, patience) as followed:
        watcher = followed.watcher
        for model in chosen:
            if model.state is ModelState.DELETING:
                continue
            patience.why = f"Waiting for the router to delete {handle(model)}."
            try:
                await (watcher.cancel(model, keep) if model.key in stop else watcher.delete(model, keep))
            except Rejected as error:
                # It began since we looked. The router's words are for those who speak HTTP with it.
                raise _being_downloaded([model]) if error.code == "transfer_running" else error from error
        result = await _until_gone(followed, chosen, console, patience, away_s=away_s)
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
        model = resolve(present, name, full=True)
    except (NotFound, BadUsage) as error:
        try:
            other = resolve(fleet.models, name, full=True)
        except NotFound:
            raise error from None
        raise NotDownloaded(handle(other)) from None
    if model.found:
        said = handle(model)
        raise Rejected(
            f"{said} is in the cache, but not registered, so it may be somebody else's. "
            f"`modelhub adopt {said}` registers it; then it can be deleted."
        )
    return model


async def _until_gone(
    followed: Followed, models: tuple[Model, ...], console: Console, patience: Patience, *, away_s: float
) -> _Result:
    """Wait until no node that is there has the models any more, or it is clear that they stay.

    A node that is offline removes them when it comes back. That is waited for only for a moment.

    Args:
        away_s: How long all that still hold them may be offline.
    """
    loop = asyncio.get_running_loop()
    # A little earlier than the command as a whole: what became of the others is still to be said.
    left_s = patience.left_s
    until = None if left_s is None else loop.time() + left_s * 0.9
    result, offline, away_since = _Result(), dict[str, frozenset[str]](), None
    try:
        async with asyncio.timeout_at(until) as limit:
            fleet = followed.watcher.fleet
            while True:
                result, offline = _progress(fleet, models)
                here = [each for each in models if each.key not in result.gone.keys() | result.left.keys()]
                if not here:
                    return result
                patience.why = _why(fleet, here)
                console.show_live(f"Deleting {', '.join(handle(model) for model in here)} ...")
                away_since = (away_since or loop.time()) if len(offline) == len(here) else None
                if away_since is not None:
                    limit.reschedule(min(away_since + away_s, until or math.inf))
                else:
                    limit.reschedule(until)
                fleet = await followed.next()
    except TimeoutError:
        pass
    if away_since is not None:
        result.gone |= offline
    else:
        on = "It goes on without us; `modelhub list --status deleting` shows it."
        result.left |= {each.key: f"{_why(fleet, [each])} {on}" for each in here}
    return result


def _progress(fleet: Fleet, models: tuple[Model, ...]) -> tuple[_Result, dict[str, frozenset[str]]]:
    """Which models are gone and which come no nearer to it, and which only absent nodes still hold.

    The router forgets at once what a lost node was fetching, so that of a model that is gone the node may have bytes.
    """
    by_key = {model.key: model for model in fleet.models}
    online = {node.name for node in fleet.nodes if node.status is NodeStatus.ONLINE}
    absent = {node.name for node in fleet.nodes if node.status is NodeStatus.OFFLINE} - online
    result = _Result()
    offline: dict[str, frozenset[str]] = {}
    for model in models:
        now = by_key.get(model.key)
        # Found: nobody's any more, but still whole in the cache, as another commit's files or another program's are.
        if now is None or now.state is ModelState.AVAILABLE or now.found:
            result.gone[model.key] = frozenset(_holders(model) & absent)
        elif now.registered and now.state is not ModelState.DELETING:
            result.left[model.key] = "It was registered again meanwhile, by somebody else, so it stays."
        elif now.state is ModelState.DELETING and (holders := _holders(now)) and not holders & online:
            offline[model.key] = frozenset(holders | (_holders(model) & absent))
    return result, offline


def _why(fleet: Fleet, models: list[Model]) -> str:
    """What the deletion of these waits for, as far as anybody has said."""
    by_key = {model.key: model for model in fleet.models}
    now = [by_key.get(model.key, model) for model in models]
    reason = next((each.reason for each in now if each.reason), "")
    where = sorted(set().union(*map(_holders, now)))
    names = ", ".join(handle(model) for model in models)
    said = f"Waiting for {' and '.join(where) or 'the nodes'} to remove the files of {names}."
    return f"{said} {reason}".rstrip()


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
    if shared := also_registered({handle(model): model for model in models}):
        said.append(shared)
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
    if model.key in result.kept:
        return _held(model, there) - _whole(model, there)
    return max(_held(model, there) - sum(each.shared_bytes for each in model.placements if each.node in there), 0)
