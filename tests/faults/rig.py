"""What the scenes of a cycle share: machine, hub, books, and how a patient user asks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.ledger import Ledger, count
from tests.faults.machine import Machine, Refused
from tests.faults.recovery import flowing_since
from tests.faults.schedule import Cycle, Wanted
from tests.hub import HubRepo, LoopbackHub

T = TypeVar("T")

HARMLESS = frozenset({"nothing_to_do", "not_registered", "already_registered", "transfer_running", "not_in_trash"})
"""Refusals of what a user asked for too late."""


class Violation(Exception):
    """Something that must never happen, of one of the kinds.

    Args:
        kind: `corrupt`, `lost`, `left behind`, `fetched again`, `slow`, `false` or `stuck`.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


@dataclass
class Rig:
    """A cycle's machine, hub and books."""

    machine: Machine
    hub: LoopbackHub
    plan: Cycle
    filler: Path | None = None
    """A file on the model folder's own small disk, to fill it with; None where there is no such disk."""
    repos: dict[str, HubRepo] = field(default_factory=dict)
    names: list[str | None] = field(default_factory=list)
    """Registered names of `plan.models`; None once gone."""
    kill_counts: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    scenes: Counter[str] = field(default_factory=Counter)
    """Roll-backs, full disks, jumps of the clock and other special troubles."""
    kill_times: list[float] = field(default_factory=list)
    excuses: list[tuple[str, float]] = field(default_factory=list)
    recover_s: list[float] = field(default_factory=list)
    longest: tuple[float, str] = (0.0, "")
    """The command that took longest, in seconds, and which it was."""
    went_back: bool = False
    """Whether a database lost something in this cycle: then the trash may have, too."""
    files_verified: int = 0
    told: list[str] = field(default_factory=list)
    """What happened when, for the evidence."""

    def note(self, what: str) -> None:
        self.told.append(f"{time.monotonic():.3f} {what}")

    def ledger(self) -> Ledger:
        return count(list(self.hub.log), self.kill_times, self.excuses)

    def sha(self, wanted: Wanted) -> str:
        return self.repos[wanted.repo].sha

    def excuse(self, wanted: Wanted, at: float) -> None:
        """What of a model was there at that time may be fetched again: it was thrown away on purpose."""
        self.excuses += [(f"{wanted.repo}/{path}", at) for path in wanted.paths]

    def models(self) -> dict[str, dict[str, Any]]:
        """As `Machine.models()`, asked until there is an answer."""
        return patiently(self, self.machine.models)


def register(rig: Rig, wanted: Wanted) -> str:
    """Pull a model; its name, also if it is registered already."""
    rig.note(f"register {wanted.repo} {wanted.filename}")
    try:
        name = patiently(rig, lambda: rig.machine.register(wanted.repo, wanted.filename))
    except Refused as refused:
        if refused.code != "already_registered":
            raise
        name = str(refused.body["name"])  # the answer to the first try was lost with the service
    rig.commands["register"] += 1
    return name


def patiently(rig: Rig, ask: Callable[[], T]) -> T:
    """Ask until there is an answer: the service may just have been killed, or its disk be full."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except OSError as error:
            rig.note(f"no answer: {error!r}")
            if time.monotonic() > deadline:
                raise Violation("stuck", f"the service does not answer: {error!r}\n{rig.machine.output()}") from error
        except Refused as refused:
            if refused.status == 500:
                raise Violation("stuck", f"an answer that nobody can use: {refused}\n{rig.machine.output()}") from None
            if refused.status < 500 and refused.status != 429:
                raise
            rig.note(f"not now: {refused}")
            if time.monotonic() > deadline:
                raise Violation("stuck", f"refused for a minute: {refused}") from refused
        time.sleep(0.1)


def attempt(rig: Rig, what: str, ask: Callable[[], object]) -> bool:
    """A command of a user; that it comes too late is no violation."""
    rig.note(what)
    try:
        patiently(rig, ask)
    except Refused as refused:
        rig.note(f"refused: {refused}")
        if refused.code not in HARMLESS:
            raise Violation("stuck", f"{what}: {refused}") from refused
        return False
    rig.commands[what.split()[0]] += 1
    return True


def settled(rig: Rig) -> bool:
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


def gone(rig: Rig, name: str) -> None:
    """Wait until a deleted model is gone from the list.

    Raises:
        Violation: It takes longer than a minute.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if name not in rig.machine.models():
                return
        except (OSError, Refused):
            pass
        time.sleep(0.05)
    raise Violation("stuck", f"{name} is still being deleted: {rig.machine.models().get(name)}\n{rig.machine.output()}")


def recovered(rig: Rig, since: float) -> None:
    """Wait until bytes flow again after a kill, if anything is left to fetch, and note how long that took."""
    while time.monotonic() - since < 45:
        if flowing_since(rig.hub, since):
            rig.recover_s.append(time.monotonic() - since)
            return
        if settled(rig) and time.monotonic() - since > 5:
            return
        time.sleep(0.03)
