"""`modelhub pull`: have models fetched, and watch until they are there."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import FAILED, INTERRUPTED, OK
from modelhub_tui.cli.fleet import Connect, Followed, follow
from modelhub_tui.cli.names import handle, resolve_pull
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.progress import line
from modelhub_tui.cli.shapes import event_json
from modelhub_tui.cli.trouble import BadUsage, exit_code
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.client.base import RegisterRequest
from modelhub_tui.config import Settings
from modelhub_tui.disk_plan import plan_for
from modelhub_tui.domain import Ability, CatalogEntry, Fleet, Model, ModelState, Node, NodeStatus
from modelhub_tui.errors import AlreadyRegistered, ModelHubError, NotSupported, TookTooLong, explain
from modelhub_tui.states import model_key
from modelhub_tui.units import human_size
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.moments import ordinal

_BAR_FROM = 70
"""Columns below which the figures are worth more than the bar."""
PAUSE_PATIENCE_S = 10.0
"""How long to wait for downloads that wait for somebody to make room; they go on then without us."""
OUTAGE_PATIENCE_S = 90.0
"""How long to wait for a hub that cannot be reached; downloads are tried again without us, too."""
PLACE_PATIENCE_S = 1.0
"""How long `--no-wait` waits for the places in the queue."""
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
    patience = Patience(arguments, console)
    try:
        return patience.run(_pull(arguments, settings, console, connect, catalog, targets, patience))
    except (KeyboardInterrupt, TookTooLong) as end:
        going = [target.name for target in targets if target.code is None]
        if going:
            listed, typed = ", ".join(going), " ".join(going)
            console.say(f"{listed}: the download goes on in the background. `modelhub status` shows it.")
            console.say(f"To hold it: modelhub pause {typed}")
            console.say(f"To stop it: modelhub rm {typed} --cancel")
        if isinstance(end, TookTooLong):
            raise
        return INTERRUPTED


async def _pull(
    arguments: Namespace,
    settings: Settings,
    console: Console,
    connect: Connect,
    catalog: tuple[CatalogEntry, ...],
    targets: list[_Target],
    patience: Patience,
) -> int:
    async with follow(connect, catalog, patience) as followed:
        node = _chosen_node(followed.fleet, arguments.node, arguments.quantization)
        models = followed.fleet.models
        wanted = [resolve_pull(models, name, settings.hf_endpoint) for name in arguments.names]
        if node is None:
            _say_plan(wanted, followed.fleet, console)
        for each in wanted:
            patience.why = f"Waiting for the router to register {each.repo}."
            await _begin(each, followed, console, targets, node, arguments.quantization)
        patience.why = ""  # from here on the progress says it
        if arguments.no_wait:
            if any(target.code is None for target in targets):
                await _see(followed, [target for target in targets if target.code is None])
            for target in targets:
                if target.code is None:
                    _queued(target, console)
        else:
            await _watch(followed, targets, console)
            console.clear_live()
    return next((target.code for target in targets if target.code), OK)


def _say_plan(wanted: list[Model | RegisterRequest], fleet: Fleet, console: Console) -> None:
    """Say before anything is fetched that there is no room for it. Sizes of what no list has are not known yet."""
    models = [each for each in wanted if isinstance(each, Model) and each.state is not ModelState.DOWNLOADED]
    plan = plan_for(models, fleet.models, fleet.nodes)
    if plan is None or not plan.short_by:
        return
    console.say(f"modelhub: no room: {plan.sentence()}.", "yellow")
    if Ability.LIMITS in fleet.router.abilities:
        console.say("It is fetched as far as there is room, and waits then.")
    console.say("`modelhub local` shows what could go, `modelhub rm --now NAME` frees it.")


async def _watch(followed: Followed, targets: list[_Target], console: Console) -> None:
    """Follow the models until each has ended, or nothing more happens to the rest without somebody's help."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            _advance(targets, followed.watcher.fleet, console)
            while any(target.code is None for target in targets):
                going = [target.seen for target in targets if target.code is None]
                if not all(model is not None and _stands(model) for model in going):
                    limit.reschedule(None)
                elif limit.when() is None:
                    paused = all(model is not None and model.state is ModelState.PAUSED for model in going)
                    limit.reschedule(loop.time() + (PAUSE_PATIENCE_S if paused else OUTAGE_PATIENCE_S))
                _advance(targets, await followed.next(), console)
    except TimeoutError:
        for target in targets:
            if target.code is None:
                target.code = FAILED
                console.error(_paused(target))


def _stands(model: Model) -> bool:
    """Whether it does not go on without somebody's help, or until the hub can be reached."""
    return model.state is ModelState.PAUSED or (model.transfer is not None and model.transfer.waits_for_line)


def _paused(target: _Target) -> str:
    """Why a download is held, and how it goes on."""
    model = target.seen
    if model is not None and model.transfer is not None and model.transfer.waits_for_line:
        return f"{target.name}: {model.reason} It stays in the queue, and is tried again by itself."
    if model is not None and model.paused:
        return f"{target.name} is paused. `modelhub resume {target.name}` lets it go on."
    return f"{target.name} is paused. {model.reason if model else ''}".rstrip()


def _chosen_node(fleet: Fleet, name: str | None, quantization: str | None) -> Node | None:
    """The endpoint to download to; None if the router's nodes fetch by themselves what is registered.

    Raises:
        NotSupported: This router cannot do what the flags say, or have anything fetched.
        BadUsage: No endpoint takes downloads, or several do and none was named.
    """
    abilities = fleet.router.abilities
    if quantization and Ability.QUANTIZATION not in abilities:
        raise NotSupported("choose a quantization; name the file with OWNER/NAME:FILE")
    if Ability.PULL in abilities and not name:
        return None
    if Ability.PULL_ON_NODE not in abilities and not any(node.takes_downloads for node in fleet.nodes):
        raise NotSupported("download to one node of your choice" if name else "download models; it only registers them")
    able = [node for node in fleet.nodes if node.takes_downloads]
    if name:
        found = [node for node in fleet.nodes if name in (node.name, node.id)]
        if not found:
            raise BadUsage(f"There is no endpoint {clean(name, 100)!r}; `modelhub status` shows them.")
        if not found[0].takes_downloads:
            raise NotSupported(f"download a model to {found[0].name}: its software takes no downloads")
        return found[0]
    online = [node for node in able if node.status is NodeStatus.ONLINE]
    if len(online) != 1:
        names = ", ".join(node.name for node in able)
        raise BadUsage(f"Choose an endpoint with --node: {names}." if names else "No endpoint takes downloads.")
    return online[0]


async def _order(wanted: Model | RegisterRequest, followed: Followed, node: Node, quantization: str | None) -> str:
    """Have one endpoint download a model, registered first so that it is listed; its name."""
    request, model = wanted, wanted
    if isinstance(request, Model):
        request = RegisterRequest(request.repo, request.file, request.revision, request.title or None)
    if isinstance(model, RegisterRequest):
        key, name = model_key(model.repo, model.file), model.repo.lower()
        model = Model(key, name, model.repo, "", model.repo, model.file, ModelState.AVAILABLE)
    if not model.registered:
        with suppress(AlreadyRegistered):
            told = await followed.watcher.register(request)
            model = replace(model, name=told.name)
    await followed.watcher.download(model, node.id, quantization)
    return model.name


async def _begin(
    wanted: Model | RegisterRequest,
    followed: Followed,
    console: Console,
    targets: list[_Target],
    node: Node | None,
    quantization: str | None,
) -> None:
    """Ask for one model. A refusal is said and remembered; the other models go on."""
    target = _Target("", wanted.repo)
    if isinstance(wanted, Model):
        target = _Target(wanted.key, handle(wanted), wanted)
    # Noted before the request: an interrupt while it is under way cannot know whether it arrived.
    targets.append(target)
    try:
        if node is not None:
            name = await _order(wanted, followed, node, quantization)
            target.name = target.name if isinstance(wanted, Model) else name
            if node.software == "xllm":
                target.code = OK
                console.say(f"{target.name}: accepted by {node.name}, which reports no progress.")
            return
        if isinstance(wanted, Model):
            if wanted.paused and wanted.state is not ModelState.DOWNLOADED:
                await followed.watcher.resume(wanted)
            elif wanted.state is not ModelState.DOWNLOADED:
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


async def _see(followed: Followed, targets: list[_Target]) -> None:
    """Wait a moment for the router to tell what of it waits, and where in the queue."""
    followed.watcher.refresh()
    with suppress(TimeoutError):
        async with asyncio.timeout(PLACE_PATIENCE_S):
            while not all(_noted(target, followed.watcher.fleet) for target in targets):
                await followed.next()


def _noted(target: _Target, fleet: Fleet) -> bool:
    """Note what is known of a model; whether that says where it is."""
    same = (each for each in fleet.models if (each.key == target.key if target.key else each.name == target.name))
    model = target.seen = next(same, target.seen)
    return model is not None and (
        model.queue_position is not None or model.state in (ModelState.DOWNLOADED, ModelState.DOWNLOADING)
    )


def _queued(target: _Target, console: Console) -> None:
    """Say that a model is fetched or will be, without waiting for it."""
    model = target.seen
    state = ModelState.QUEUED
    if model is not None and model.state in (ModelState.DOWNLOADED, ModelState.DOWNLOADING, ModelState.PAUSED):
        state = model.state
    if console.as_json:
        event = event_json(model) if model else {"name": target.name}
        console.json_line({**event, "state": str(state)})
    elif state is ModelState.DOWNLOADED:
        console.say(f"{target.name} is here already.")
    else:
        doing = "is being fetched" if state is ModelState.DOWNLOADING else f"is {state}"
        place = model.queue_position if model and state is not ModelState.DOWNLOADING else None
        where = f", {ordinal(place)} in the queue" if place is not None else ""
        console.say(f"{target.name} {doing}{where}. `modelhub status` shows how far it is.")


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
        console.show_live(prefix + line(first, bar=console.live_width >= _BAR_FROM, unicode=console.unicode))


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
            console.say(line(model))
        return
    if model.state is ModelState.DOWNLOADED:
        size = f", {human_size(model.disk_bytes)}" if model.disk_bytes else ""
        console.say(f"{target.name} is downloaded{size}.", "green")
        if model.is_unverifiable:
            console.say("It cannot be verified: for some of its files the hub gives no checksum.", "yellow")
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
    trouble = f"{transfer.attempt} {transfer.stalled_s is not None}" if transfer else ""
    return f"{model.state} {transfer.phase if transfer else ''} {tenth} {trouble} {model.queue_position} {model.reason}"
