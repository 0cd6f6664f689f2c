"""Two services on one HuggingFace cache: two state folders, two users, and the library's own commands between them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.machine import Machine
from tests.faults.places import can_mount
from tests.faults.residue import anything, left_behind
from tests.faults.witness import content_is_right
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.service.other_user import UID, needs_root

pytestmark = pytest.mark.timeout(300)

SIZE = 4 * MIB


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that the second user may enter; pytest closes its own to all others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def model(hub: LoopbackHub, name: str = "shared", size: int = SIZE) -> HubRepo:
    return hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(size, seed=len(name))}))


def served(hub: LoopbackHub) -> int:
    return hub.served_bytes("acme/*")


def pair(tmp_path: Path, hub: LoopbackHub) -> tuple[Machine, Machine]:
    cache = tmp_path / "hub"
    tuning = {"stall_s": 60}
    return (
        Machine(tmp_path / "a", hub, cache=cache, tuning=tuning),
        Machine(tmp_path / "b", hub, cache=cache, tuning=tuning),
    )


def said(machine: Machine, *argv: str) -> tuple[int | None, str]:
    process = machine.cli(*argv)
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def wait_shared(machine: Machine, name: str, size: int = SIZE) -> None:
    machine.until(
        lambda: (
            [each["shared_bytes"] for each in machine.models().get(name, {}).get("placements", [])] == [size] or None
        ),
        f"it is known that {name} is shared",
    )


def test_a_cancelled_download_leaves_what_another_service_fetches(tmp_path: Path, hub: LoopbackHub) -> None:
    a, b = pair(tmp_path, hub)
    repo = model(hub)
    stall = hub.fault(path="acme/*", server="cdn", stall_after=SIZE // 2)
    with a, b:
        name = a.register(repo.id)
        a.until(stall.stalled.is_set, "half of it is there")
        a.until(lambda: (now := a.transfer(name)) and now["bytes_done"] == SIZE // 2, "half of it is on disk")
        b.register(repo.id)
        b.wait_phase(name, "waiting", code="busy")
        a.delete(name)
        a.wait_gone(name)
        b.wait_whole(name)
        assert served(hub) == SIZE, "each byte once"
        assert content_is_right(Path(b.models()[name]["placements"][0]["path"]))
        b.delete(name)
        b.wait_gone(name)
    assert anything(a.cache) == []


def test_what_a_stopped_service_has_begun_is_not_dropped(tmp_path: Path, hub: LoopbackHub) -> None:
    """Its claim holds while nothing of it runs, also after a SIGKILL."""
    a, b = pair(tmp_path, hub)
    repo = model(hub)
    stall = hub.fault(path="acme/*", server="cdn", stall_after=SIZE // 2)
    with a:
        name = a.register(repo.id)
        a.until(stall.stalled.is_set, "half of it is there")
        a.until(lambda: (now := a.transfer(name)) and now["bytes_done"] == SIZE // 2, "half of it is on disk")
        a.kill()
        a.stop()
        again = hub.fault(path="acme/*", server="cdn", stall_after=0)
        with b:
            b.register(repo.id)
            b.until(again.stalled.is_set, "it is taken up")
            assert (now := b.transfer(name)) and now["bytes_done"] == SIZE // 2
            b.delete(name)
            b.wait_gone(name)
        with a:
            a.wait_whole(name)
    assert served(hub) == SIZE


def test_a_deletion_leaves_what_another_service_has_registered_and_says_so(tmp_path: Path, hub: LoopbackHub) -> None:
    a, b = pair(tmp_path, hub)
    repo = model(hub)
    with a, b:
        name = a.register(repo.id)
        a.wait_whole(name)
        b.register(repo.id)
        b.wait_whole(name)
        assert served(hub) == SIZE
        for machine in (a, b):
            wait_shared(machine, name)
        code, told = said(a, "rm", "--yes", "--now", name)
        assert code == 0 and "also registered with another modelhub service" in told, told
        assert "its files stay there" in told and "freed" not in told
        path = Path(b.models()[name]["placements"][0]["path"])
        assert path.is_file() and b.usable() == [name]
        b.until(
            lambda: b.models()[name]["placements"][0]["shared_bytes"] == 0 or None, "it is known to be B's alone again"
        )
        b.ask("DELETE", f"/v0/models/{name.replace('/', '%2F')}?keep=false")
        b.wait_gone(name)
        assert not path.exists()
    assert anything(a.cache) == []


def test_the_trash_of_one_is_not_the_others(tmp_path: Path, hub: LoopbackHub) -> None:
    a, b = pair(tmp_path, hub)
    mine, theirs = model(hub, "mine"), model(hub, "theirs")
    with a:
        name = a.register(mine.id)
        a.wait_whole(name)
        with b:
            other = b.register(theirs.id)
            b.wait_whole(other)
            a.delete(name, "keep=true")
            a.wait_gone(name)
            b.limits(trash_seconds=0)
            b.delete(other, "keep=true")
            b.wait_gone(other)
        with b:  # a start looks for what nobody remembers
            again = b.register(theirs.id)
            b.wait_whole(again)
            # Two copies of the same file, one in each trash: freeing one is no loss to the other.
            b.register(mine.id)
            b.wait_whole(name)
            b.delete(name, "keep=true")
            b.wait_gone(name)
        before = served(hub)
        a.ask("POST", f"/v0/models/{name}/restore")
        a.wait_whole(name)
        assert served(hub) == before, "nothing is fetched again"
        assert content_is_right(Path(a.models()[name]["placements"][0]["path"]))


def test_a_service_that_is_no_more_claims_nothing(tmp_path: Path, hub: LoopbackHub) -> None:
    a, b = pair(tmp_path, hub)
    repo, gone = model(hub), model(hub, "gone")
    with a:
        name = a.register(repo.id)
        a.wait_whole(name)
        trashed = a.register(gone.id)
        a.wait_whole(trashed)
        a.delete(trashed, "keep=true")
        a.wait_gone(trashed)
    shutil.rmtree(a.home / "state")
    with b:
        b.register(repo.id)
        b.wait_whole(name)
        assert b.models()[name]["placements"][0]["shared_bytes"] == 0
        b.delete(name)
        b.wait_gone(name)
        b.limits(trash_seconds=0)  # what nobody remembers is B's to free
        b.until(lambda: not [*b.cache.rglob("*.trash")] or None, "the trash of nobody is freed")
    assert not [*b.cache.rglob("*.gguf")] and not [*b.cache.rglob("blobs/*")]


def test_files_that_somebody_else_removed_are_not_called_ready(tmp_path: Path, hub: LoopbackHub) -> None:
    a, b = pair(tmp_path, hub)
    repo = model(hub)
    with a, b:
        name = a.register(repo.id)
        a.wait_whole(name)
        b.register(repo.id)
        b.wait_whole(name)
        hub.down()
        shutil.rmtree(a.cache / "models--acme--shared")
        for machine in (a, b):
            machine.until(lambda machine=machine: machine.usable() == [] or None, "it is not called ready")
            history = machine.transfer(name)
            assert history and "removed from the disk" in str(history["history"])


def test_the_librarys_commands_see_nothing_of_claims(tmp_path: Path, hub: LoopbackHub) -> None:
    a, b = pair(tmp_path, hub)
    repo = model(hub)
    with a, b:
        name = a.register(repo.id)
        a.wait_whole(name)
        b.register(repo.id)
        b.wait_whole(name)
        for words in (["ls"], ["prune", "-y"], ["ls"]):
            ran = subprocess.run(
                [str(Path(sys.executable).with_name("hf")), "cache", *words],
                env=a.env,
                capture_output=True,
                text=True,
                timeout=60,
            )
            told = ran.stdout + ran.stderr
            assert ran.returncode == 0 and "arning" not in told and "orrupt" not in told, told
            assert words == ["prune", "-y"] or "acme/shared" in told
        from huggingface_hub import scan_cache_dir

        info = scan_cache_dir(a.cache)
        assert info.warnings == [] and info.size_on_disk == SIZE and len(info.repos) == 1
        assert len([*(a.cache / ".locks").glob("*.modelhub.claim")]) == 2


def as_other_user() -> tuple[str, ...]:
    """Put before a command line: it runs as the second user, who may read this interpreter wherever it is installed."""
    prefix = Path(sys.executable).resolve().parents[1]
    home = Path("/", *prefix.parts[1:2])
    see = (
        f'P=$(mktemp -d) && mount --bind "$0" "$P" && mount -t tmpfs -o mode=755 none {home} && mkdir -p "$0" &&'
        ' mount --bind "$P" "$0" && exec "$@"'
    )
    drop = (
        f"import os, sys; os.umask(0); os.setgroups([]); os.setgid({UID}); os.setuid({UID});"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    private = not home.stat().st_mode & 0o001
    if private and not can_mount():
        pytest.skip("the second user cannot read this interpreter, and nothing can be mounted")
    return (*(("unshare", "-m", "sh", "-c", see, str(prefix)) if private else ()), sys.executable, "-c", drop)


@needs_root
def test_two_users_on_one_cache(open_to_all: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's cache, as an administrator sets it up: everybody may write, each has a state folder of their own."""
    a, b = pair(open_to_all, hub)
    a.cache.mkdir()
    a.cache.chmod(0o777)
    for each in (b.home, *b.home.rglob("*")):
        os.chown(each, UID, UID)
    b.wrap = as_other_user()
    a.wrap = (sys.executable, "-c", "import os, sys; os.umask(0); os.execvp(sys.argv[1], sys.argv[1:])")
    repo = model(hub)
    with contextlib.ExitStack() as running:
        running.enter_context(a)
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: UID)  # root reads the second user's key as that user would
            running.enter_context(b)
        name = b.register(repo.id)
        b.wait_whole(name)
        a.register(repo.id)
        a.wait_whole(name)
        assert {each.stat().st_uid for each in (a.cache / ".locks").glob("*.modelhub.claim")} == {0, UID}
        for machine in (a, b):
            wait_shared(machine, name)
        a.delete(name)
        a.wait_gone(name)
        path = Path(b.models()[name]["placements"][0]["path"])
        assert path.is_file() and b.usable() == [name]
        b.delete(name)
        b.wait_gone(name)
        assert not path.exists()
    assert left_behind(a.cache) == []
