"""One cycle of the soak: pull under trouble, let everything finish, verify, delete, undo, verify again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tests.faults.ledger import Ledger, count
from tests.faults.machine import Machine, Refused
from tests.faults.recovery import Victim, flowing_since
from tests.faults.residue import anything, held_locks, orphans, unfinished
from tests.faults.schedule import Cycle, Step, Wanted
from tests.faults.witness import content_is_right
from tests.hub import MIB, HubRepo, LoopbackHub

TUNING = {"parallel_bytes": 8 * MIB, "fast_bps": 10**12, "recheck_s": 5.0, "max_attempts": 6}
"""Small files stand in for large ones: over several connections from 8 MiB on, however fast."""
FINISH_S = 120.0
"""Longest wait, once the trouble has ended, for everything to arrive."""
AGAIN_PER_KILL = 8 * MIB
"""More bytes than this served again because of one kill is a violation: a buffer for each of eight connections, and
on top of it what the hub sends in a second, which the kernel holds for a node that gets no processor."""
_HARMLESS = frozenset({"nothing_to_do", "not_registered", "already_registered", "transfer_running", "not_in_trash"})


class Violation(Exception):
    """Something that must never happen: `corrupt`, `lost`, `left behind`, `fetched again` or `stuck`."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


@dataclass
class Rig:
    """A cycle's machine, hub and books."""

    machine: Machine
    hub: LoopbackHub
    plan: Cycle
    repos: dict[str, HubRepo] = field(default_factory=dict)
    names: list[str | None] = field(default_factory=list)
    """Registered names of `plan.models`; None once gone."""
    kill_counts: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    kill_times: list[float] = field(default_factory=list)
    excuses: list[tuple[str, float]] = field(default_factory=list)
    recover_s: list[float] = field(default_factory=list)
    files_verified: int = 0
    told: list[str] = field(default_factory=list)
    """What happened when, for the evidence."""

    def note(self, what: str) -> None:
        self.told.append(f"{time.monotonic():.3f} {what}")

    def ledger(self) -> Ledger:
        return count(list(self.hub.log), self.kill_times, self.excuses)


def run_cycle(rig: Rig) -> None:
    """All of it.

    Raises:
        Violation: With its kind.
    """
    plan, hub, machine = rig.plan, rig.hub, rig.machine
    # A service that ended in good order and one that was killed both find everything again.
    machine.stop()
    machine.start()
    for repo, files in plan.repos.items():
        rig.repos[repo] = hub.add(HubRepo(repo, files))
    _patiently(rig, lambda: machine.limits(parallel_transfers=plan.parallel, bandwidth_bps=0))
    hub.throttle_bps = plan.throttle_bps
    for rule in plan.rules:
        hub.fault(**rule)
    for wanted in plan.models:
        rig.names.append(_register(rig, wanted))
    total = sum(rig.repos[each.repo][path].size for each in plan.models for path in each.paths)
    for step in plan.steps:
        goal = total * step.share
        _until_or_idle(rig, lambda goal=goal: hub.served_bytes() >= goal)  # type: ignore[misc]
        _do(rig, step)
    _calm(rig)
    _finish(rig)
    _verify(rig, "after the pulls")
    worst = max(rig.ledger().by_kill.values(), default=0)
    if worst > AGAIN_PER_KILL + plan.throttle_bps:
        raise Violation("fetched again", f"{worst} bytes because of one kill")
    _end_models(rig)
    _clear_out(rig)


def _register(rig: Rig, wanted: Wanted) -> str:
    rig.note(f"register {wanted.repo} {wanted.filename}")
    try:
        name = _patiently(rig, lambda: rig.machine.register(wanted.repo, wanted.filename))
    except Refused as refused:
        if refused.code != "already_registered":
            raise
        name = refused.body["name"]  # the answer to the first try was lost with the service
    rig.commands["register"] += 1
    return name


def _patiently(rig: Rig, ask: Callable[[], object]) -> str:
    """Ask until there is an answer: the service may just have been killed."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return cast(str, ask())
        except OSError as error:
            rig.note(f"no answer: {error!r}")
            if time.monotonic() > deadline:
                raise Violation("stuck", f"the service does not answer: {error!r}\n{rig.machine.output()}") from error
        except Refused as refused:
            if refused.status < 500 and refused.status != 429:
                raise
            if time.monotonic() > deadline:
                raise Violation("stuck", f"refused for a minute: {refused}") from refused
        time.sleep(0.1)


def _try(rig: Rig, what: str, ask: Callable[[], object]) -> bool:
    """A command of a user; that it comes too late is no violation."""
    rig.note(what)
    try:
        _patiently(rig, ask)
    except Refused as refused:
        rig.note(f"refused: {refused}")
        if refused.code not in _HARMLESS:
            raise Violation("stuck", f"{what}: {refused}") from refused
        return False
    rig.commands[what.split()[0]] += 1
    return True


def _until_or_idle(rig: Rig, check: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for progress; not for ever, since a fault or a pause may well stop it."""
    deadline = time.monotonic() + timeout_s
    while not check() and time.monotonic() < deadline and not _settled(rig):
        time.sleep(0.05)


def _settled(rig: Rig) -> bool:
    """Nothing is left to fetch, or nothing that goes on by itself."""
    try:
        models = rig.machine.models()
    except (OSError, Refused):
        return False
    return all(
        model["status"] == "ready"
        or model["paused"]
        or (model["transfers"] and model["transfers"][0]["phase"] == "failed")
        for model in models.values()
    )


def _do(rig: Rig, step: Step) -> None:
    """One step of the schedule."""
    hub, machine = rig.hub, rig.machine
    name = rig.names[step.model]
    match step.what:
        case "kill service" | "kill node":
            _kill(rig, cast(Victim, step.what.removeprefix("kill ")))
        case "pause" if name:
            if _try(rig, f"pause {name}", lambda: machine.control(name, "pause")):
                time.sleep(step.seconds)
                _try(rig, f"resume {name}", lambda: machine.control(name, "resume"))
        case "move" if name:
            _try(rig, f"move {name}", lambda: machine.control(name, "move", {"to": "first"}))
        case "cancel" if name:
            _cancel(rig, step.model, name)
        case "limits":
            _try(rig, "limits", lambda: machine.limits(parallel_transfers=1 + step.model % 3, bandwidth_bps=8 * MIB))
        case "hub down":
            rig.note("hub down")
            hub.down()
            time.sleep(step.seconds)
            hub.up()
        case "expire":
            hub.expire_signatures()
        case "drop":
            hub.drop_connections()


def _cancel(rig: Rig, index: int, name: str) -> None:
    """Take a pull back, and ask for it anew."""
    wanted = rig.plan.models[index]
    now = time.monotonic()
    if _try(rig, f"cancel {name}", lambda: rig.machine.delete(name)):
        _excuse(rig, wanted, now)
        _gone(rig, name)
        rig.names[index] = _register(rig, wanted)


def _excuse(rig: Rig, wanted: Wanted, at: float) -> None:
    rig.excuses += [(f"{wanted.repo}/{path}", at) for path in wanted.paths]


def _kill(rig: Rig, victim: Victim) -> None:
    at = time.monotonic()
    rig.note(f"kill {victim}")
    moving = not _settled(rig)
    # Bytes that are under way when the axe falls, not those of a request before: the time is taken just before.
    at = time.monotonic()
    if victim == "node":
        rig.machine.kill_node()
    else:
        rig.machine.kill()
        rig.machine.start()
    rig.kill_times.append(at)
    rig.kill_counts[victim] += 1
    if not moving:
        return
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        if flowing_since(rig.hub, at):
            rig.recover_s.append(time.monotonic() - at)
            return
        if _settled(rig) and time.monotonic() - at > 5:
            return
        time.sleep(0.03)


def _calm(rig: Rig) -> None:
    """End all trouble."""
    rig.note("calm")
    for fault in rig.hub.faults:
        fault.remove()
    rig.hub.up()
    rig.hub.throttle_bps = None
    _patiently(rig, lambda: rig.machine.limits(parallel_transfers=4, bandwidth_bps=0))


def _finish(rig: Rig) -> None:
    """Everything that was asked for arrives; what a person has to ask for again is asked for."""
    wanted = {name for name in rig.names if name}
    deadline = time.monotonic() + FINISH_S
    models: dict[str, dict[str, object]] = {}
    while time.monotonic() < deadline:
        try:
            models = rig.machine.models()
        except (OSError, Refused):
            time.sleep(0.1)
            continue
        if not wanted <= models.keys():
            raise Violation("lost", f"{sorted(wanted - models.keys())} are not registered any more: {sorted(models)}")
        if all(models[name]["status"] == "ready" for name in wanted):
            return
        for name in wanted & models.keys():
            transfers = cast("list[dict[str, object]]", models[name]["transfers"])
            if transfers and transfers[0]["phase"] == "failed" and transfers[0]["retry_in_s"] is None:
                _try(rig, f"retry {name}", lambda name=name: rig.machine.control(name, "retry"))  # type: ignore[misc]
            if models[name]["paused"]:
                _try(rig, f"resume {name}", lambda name=name: rig.machine.control(name, "resume"))  # type: ignore[misc]
        time.sleep(0.1)
    raise Violation("stuck", f"not whole in {FINISH_S:.0f} s: {models}\n{rig.machine.output()}")


def _verify(rig: Rig, when: str) -> None:
    """Every file of every model is there, and right; nothing else is."""
    machine, plan = rig.machine, rig.plan
    models = machine.models()
    for wanted, name in zip(plan.models, rig.names, strict=True):
        if name is None:
            continue
        placements = models.get(name, {}).get("placements")
        if not placements:
            raise Violation("lost", f"{name} is placed nowhere {when}")
        paths = [Path(each) for each in placements[0]["paths"]]
        home = machine.cache / f"models--{wanted.repo.replace('/', '--')}" / "snapshots" / rig.repos[wanted.repo].sha
        for path in wanted.paths:
            if home / path not in paths or not (home / path).exists():
                raise Violation("lost", f"{home / path} of {name} is not there {when}")
            blob = rig.repos[wanted.repo][path]
            if (home / path).stat().st_size != blob.size or not content_is_right(home / path):
                raise Violation("corrupt", f"{home / path} of {name} {when}")
            rig.files_verified += 1
    _nothing_left(rig, when)


def _nothing_left(rig: Rig, when: str) -> None:
    """No parts, maps, temporary files, held locks, blobs without a link, or processes beside the two of the service."""
    cache, left = rig.machine.cache, []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = [*unfinished(cache), *held_locks(cache), *orphans(cache)]
        extra = len(rig.machine.processes()) - 2
        if not left and extra <= 0:
            return
        if extra > 0:
            left.append(Path(f"{extra} processes"))
        time.sleep(0.2)
    raise Violation("left behind", f"{when}: {[str(each) for each in left]}")


def _end_models(rig: Rig) -> None:
    """Delete each model, some into the trash; take some deletions back; kill in the middle of it."""
    machine = rig.machine
    since = time.monotonic()
    undone: list[int] = []
    for index, ending in enumerate(rig.plan.endings):
        name = rig.names[index]
        assert name is not None
        query = f"cancel=true&keep={'true' if ending.keep else 'false'}"
        if not _try(rig, f"delete {name} {query}", lambda name=name, query=query: machine.delete(name, query)):  # type: ignore[misc]
            raise Violation("lost", f"{name} cannot be deleted: it is not there")
        if ending.kill:
            _kill(rig, cast(Victim, ending.kill.removeprefix("kill ")))
        _gone(rig, name)
        if ending.undo and _try(rig, f"undo {name}", lambda name=name: _restore(machine, name)):  # type: ignore[misc]
            undone.append(index)
        else:
            rig.names[index] = None
    _finish(rig)
    _verify(rig, "after the deletions were taken back")
    again = sum(each.file_bytes for each in list(rig.hub.log) if each.at > since)
    if undone and again:
        raise Violation("fetched again", f"{again} bytes although the trash had them")


def _restore(machine: Machine, name: str) -> None:
    machine.ask("POST", f"/v0/models/{name.replace('/', '%2F')}/restore")


def _gone(rig: Rig, name: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if name not in rig.machine.models():
                return
        except (OSError, Refused):
            pass
        time.sleep(0.05)
    raise Violation("stuck", f"{name} is still being deleted\n{rig.machine.output()}")


def _clear_out(rig: Rig) -> None:
    """Delete the rest for good, empty the trash: the model folder is as empty as at the start."""
    machine = rig.machine
    for index, name in enumerate(rig.names):
        if name is not None:
            _try(rig, f"delete {name}", lambda name=name: machine.delete(name))  # type: ignore[misc]
            _gone(rig, name)
            rig.names[index] = None
    _try(rig, "empty", lambda: machine.ask("DELETE", "/v0/trash"))
    deadline = time.monotonic() + 30
    while left := anything(machine.cache):
        if time.monotonic() > deadline:
            raise Violation("left behind", f"after everything was deleted: {[str(each) for each in left]}")
        time.sleep(0.1)
