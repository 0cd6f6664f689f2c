"""`modelhub status`: which router answers, what its nodes are and what they do."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelhub_tui import __version__
from modelhub_tui.actions import orphaned
from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import OK
from modelhub_tui.cli.look import look
from modelhub_tui.cli.names import handle
from modelhub_tui.cli.output import STATE_COLOURS, Console
from modelhub_tui.cli.progress import happening
from modelhub_tui.cli.shapes import node_json, transfers_json
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import Fleet, Model, Node
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.units import human_rate, human_size

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect
    from modelhub_tui.service.lifecycle import ServiceInfo


def status(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Print the state of the router and its nodes. Starts no service: if none runs, that is the state."""
    if arguments.show_key and not settings.embedded:
        raise BadUsage("--show-key prints the key of the service on this machine; leave --router out.")
    service, patience = None, Patience(arguments, console)
    if settings.embedded:
        from modelhub_tui.service.lifecycle import find_service, silent_holder

        patience.why = "Waiting for the service to answer."
        service = patience.call(lambda: find_service(settings))
        holder = silent_holder(settings) if service is None else None
        if holder is not None:
            raise ServiceFailed(
                f"A modelhub service (process {holder}) holds {settings.state_dir} but does not answer.",
                "Stop it with `modelhub stop`; its downloads resume when it starts again.",
            )
    fleet: Fleet | None = None
    if service is not None or not settings.embedded:
        # The one that runs, whatever these settings would start.
        to_service = getattr(connect, "to_service", None)
        look_at = to_service(service) if service is not None and to_service is not None else connect
        fleet = look(look_at, load_catalog(settings.catalog, settings.cache_dir), patience)
    if console.as_json:
        console.json(_status_json(settings, service, fleet, show_key=arguments.show_key))
        return OK
    console.print(f"modelhub {__version__}")
    if fleet is None:
        console.print("No service runs on this machine; it starts when something needs it.")
        console.print(f"State  {settings.state_dir}")
        if left := _left(settings):
            console.say(left, "yellow")
        return OK
    _print_fleet(console, fleet)
    if service is not None:
        console.print(f"Service  process {service.pid}, state in {settings.state_dir}, log {service.log}")
        if service.hf_endpoint != settings.hf_endpoint:
            console.say(f"It was started for the hub {service.hf_endpoint}, not {settings.hf_endpoint}.", "yellow")
        for notice in service.notices:
            console.say(notice, "yellow")
        if arguments.show_key:
            console.print(f"Key      {service.key}")
    return OK


def _left(settings: Settings) -> str:
    """What a service that was ended left unfinished; empty if that is nothing."""
    from modelhub_tui.service.unfinished import unfinished

    left, held = unfinished(settings.state_dir)
    if not left:
        return ""
    said = "1 download is unfinished" if left == 1 else f"{left} downloads are unfinished"
    if held == left:
        return f"{said} and on hold; `modelhub resume` lets {'it' if left == 1 else 'them'} go on."
    them = "it" if left == 1 else "them"
    if held:
        them = "the other" if left - held == 1 else "the others"
    on_hold = f", {held} of them on hold" if held else ""
    return f"{said}{on_hold}. `modelhub` goes on with {them}, and so does `modelhub list`, in the background."


def _status_json(
    settings: Settings, service: ServiceInfo | None, fleet: Fleet | None, *, show_key: bool
) -> dict[str, Any]:
    router = fleet.router if fleet else None
    told: dict[str, Any] = {
        "version": __version__,
        "mode": "embedded" if settings.embedded else "remote",
        "router": {"url": router.url, "generation": router.generation, "version": router.version} if router else None,
        "service": {
            "pid": service.pid,
            "state_dir": str(settings.state_dir),
            "log": str(service.log),
            "hf_endpoint": service.hf_endpoint,
            "hub_cache": service.hub_cache,
            "notice": " ".join(service.notices),
        }
        if service
        else None,
        "unheard": (fleet.unheard or None) if fleet else None,
        "nodes": [node_json(node) for node in fleet.nodes] if fleet else [],
        "transfers": [transfers_json(model) for model in fleet.transferring] if fleet else [],
    }
    if show_key:
        told["key"] = service.key if service else None
    return told


def _print_fleet(console: Console, fleet: Fleet) -> None:
    router = fleet.router
    # A label may hold address and version already: each is said once.
    name = router.label.removesuffix(f" at {urlsplit(router.url).netloc}")
    version = f", version {router.version}" if router.version and router.version not in name else ""
    console.print(f"Router   {name} at {router.url}{version}")
    if not fleet.nodes:
        console.print("Nodes    none; without one nothing is downloaded")
    for node in fleet.nodes:
        console.print(f"Node     {node.name}: {_node_line(node)}")
        if node.problem:
            console.say(f"{node.name}: {node.problem}", "yellow")
    if fleet.unheard:
        console.say(fleet.unheard, "yellow")
    moving = fleet.transferring
    if not moving:
        console.print("Nothing is being downloaded.")
        return
    console.print()
    # In the order in which nodes take them up; what has no place in it comes last.
    moving = tuple(sorted(moving, key=lambda model: model.queue_position or len(fleet.models) + 1))
    colours = [STATE_COLOURS[model.state] for model in moving]
    rows = [_transfer_row(model) for model in moving]
    console.table(
        ("STATE", "QUEUE", "NAME", "DONE", "SPEED", "WHY"),
        rows,
        right=("QUEUE", "DONE", "SPEED"),
        shrink=("WHY",),
        drop=("QUEUE",),
        colours=colours,
    )
    for model in moving:
        if orphaned(model) and model.transfer is not None:
            name = handle(model)
            console.say(
                f"{name}: {model.transfer.node} is gone, nobody works on it. "
                f"Restart with `modelhub pull {name}`, forget with `modelhub rm {name} --cancel`.",
                "yellow",
            )


def _node_line(node: Node) -> str:
    words = [str(node.status)]
    words += [f"{each.count} x {each.name} ({human_size(each.memory_bytes)})" for each in node.gpus] or ["no GPU"]
    if node.ram_bytes:
        words.append(f"{human_size(node.ram_bytes)} RAM")
    if node.disk_free_bytes is not None:
        words.append(f"{human_size(node.disk_free_bytes)} free in {node.models_dir or 'its folder'}")
    if node.local_bytes is not None:
        words.append(f"{human_size(node.local_bytes)} of models")
    if node.unfinished_bytes:
        words.append(f"{human_size(node.unfinished_bytes)} unfinished")
    if node.trash_bytes:
        words.append(f"{human_size(node.trash_bytes)} in the trash")
    return ", ".join(words)


def _transfer_row(model: Model) -> tuple[str, ...]:
    transfer = model.transfer
    done = "" if transfer is None or transfer.fraction is None else f"{int(transfer.fraction * 100)}%"
    speed = "" if transfer is None or orphaned(model) else human_rate(transfer.bytes_per_s)
    place = "" if model.queue_position is None else str(model.queue_position)
    return (str(model.state), place, handle(model), done, speed, happening(model))
