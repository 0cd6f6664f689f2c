"""The node as a whole: models deleted and had back, found and adopted, cancelled in every state, killed half way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/pair"


def pair(hub: LoopbackHub) -> HubRepo:
    files = {"a.gguf": Generated(2 * MIB, 1), "mmproj.gguf": Generated(MIB, 2)}
    return hub.add(HubRepo(NAME, files))


def clean_scan(cache: Path) -> Any:
    info = scan_cache_dir(cache)
    assert info.warnings == []
    return info


def test_a_deletion_is_taken_back_offline_and_at_once(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = pair(empty_hub)
    files = manifest_of(repo, "a.gguf", "mmproj.gguf")
    router.register(NAME, files)
    with NodeThread(router, empty_hub, tmp_path) as node:
        paths = router.wait_whole(NAME)["paths"]
        router.wait(lambda: 3 * MIB <= router.last.get("models_bytes", 0) < 4 * MIB)
        router.remove(NAME, keep=True)
        told = router.wait_trashed(NAME)
        assert 3 * MIB <= told["bytes"] < 4 * MIB
        router.wait(lambda: router.last["trash_bytes"] == told["bytes"])
        assert not any(Path(each).exists() for each in paths)
        assert clean_scan(node.cache).size_on_disk == 0
        node.stop()
    empty_hub.down()
    with NodeThread(router, empty_hub, tmp_path) as node:  # over a restart as well
        router.wait_trashed(NAME)
        router.trash.clear()
        router.register(NAME, files, attempt=1)
        assert router.wait_whole(NAME)["paths"] == paths
        assert Path(paths[0]).read_bytes() == repo["a.gguf"].read()
        assert router.last["trash"] == [] and not [*node.cache.rglob("*.modelhub.trash")]
        assert "verifying" not in {each["phase"] for beat in router.heartbeats[-3:] for each in beat["transfers"]}
        assert hf_hub_download(NAME, "a.gguf", cache_dir=node.cache, local_files_only=True) == paths[0]
    empty_hub.up()
    assert empty_hub.served_bytes("*.gguf") == 3 * MIB


def test_unfinished_downloads_are_counted_beside_what_is_whole(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = pair(empty_hub)
    slow = empty_hub.add(HubRepo("acme/slow", {"s.gguf": Generated(8 * MIB, 5)}))
    router.register(NAME, manifest_of(repo, "a.gguf"))
    stall = empty_hub.fault(server="cdn", path="*s.gguf", stall_after=MIB)
    with NodeThread(router, empty_hub, tmp_path, stall_s=60.0):
        router.wait_whole(NAME)
        router.register("acme/slow", manifest_of(slow, "s.gguf"))
        router.wait(lambda: router.last["unfinished_bytes"] >= MIB // 2)
        assert 2 * MIB <= router.last["models_bytes"] < 3 * MIB
        with router.changed:  # another router's: its download stands still, and takes its place all the same
            router.models, router.store = {}, "another"
            router._touch()
        router.wait(lambda: router.last["transfers"] == [] and router.last["models_bytes"] == 0)
        assert router.last["unfinished_bytes"] >= MIB // 2
        router.register(NAME, manifest_of(repo, "a.gguf"))
        stall.release()
        router.register("acme/slow", manifest_of(slow, "s.gguf"))
        router.wait_whole("acme/slow")
        router.wait(lambda: router.last["unfinished_bytes"] == 0 and router.last["models_bytes"] >= 10 * MIB)


def test_the_router_says_what_is_gone_for_good(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = pair(empty_hub)
    router.register(NAME, manifest_of(repo, "a.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        router.remove(NAME, keep=True)
        router.wait_trashed(NAME)
        assert len([*node.cache.rglob("*.modelhub.trash")]) == 1
        router.free(NAME)
        router.wait(lambda: router.last["trash"] == [] and router.last["trash_bytes"] == 0)
        assert not [*node.cache.glob("models--*")]


def test_room_for_a_transfer_is_taken_from_the_trash(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelhub_tui.service.node.cache import Cache
    from modelhub_tui.service.node.disk_use import used_by

    size = 6 * MIB

    def usage(self: Cache) -> tuple[int, int]:
        return max(size - used_by(each for each in self.root.rglob("*") if not each.is_symlink()), 0), size

    monkeypatch.setattr(Cache, "usage", usage)
    repo = pair(empty_hub)
    other = empty_hub.add(HubRepo("acme/other", {"b.gguf": Generated(5 * MIB, 3)}))
    router.register(NAME, manifest_of(repo, "a.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        router.remove(NAME, keep=True)
        router.wait_trashed(NAME)
        monkeypatch.setattr(Cache, "usage", usage)
        router.register("acme/other", manifest_of(other, "b.gguf"))
        router.wait_whole("acme/other")
        router.wait(lambda: router.last["trash"] == [])
        assert not [*node.cache.rglob("*.modelhub.trash")]


def test_what_the_library_fetched_is_found_and_adopted_after_a_look_at_its_content(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = pair(empty_hub)
    hf_hub_download(NAME, "a.gguf", cache_dir=tmp_path / "hub", endpoint=empty_hub.url, token=False)
    with NodeThread(router, empty_hub, tmp_path) as node:
        [group] = router.wait(lambda: router.found)
        assert group["files"][0]["sha256"] == repo["a.gguf"].sha256
        empty_hub.down()
        router.register(NAME, manifest_of(repo, "a.gguf"))
        placed = router.wait_whole(NAME)
        assert placed["paths"] == group["paths"]
        assert 2 * MIB <= router.last["models_bytes"] < 3 * MIB
        router.wait(lambda: router.found == [])
        # Deleted, it is not offered again on the word of the last look.
        seen = len(router.heartbeats)
        router.remove(NAME)
        router.wait_gone(NAME)
        assert not any(each.get("found") for each in router.heartbeats[seen:])
        assert not [*node.cache.glob("models--*")]


def test_a_damaged_blob_is_noticed_when_it_is_adopted(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = pair(empty_hub)
    path = hf_hub_download(NAME, "a.gguf", cache_dir=tmp_path / "hub", endpoint=empty_hub.url, token=False)
    with Path(path).open("r+b") as file:
        file.seek(8)  # what it is for shows at its beginning: that is what makes it worth offering
        file.write(b"DAMAGED!")
    served = empty_hub.served_bytes("*.gguf")
    with NodeThread(router, empty_hub, tmp_path):
        router.wait(lambda: router.found)
        router.register(NAME, manifest_of(repo, "a.gguf"))
        placed = router.wait_whole(NAME)
        assert Path(placed["path"]).read_bytes() == repo["a.gguf"].read()
    assert empty_hub.served_bytes("*.gguf") - served == 2 * MIB


def test_after_a_lost_database_everything_can_be_adopted_and_then_deleted(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = pair(empty_hub)
    slow = empty_hub.add(HubRepo("acme/slow", {"s.gguf": Generated(8 * MIB, 5)}))
    router.register(NAME, manifest_of(repo, "a.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        empty_hub.connection_bps = 1e6
        router.register("acme/slow", manifest_of(slow, "s.gguf"))
        router.wait(lambda: (found := router.transfer("acme/slow")) and found["bytes_done"] > 0)
        with router.changed:
            router.models, router.store = {}, "another"
            router._touch()
        # The transfer stands still and is nobody's; the whole model is found.
        router.wait(lambda: router.last["transfers"] == [] and [each["repo"] for each in router.found] == [NAME])
        assert router.last["placements"] == []
        served = empty_hub.served_bytes("*s.gguf")
        # Adopted under another name than before, it must still be possible to delete it.
        router.register("acme/pair:other", manifest_of(repo, "a.gguf"))
        router.wait_whole("acme/pair:other")
        router.wait(lambda: router.found == [])
        router.remove("acme/pair:other")
        router.wait_gone("acme/pair:other")
        assert [*node.cache.rglob(f"*{repo['a.gguf'].sha256}*")] == []
        # Wanted again, the other one goes on from what it had.
        empty_hub.connection_bps = None
        router.register("acme/slow", manifest_of(slow, "s.gguf"))
        router.wait_whole("acme/slow")
        assert served > 0 and empty_hub.served_bytes("*s.gguf") < 8 * MIB + 2 * MIB


STATES = ("waiting", "fetching", "stalled", "retrying", "paused", "no_space", "failed")


@pytest.mark.parametrize("state", STATES)
def test_cancelled_in_any_state_nothing_is_left(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, state: str
) -> None:
    name = "acme/slow"
    repo = empty_hub.add(HubRepo(name, {"s.gguf": Generated(8 * MIB, 5)}))
    more: dict[str, Any] = {}
    if state in ("waiting", "fetching", "paused"):
        empty_hub.connection_bps = 1e6
    if state == "waiting":
        first = empty_hub.add(HubRepo("acme/first", {"f.gguf": Generated(8 * MIB, 6)}))
        more["parallel_models"] = 1
        router.register("acme/first", manifest_of(first, "f.gguf"))
    elif state == "stalled":
        empty_hub.fault(server="cdn", stall_after=MIB)
        more["stall_s"] = 30.0
    elif state == "retrying":
        empty_hub.fault(server="cdn", reset_after=MIB, times=99)
        more |= {"backoff_base_s": 30.0, "backoff_cap_s": 60.0}
    elif state == "no_space":
        more["margin_bytes"] = 2**60
    elif state == "failed":
        empty_hub.fault(server="cdn", reset_after=MIB)
        empty_hub.fault(server="cdn", status=451, times=None)
    with NodeThread(router, empty_hub, tmp_path, **more) as node:
        if state == "waiting":
            router.wait_phase("acme/first", "fetching")
        router.register(name, manifest_of(repo, "s.gguf"), paused=False)
        if state in ("fetching", "stalled", "paused"):
            router.wait(lambda: (found := router.transfer(name)) and found["bytes_done"] > 0)
        if state == "paused":
            router.change(name, paused=True)
        phases = {"no_space": "paused", "stalled": "fetching"}
        router.wait_phase(name, phases.get(state, state))
        router.remove(name)
        router.wait_gone(name)
        if state == "waiting":
            router.remove("acme/first")
            router.wait_gone("acme/first")
        router.wait(lambda: not [*node.cache.glob("models--*")])
        assert router.last["trash"] == []


KILLER = """
import os, signal, sys
if "-m" in sys.orig_argv and "modelhub_tui.service.node" in sys.orig_argv:
    left = int(os.environ["KILL_AT"])
    def hook(real):
        def called(path, *args, **more):
            global left
            folder = more.get("dir_fd", more.get("src_dir_fd"))
            place = str(path) if folder is None else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            if "models--acme--pair" in place:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(path, *args, **more)
        return called
    for name in ("unlink", "replace", "rmdir", "symlink"):
        setattr(os, name, hook(getattr(os, name)))
"""


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_node_killed_while_it_deletes_finishes_that_at_its_next_start(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, step: int
) -> None:
    repo = pair(empty_hub)
    files = manifest_of(repo, "a.gguf", "mmproj.gguf")
    router.register(NAME, files)
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        cache = node.cache
        node.stop()
    router.remove(NAME, keep=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    env = {"PYTHONPATH": str(tmp_path / "site"), "KILL_AT": str(step)}
    process = start_process(router, empty_hub, tmp_path, env=env)
    try:
        assert process.wait(60) == -signal.SIGKILL
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    clean_scan(cache)
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_trashed(NAME)
        clean_scan(cache)
        assert len([*cache.rglob("*.modelhub.trash")]) == 2 and not [*cache.rglob("*.gguf")]
        router.trash.clear()
        router.register(NAME, files, attempt=1)
        placed = router.wait_whole(NAME)
        assert [Path(each).read_bytes() for each in placed["paths"]] == [
            repo["a.gguf"].read(),
            repo["mmproj.gguf"].read(),
        ]
    assert empty_hub.served_bytes("*.gguf") == 3 * MIB
