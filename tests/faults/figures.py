"""`python -m tests.faults.figures`: the measured columns of docs/reliability.md, as Markdown."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.faults.machine import Machine
from tests.faults.test_wire import SIZES, TUNING, each_case
from tests.hub import Generated, HubRepo, LoopbackHub, Record


def main() -> None:
    """One case after the other, so that none waits for another."""
    print("| fault | connections | bytes fetched again | seconds until bytes came again |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as home,
        LoopbackHub() as hub,
        Machine(Path(home), hub, tuning=TUNING) as machine,
    ):
        for number, (case, lines) in enumerate(each_case()):
            repo = hub.add(HubRepo(f"acme/{case.name}-{lines}", {"m.gguf": Generated(SIZES[lines], seed=number)}))
            rules = [hub.fault(path=f"{repo.id}/*", **rule) for rule in case.rules]
            name = machine.register(repo.id)
            machine.wait_whole(name)
            log = hub.requests(f"{repo.id}/*")
            again = sum(each.file_bytes for each in log) - SIZES[lines]
            print(f"| {case.name} | {lines} | {max(again, 0):,} | {recovered(log):.2f} |", flush=True)
            for rule in rules:
                rule.remove()
            machine.delete(name)
            machine.wait_gone(name)


def recovered(log: list[Record]) -> float:
    """Seconds from the last request that was spoiled to the next that was not and brought bytes."""
    spoiled = max(each.at for each in log if each.fault is not None)
    after = [each.at for each in log if each.at > spoiled and each.file_bytes and each.fault is None]
    return min(after, default=spoiled) - spoiled


if __name__ == "__main__":
    main()
