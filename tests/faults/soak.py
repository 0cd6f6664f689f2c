"""`python -m tests.faults.soak`: pull, break, kill, control, delete, undo, as long as one likes; then say how it went.

Every cycle pulls a few models under a random schedule of hub faults, SIGKILLs and commands, then reads every file on
disk and compares checksums, and looks for what was lost or left behind. The schedule is drawn from `--seed` alone; what
the machine makes of it in time is its own. Exit code 1 and the evidence's folder on any violation, else 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.cycle import TUNING, run_cycle
from tests.faults.machine import Machine, Refused
from tests.faults.places import can_mount, on_small_disk
from tests.faults.rig import Rig, Violation
from tests.faults.schedule import Cycle, draw_cycle
from tests.faults.witness import Witness
from tests.hub import MIB, LoopbackHub

DISK_BYTES = 768 * MIB
"""Of the model folder's own file system, in memory: room for what a cycle needs, and quickly filled."""


@dataclass
class Totals:
    """What all cycles together did."""

    cycles: int = 0
    models: int = 0
    files_verified: int = 0
    kills: dict[str, int] = field(default_factory=lambda: {"service": 0, "node": 0})
    faults: int = 0
    scenes: dict[str, int] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    bytes_served: int = 0
    refetched_otherwise: int = 0
    refetched_by_kill: list[int] = field(default_factory=list)
    recover_s: list[float] = field(default_factory=list)
    longest: tuple[float, str] = (0.0, "")
    corrupt: int = 0
    lost: int = 0
    left_behind: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, rig: Rig, plan: Cycle) -> None:
        """Count a cycle in."""
        ledger = rig.ledger()
        self.cycles += 1
        self.models += len(plan.models)
        self.files_verified += rig.files_verified
        for victim, count in rig.kill_counts.items():
            self.kills[victim] += count
        for mine, of_cycle in ((self.commands, rig.commands), (self.scenes, rig.scenes)):
            for each, count in of_cycle.items():
                mine[each] = mine.get(each, 0) + count
        if plan.slow_s:
            self.scenes["slow disk"] = self.scenes.get("slow disk", 0) + 1
        self.longest = max(self.longest, rig.longest)
        self.faults += sum(each.hits for each in rig.hub.faults)
        self.bytes_served += ledger.served
        self.refetched_otherwise += ledger.otherwise
        self.refetched_by_kill += ledger.by_kill.values()
        self.recover_s += rig.recover_s

    def violate(self, violation: Violation) -> None:
        """Count what must never happen."""
        self.violations.append(str(violation))
        match violation.kind:
            case "corrupt":
                self.corrupt += 1
            case "lost":
                self.lost += 1
            case "left behind":
                self.left_behind += 1

    def as_json(self, seconds: float, seed: int) -> dict[str, Any]:
        """The summary for programs."""
        again, recover = self.refetched_by_kill or [0], sorted(self.recover_s) or [0.0]
        return {
            "seed": seed,
            "seconds": round(seconds, 1),
            "cycles": self.cycles,
            "models_pulled": self.models,
            "files_verified": self.files_verified,
            "kills": sum(self.kills.values()),
            "kills_of": self.kills,
            "faults_injected": self.faults,
            "scenes": self.scenes,
            "commands": self.commands,
            "longest_command_s": self.longest[0],
            "longest_command": self.longest[1],
            "bytes_served": self.bytes_served,
            "bytes_refetched_per_kill_max": max(again),
            "bytes_refetched_per_kill_mean": round(statistics.fmean(again)),
            "bytes_refetched_otherwise": self.refetched_otherwise,
            "recover_s_p50": round(statistics.median(recover), 2),
            "recover_s_max": round(recover[-1], 2),
            "corrupt": self.corrupt,
            "lost": self.lost,
            "left_behind": self.left_behind,
            "violations": self.violations,
        }


def main(argv: list[str] | None = None) -> int:
    """0 when nothing was violated, 1 when something was."""
    options = _parser().parse_args(argv)
    home = Path(options.home) if options.home else Path(tempfile.mkdtemp(prefix="modelhub-soak-"))
    home.mkdir(parents=True, exist_ok=True)
    if can_mount() and not options.disk:
        # The model folder becomes a small disk of its own, in a mount namespace that everything below lives in.
        again = [*(argv if argv is not None else sys.argv[1:]), "--home", str(home), "--disk", str(home / "disk")]
        command = [*on_small_disk(home / "disk", DISK_BYTES), sys.executable, "-m", "tests.faults.soak", *again]
        os.execvp(command[0], command if options.home else [*command, "--tidy"])
    totals, began = Totals(), time.monotonic()
    print(f"soak: seed {options.seed}, {_bound(options)}, in {home}", flush=True)
    cache = Path(options.disk, "hub") if options.disk else home / "hub"
    filler = Path(options.disk, "filler") if options.disk else None
    with LoopbackHub() as hub:
        machine = Machine(home, hub, tuning=TUNING, cache=cache, whims=True)
        second = Machine(home / "neighbour", hub, tuning=TUNING, cache=cache)
        number = options.first
        with contextlib.suppress(KeyboardInterrupt):
            while not totals.violations and not _enough(options, number - options.first, began):
                plan = draw_cycle(options.seed, number).without(options.without)
                _one(Rig(machine, hub, plan, filler), second, totals, options.verbose)
                number += 1
        for each in (machine, second):
            with contextlib.suppress(AssertionError):
                each.stop()
        if totals.violations and options.disk:
            shutil.copytree(cache, home / "hub", symlinks=True, dirs_exist_ok=True)  # what is in memory goes with us
    summary = totals.as_json(time.monotonic() - began, options.seed)
    print(_table(summary))
    print(json.dumps(summary), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(summary, indent=2) + "\n")
    if totals.violations:
        (home / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        print(f"The evidence is in {home}: logs, state, cache, cycle.json.", file=sys.stderr)
        return 1
    if options.tidy or not options.home:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def _one(rig: Rig, second: Machine, totals: Totals, verbose: bool) -> None:
    machine, plan = rig.machine, rig.plan
    rig.hub.log.clear()
    rig.hub.faults.clear()
    began = time.monotonic()
    witness = Witness(machine, pause_s=0.25)
    try:
        with witness:
            run_cycle(rig, second)
    except (Violation, AssertionError, OSError, Refused) as error:
        violation = error if isinstance(error, Violation) else Violation("stuck", f"{error!r}")
        totals.violate(violation)
        (machine.home / "cycle.json").write_text(json.dumps(plan.as_json(), indent=2, default=str) + "\n")
        (machine.home / "told.txt").write_text(f"{violation}\n\n" + "\n".join(rig.told))
        print(f"cycle {plan.number}: {str(violation)[:2000]}", file=sys.stderr, flush=True)
    finally:
        for problem in witness.problems:
            totals.violate(Violation("corrupt", problem))
        totals.add(rig, plan)
    if verbose or totals.cycles % 10 == 0:
        kills = sum(totals.kills.values())
        print(
            f"  cycle {plan.number}: {time.monotonic() - began:.1f} s; so far {kills} kills, {totals.faults} faults,"
            f" {totals.files_verified} files verified, {len(totals.violations)} violations",
            flush=True,
        )


def _enough(options: argparse.Namespace, done: int, began: float) -> bool:
    if options.rounds is not None and done >= options.rounds:
        return True
    return options.seconds is not None and time.monotonic() - began >= options.seconds


def _bound(options: argparse.Namespace) -> str:
    bounds = [f"{options.seconds:g} s"] if options.seconds is not None else []
    return (
        " or ".join([*bounds, *([f"{options.rounds} cycles"] if options.rounds is not None else [])]) or "until ctrl+c"
    )


def _table(summary: dict[str, Any]) -> str:
    rows = [(name.replace("_", " "), _shown(value)) for name, value in summary.items() if name != "violations"]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in sorted(value.items())) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, help="start no new cycle after this long")
    parser.add_argument("--rounds", type=int, help="so many cycles")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule; 1 if unset")
    parser.add_argument("--first", type=int, default=0, help="number of the first cycle, to repeat one alone")
    parser.add_argument("--home", help="where the machine lives; kept. Else a temporary folder, kept after a violation")
    parser.add_argument("--without", nargs="*", default=[], metavar="STEP", help="leave out steps that begin like this")
    parser.add_argument("--disk", help=argparse.SUPPRESS)
    parser.add_argument("--tidy", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", help="write the summary there")
    parser.add_argument("--verbose", action="store_true", help="a line for each cycle")
    return parser


if __name__ == "__main__":
    # Ended from outside it tidies up as after ctrl+c; a shell starts what it runs in the background without either.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    sys.exit(main())
