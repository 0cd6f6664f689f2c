"""The soak's own arithmetic: what it counts, that a seed repeats itself, and that a violation is not kept quiet."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from tests.faults import soak
from tests.faults.cycle import Rig, Violation
from tests.faults.ledger import count
from tests.faults.machine import Machine
from tests.faults.schedule import draw_cycle
from tests.hub import Fault, LoopbackHub, Record


def answer(start: int, sent: int, at: float, *, fault: Fault | None = None, label: str = "a/b/m.gguf") -> Record:
    record = Record("cdn", "GET", "/x", {"range": f"bytes={start}-"}, label=label, status=206, fault=fault, at=at)
    record.file_bytes = sent
    return record


def test_what_is_fetched_twice_is_put_down_to_its_cause() -> None:
    log = [
        answer(0, 100, 1.0),
        answer(80, 50, 3.0),
        answer(120, 30, 4.0, fault=Fault()),
        answer(0, 100, 9.0, label="o"),
    ]
    ledger = count(log, kills=[2.0])
    assert (ledger.served, dict(ledger.by_kill), ledger.otherwise) == (280, {2.0: 20}, 10)
    assert count(log, kills=[2.0], excuses=[("a/b/m.gguf", 2.5)]).by_kill == {2.0: 0}
    assert count(log, kills=[]).otherwise == 30


def test_a_file_with_a_wrong_byte_is_fetched_once_more_whoever_was_killed() -> None:
    log = [answer(0, 100, 1.0), answer(100, 50, 1.5, fault=Fault(flip_at=120)), answer(0, 150, 3.0)]
    ledger = count(log, kills=[2.0])
    assert (dict(ledger.by_kill), ledger.otherwise) == ({2.0: 0}, 150)
    assert count([*log, answer(0, 30, 4.0, label="another")], kills=[2.0]).by_kill == {2.0: 0}
    log[1].fault = Fault(close_after=50)
    assert count(log, kills=[2.0]).by_kill == {2.0: 100}, "only a wrong byte ruins the rest of the file"


def test_a_seed_repeats_its_schedule_and_another_does_not() -> None:
    first = [draw_cycle(7, number).as_json() for number in range(20)]
    assert first == [draw_cycle(7, number).as_json() for number in range(20)]
    assert first != [draw_cycle(8, number).as_json() for number in range(20)]
    steps = {each["what"] for cycle in first for each in cycle["steps"]}
    assert {"kill service", "kill node", "pause", "cancel", "move", "limits", "hub down", "expire", "drop"} <= steps
    effects = {key for cycle in first for rule in cycle["rules"] for key in rule}
    assert {"reset_after", "close_after", "stall_after", "status", "expired", "ignore_range", "flip_at"} <= effects


def test_a_violation_ends_it_with_the_evidence_kept(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(rig: Rig) -> None:
        rig.note("what happened before")
        raise Violation("corrupt", "m.gguf")

    monkeypatch.setattr(soak, "run_cycle", broken)
    assert soak.main(["--rounds", "3", "--home", str(tmp_path)]) == 1
    assert {"summary.json", "cycle.json", "told.txt"} <= {each.name for each in tmp_path.iterdir()}
    assert "what happened before" in (tmp_path / "told.txt").read_text()
    assert "corrupt: m.gguf" in capsys.readouterr().err


def test_what_a_cycle_did_is_added_up(tmp_path: Any) -> None:
    totals, plan = soak.Totals(), draw_cycle(1, 0)
    rig = Rig(Machine(tmp_path, "http://127.0.0.1:9"), LoopbackHub(), plan)
    rig.hub.log += [answer(0, 100, 1.0), answer(80, 20, 3.0)]
    rig.kill_times.append(2.0)
    rig.kill_counts["node"] += 1
    rig.recover_s.append(1.5)
    totals.add(rig, plan)
    totals.violate(Violation("lost", "a model"))
    told = totals.as_json(10.0, 1)
    assert (told["kills"], told["bytes_served"], told["bytes_refetched_per_kill_max"]) == (1, 120, 20)
    assert (told["recover_s_p50"], told["corrupt"], told["lost"]) == (1.5, 0, 1)
    assert soak._bound(argparse.Namespace(seconds=5.0, rounds=2)) == "5 s or 2 cycles"
    rig.hub.close()
