"""The model folder full, read-only, forbidden, gone, or shared with the library's own command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.machine import Machine
from tests.faults.places import can_mount, humble, inside, on_small_disk, read_only, with_largest_file
from tests.faults.residue import left_behind
from tests.faults.witness import Witness, content_is_right
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)
needs_mount = pytest.mark.skipif(not can_mount(), reason="this system lets nobody make a mount namespace of their own")

SIZE = 6 * MIB
TUNING = {"parallel_bytes": 4 * MIB, "fast_bps": 10**12, "space_check_s": 1.0}


def model(hub: LoopbackHub, name: str, size: int = SIZE) -> HubRepo:
    return hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(size, seed=len(name))}))


def served(hub: LoopbackHub, name: str) -> int:
    return hub.served_bytes(f"acme/{name}/*")


@needs_mount
def test_a_full_disk_pauses_before_and_during_and_costs_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "small"
    with LoopbackHub() as hub:
        early, late = model(hub, "early"), model(hub, "late")
        with Machine(tmp_path, hub, tuning=TUNING, cache=cache, wrap=on_small_disk(cache, 20 * MIB)) as machine:
            here = inside(machine.service_pid, cache)
            filler = here / "filler"
            filler.write_bytes(bytes(16 * MIB))
            machine.cache = here
            with Witness(machine):
                name = machine.register(early.id)
                told = machine.wait_phase(name, "paused", code="no_space")
                assert told["error"].startswith("Needs 6.3 MB, free 4.")
                assert "short by" in told["error"] and "Goes on when there is room" in told["error"]
                assert served(hub, "early") == 0
                filler.unlink()
                machine.wait_whole(name)

                stall = hub.fault(path="acme/late/*", server="cdn", stall_after=MIB, times=None)
                name = machine.register(late.id)
                assert stall.stalled.wait(60)
                fill_up(filler)
                stall.remove()
                told = machine.wait_phase(name, "paused", code="no_space")
                assert told["bytes_done"] < SIZE and "short by" in told["error"]
                assert not [each for each in here.rglob("m.gguf") if "late" in str(each)]
                filler.unlink()
                machine.wait_whole(name)
            assert all(content_is_right(each) for each in here.rglob("m.gguf"))
            assert served(hub, "early") == SIZE
            # What had come when the writes failed is thrown away: at most a buffer for each connection.
            assert served(hub, "late") <= SIZE + 8 * MIB
            assert left_behind(here) == []
            machine.cache = cache


def fill_up(path: Path) -> None:
    """Write until the file system is really full."""
    with path.open("wb", buffering=0) as file:
        for block in (bytes(MIB), bytes(4096)):
            try:
                while True:
                    file.write(block)
            except OSError:
                continue


@needs_mount
def test_without_inodes_it_waits_by_that_name_and_fetches_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "small"
    with LoopbackHub() as hub:
        repo = model(hub, "many")
        wrap = on_small_disk(cache, 64 * MIB, inodes=60)
        with Machine(tmp_path, hub, tuning=TUNING, cache=cache, wrap=wrap) as machine:
            here = inside(machine.service_pid, cache)
            fillers = take_all_inodes(here)
            machine.cache = here
            with Witness(machine):
                name = machine.register(repo.id)
                told = machine.wait_phase(name, "paused", code="no_space")
                assert "no inodes left" in told["error"] and "Needs" not in told["error"]
                assert served(hub, "many") == 0
                for each in fillers:
                    each.unlink()
                machine.wait_whole(name)
            assert served(hub, "many") == SIZE
            assert left_behind(here) == []
            machine.cache = cache


def take_all_inodes(folder: Path) -> list[Path]:
    """Make empty files until there can be no more."""
    made: list[Path] = []
    while True:
        path = folder / f"filler-{len(made)}"
        try:
            path.touch()
        except OSError:
            return made
        made.append(path)


def test_a_file_larger_than_the_limit_is_said_so_before_a_byte_is_fetched(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        small, large = model(hub, "fits", MIB), model(hub, "larger")
        with Machine(tmp_path, hub, tuning=TUNING, wrap=with_largest_file(4 * MIB)) as machine, Witness(machine):
            name = machine.register(large.id)
            told = machine.wait_phase(name, "failed", code="disk")
            assert "larger than a file may be there" in told["error"] and "ulimit -f" in told["error"]
            assert told["retry_in_s"] is None and served(hub, "larger") == 0
            machine.wait_whole(machine.register(small.id))


@needs_mount
def test_a_read_only_folder_is_said_so_and_nothing_is_fetched(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        repo = model(hub, "stuck")
        with Machine(tmp_path, hub, tuning=TUNING, wrap=read_only(tmp_path / "hub")) as machine, Witness(machine):
            name = machine.register(repo.id)
            told = machine.wait_phase(name, "failed", code="disk")
            assert "is on a read-only file system: set HF_HUB_CACHE to another folder" in told["error"]
            assert told["retry_in_s"] is not None, "a mount may come back"
            assert served(hub, "stuck") == 0
        assert list((tmp_path / "hub").iterdir()) == []


def test_a_forbidden_folder_is_said_so_and_goes_on_when_allowed(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    cache.mkdir(mode=0o500)
    with LoopbackHub() as hub, Machine(tmp_path, hub, tuning=TUNING, wrap=humble()) as machine, Witness(machine):
        name = machine.register(model(hub, "forbidden").id)
        told = machine.wait_phase(name, "failed", code="disk")
        assert told["error"].startswith("No permission to write ") and str(cache) in told["error"]
        assert served(hub, "forbidden") == 0
        cache.chmod(0o700)
        machine.wait_whole(name)
        assert served(hub, "forbidden") == SIZE
        assert left_behind(cache) == []


def test_a_folder_removed_in_the_middle_is_made_again(tmp_path: Path) -> None:
    with LoopbackHub() as hub, Machine(tmp_path, hub, tuning=TUNING) as machine, Witness(machine):
        whole = machine.register(model(hub, "before", MIB).id)
        machine.wait_whole(whole)
        stall = hub.fault(path="acme/swept/*", server="cdn", stall_after=MIB // 2, times=None)
        name = machine.register(model(hub, "swept").id)
        assert stall.stalled.wait(60)
        lost = served(hub, "swept")
        shutil.rmtree(machine.cache)
        stall.remove()
        machine.wait_whole(name, whole)
        # Told as whole until somebody looks: the node looks again every `recheck_s`.
        machine.until(lambda: served(hub, "before") == 2 * MIB, "what was swept away is fetched again")
        machine.wait_whole(name, whole)
        machine.until(lambda: len([*machine.cache.rglob("m.gguf")]) == 2, "both are there")
        assert all(content_is_right(each) for each in machine.cache.rglob("m.gguf"))
        assert served(hub, "swept") <= 2 * SIZE + lost
        machine.until(lambda: not left_behind(machine.cache), "nothing is left behind")


def test_the_hf_command_pulling_the_same_repo_does_no_harm(tmp_path: Path) -> None:
    files = {f"m-0000{n}-of-00002.gguf": Generated(SIZE, seed=n) for n in (1, 2)}
    with LoopbackHub(connection_bps=8 * MIB) as hub, Machine(tmp_path, hub, tuning=TUNING) as machine:
        repo = hub.add(HubRepo("acme/shared", files))
        command = [str(Path(sys.executable).with_name("hf")), "download", repo.id]
        with Witness(machine):
            name = machine.register(repo.id)
            theirs = subprocess.Popen(command, env=machine.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said, _ = theirs.communicate(timeout=120)
            assert theirs.returncode == 0, said
            machine.wait_whole(name)
            assert len([*machine.cache.rglob("snapshots/*/*.gguf")]) == 2
        assert hub.served_bytes("acme/shared/*") <= 2 * 2 * SIZE + 8 * MIB, "each of the two fetched once"
        assert left_behind(machine.cache) == []
