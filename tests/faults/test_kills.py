"""SIGKILL of the service and of its node in the middle of transfers. `make soak` does the same a hundred times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.machine import Machine
from tests.faults.recovery import Victim, kill_and_recover
from tests.faults.residue import left_behind
from tests.faults.witness import Witness
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)

SIZES = {"one.gguf": 4 * MIB + 3, "several.gguf": 24 * MIB + 11}
TUNING = {"parallel_bytes": 8 * MIB, "fast_bps": 10**12}
AGAIN_PER_KILL = 4 * MIB
"""Bytes served again for each kill, at most: what was read but not yet written, and what the kernel still held (of a
node that got no processor for a while, on a busy machine)."""
RECOVER_S = 30.0
"""Far more than it takes; a machine that is busy with other tests takes its time."""


def test_a_kill_costs_no_more_than_what_was_in_flight(tmp_path: Path) -> None:
    draw = random.Random("two kills")
    victims: tuple[Victim, ...] = ("node", "service")
    with LoopbackHub(throttle_bps=8 * MIB) as hub, Machine(tmp_path, hub, tuning=TUNING) as machine:
        repo = hub.add(HubRepo("acme/killed", {name: Generated(size, seed=size) for name, size in SIZES.items()}))
        total = sum(SIZES.values())
        with Witness(machine):
            names = [machine.register(repo.id, name) for name in SIZES]
            for victim, share in zip(victims, (draw.uniform(0.1, 0.4), draw.uniform(0.5, 0.8)), strict=True):
                machine.until(lambda goal=total * share: hub.served_bytes("*.gguf") >= goal, "so much was served")
                recovery = kill_and_recover(machine, hub, victim)
                assert recovery.seconds < RECOVER_S
            hub.throttle_bps = None
            machine.wait_whole(*names)
            for name, file in zip(names, SIZES, strict=True):
                path = Path(machine.models()[name]["placements"][0]["path"])
                assert path.read_bytes() == repo[file].read()
        assert hub.served_bytes("*.gguf") - total <= len(victims) * AGAIN_PER_KILL
        assert left_behind(machine.cache) == []
