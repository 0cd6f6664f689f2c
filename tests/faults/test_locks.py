"""A file system without flock, as some network and user-space ones are: real processes to which every flock fails."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelhub_tui import locks
from modelhub_tui.service.node.cache import Cache
from tests.faults.machine import Machine
from tests.faults.residue import left_behind
from tests.faults.witness import Witness
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)
SIZE = 6 * MIB


def without_flock(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, str]:
    """For the processes of a machine; this process, which looks at the same locks, is one of them."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(getattr(errno, name), name)

    monkeypatch.setattr(fcntl, "flock", flock)
    return {"PYTHONPATH": str(Path(__file__).with_name("noflock")), "MODELHUB_TEST_NO_FLOCK": name}


@pytest.mark.parametrize("name", ["ENOSYS", "ENOTSUP", "ENOLCK"])
def test_without_flock_everything_works_and_a_kill_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    env = without_flock(monkeypatch, name)
    with LoopbackHub() as hub, Machine(tmp_path, hub, env=env) as machine, Witness(machine):
        repo = hub.add(HubRepo("acme/locks", {"m.gguf": Generated(SIZE, seed=1), "n.gguf": Generated(MIB, seed=2)}))
        stall = hub.fault(path="acme/locks/*", server="cdn", stall_after=MIB, times=None)
        model = machine.register(repo.id, "m.gguf")
        assert stall.stalled.wait(60)
        machine.until(lambda: (machine.transfer(model) or {}).get("bytes_done"), "a part of it is there")
        machine.kill()
        machine.start()
        stall.remove()
        machine.wait_whole(model)
        assert hub.served_bytes("acme/locks/m.gguf") <= SIZE + 2 * MIB
        if name == "ENOSYS":  # at any other the library gives up
            the_library_finds_it(machine, repo, hub)
        assert left_behind(machine.cache) == []
        assert [*machine.cache.rglob("*.lock")] == []


def the_library_finds_it(machine: Machine, repo: HubRepo, hub: LoopbackHub) -> None:
    """What our locks leave is nothing that it would wait for."""
    command = [str(Path(sys.executable).with_name("hf")), "download", repo.id]
    theirs = subprocess.run(command, env=machine.env, capture_output=True, timeout=120, check=False)
    assert theirs.returncode == 0, theirs.stderr
    assert hub.served_bytes("acme/locks/n.gguf") == MIB


def test_without_flock_there_is_still_one_service_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = without_flock(monkeypatch, "ENOSYS")
    with LoopbackHub() as hub, Machine(tmp_path, hub, env=env) as machine:
        assert machine.lock_holder() == machine.service_pid
        second = subprocess.run(
            [sys.executable, "-m", "modelhub_tui", "serve"],
            env=machine.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode != 0 and "Function not implemented" not in second.stderr, second.stderr
        assert "already" in second.stderr, second.stderr


def test_a_soft_lock_keeps_others_off_until_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    ours, other = locks.SoftLock(path), locks.SoftLock(path)
    assert ours.acquire() and not other.acquire()
    locks.tidy(path)
    assert path.exists(), "its holder lives"
    ours.release()
    assert other.acquire()
    other.release()
    child = "import sys, os; from modelhub_tui.locks import SoftLock; from pathlib import Path;"
    child += "assert SoftLock(Path(sys.argv[1])).acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", child, os.fspath(path)], check=True, timeout=60)
    assert path.exists()
    locks.tidy(path)
    assert not path.exists()


@pytest.mark.parametrize("swapped", ["before", "between", "while it is taken"])
@pytest.mark.parametrize("link", [".locks", ".locks/models--acme--locks"])
def test_a_link_swapped_in_leads_no_lock_out_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, swapped: str
) -> None:
    without_flock(monkeypatch, "ENOSYS")
    cache, outside, etag = Cache(tmp_path / "hub"), tmp_path / "outside", "e" * 64
    (outside / "models--acme--locks").mkdir(parents=True)
    (cache.root / ".locks" / "models--acme--locks").mkdir(parents=True)

    def swap() -> None:
        place = cache.root / link
        if not place.is_symlink():
            place.rename(tmp_path / "aside")
            place.symlink_to(outside if link == ".locks" else outside / "models--acme--locks")

    class Swapping(locks.SoftLock):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            if swapped == "between":
                swap()

        def acquire(self) -> bool:
            if swapped == "while it is taken":
                swap()
            return super().acquire()

    if swapped == "before":
        swap()
    monkeypatch.setattr(locks, "SoftLock", Swapping)
    with cache.library_lock("acme/locks", etag):
        assert (cache.root / link).is_symlink()
        assert not [*outside.rglob("*.lock")]
    assert not [*outside.rglob("*.lock")]
