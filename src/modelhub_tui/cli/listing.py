"""`modelhub list` and `modelhub local`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import OK
from modelhub_tui.cli.look import look
from modelhub_tui.cli.names import handle
from modelhub_tui.cli.output import STATE_COLOURS, Console
from modelhub_tui.cli.shapes import local_json, model_json
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import Fleet, Model, ModelState
from modelhub_tui.errors import NotHeard, ServiceFailed, explain
from modelhub_tui.filtering import Filter, apply
from modelhub_tui.states import FitKind, fit, join_models
from modelhub_tui.units import human_count, human_size

if TYPE_CHECKING:
    from argparse import Namespace

    from modelhub_tui.cli.look import Connect

_FIT_MARKS = {FitKind.GPU: "yes", FitKind.RAM: "in RAM", FitKind.TOO_BIG: "no", FitKind.UNKNOWN: ""}


def list_models(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Print the supported and registered models with their state."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    try:
        fleet = look(connect, catalog, Patience(arguments, console), heard=True)
    except (ServiceFailed, NotHeard) as error:
        if isinstance(error, NotHeard) and (console.as_json or arguments.fits or arguments.status):
            raise  # the answer may be wrong, and whoever asks like this goes by it
        # The catalog needs no router: better a list without states than none.
        console.say(f"modelhub: {explain(error)} The list below is the catalog alone.", "yellow")
        fleet = Fleet(join_models(catalog, None))
    _say_notices(fleet, console)
    states = frozenset({ModelState(arguments.status)}) if arguments.status else frozenset()
    wanted = Filter(arguments.search, states=states, fits_only=arguments.fits)
    models = apply(fleet.models, wanted, nodes=fleet.nodes)
    if console.as_json:
        console.json([model_json(model, fleet.nodes) for model in models])
        return OK
    if not models:
        console.say("No model matches.")
        return OK
    rows = [_row(model, fleet) for model in models]
    head = ("STATE", "NAME", "SIZE", "MEMORY", "FITS", "DOWNLOADS", "LIKES", "TITLE")
    colours = [STATE_COLOURS[model.state] for model in models]
    console.table(
        head,
        rows,
        right=("SIZE", "MEMORY", "DOWNLOADS", "LIKES"),
        shrink=("TITLE",),
        drop=("TITLE", "LIKES", "DOWNLOADS", "FITS", "MEMORY", "SIZE"),
        colours=colours,
    )
    return OK


def list_local(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Print the models that are on disk."""
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    fleet = look(connect, catalog, Patience(arguments, console), heard=True)
    _say_notices(fleet, console)
    models = [model for model in fleet.models if model.state is ModelState.DOWNLOADED]
    if console.as_json:
        console.json([local_json(model, fleet.nodes) for model in models])
        return OK
    if not models:
        console.say("Nothing here yet. `modelhub list` shows what there is, `modelhub pull NAME` fetches it.")
        for sentence in _disk_use(fleet, only_more=True):
            console.say(sentence)
        return OK
    rows = [_local_row(model) for model in models]
    head = ("NAME", "DISK", "NODES", "NOTE", "PATH")
    console.table(head, rows, right=("DISK",), drop=("NODES", "NOTE"))
    for sentence in _disk_use(fleet):
        console.say(sentence)
    found = [model for model in models if model.found]
    if found:
        one = len(found) == 1
        console.say(
            f"{len(found)} of them {'is' if one else 'are'} in the cache, but not registered: "
            f"`modelhub adopt {handle(found[0])}`{'' if one else ' or `modelhub adopt --all`'} "
            f"lets the router know {'it' if one else 'them'}."
        )
    if bare := sum(model.is_unverifiable for model in models):
        console.say(
            f"{bare} of them cannot be verified: for some of their files the hub gives no checksum "
            "(`modelhub local --json` names these)."
        )
    return OK


def _say_notices(fleet: Fleet, console: Console) -> None:
    """What the router's answer leaves out, or the service had to repair."""
    for notice in fleet.notices:
        console.say(f"modelhub: {notice}", "yellow")


def _disk_use(fleet: Fleet, *, only_more: bool = False) -> list[str]:
    """What models take on each node that tells, what takes space beside them, and what is free; a sentence each.

    Args:
        only_more: Leave out the nodes that have nothing beside models.
    """
    said = []
    for node in fleet.nodes:
        if node.local_bytes is None or (only_more and not node.unfinished_bytes and not node.trash_bytes):
            continue
        share = f" ({human_size(node.found_bytes)} of it not registered)" if node.found_bytes else ""
        parts = [f"{human_size(node.local_bytes)} of models{share}, shared files counted once"]
        if node.unfinished_bytes:
            parts.append(f"{human_size(node.unfinished_bytes)} of unfinished downloads (`modelhub status`)")
        if node.trash_bytes:
            parts.append(f"{human_size(node.trash_bytes)} in the trash (`modelhub trash`)")
        if node.disk_free_bytes is not None:
            parts.append(f"{human_size(node.disk_free_bytes)} free")
        said.append(f"{node.name}: {', '.join(parts)}.")
    return said


def _row(model: Model, fleet: Fleet) -> tuple[str, ...]:
    transfer = model.transfer
    state = str(model.state)
    if model.state is ModelState.DOWNLOADING and transfer is not None and transfer.fraction is not None:
        state = f"{state} {transfer.fraction:.0%}"
    stats = model.stats
    return (
        state,
        handle(model),
        _size(model.size_bytes),
        _size(model.required_memory_bytes),
        _FIT_MARKS[fit(model.required_memory_bytes, fleet.nodes).kind],
        human_count(stats.downloads) if stats else "",
        human_count(stats.likes) if stats else "",
        model.title,
    )


def _local_row(model: Model) -> tuple[str, ...]:
    told: dict[str, Any] = local_json(model)
    nodes = ", ".join(each.node for each in model.placements)
    notes = ("not registered" if model.found else "", "not verifiable" if model.is_unverifiable else "")
    return (handle(model), _size(model.disk_bytes), nodes, ", ".join(filter(None, notes)), told["path"] or "")


def _size(count: int | None) -> str:
    return "" if count is None else human_size(count)
