"""One cycle of the soak: pull under trouble, let everything finish, verify, delete, undo, verify again."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import cast

from tests.faults import deaths
from tests.faults.commands import LOOKS, command
from tests.faults.hands import cross
from tests.faults.machine import Machine, Refused
from tests.faults.neighbour import Neighbour
from tests.faults.recovery import Victim
from tests.faults.rig import Rig, Violation, attempt, gone, patiently, register, settled
from tests.faults.schedule import Ending, Step
from tests.faults.verify import empty, finish, nothing_left, verify_files
from tests.hub import MIB, HubRepo

TUNING = {"parallel_bytes": 8 * MIB, "fast_bps": 10**12, "recheck_s": 5.0, "max_attempts": 6}
"""Small files stand in for large ones: over several connections from 8 MiB on, however fast."""
AGAIN_PER_KILL = 8 * MIB
"""More bytes than this served again because of one kill is a violation: a buffer for each of eight connections, and
on top of it what the hub sends in a second, which the kernel holds for a node that gets no processor."""


def run_cycle(rig: Rig, second: Machine) -> None:
    """All of it.

    Args:
        second: The machine of a second service on the same model folder, for the cycles that have one.

    Raises:
        Violation: With its kind.
    """
    plan, hub, machine = rig.plan, rig.hub, rig.machine
    # A service that ended in good order and one that was killed both find everything again.
    machine.stop()
    machine.whim("slow", plan.slow_s)
    machine.start()
    deaths.copy(rig)
    for repo, files in plan.repos.items():
        rig.repos[repo] = hub.add(HubRepo(repo, files))
    patiently(rig, lambda: machine.limits(parallel_transfers=plan.parallel, bandwidth_bps=0, trash_seconds=3600))
    hub.throttle_bps = plan.throttle_bps
    for rule in plan.rules:
        hub.fault(**rule)
    for wanted in plan.models:
        rig.names.append(register(rig, wanted))
    neighbour = Neighbour(rig, second) if plan.shared else None
    if neighbour is not None:
        neighbour.begin()
    total = sum(rig.repos[each.repo][path].size for each in plan.models for path in each.paths)
    for step in plan.steps:
        goal = total * step.share
        _until_or_idle(rig, lambda goal=goal: hub.served_bytes() >= goal)  # type: ignore[misc]
        _do(rig, step, neighbour)
    _calm(rig)
    finish(rig)
    if neighbour is not None:
        finish(neighbour.rig)
    verify_files(rig, "after the pulls")
    nothing_left(rig, "after the pulls")
    worst = max(rig.ledger().by_kill.values(), default=0)
    if worst > AGAIN_PER_KILL + plan.throttle_bps:
        raise Violation("fetched again", f"{worst} bytes because of one kill")
    _end_models(rig)
    if neighbour is not None:
        neighbour.end()
        verify_files(rig, "after the neighbour's deletions")
    _clear_out(rig)


def _until_or_idle(rig: Rig, check: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for progress; not for ever, since a fault or a pause may well stop it."""
    deadline = time.monotonic() + timeout_s
    while not check() and time.monotonic() < deadline and not settled(rig):
        time.sleep(0.05)


def _do(rig: Rig, step: Step, neighbour: Neighbour | None) -> None:
    """One step of the schedule."""
    hub, machine = rig.hub, rig.machine
    name = rig.names[step.model]
    assert name is not None
    match step.what.split():
        case ["kill", victim]:
            deaths.kill(rig, cast(Victim, victim), step.seconds)
        case ["roll", "back", who, *how]:
            deaths.roll_back(rig, who, " ".join(how))
        case ["copy", "databases"]:
            deaths.copy(rig)
        case ["pause"]:
            if attempt(rig, f"pause {name}", lambda: machine.control(name, "pause")):
                time.sleep(step.seconds)
                attempt(rig, f"resume {name}", lambda: machine.control(name, "resume"))
        case ["move"]:
            attempt(rig, f"move {name}", lambda: machine.control(name, "move", {"to": "first"}))
        case ["cancel"]:
            _cancel(rig, step.model, name)
        case ["limits"]:
            attempt(rig, "limits", lambda: machine.limits(parallel_transfers=1 + step.model % 3, bandwidth_bps=8 * MIB))
        case ["hub", "down"]:
            rig.note("hub down")
            hub.down()
            time.sleep(step.seconds)
            hub.up()
        case ["expire"]:
            hub.expire_signatures()
        case ["drop"]:
            hub.drop_connections()
        case ["clock"]:
            rig.scenes["clock jump"] += 1
            machine.whim("skew", round((step.seconds - 0.55) * 3000))
        case ["fill"] if rig.filler is not None:
            _fill(rig, step.seconds)
        case ["look"]:
            command(rig, *LOOKS[int(step.seconds * 1000) % len(LOOKS)])
        case ["hands"]:
            _hands(rig, step.seconds)
        case ["neighbour"] if neighbour is not None:
            rig.scenes["neighbour"] += 1
            neighbour.act(step.model, step.seconds)


def _cancel(rig: Rig, index: int, name: str) -> None:
    """Take a pull back, and ask for it anew."""
    wanted = rig.plan.models[index]
    now = time.monotonic()
    if attempt(rig, f"cancel {name}", lambda: rig.machine.delete(name)):
        rig.excuse(wanted, now)
        gone(rig, name)
        rig.names[index] = register(rig, wanted)


def _fill(rig: Rig, seconds: float) -> None:
    """Use up the model folder's disk to the last byte, for a while."""
    assert rig.filler is not None
    rig.note("disk full")
    rig.scenes["full disk"] += 1
    with rig.filler.open("wb", buffering=0) as file:
        for block in (bytes(MIB), bytes(4096)):
            try:
                while file.write(block):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
    time.sleep(seconds)
    rig.filler.unlink()


def _hands(rig: Rig, chance: float) -> None:
    """Two clients at once, sometimes with the service killed under their hands; then order anew what they deleted."""
    rig.scenes["two clients"] += 1
    kill = (lambda: deaths.kill(rig, "service")) if chance > 0.75 else None
    cross(rig, chance, meanwhile=kill)
    for index, name in enumerate(rig.names):
        if name is None:
            rig.names[index] = register(rig, rig.plan.models[index])


def _calm(rig: Rig) -> None:
    """End all trouble."""
    rig.note("calm")
    for fault in rig.hub.faults:
        fault.remove()
    rig.hub.up()
    rig.hub.throttle_bps = None
    patiently(rig, lambda: rig.machine.limits(parallel_transfers=4, bandwidth_bps=0))


def _end_models(rig: Rig) -> None:
    """Delete each model, some into the trash; take some deletions back; kill in the middle of it."""
    since = time.monotonic()
    undone: list[int] = []
    for index, ending in enumerate(rig.plan.endings):
        name = rig.names[index]
        assert name is not None
        _delete(rig, name, ending)
        rig.names[index] = None
        match ending.kill.split():
            case ["kill", victim]:
                deaths.kill(rig, cast(Victim, victim))
            case ["roll", "back", who, *how]:
                deaths.roll_back(rig, who, " ".join(how), doomed=name)
        if _is_back(rig, name) and not ending.undo:
            attempt(rig, f"delete {name}", lambda name=name: rig.machine.delete(name))  # type: ignore[misc]
        if not _is_back(rig, name):
            gone(rig, name)
        if ending.undo:
            rig.names[index] = _undo(rig, index, name, ending)
            undone.append(index)
    finish(rig)
    verify_files(rig, "after the deletions were taken back")
    nothing_left(rig, "after the deletions were taken back")
    repos = tuple(f"{rig.plan.models[index].repo}/" for index in undone)
    again = sum(each.file_bytes for each in list(rig.hub.log) if each.at > since and each.label.startswith(repos))
    if undone and again:
        raise Violation("fetched again", f"{again} bytes although the trash had them")


def _delete(rig: Rig, name: str, ending: Ending) -> None:
    if ending.by_command:
        said = command(rig, "rm", name, "--yes", "--cancel", *(() if ending.keep else ("--now",)))
        if said.code:
            raise Violation("stuck", f"rm {name}: {said}\n{rig.machine.output()}")
        return
    query = f"cancel=true&keep={'true' if ending.keep else 'false'}"
    if not attempt(rig, f"delete {name} {query}", lambda: rig.machine.delete(name, query)):
        raise Violation("lost", f"{name} cannot be deleted: it is not there")


def _is_back(rig: Rig, name: str) -> bool:
    """Whether a deleted model is registered again, by a database from before."""
    model = rig.models().get(name)
    return rig.went_back and model is not None and model["status"] != "deleting"


def _undo(rig: Rig, index: int, name: str, ending: Ending) -> str:
    """Take a deletion back; the name of the model that is there again."""
    if _is_back(rig, name):
        return name
    if ending.by_command:
        said = command(rig, "undo", name)
        undone, why = said.code == 0, said.err
    else:
        undone, why = attempt(rig, f"undo {name}", lambda: _restore(rig.machine, name)), rig.told[-1]
    if undone:
        return name
    if rig.went_back:
        # Nobody remembers that it was deleted: it is found, or its files are there for whoever orders it anew.
        lost = deaths.found(rig, index, 10)
        return deaths.adopt(rig, lost) if lost else register(rig, rig.plan.models[index])
    trash = patiently(rig, lambda: rig.machine.ask("GET", "/v0/trash"))
    raise Violation("lost", f"{name} cannot be had back: {why}; trash {trash}\n{rig.machine.output()}")


def _restore(machine: Machine, name: str) -> None:
    machine.ask("POST", f"/v0/models/{name.replace('/', '%2F')}/restore")


def _clear_out(rig: Rig) -> None:
    """Delete the rest for good, empty the trash: the model folder is as empty as at the start."""
    if rig.went_back:
        deaths.adopt_all(rig)  # a deletion that a lost database knew of was never carried out: the model is found
    for name in rig.models():
        try:
            attempt(rig, f"delete {name}", lambda name=name: rig.machine.delete(name))  # type: ignore[misc]
        except Refused as refused:
            raise Violation("stuck", f"delete {name}: {refused}") from refused
        gone(rig, name)
    rig.names = [None] * len(rig.names)
    attempt(rig, "empty", lambda: rig.machine.ask("DELETE", "/v0/trash"))
    if rig.went_back:
        # What was put into the trash, and then forgotten by whoever knew of it, leaves it when its time is over.
        patiently(rig, lambda: rig.machine.limits(trash_seconds=0))
    empty(rig)
