"""`modelhub pull`: have models fetched, and watch until they are there."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from dataclasses import dataclass

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import FAILED, INTERRUPTED, OK
from modelhub_tui.cli.fleet import Connect, Followed, follow
from modelhub_tui.cli.names import handle, resolve_pull
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.shapes import event_json
from modelhub_tui.cli.trouble import exit_code
from modelhub_tui.client.base import RegisterRequest
from modelhub_tui.config import Settings
from modelhub_tui.domain import CatalogEntry, Fleet, Model, ModelState, Phase
from modelhub_tui.errors import AlreadyRegistered, ModelHubError, explain
from modelhub_tui.units import human_duration, human_rate, human_size

_BAR_CELLS = 24
_BAR, _PLAIN_BAR = ("━", "─"), ("#", "-")
PAUSE_PATIENCE_S = 10.0
"""How long to wait for downloads that wait for somebody to make room; they go on then without us."""
_PLAIN_STEP = 0.1
"""Without a terminal a line is printed for every tenth."""


@dataclass(slots=True)
class _Target:
    """One model that is waited for."""

    key: str
    """Its identity among the fleet's models; empty until it is listed."""
    name: str
    seen: Model | None = None
    registered: bool = False
    """True once a report listed it as registered: if it then is not, somebody cancelled it."""
    said: str = ""
    """What was last printed about it."""
    code: int | None = None
    """The exit code it ended with; None while it goes on."""


def pull(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Have models fetched; wait until each is there or has failed."""
    targets: list[_Target] = []
    catalog = load_catalog(settings.catalog, settings.cache_dir)
    try:
        return asyncio.run(_pull(arguments, settings, console, connect, catalog, targets))
    except KeyboardInterrupt:
        going = [target.name for target in targets if target.code is None]
        if going:
            names = ", ".join(going)
            console.say(f"{names}: the download goes on in the background. `modelhub status` shows it.")
            console.say(f"To stop it: modelhub rm {' '.join(going)}")
        return INTERRUPTED


async def _pull(
    arguments: Namespace,
    settings: Settings,
    console: Console,
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    targets: list[_Target],
) -> int:
    async with follow(connect, catalog) as followed:
        models = followed.fleet.models
        wanted = [resolve_pull(models, name, settings.hf_endpoint) for name in arguments.names]
        for each in wanted:
            await _begin(each, followed, console, targets)
        if arguments.no_wait:
            for target in targets:
                if target.code is None:
                    _queued(target, console)
        else:
            await _watch(followed, targets, console)
            console.clear_live()
    return next((target.code for target in targets if target.code), OK)


async def _watch(followed: Followed, targets: list[_Target], console: Console) -> None:
    """Follow the models until each has ended, or nothing more happens to the rest without somebody's help."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            _advance(targets, followed.watcher.fleet, console)
            while any(target.code is None for target in targets):
                going = [target.seen for target in targets if target.code is None]
                if not all(model is not None and model.state is ModelState.PAUSED for model in going):
                    limit.reschedule(None)
                elif limit.when() is None:
                    limit.reschedule(loop.time() + PAUSE_PATIENCE_S)
                _advance(targets, await followed.next(), console)
    except TimeoutError:
        for target in targets:
            if target.code is None:
                target.code = FAILED
                why = target.seen.reason if target.seen else ""
                console.error(f"{target.name} is paused. {why}".rstrip())


async def _begin(wanted: Model | RegisterRequest, followed: Followed, console: Console, targets: list[_Target]) -> None:
    """Ask for one model. A refusal is said and remembered; the other models go on."""
    target = _Target("", wanted.repo)
    if isinstance(wanted, Model):
        target = _Target(wanted.key, handle(wanted), wanted)
    # Noted before the request: an interrupt while it is under way cannot know whether it arrived.
    targets.append(target)
    try:
        if isinstance(wanted, Model):
            if wanted.state is not ModelState.DOWNLOADED:
                await followed.watcher.pull(wanted)
            return
        told = await followed.watcher.register(wanted)
        target.name = told.name
        for warning in told.warnings:
            console.say(f"{told.name}: {warning}", "yellow")
    except AlreadyRegistered as known:
        target.name = known.name or target.name
    except ModelHubError as error:
        target.code = exit_code(error)
        said = str(explain(error))
        # Which of several names it is about; most sentences name it themselves.
        console.error(said if target.name in said else f"{target.name}: {said}")


def _queued(target: _Target, console: Console) -> None:
    """Say that a model will be fetched, without waiting for it."""
    there = target.seen is not None and target.seen.state is ModelState.DOWNLOADED
    if console.as_json:
        event = event_json(target.seen) if target.seen else {"name": target.name}
        console.json_line({**event, "state": str(ModelState.DOWNLOADED if there else ModelState.QUEUED)})
    elif there:
        console.say(f"{target.name} is here already.")
    else:
        console.say(f"{target.name} is being fetched. `modelhub status` shows how far it is.")


def _advance(targets: list[_Target], fleet: Fleet, console: Console) -> None:
    """Say what is new about each model, and note which are done."""
    by_key = {model.key: model for model in fleet.models}
    by_name = {model.name: model for model in fleet.models}
    going: list[Model] = []
    for target in targets:
        if target.code is not None:
            continue
        model = by_key.get(target.key) if target.key else by_name.get(target.name)
        if model is not None:
            target.key = model.key
            _take(target, model, console)
            if target.code is None:
                going.append(model)
        elif target.registered:
            target.code = FAILED
            console.error(f"{target.name}: it was removed while it was being fetched.")
    if going and console.live and not console.as_json:
        done = sum(target.code is not None for target in targets)
        prefix = f"{done + 1} of {len(targets)}: " if len(targets) > 1 else ""
        first = max(going, key=lambda model: model.transfer is not None)
        console.show_live(prefix + _line(first, bar=True, unicode=console.unicode))


def _take(target: _Target, model: Model, console: Console) -> None:
    target.seen = model
    cancelled = target.registered and model.state in (ModelState.AVAILABLE, ModelState.DELETING)
    if model.state is ModelState.DOWNLOADED:
        target.code = OK
    elif model.state is ModelState.FAILED or (cancelled and not model.registered):
        target.code = FAILED
    target.registered = target.registered or model.registered
    if console.as_json:
        event = event_json(model)
        if str(event) != target.said:
            target.said = str(event)
            console.json_line(event)
        return
    if target.code is None:
        if not console.live and _step(model) != target.said:
            target.said = _step(model)
            console.say(_line(model))
        return
    if model.state is ModelState.DOWNLOADED:
        size = f", {human_size(model.disk_bytes)}" if model.disk_bytes else ""
        console.say(f"{target.name} is downloaded{size}.", "green")
        path = next((each.path for each in model.placements if each.path), None)
        if path:
            console.print(path)
    elif model.state is ModelState.FAILED:
        console.error(f"{target.name} failed: {model.reason or 'no reason was given'}")
    else:
        console.error(f"{target.name}: its download was cancelled.")


def _step(model: Model) -> str:
    """What has to change for another line where lines cannot be rewritten."""
    transfer = model.transfer
    fraction = transfer.fraction if transfer else None
    tenth = "" if fraction is None else str(int(fraction / _PLAIN_STEP))
    return f"{model.state} {transfer.phase if transfer else ''} {tenth} {model.reason}"


def _line(model: Model, *, bar: bool = False, unicode: bool = False) -> str:
    """Where a model is, in one line."""
    transfer = model.transfer
    words = [model.title]
    if transfer is None or transfer.phase in (Phase.WAITING, Phase.PAUSED):
        words += [str(model.state), f"({model.reason})" if model.reason else ""]
        return " ".join(word for word in words if word)
    if transfer.fraction is not None:
        if bar:
            full = round(transfer.fraction * _BAR_CELLS)
            done, left = _BAR if unicode else _PLAIN_BAR
            words.append(done * full + left * (_BAR_CELLS - full))
        words.append(f"{int(transfer.fraction * 100)}%")
    words.append(f"{human_size(transfer.bytes_done)} of {human_size(transfer.bytes_total)}")
    if transfer.phase is Phase.VERIFYING:
        words.append("verifying")
    elif transfer.phase is Phase.RETRYING:
        words.append(f"retrying: {transfer.error}" if transfer.error else "retrying")
    else:
        words += [human_rate(transfer.bytes_per_s), human_duration(transfer.eta_s)]
    return "  ".join(word for word in words if word)
