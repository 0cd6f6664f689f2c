"""What has to be so when a cycle is calm: everything whole and right, and nothing beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.faults.machine import Refused
from tests.faults.residue import anything, held_locks, orphans, unfinished
from tests.faults.rig import Rig, Violation, attempt
from tests.faults.witness import content_is_right

FINISH_S = 120.0
"""Longest wait, once the trouble has ended, for everything to arrive."""


def finish(rig: Rig) -> None:
    """Everything that was asked for arrives; what a person has to ask for again is asked for.

    Raises:
        Violation: Something is not registered any more, or does not arrive.
    """
    wanted = {name for name in rig.names if name}
    deadline = time.monotonic() + FINISH_S
    models: dict[str, dict[str, Any]] = {}
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
        for name in wanted:
            transfers = models[name]["transfers"]
            if transfers and transfers[0]["phase"] == "failed" and transfers[0]["retry_in_s"] is None:
                attempt(rig, f"retry {name}", lambda name=name: rig.machine.control(name, "retry"))  # type: ignore[misc]
            if models[name]["paused"]:
                attempt(rig, f"resume {name}", lambda name=name: rig.machine.control(name, "resume"))  # type: ignore[misc]
        time.sleep(0.1)
    missing = {name: models[name] for name in sorted(wanted) if models[name]["status"] != "ready"}
    raise Violation("stuck", f"not whole in {FINISH_S:.0f} s: {missing}\n{rig.machine.output()}")


def verify_files(rig: Rig, when: str) -> None:
    """Every file of every model is there, and right.

    Raises:
        Violation: `lost` or `corrupt`.
    """
    models = rig.models()
    for wanted, name in zip(rig.plan.models, rig.names, strict=True):
        if name is None:
            continue
        placements = models.get(name, {}).get("placements")
        if not placements:
            raise Violation("lost", f"{name} is placed nowhere {when}")
        paths = [Path(each) for each in placements[0]["paths"]]
        home = rig.machine.cache / f"models--{wanted.repo.replace('/', '--')}" / "snapshots" / rig.sha(wanted)
        for path in wanted.paths:
            if home / path not in paths or not (home / path).exists():
                raise Violation("lost", f"{home / path} of {name} is not there {when}")
            blob = rig.repos[wanted.repo][path]
            if (home / path).stat().st_size != blob.size or not content_is_right(home / path):
                raise Violation("corrupt", f"{home / path} of {name} {when}")
            rig.files_verified += 1


def nothing_left(rig: Rig, when: str) -> None:
    """No parts, maps, temporary files, held locks, blobs without a link, or processes beside the two of the service.

    Raises:
        Violation: `left behind`.
    """
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
    raise Violation("left behind", f"{when}: {[str(each) for each in left]}\n{rig.machine.output()}")


def empty(rig: Rig) -> None:
    """The model folder is as empty as at the start.

    Raises:
        Violation: `left behind`.
    """
    deadline = time.monotonic() + 30
    while left := anything(rig.machine.cache):
        if time.monotonic() > deadline:
            what = [str(each) for each in left]
            raise Violation("left behind", f"after everything was deleted: {what}\n{rig.machine.output()}")
        time.sleep(0.1)


def whole_now(rig: Rig) -> dict[str, list[Path]]:
    """The files of what is told to be whole now, by name."""
    return {
        name: [Path(each) for where in model["placements"] for each in where["paths"]]
        for name, model in rig.models().items()
        if model["status"] == "ready"
    }


def survived(whole: dict[str, list[Path]], what: str) -> None:
    """What was whole is there still.

    Raises:
        Violation: `lost` or `corrupt`.
    """
    for name, paths in whole.items():
        for path in paths:
            if not path.exists():
                raise Violation("lost", f"{path} of {name} is gone after {what}")
            if not content_is_right(path):
                raise Violation("corrupt", f"{path} of {name} after {what}")
