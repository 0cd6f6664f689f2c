"""Databases that are lost, damaged or from before: nothing that nobody deleted is removed, and one sentence says so."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.machine import Machine
from tests.faults.witness import Witness, content_is_right
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)

SIZE = 2 * MIB
DATABASE, NODE_DATABASE = "modelhub.db", "node/node.db"


def model(hub: LoopbackHub, name: str) -> HubRepo:
    return hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(SIZE, seed=len(name))}))


def pulled(hub: LoopbackHub, machine: Machine, *names: str) -> list[str]:
    registered = [machine.register(model(hub, name).id) for name in names]
    machine.wait_whole(*registered)
    return registered


def parts(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def copied(machine: Machine, database: str, to: Path) -> None:
    """A copy as a person makes it who does it well: of a sound database, in one file."""
    with sqlite3.connect(machine.settings.state_dir / database) as db, sqlite3.connect(to) as copy:
        db.backup(copy)
    db.close()
    copy.close()


def put_back(machine: Machine, database: str, copy: Path) -> None:
    path = machine.settings.state_dir / database
    for each in parts(path):
        each.unlink(missing_ok=True)
    shutil.copyfile(copy, path)


def on_disk(machine: Machine) -> set[str]:
    there = {path.parts[-4].removeprefix("models--acme--") for path in machine.cache.rglob("m.gguf")}
    assert all(content_is_right(path) for path in machine.cache.rglob("m.gguf"))
    return there


def known(machine: Machine, *names: str) -> bool:
    """Whether each of these models is registered and whole, or found on the disk."""
    told = {each["name"]: each for each in machine.ask("GET", "/v0/models")}
    return all(told.get(f"acme/{name}", {}).get("status") == "ready" for name in names)


def lose_log(path: Path) -> None:
    for each in parts(path)[1:]:
        each.unlink(missing_ok=True)


def test_a_log_that_is_lost_after_a_kill_costs_no_model(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        machine = Machine(tmp_path, hub)
        with machine:
            pulled(hub, machine, "one", "second")
            machine.kill()
            machine.until(lambda: not machine.processes(), "the node ends")
            lose_log(machine.settings.state_dir / DATABASE)
        with machine, Witness(machine):
            assert machine.info is not None
            assert "is an older one than it last wrote" in machine.info.notice
            assert "are not removed" in machine.info.notice
            machine.until(lambda: known(machine, "one", "second"), "they are found")
            assert on_disk(machine) == {"one", "second"}
            machine.ask("POST", "/v0/models/adopt", {"name": "acme/one"})
            machine.wait_whole("acme/one")
            machine.delete("acme/one")
            machine.until(lambda: on_disk(machine) == {"second"}, "what is deleted goes, and nothing else")


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_a_copy_from_before_two_pulls_costs_no_model(tmp_path: Path, running: bool) -> None:
    with LoopbackHub() as hub:
        machine = Machine(tmp_path, hub)
        with machine:
            pulled(hub, machine, "one")
            copied(machine, DATABASE, tmp_path / "copy.db")
            pulled(hub, machine, "second", "thirdly")
            if running:
                shutil.copyfile(tmp_path / "copy.db", machine.settings.state_dir / DATABASE)
        if not running:
            put_back(machine, DATABASE, tmp_path / "copy.db")
        with machine, Witness(machine):
            assert machine.info is not None
            if running:
                machine.wait_whole("acme/one", "acme/second", "acme/thirdly")  # memory was right, and was written
            else:
                assert "is an older one" in machine.info.notice
                machine.until(lambda: known(machine, "one", "second", "thirdly"), "they are found")
                machine.wait_whole("acme/one")
            assert on_disk(machine) == {"one", "second", "thirdly"}
        with machine:
            assert machine.info is not None and machine.info.notice == "", "said once"
            machine.until(lambda: known(machine, "one", "second", "thirdly"), "they stay")


def test_an_idle_service_says_that_its_database_was_replaced(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path, hub) as machine:
        copied(machine, DATABASE, tmp_path / "copy.db")
        pulled(hub, machine, "one")
        shutil.copyfile(tmp_path / "copy.db", machine.settings.state_dir / DATABASE)
        said = machine.until(lambda: _notice(machine), "it is noticed")
        assert "was changed or replaced while it ran, kept as modelhub.db.damaged-" in said
        assert "nothing was lost" in said


def _notice(machine: Machine) -> str:
    from modelhub_tui.service.lifecycle import find_service

    found = find_service(machine.settings)
    return found.notice if found else ""


def _zero(path: Path) -> None:
    path.write_bytes(b"")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def _folder(path: Path) -> None:
    path.unlink()
    (path / "in it").mkdir(parents=True)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere" / "at all")


def _gone(path: Path) -> None:
    path.unlink()


DAMAGES = [_zero, _truncate, _folder, _dangling, _gone]


@pytest.mark.parametrize("damage", DAMAGES, ids=[each.__name__ for each in DAMAGES])
@pytest.mark.parametrize(
    "which", [[DATABASE], [NODE_DATABASE], [DATABASE, NODE_DATABASE]], ids=["router", "node", "both"]
)
def test_a_lost_database_loses_nothing_else(tmp_path: Path, damage: Callable[[Path], None], which: list[str]) -> None:
    with LoopbackHub() as hub:
        machine = Machine(tmp_path, hub)
        with machine:
            _, second = pulled(hub, machine, "one", "second")
            machine.limits(trash_seconds=7200)
            machine.delete(second, "keep=true")
            machine.wait_gone(second)
        for each in which:
            damage(machine.settings.state_dir / each)
            lose_log(machine.settings.state_dir / each)
        with machine, Witness(machine):
            assert machine.info is not None
            for each in which:
                assert (
                    "The service's database was" if each == DATABASE else "The node's record was"
                ) in machine.info.notice
            machine.until(lambda: known(machine, "one"), "it is known, or found again")
            assert machine.limits()["trash_seconds"] == 7200
            if len(which) == 1:
                machine.until(lambda: machine.ask("GET", "/v0/trash"), "what was in the trash is there, or again")
                machine.ask("POST", f"/v0/models/{second}/restore")
            else:
                machine.register("acme/second")
            machine.wait_whole(second)
            assert on_disk(machine) == {"one", "second"}
        assert hub.served_bytes("acme/*") == 2 * SIZE, "nothing was fetched again"


@pytest.mark.parametrize("which", [[NODE_DATABASE], [DATABASE, NODE_DATABASE]], ids=["node", "both"])
def test_an_old_record_of_the_node_removes_nothing(tmp_path: Path, which: list[str]) -> None:
    with LoopbackHub() as hub:
        machine = Machine(tmp_path, hub)
        with machine:
            pulled(hub, machine, "one")
            for at, each in enumerate(which):
                copied(machine, each, tmp_path / f"copy-{at}.db")
            pulled(hub, machine, "second")
        for at, each in enumerate(which):
            put_back(machine, each, tmp_path / f"copy-{at}.db")
        with machine, Witness(machine):
            machine.until(lambda: known(machine, "one", "second"), "both are known")
            assert on_disk(machine) == {"one", "second"}
        assert hub.served_bytes("acme/*") == 2 * SIZE
