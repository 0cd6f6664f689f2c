"""Real downloads: the node against the loopback hub, through the real huggingface_hub, told what to hold."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/tiny-gguf"


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def parts(folder: Path) -> list[Path]:
    return [*folder.rglob("*.part")]


def tiny(hub: LoopbackHub, size: int = 3 * MIB + 17, *, seed: int = 1, **more: object) -> HubRepo:
    return hub.add(HubRepo("acme/Tiny-GGUF", {"tiny.gguf": Generated(size, seed=seed), "README.md": "# Tiny"}, **more))  # type: ignore[arg-type]


def test_a_registered_model_arrives_whole_where_everybody_finds_it(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    repo = tiny(empty_hub)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        placed = router.wait_whole(NAME)
        assert sha256(placed["path"]) == repo["tiny.gguf"].sha256
        assert placed["disk_bytes"] == repo["tiny.gguf"].size
        assert router.last["loaded_models"] == [NAME]
        assert router.last["disk_total_bytes"] > 0 and router.last["models_dir"] == str(node.cache)
        assert empty_hub.served_bytes("*.gguf") == repo["tiny.gguf"].size
        scan = scan_cache_dir(node.cache)
        assert not scan.warnings
        assert [each.repo_id for each in scan.repos] == ["acme/Tiny-GGUF"]
        found = hf_hub_download(
            "acme/Tiny-GGUF", "tiny.gguf", cache_dir=node.cache, local_files_only=True, endpoint=empty_hub.url
        )
        assert found == placed["path"]
        assert not parts(node.cache)


def test_shards_lie_beside_each_other_and_count_as_one_transfer(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    names = [f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    repo = empty_hub.add(HubRepo("acme/big", {name: Generated(MIB, seed=n) for n, name in enumerate(names)}))
    stall = empty_hub.fault(server="cdn", path="*-00002-*", stall_after=MIB // 2)
    router.register("acme/big", manifest_of(repo, *names))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30):
        assert stall.stalled.wait(30)
        seen = router.wait(lambda: (t := router.transfer("acme/big")) and t["bytes_done"] > 1.4 * MIB and t)
        assert (seen["file_index"], seen["file_count"], seen["file"]) == (2, 3, names[1])
        assert seen["bytes_total"] == 3 * MIB
        assert router.placement("acme/big") is None
        stall.release()
        placed = router.wait_whole("acme/big")
    assert [Path(each).name for each in placed["paths"]] == names
    assert len({Path(each).parent for each in placed["paths"]}) == 1
    assert [sha256(each) for each in placed["paths"]] == [repo[name].sha256 for name in names]


def test_a_safetensors_repo_arrives_with_its_small_files_first(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    files = {
        "model.safetensors": Generated(20 * MIB, seed=5),
        "config.json": '{"a": 1}',
        "tokenizer.json": "{}" * 1000,
        "onnx/empty.txt": b"",
    }
    repo = empty_hub.add(HubRepo("acme/embed", files))
    router.register("acme/embed", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        placed = router.wait_whole("acme/embed")
        home = Path(placed["paths"][0]).parents[0]
        for path in files:
            assert (home / path).read_bytes() == repo[path].read(), path
        order = [each.label for each in empty_hub.requests(method="GET") if each.label]
        assert order[-1].endswith("model.safetensors")
        blob = (home / "config.json").resolve()
        assert blob.name == repo["config.json"].oid and blob.parent.parent.parent == node.cache


def test_two_models_with_a_common_file_fetch_it_once(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = empty_hub.add(
        HubRepo(
            "acme/pair",
            {"a.gguf": Generated(MIB, 1), "b.gguf": Generated(MIB, 2), "mmproj.gguf": Generated(4 * MIB, 3)},
        )
    )
    empty_hub.connection_bps = 8e6
    router.register("acme/pair:a", manifest_of(repo, "mmproj.gguf", "a.gguf"))
    router.register("acme/pair:b", manifest_of(repo, "mmproj.gguf", "b.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole("acme/pair:a")
        router.wait_whole("acme/pair:b")
        assert empty_hub.served_bytes("*mmproj.gguf") == 4 * MIB
        router.remove("acme/pair:a")
        router.wait_gone("acme/pair:a")
        left = {each.name for each in node.cache.rglob("blobs/*")}
        assert left == {repo["b.gguf"].sha256, repo["mmproj.gguf"].sha256}


def test_an_upstream_router_without_our_additions_is_served_too(empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = tiny(empty_hub)
    urls = [{"name": "model.gguf", "url": f"https://huggingface.co/{repo.id}/resolve/main/tiny.gguf"}]
    with StubRouter(stock=True) as router, NodeThread(router, empty_hub, tmp_path) as node:
        router.register(NAME, urls)
        router.register(
            "acme/other", [{"name": "model.gguf", "url": f"{empty_hub.url}/{repo.id}/resolve/main/README.md"}]
        )
        router.wait(lambda: sorted(router.last.get("loaded_models", ())) == ["acme/other", NAME])
        assert router.last["sync_state"] == "success"
        path = node.cache / "models--acme--Tiny-GGUF" / "snapshots" / repo.sha / "tiny.gguf"
        assert sha256(path) == repo["tiny.gguf"].sha256
        # An empty list is what a router with a lost database answers: nothing may go.
        kept, router.models = router.models, {}
        asked = len(router.requests)
        router.wait(lambda: len(router.requests) > asked + 5)
        assert path.exists()
        router.models = kept
        router.wait(lambda: len(router.requests) > asked + 15)
        router.remove(NAME)
        router.wait(lambda: router.last["loaded_models"] == ["acme/other"])
        assert not path.exists()


def test_what_the_cache_holds_already_is_adopted_not_fetched(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    repo = tiny(empty_hub)
    hf_hub_download(repo.id, "tiny.gguf", cache_dir=tmp_path / "hub", endpoint=empty_hub.url, token=False)
    before = empty_hub.served_bytes("*.gguf")
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
    assert empty_hub.served_bytes("*.gguf") == before == repo["tiny.gguf"].size


def test_a_damaged_file_in_the_cache_is_not_adopted(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    repo = tiny(empty_hub)
    path = hf_hub_download(repo.id, "tiny.gguf", cache_dir=tmp_path / "hub", endpoint=empty_hub.url, token=False)
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
    assert sha256(placed["path"]) == repo["tiny.gguf"].sha256


def test_the_queue_has_a_limit_and_says_who_waits(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    for number in range(3):
        repo = empty_hub.add(HubRepo(f"acme/m{number}", {"m.gguf": Generated(MIB, seed=number)}))
        router.register(f"acme/m{number}", manifest_of(repo, "m.gguf"))
    stall = empty_hub.fault(server="cdn", stall_after=1000, times=None)
    with NodeThread(router, empty_hub, tmp_path, parallel_models=2, stall_s=30):
        expected = ["fetching", "fetching", "waiting"]
        router.wait(lambda: sorted(each["phase"] for each in router.last.get("transfers", ())) == expected)
        stall.release()
        for number in range(3):
            router.wait_whole(f"acme/m{number}")


@pytest.mark.parametrize("stalled", [True, False], ids=["stalled", "moving"])
def test_a_cancelled_pull_leaves_nothing_behind_within_a_second(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, stalled: bool
) -> None:
    repo = tiny(empty_hub, 64 * MIB)
    if stalled:
        empty_hub.fault(server="cdn", stall_after=MIB, times=None)
    else:
        empty_hub.throttle_bps = 4e6
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30) as node:
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] >= MIB // 2)
        assert parts(node.cache)
        at = time.monotonic()
        router.remove(NAME)
        router.wait_gone(NAME)
        assert time.monotonic() - at < 3.0  # a second, on a machine that is not busy
        assert not [each for each in node.cache.rglob("*") if each.is_file() and each.name != "CACHEDIR.TAG"]


def test_a_cancelled_pull_keeps_what_was_there_before_it(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    repo = empty_hub.add(HubRepo("acme/two", {"a.gguf": Generated(MIB, 1), "b.gguf": Generated(32 * MIB, 2)}))
    mine = hf_hub_download(repo.id, "a.gguf", cache_dir=tmp_path / "hub", endpoint=empty_hub.url, token=False)
    stall = empty_hub.fault(server="cdn", path="*b.gguf", stall_after=MIB)
    router.register("acme/two", manifest_of(repo, "a.gguf", "b.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30):
        assert stall.stalled.wait(30)
        router.wait_phase("acme/two", "fetching")
        router.remove("acme/two")
        router.wait_gone("acme/two")
    assert sha256(mine) == repo["a.gguf"].sha256
    assert not parts(tmp_path)


def test_deleting_frees_the_models_bytes_and_nothing_else(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    old = empty_hub.add(
        HubRepo(
            "acme/Tiny-GGUF",
            {"tiny.gguf": Generated(MIB, 1), "same.gguf": Generated(MIB, 9), "mine.gguf": "GGUF" + "x" * 500},
        )
    )
    first = old.sha
    cache = tmp_path / "hub"
    hf_hub_download(old.id, "same.gguf", revision=first, cache_dir=cache, endpoint=empty_hub.url, token=False)
    old.change("tiny.gguf", Generated(MIB, 2))
    # A file of the user's own, linked into the snapshot as some people do by hand.
    own = tmp_path / "own.gguf"
    own.write_bytes(old["mine.gguf"].read())
    link = cache / "models--acme--Tiny-GGUF" / "snapshots" / old.sha / "mine.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(own)
    router.register(NAME, manifest_of(old, "tiny.gguf", "same.gguf", "mine.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        placed = router.wait_whole(NAME)
        assert len(placed["paths"]) == 3
        router.remove(NAME)
        router.wait_gone(NAME)
        assert own.read_bytes() == old["mine.gguf"].read() and link.is_symlink()
        kept = cache / "models--acme--Tiny-GGUF" / "snapshots" / first / "same.gguf"
        assert sha256(kept) == old["same.gguf"].sha256
        assert not (node.cache / "models--acme--Tiny-GGUF" / "blobs" / old["tiny.gguf"].sha256).exists()
        assert not scan_cache_dir(cache).warnings


def test_deleting_the_last_model_of_a_repo_leaves_a_clean_cache(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import scan_cache_dir

    repo = tiny(empty_hub)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        router.remove(NAME)
        router.wait_gone(NAME)
        assert not (node.cache / "models--acme--Tiny-GGUF").exists()
        assert not scan_cache_dir(node.cache).warnings
        # And again: nothing of the first time is in the way.
        router.register(NAME, manifest_of(repo))
        router.wait_whole(NAME)


def test_a_model_is_removed_even_when_the_library_calls_the_repo_corrupt(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = tiny(empty_hub)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        placed = router.wait_whole(NAME)
        (Path(placed["path"]).parent / "broken.gguf").symlink_to("../../blobs/nowhere")
        router.remove(NAME)
        router.wait_gone(NAME)
        assert not (node.cache / "models--acme--Tiny-GGUF" / "blobs" / repo["tiny.gguf"].sha256).exists()


def test_a_router_with_another_database_never_makes_the_node_delete(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = tiny(empty_hub)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        path = Path(router.wait_whole(NAME)["path"])
        with router.changed:
            kept, router.models, router.store = router.models, {}, "another"
            router._touch()
        asked = len(router.requests)
        router.wait(lambda: len(router.requests) > asked + 3)
        router.refuse["/v0/models"] = (500, {"error": "Internal server error"})
        router.touch()
        asked = len(router.requests)
        router.wait(lambda: len(router.requests) > asked + 3)
        router.refuse["/v0/models"] = (200, {"error": "not a list"})
        asked = len(router.requests)
        router.wait(lambda: len(router.requests) > asked + 3)
        router.refuse.clear()
        # It is nobody's model now: told as one that could be adopted.
        router.wait(lambda: [each["repo"] for each in router.found] == [repo.id])
        assert path.exists() and not router.placement(NAME)
        # Once the other database lists it too, that one may take it back.
        with router.changed:
            router.models = kept
            router._touch()
        asked = len(router.requests)
        router.wait(lambda: "GET /v0/models" in router.requests[asked + 1 :])
        router.remove(NAME)
        router.wait_gone(NAME)
        assert not path.exists()


def test_files_that_somebody_removed_are_noticed_and_fetched_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = tiny(empty_hub)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
        Path(placed["path"]).resolve().unlink()
        router.wait(lambda: empty_hub.served_bytes("*.gguf") == 2 * repo["tiny.gguf"].size)
        assert sha256(router.wait_whole(NAME)["path"]) == repo["tiny.gguf"].sha256


def test_a_restarted_node_knows_its_models_without_reading_or_asking(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = tiny(empty_hub)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
    empty_hub.down()
    router.heartbeats.clear()
    asked = len(router.requests)
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
        router.wait(lambda: "GET /v0/models" in router.requests[asked:])
    assert not [each for each in router.requests[asked:] if each.endswith("manifest.json")]


def test_a_stopped_node_goes_on_where_it_was(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = tiny(empty_hub, 8 * MIB)
    stall = empty_hub.fault(server="cdn", stall_after=5 * MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30):
        assert stall.stalled.wait(30)
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] == 5 * MIB)
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
    assert sha256(placed["path"]) == repo["tiny.gguf"].sha256
    assert empty_hub.requests("*.gguf", server="cdn")[-1].range == f"bytes={5 * MIB}-{8 * MIB - 1}"


def test_kill_nine_loses_nothing_that_had_arrived(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = tiny(empty_hub, 16 * MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    for stop_at in (3 * MIB, 9 * MIB):
        stall = empty_hub.fault(
            server="cdn", stall_after=stop_at - sum(each.stat().st_size for each in parts(tmp_path))
        )
        process = start_process(router, empty_hub, tmp_path, tuning={"stall_s": 60})
        try:
            assert stall.stalled.wait(60)
            router.wait(lambda stop_at=stop_at: (t := router.transfer(NAME)) and t["bytes_done"] == stop_at)
        finally:
            process.kill()
            process.wait(10)
        assert [each.stat().st_size for each in parts(tmp_path)] == [stop_at]
        stall.remove()
        router.heartbeats.clear()
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
        assert sha256(placed["path"]) == repo["tiny.gguf"].sha256
    # What the hub sent beyond the file's size was under way to a process that was dead.
    assert empty_hub.requests("*.gguf", server="cdn")[-1].range == f"bytes={9 * MIB}-{16 * MIB - 1}"


def test_two_nodes_on_one_cache_do_not_write_the_same_part(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = tiny(empty_hub, 4 * MIB)
    stall = empty_hub.fault(server="cdn", stall_after=MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with StubRouter() as second:
        second.register(NAME, manifest_of(repo, "tiny.gguf"))
        with NodeThread(router, empty_hub, tmp_path, stall_s=30) as node:
            assert stall.stalled.wait(30)
            other = tmp_path / "other"
            other.mkdir()
            (other / "hub").symlink_to(node.cache)
            with NodeThread(second, empty_hub, other):
                waiting = second.wait(lambda: (t := second.transfer(NAME)) and t["error_code"] == "busy" and t)
                assert waiting["phase"] == "waiting"
                stall.release()
                router.wait_whole(NAME)
                second.wait_whole(NAME)
    assert empty_hub.served_bytes("*.gguf") == repo["tiny.gguf"].size


def test_the_librarys_own_download_of_the_same_file_at_the_same_time_does_no_harm(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    repo = tiny(empty_hub, 8 * MIB)
    empty_hub.connection_bps = 8e6
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    found: list[str] = []

    def library() -> None:
        found.append(
            hf_hub_download(repo.id, "tiny.gguf", cache_dir=tmp_path / "hub", endpoint=empty_hub.url, token=False)
        )

    thread = threading.Thread(target=library)
    thread.start()
    with NodeThread(router, empty_hub, tmp_path) as node:
        placed = router.wait_whole(NAME)
        thread.join(60)
        assert [sha256(each) for each in (*found, placed["path"])] == [repo["tiny.gguf"].sha256] * 2
        assert not scan_cache_dir(node.cache).warnings
        assert not parts(node.cache)


def test_no_room_pauses_and_goes_on_when_there_is_room(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelhub_tui.service.node.cache import Cache

    free = [MIB]
    monkeypatch.setattr(Cache, "usage", lambda self: (free[0], 100 * MIB))
    repo = tiny(empty_hub, 4 * MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        paused = router.wait_phase(NAME, "paused")
        assert paused["error_code"] == "no_space"
        assert paused["error"].startswith("Needs 4.2 MB, free 1.0 MB: short by 3.1 MB.")
        assert not empty_hub.served_bytes("*.gguf")
        free[0] = 50 * MIB
        router.wait_whole(NAME)


def test_a_disk_that_fills_up_in_the_middle_pauses_and_keeps_every_byte(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.pwrite, [2 * MIB + 5]

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        left = room[0] - at
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:left], at)  # as a full disk does: a part of it

    monkeypatch.setattr(os, "pwrite", pwrite)
    repo = tiny(empty_hub, 4 * MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        paused = router.wait_phase(NAME, "paused")
        # The disk refuses what it has room for by its own figures; the sentence says just that.
        assert paused["error_code"] == "no_space"
        assert paused["error"].startswith("The disk of the model folder calls itself full, though it tells of ")
        assert [each.stat().st_size for each in parts(tmp_path)] == [room[0]] and paused["bytes_done"] == room[0]
        room[0] = 100 * MIB
        placed = router.wait_whole(NAME)
        assert sha256(placed["path"]) == repo["tiny.gguf"].sha256


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_may_not_be_written_is_said_so(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = tiny(empty_hub)
    (tmp_path / "hub").mkdir(mode=0o500)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase(NAME, "failed")
        assert "No permission" in failed["error"]
        (tmp_path / "hub").chmod(0o700)
        router.wait_whole(NAME)


def test_a_model_that_is_listed_unreadably_stays_and_harms_no_other(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        repo = empty_hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(MIB, ord(name))}))
        router.register(repo.id, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        for name in ("acme/a", "acme/b", "acme/c"):
            router.wait_whole(name)
        router.change("acme/a", registered="no", revision={"x": "\ud800"})
        router.register("evil\x07/x", [], status=["\x1b"])
        router.remove("acme/b")
        router.wait_gone("acme/b")
        assert router.placement("acme/a") and router.placement("acme/c")
        router.models["acme/c"] = {}  # this may be any of them
        router.retry("acme/a")
        repo = empty_hub.add(HubRepo("acme/d", {"m.gguf": Generated(MIB, 9)}))
        router.register(repo.id, manifest_of(repo))
        router.wait_whole("acme/d")
        assert router.placement("acme/a") and router.placement("acme/c")
