"""Real commands in the middle of it: each ends within its limit, and what it says is true."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from tests.faults.rig import Rig, Violation

LIMIT_S = 40
"""What the commands are given with `--timeout`."""
GRACE_S = 20.0
"""On top of it: Python and the service start on a machine that is busy with other things."""
LOOKS = (
    ("local", "--json"),
    ("list", "--json"),
    ("list", "--fits"),
    ("status", "--json"),
    ("trash", "--json"),
    ("limits",),
)
_CODES = frozenset(range(6))


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(rig: Rig, *argv: str, limit_s: int = LIMIT_S) -> Said:
    """Run `modelhub ARGV` as a user does.

    Raises:
        Violation: It takes longer than its limit, or shows what no user should see.
    """
    rig.note(f"$ modelhub {' '.join(argv)}")
    began = time.monotonic()
    process = rig.machine.cli(*argv, "--timeout", str(limit_s))
    try:
        out, err = process.communicate(timeout=limit_s + GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise Violation("slow", f"{argv} has not ended after {limit_s + GRACE_S} s: {out}{err}") from None
    took = time.monotonic() - began
    rig.longest = max(rig.longest, (round(took, 1), " ".join(argv)))
    rig.commands[argv[0]] += 1
    rig.note(f"  {process.returncode} after {took:.1f} s: {err.strip()[-500:]}")
    if "Traceback" in out + err or process.returncode not in _CODES:
        raise Violation("false", f"{argv} ended with {process.returncode}: {out}{err}")
    return Said(process.returncode, out, err)


def first_answer(rig: Rig, whole: set[str]) -> None:
    """`modelhub local` right after a start: it tells of everything that is whole, or says that it cannot.

    Args:
        whole: Repos of which something was whole before.
    """
    said = command(rig, "local", "--json")
    if said.code:
        if not said.err.strip():
            raise Violation("false", "`local` failed without a word")
        return
    missing = whole - {each["repo"] for each in said.json}
    if missing:
        raise Violation("false", f"`local` right after a start does not know {sorted(missing)}: {said.out}{said.err}")
