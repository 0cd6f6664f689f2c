"""The soak's own arithmetic: what it counts, that a seed repeats itself, and that a violation is not kept quiet."""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults import commands, soak
from tests.faults.cycle import TUNING, run_cycle
from tests.faults.hands import Order, last_ones, possible
from tests.faults.ledger import count
from tests.faults.machine import Machine
from tests.faults.rig import Rig, Violation
from tests.faults.rollback import DATABASES, HOWS, copy_databases, damage, words
from tests.faults.schedule import Cycle, Ending, Step, Wanted, draw_cycle
from tests.faults.witness import Witness
from tests.hub import MIB, Fault, Generated, LoopbackHub, Record


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
    assert {"clock", "fill", "look", "hands", "copy databases", "neighbour"} <= steps
    assert len([each for each in steps if each.startswith("roll back")]) > 5
    assert any(cycle["shared"] for cycle in first) and any(cycle["slow_s"] for cycle in first)
    assert any(len(each["paths"]) > 100 for cycle in first for each in cycle["models"])
    assert {"kill service", "kill node", "pause", "cancel", "move", "limits", "hub down", "expire", "drop"} <= steps
    effects = {key for cycle in first for rule in cycle["rules"] for key in rule}
    assert {"reset_after", "close_after", "stall_after", "status", "expired", "ignore_range", "flip_at"} <= effects


def test_a_violation_ends_it_with_the_evidence_kept(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(rig: Rig, second: Machine) -> None:
        rig.note("what happened before")
        raise Violation("corrupt", "m.gguf")

    monkeypatch.setattr(soak, "run_cycle", broken)
    monkeypatch.setattr(soak, "can_mount", lambda: False)
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


def order(what: str, sent: float, answered: float, *, sure: bool = True) -> Order:
    return Order(what, "m", sent, answered, sure)


def test_of_orders_that_cross_either_may_have_been_last() -> None:
    adds, removes = frozenset({"undo"}), frozenset({"delete"})

    def may(*orders: Order, before: bool = True) -> set[bool]:
        return possible([*orders], adds, removes, before)

    assert may() == {True} and may(order("pause", 0, 1)) == {True} and may(before=False) == {False}
    assert may(order("delete", 0, 1)) == {False}
    assert may(order("delete", 0, 1), order("undo", 2, 3)) == {True}
    assert may(order("delete", 0, 2), order("undo", 1, 3)) == {True, False}, "they overlapped"
    assert may(order("delete", 0, 1, sure=False)) == {True, False}, "nobody knows whether it was carried out"
    assert may(order("undo", 0, 1), order("delete", 2, 3, sure=False)) == {True, False}
    assert may(order("delete", 0, 1, sure=False), order("undo", 2, 3)) == {True}
    assert last_ones([order("a", 0, 1), order("b", 0, 3), order("c", 2, 3)]) == [order("b", 0, 3), order("c", 2, 3)]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("who", DATABASES)
def test_a_database_goes_back_as_told(tmp_path: Path, who: str, how: str) -> None:
    state = tmp_path / "state"
    path = state / DATABASES[who]
    path.parent.mkdir(parents=True)
    assert not damage(state, tmp_path / "copies", who, how), "there is none yet"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE models (name TEXT)")
        db.execute("INSERT INTO models VALUES ('checkpointed')")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("INSERT INTO models VALUES ('in the log')")
        copy_databases(state, tmp_path / "copies")
        db.execute("INSERT INTO models VALUES ('later')")
        before = words(state, who)
        assert before is not None and sum("later" in each for each in before) == 1
        # As after a SIGKILL: the log is there still.
        kept = {each: each.read_bytes() for each in (path, Path(f"{path}-wal"))}
    for each, raw in kept.items():
        each.write_bytes(raw)
    assert words(state, who) == before, "looking changes nothing"
    assert damage(state, tmp_path / "copies", who, how)
    after = "\n".join(words(state, who) or ["nothing"])
    match how:
        case "old":
            assert "in the log" in after and "later" not in after
        case "old file" | "no log":
            assert "checkpointed" in after and "in the log" not in after
        case "gone" | "garbage" | "folder" | "link":
            assert after == "nothing"
    assert [*state.parent.glob("looked-at*")] == []


def test_a_command_that_does_not_end_is_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sleepy(Machine):
        def cli(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
            script = "import time; time.sleep(600)" if "never" in argv else "raise SystemExit(7)"
            return subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True)

    monkeypatch.setattr(commands, "GRACE_S", 0.0)
    with LoopbackHub() as hub:
        rig = Rig(Sleepy(tmp_path, hub), hub, draw_cycle(1, 0))
        with pytest.raises(Violation, match="slow"):
            commands.command(rig, "never", limit_s=0)
        with pytest.raises(Violation, match="ended with 7"):
            commands.command(rig, "odd", limit_s=30)


@pytest.mark.timeout(300)
def test_a_small_cycle_with_every_scene_that_needs_no_small_disk(tmp_path: Path) -> None:
    texts = {"config.json": "{}"} | {f"part-{n:02}.txt": f"{n} " * 99 for n in range(30)}
    steps = ("copy databases", "clock", "hands", "neighbour", "roll back router no log", "look", "roll back node gone")
    plan = Cycle(
        number=0,
        repos={
            "soak/one": {"m.gguf": Generated(MIB, seed=1)},
            "soak/many": {"model.safetensors": Generated(MIB, seed=2), **texts},
        },
        models=(
            Wanted("soak/one", "m.gguf", ("m.gguf",)),
            Wanted("soak/many", None, ("model.safetensors", *texts)),
        ),
        rules=({"path": "soak/one/*", "server": "cdn", "reset_after": 1000},),
        steps=tuple(Step(n / 10, what, 0, 0.7) for n, what in enumerate(steps)),
        endings=(Ending(keep=True, undo=True, kill="kill node"), Ending(keep=False, undo=False, by_command=True)),
        throttle_bps=4 * MIB,
        parallel=2,
        slow_s=0.02,
        shared=(0,),
    )
    cache = tmp_path / "hub"
    with LoopbackHub() as hub:
        second = Machine(tmp_path / "neighbour", hub, tuning=TUNING, cache=cache)
        machine = Machine(tmp_path, hub, tuning=TUNING, cache=cache, whims=True)
        rig = Rig(machine, hub, plan)
        try:
            with Witness(machine):
                run_cycle(rig, second)
        finally:
            for each in (machine, second):
                each.stop()
        assert rig.scenes == {"clock jump": 1, "two clients": 1, "neighbour": 1, "roll back": 2}
        assert rig.kill_counts == {"service": 2, "node": 1}
        assert {"list", "local", "rm"} <= rig.commands.keys() and rig.longest[0] < commands.LIMIT_S
        # Both after the pulls, what was taken back twice: after the deletions, and after those of the neighbour.
        assert rig.files_verified == 33 + 1 + 1
