"""A second service, of another state folder, on the same model folder: neither suffers from what the other does."""

from __future__ import annotations

import time

from tests.faults.machine import Machine
from tests.faults.rig import Rig, Violation, gone, patiently, register
from tests.faults.verify import verify_files


class Neighbour:
    """It pulls some of the models of a cycle as well, cancels, deletes and restarts, and lets go of all at the end."""

    def __init__(self, rig: Rig, machine: Machine) -> None:
        self._theirs = rig
        self.rig = Rig(machine, rig.hub, rig.plan, repos=rig.repos, names=[None] * len(rig.plan.models), told=rig.told)

    def begin(self) -> None:
        """Start, and order the shared models."""
        self.rig.note("the neighbour begins")
        self.rig.machine.start()
        for index in self.rig.plan.shared:
            self.rig.names[index] = register(self.rig, self.rig.plan.models[index])

    def act(self, index: int, chance: float) -> None:
        """Delete one of the shared models whatever its state and order it anew, or be killed and start again."""
        index = self.rig.plan.shared[index % len(self.rig.plan.shared)]
        if chance < 0.3:
            self.rig.note("kill the neighbour")
            self._theirs.kill_times.append(time.monotonic())
            self.rig.machine.kill()
            self.rig.machine.start()
            return
        name = self.rig.names[index]
        assert name is not None
        self.rig.note(f"the neighbour deletes {name}, and orders it anew")
        keep = "true" if chance < 0.6 else "false"
        patiently(self.rig, lambda: self.rig.machine.delete(name, f"cancel=true&keep={keep}"))
        gone(self.rig, name)
        self.rig.names[index] = register(self.rig, self.rig.plan.models[index])

    def end(self) -> None:
        """Its models are still whole, whatever the other has deleted; then delete them all for good and stop.

        Raises:
            Violation: Something is missing, or stays.
        """
        self.rig.note("the neighbour ends")
        verify_files(self.rig, "of the neighbour")
        for name in filter(None, self.rig.names):
            patiently(self.rig, lambda name=name: self.rig.machine.delete(name))  # type: ignore[misc]
            gone(self.rig, name)
        patiently(self.rig, lambda: self.rig.machine.ask("DELETE", "/v0/trash"))
        deadline = time.monotonic() + 30
        while patiently(self.rig, lambda: self.rig.machine.ask("GET", "/v0/trash")):
            if time.monotonic() > deadline:
                raise Violation("stuck", "the neighbour's trash does not become empty")
            time.sleep(0.1)
        self.rig.machine.stop()
