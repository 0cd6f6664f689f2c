"""Processes that are killed and databases that go back in time, and what of the models has to be there afterwards."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.commands import command, first_answer
from tests.faults.machine import Refused
from tests.faults.recovery import Victim, alive
from tests.faults.rig import Rig, Violation, attempt, gone, patiently, recovered, register, settled
from tests.faults.rollback import DATABASES, copy_databases, damage, words
from tests.faults.verify import survived, whole_now

FOUND_S = 60.0
"""Longest until what lies in the cache, and is registered nowhere, is told to be found."""


def copies(rig: Rig) -> Path:
    return rig.machine.home / "copies"


def copy(rig: Rig) -> None:
    """Keep the databases as they are now."""
    rig.note("copy databases")
    copy_databases(rig.machine.settings.state_dir, copies(rig))


def kill(rig: Rig, victim: Victim, chance: float = 1.0) -> None:
    """SIGKILL; a service is started again, when `chance` is small by the command that asks what is there."""
    rig.note(f"kill {victim}")
    moving = not settled(rig)
    repos = _whole_repos(rig) if chance < 0.5 and victim == "service" else set()
    # Bytes that are under way when the axe falls, not those of a request before: the time is taken just before.
    at = time.monotonic()
    if victim == "node":
        rig.machine.kill_node()
    else:
        rig.machine.kill()
    rig.kill_times.append(at)
    rig.kill_counts[victim] += 1
    if victim == "service":
        if chance < 0.3:
            first_answer(rig, repos)
            rig.machine.attach()
        else:
            rig.machine.start()
            if chance < 0.5:
                first_answer(rig, repos)
    if moving:
        recovered(rig, at)


def _whole_repos(rig: Rig) -> set[str]:
    return {str(model["repo"]) for model in rig.models().values() if model["status"] == "ready"}


def roll_back(rig: Rig, who: str, how: str, *, doomed: str | None = None) -> None:
    """SIGKILL the service, and start it again with other databases; ask anew for what nobody knows any more.

    Args:
        who: `router`, `node` or `both`.
        doomed: A model whose deletion was asked for: it may come back.

    Raises:
        Violation: Something is lost, or the command that starts the service does not say what happened.
    """
    rig.note(f"roll back {who} {how}")
    moving, state = not settled(rig), rig.machine.settings.state_dir
    registered = {name for name, model in rig.models().items() if model["registered"]} - {doomed}
    mine = {name: each.repo for each, name in zip(rig.plan.models, rig.names, strict=True) if name}
    whole = {name: paths for name, paths in whole_now(rig).items() if name in mine}
    at = time.monotonic()
    node = rig.machine.kill()
    rig.kill_times.append(at)
    rig.kill_counts["service"] += 1
    while node and alive(node):
        time.sleep(0.02)  # it notices, and writes a last time
    each = [*DATABASES] if who == "both" else [who]
    before = {name: words(state, name) for name in each}
    done = [name for name in each if damage(state, copies(rig), name, how)]
    rig.note(f"  done to {done}")
    went_back = {name for name in done if words(state, name) != before[name]}
    rig.went_back = rig.went_back or bool(went_back)
    rig.scenes["roll back"] += 1
    said = command(rig, "list", "--json")
    rig.machine.attach()
    forgotten = registered - {name for name, model in rig.models().items() if model["registered"]}
    if said.code or (forgotten and "database" not in said.err):
        what = f"the command that started the service said {said.err!r} and ended with {said.code}"
        raise Violation("false", f"{who} {how}, without {sorted(forgotten)}: {what}\n{rig.machine.output()}")
    survived(whole, f"{who} {how}")
    first_answer(rig, {mine[name] for name in whole})
    _reclaim(rig, set(whole), doomed)
    if moving:
        recovered(rig, at)


def _reclaim(rig: Rig, whole: set[str], doomed: str | None) -> None:
    """Adopt what was whole, order again what was not, and delete what has come back from the dead."""
    known = {name for name, model in rig.models().items() if model["registered"]}
    for index, name in enumerate(rig.names):
        if name is None or name in known:
            continue
        if name in whole:
            rig.names[index] = _adopt(rig, index)
        else:
            rig.names[index] = register(rig, rig.plan.models[index])
    for name in known - set(rig.names) - {doomed}:
        if attempt(rig, f"delete {name}", lambda name=name: rig.machine.delete(name)):  # type: ignore[misc]
            gone(rig, name)


def _adopt(rig: Rig, index: int) -> str:
    name = found(rig, index)
    if name is None:
        repo = rig.plan.models[index].repo
        raise Violation("lost", f"{repo} was whole and is not found: {rig.models()}\n{rig.machine.output()}")
    return adopt(rig, name)


def found(rig: Rig, index: int, timeout_s: float = FOUND_S) -> str | None:
    """The name under which a model is told to be found, once it is; None if it is not."""
    repo, deadline = rig.plan.models[index].repo, time.monotonic() + timeout_s
    while True:
        told = patiently(rig, lambda: rig.machine.ask("GET", "/v0/models"))
        names = [each["name"] for each in told if each["found"] and each["repo"] == repo]
        if names:
            return str(names[0])
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)


def adopt_all(rig: Rig) -> None:
    """Register whatever is found, as a person who wants to see the end of it."""
    said = command(rig, "adopt", "--all")
    if said.code:
        raise Violation("stuck", f"adopt --all: {said}\n{rig.machine.output()}")


def adopt(rig: Rig, name: str) -> str:
    """Register what was found; its name."""
    rig.note(f"adopt {name}")
    try:
        name = str(patiently(rig, lambda: rig.machine.ask("POST", "/v0/models/adopt", {"name": name}))["name"])
    except Refused as refused:
        if refused.code != "already_registered":
            raise Violation("lost", f"{name} was found, but cannot be adopted: {refused}") from refused
        name = str(refused.body["name"])
    rig.commands["adopt"] += 1
    return name
