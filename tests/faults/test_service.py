"""The service's own troubles: no hub at its start, damaged or locked databases, a jumping clock, many users at once."""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.machine import PATIENCE_S, Machine
from tests.faults.residue import anything, left_behind
from tests.faults.witness import Witness, content_is_right
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.tty import Terminal
from tests.tty.terminal import installed

pytestmark = pytest.mark.timeout(300)

SIZE = 4 * MIB
NOWHERE = "http://hub.invalid:8080"
"""RFC 2606: a name that never resolves."""


def model(hub: LoopbackHub, name: str, size: int = SIZE) -> HubRepo:
    return hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(size, seed=len(name))}))


def served(hub: LoopbackHub, name: str) -> int:
    return hub.served_bytes(f"acme/{name}/*")


def half(hub: LoopbackHub, machine: Machine, name: str) -> str:
    """Pull a model of which no more than half comes; returns its registered name."""
    stall = hub.fault(path=f"acme/{name}/*", server="cdn", stall_after=SIZE // 2)
    registered = machine.register(model(hub, name).id)
    machine.until(stall.stalled.is_set, "half of it is there")
    machine.until(
        lambda: (now := machine.transfer(registered)) and now["bytes_done"] == SIZE // 2, "half of it is on disk"
    )
    return registered


def test_without_a_hub_it_waits_and_says_so_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        machine = Machine(tmp_path, hub, tuning={"stall_s": 60})
        with machine:
            name = half(hub, machine, "waiting")
        machine.tuning["stall_s"] = 1.0
        machine.hub = NOWHERE
        with machine, Witness(machine):
            told = machine.wait_phase(name, "retrying", "failed", code="hub_unreachable")
            assert told["error"].startswith(f"{NOWHERE} cannot be reached") and "check the network" in told["error"]
            assert told["bytes_done"] == SIZE // 2, "what is on disk still counts"
        hub.down()
        machine.hub = hub
        with machine, Witness(machine):
            told = machine.wait_phase(name, "retrying", "failed", code="hub_unreachable")
            assert told["retry_in_s"] is not None, "it tries again by itself"
            hub.up()
            machine.wait_whole(name)
            assert left_behind(machine.cache) == []
        # What the stopped service had not read any more was sent for nothing.
        assert served(hub, "waiting") == SIZE


@pytest.mark.parametrize("database", ["modelhub.db", "node/node.db"])
def test_a_damaged_database_costs_no_bytes(tmp_path: Path, database: str) -> None:
    with LoopbackHub() as hub:
        machine = Machine(tmp_path, hub, tuning={"stall_s": 60})
        with machine:
            whole = machine.register(model(hub, "whole").id)
            machine.wait_whole(whole)
            begun = half(hub, machine, "begun")
        path = machine.settings.state_dir / database
        path.write_bytes(b"no database at all" * 1000)
        machine.tuning["stall_s"] = 1.0
        with machine, Witness(machine):
            asides = [each for each in path.parent.iterdir() if each.name.startswith(path.name + ".")]
            if database == "modelhub.db":
                assert machine.info is not None and "damaged" in machine.info.notice
                assert any(each.name in machine.info.notice for each in asides), "it says where the old one is"
                # Nothing is registered any more; what is whole is found on the disk, and asking again costs nothing.
                machine.until(lambda: "found" if machine_lists_found(machine, "acme/whole") else None, "it is found")
                assert {machine.register("acme/whole"), machine.register("acme/begun")} == {whole, begun}
            machine.wait_whole(whole, begun)
            aside = machine.until(
                lambda: [each for each in path.parent.iterdir() if each.name.startswith(path.name + ".")],
                "the old one is kept aside",
            )
            assert any(each.read_bytes().startswith(b"no database") for each in aside)
            assert left_behind(machine.cache) == []
            assert all(content_is_right(each) for each in machine.cache.rglob("m.gguf"))
        assert served(hub, "whole") == SIZE
        assert served(hub, "begun") == SIZE, "it went on from the part on disk"


def machine_lists_found(machine: Machine, name: str) -> bool:
    return any(each["name"] == name and each["found"] for each in machine.ask("GET", "/v0/models"))


def test_a_locked_database_holds_nothing_up_for_good(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path, hub) as machine, Witness(machine):
        machine.until(machine.node_pid, "the node runs")
        name = half(hub, machine, "locked")
        state = machine.settings.state_dir
        held = [sqlite3.connect(state / each, isolation_level=None) for each in ("modelhub.db", "node/node.db")]
        for each in held:
            each.execute("BEGIN EXCLUSIVE")
        try:
            hub.faults[0].remove()
            path = machine.cache / "models--acme--locked" / "snapshots"
            machine.until(lambda: [*path.rglob("m.gguf")], "the file arrives although nobody can write that down")
            assert machine.models()[name]["registered"], "reading goes on"
        finally:
            for each in held:
                each.execute("ROLLBACK")
                each.close()
        machine.wait_whole(name)
        other = machine.register(model(hub, "after").id)
        machine.wait_whole(other)
        assert (served(hub, "locked"), served(hub, "after")) == (SIZE, SIZE)
        assert left_behind(machine.cache) == []


def test_a_clock_that_jumps_an_hour_changes_nothing(tmp_path: Path) -> None:
    with LoopbackHub(throttle_bps=2 * MIB) as hub, Machine(tmp_path, hub, whims=True) as machine, Witness(machine):
        before = machine.register(model(hub, "earlier", MIB // 2).id)
        machine.wait_whole(before)
        name = machine.register(model(hub, "jumping").id)
        seen: list[int] = []
        for jump, share in ((3600.0, 0.25), (-3600.0, 0.5), (0.0, 0.75)):
            machine.until(lambda goal=SIZE * share: served(hub, "jumping") >= goal, "so much has come")
            machine.whim("skew", jump)
            told = machine.until(lambda: machine.transfer(name), "it is told")
            assert told["phase"] in ("fetching", "verifying") and not told["orphaned"] and not told["error"]
            assert told["bytes_per_s"] is None or 0 <= told["bytes_per_s"] < 20 * MIB
            assert told["eta_s"] is None or 0 <= told["eta_s"] < 60
            seen.append(told["bytes_done"])
            assert [each["status"] for each in machine.ask("GET", "/v0/nodes")] == ["online"]
        machine.wait_whole(name, before)
        assert seen == sorted(seen)
        assert served(hub, "jumping") == SIZE
        machine.delete(before, "keep=true")
        machine.wait_gone(before)
        machine.whim("skew", 7200)
        machine.delete(name, "keep=false")
        machine.wait_gone(name)
        # Two hours ahead of when it was deleted: that is in the trash for an hour of time that passed, not was jumped.
        assert [each["name"] for each in machine.ask("GET", "/v0/trash")] == [before]
        for log in (machine.settings.state_dir / "service.log", machine.settings.state_dir / "node" / "node.log"):
            last = max(line[:19] for line in log.read_text().splitlines() if line[:2] == "20")
            ahead = datetime.fromisoformat(last).timestamp() - time.time()
            assert ahead > 3600, "both processes did have that other clock"
        assert left_behind(machine.cache) == []


def test_what_was_deleted_twice_while_the_node_was_away_is_freed_once_for_all(tmp_path: Path) -> None:
    """The node then has it in its trash by the first registration, and is told to free what was deleted second."""
    away = {"restart_base_s": 3.0, "restart_cap_s": 3.0}
    with LoopbackHub() as hub, Machine(tmp_path, hub, tuning=away) as machine:
        name = machine.register(model(hub, "twice", MIB).id)
        machine.wait_whole(name)
        machine.kill_node()
        for undo in (True, False):
            machine.delete(name, "cancel=true&keep=true")
            machine.ask("POST", f"/v0/models/{name.replace('/', '%2F')}/restore") if undo else machine.register(name)
        machine.delete(name, "cancel=true&keep=true")
        machine.wait_gone(name)
        assert [each["name"] for each in machine.ask("GET", "/v0/trash")] == [name]
        machine.ask("DELETE", "/v0/trash")
        machine.until(lambda: not anything(machine.cache), "it is freed", 20)
        assert machine.ask("GET", "/v0/trash") == []


def test_two_dashboards_and_three_commands_share_one_transfer(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path, hub) as machine, Witness(machine):
        stall = hub.fault(path="acme/shared/*", server="cdn", stall_after=MIB, times=None)
        repo = model(hub, "shared")
        pulls = [machine.cli("pull", repo.id, "--json") for _ in range(3)]
        with (
            Terminal([installed()], env=machine.env) as one,
            Terminal([installed()], env=machine.env) as two,
        ):
            assert stall.stalled.wait(PATIENCE_S)
            stall.remove()
            for each in pulls:
                said, complaint = each.communicate(timeout=120)
                assert each.returncode == 0, complaint
                last = json.loads(said.splitlines()[-1])
                assert last["state"] == "downloaded" and content_is_right(Path(last["path"]))
            for each in (one, two):
                each.wait_for("Local (1)", timeout=PATIENCE_S)
            for each in (one, two):
                each.send("q")
                assert each.wait() == 0
        assert served(hub, "shared") == SIZE, "fetched once for all five"
        assert machine.lock_holder() == machine.service_pid
        assert left_behind(machine.cache) == []
