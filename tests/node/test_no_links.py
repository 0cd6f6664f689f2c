"""Caches whose files lie in the snapshots themselves: the library's without links, ours, and hard-linked ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from modelhub_tui.service.node.found import Finder
from modelhub_tui.service.node.removal import remove_files
from tests.hub import HubRepo, LoopbackHub
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of
from tests.node.test_found import safetensors
from tests.node.test_trash import STORE, Place

CONFIG = b'{"architectures": ["Tiny"]}'


def fetch_without_links(hub: LoopbackHub, cache: Path, repo: HubRepo) -> None:
    """As `hf download` does with the variable set, in a process of its own: the library reads it once."""
    env = {**os.environ, **hub.env(), "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_SYMLINKS": "1"}
    hf = str(Path(sys.executable).with_name("hf"))
    ran = subprocess.run([hf, "download", repo.id], env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert not any(each.is_symlink() for each in cache.rglob("*")) and not [*cache.rglob("blobs/*")]


def offline(cache: Path, repo: HubRepo, path: str) -> Path:
    """Where the library finds a file when it may ask nobody."""
    return Path(hf_hub_download(repo.id, path, cache_dir=cache, local_files_only=True))


def test_what_the_library_left_without_links_is_found_adopted_verified_and_deleted(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    files = {"a.gguf": b"GGUF a" * 1000, "deep/b.gguf": b"GGUF b" * 1000}
    repo = empty_hub.add(HubRepo("acme/bare", files))
    index = b'{"weight_map": {"x": "model-00001-of-00001.safetensors"}}'
    weights = {"model-00001-of-00001.safetensors": safetensors(1), "model.safetensors.index.json": index}
    tensors = empty_hub.add(HubRepo("acme/tensors", {"config.json": CONFIG, **weights}))
    cache = tmp_path / "home" / "hub"
    for each in (repo, tensors):
        fetch_without_links(empty_hub, cache, each)
    served = empty_hub.served_bytes("acme/*")
    with NodeThread(router, empty_hub, tmp_path / "home"):
        found = {
            tuple(each["path"] for each in group["files"]): group
            for group in router.wait(lambda: len(router.found or ()) == 3 and router.found)
        }
        assert ("a.gguf",) in found and ("deep/b.gguf",) in found
        assert {each["sha256"] for group in found.values() for each in group["files"]} == {None}
        bare = [{**each, "sha256": None, "blob_id": None} for each in manifest_of(repo)]
        router.register("acme/bare", [each for each in bare if each["path"] == "a.gguf"])
        told = router.wait_whole("acme/bare")
        assert told["verified"] is True, "the hub told its checksum"
        router.wait(lambda: all(group["files"][0]["path"] != "a.gguf" for group in router.found))
        assert told["path"].endswith("snapshots/" + repo.sha + "/a.gguf")
        assert router.last["models_bytes"] >= 6000
        router.remove("acme/bare", keep=True)
        router.wait(lambda: not (cache / "models--acme--bare/snapshots" / repo.sha / "a.gguf").exists())
        assert scan_cache_dir(cache).warnings == []
        router.wait_gone("acme/bare")
        router.register("acme/bare", [each for each in bare if each["path"] == "a.gguf"])
        router.wait_whole("acme/bare")
        assert Path(told["path"]).read_bytes() == files["a.gguf"]
        assert (cache / "models--acme--bare/snapshots" / repo.sha / "deep/b.gguf").is_file(), "nobody deleted it"
    assert empty_hub.served_bytes("acme/*") == served, "nothing was fetched again"


def test_a_file_that_is_damaged_is_seen_at_adoption_and_fetched_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = empty_hub.add(HubRepo("acme/bare", {"a.gguf": b"GGUF a" * 1000}))
    cache = tmp_path / "home" / "hub"
    fetch_without_links(empty_hub, cache, repo)
    path = cache / "models--acme--bare/snapshots" / repo.sha / "a.gguf"
    path.write_bytes(b"GGUF x" * 1000)
    router.register("acme/bare", [{**each, "sha256": None, "blob_id": None} for each in manifest_of(repo)])
    with NodeThread(router, empty_hub, tmp_path / "home"):
        router.wait_whole("acme/bare")
    assert path.read_bytes() == b"GGUF a" * 1000


@pytest.mark.parametrize("how", ["refused", "unwanted"])
def test_our_own_pull_without_links_ends_whole_found_offline_and_can_be_undone(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "refused":

        def refuse(*_args: object, **_more: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "symlink", refuse)
    else:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    files = {"a.gguf": b"GGUF a" * 1000, "sub/b.gguf": b"GGUF b" * 1000}
    repo = empty_hub.add(HubRepo("acme/own", files))
    router.register("acme/own", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path / "home") as node:
        told = router.wait_whole("acme/own")
        cache = node.cache
        assert told["verified"] is True
        for path, content in files.items():
            assert offline(cache, repo, path).read_bytes() == content
            assert not offline(cache, repo, path).is_symlink()
        assert scan_cache_dir(cache).warnings == []
        served = empty_hub.served_bytes("acme/*")
        router.remove("acme/own", keep=True)
        router.wait(lambda: router.last["placements"] == [])
        router.register("acme/own", manifest_of(repo))
        router.wait_whole("acme/own")
        assert empty_hub.served_bytes("acme/*") == served
        router.remove("acme/own", keep=False)
        router.wait(lambda: router.last["placements"] == [])
        router.wait(lambda: not [*cache.rglob("*.gguf")])


def test_hard_links_are_one_file_and_go_as_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    file = place.put("a.gguf", b"GGUF a" * 1000)
    link, blob = place.cache.path_of(file), place.cache.blob(file.repo, file.etag or "")
    link.unlink()
    os.link(blob, link)
    finder = Finder(place.cache)
    finder.scan()
    (group,) = finder.report(())
    assert group["files"][0]["sha256"] == file.etag, "its content has a name"
    assert finder.report([file]) == []
    place.trash.discard("tiny", STORE, (file,))
    assert [each.rsplit("/", 1)[1] for each in place.tree()] == [f"{file.etag}.modelhub.trash"]
    assert place.trash.heap.bytes >= 6000
    place.trash.bring_back([file])
    place.trash.settle("tiny")
    assert link.read_bytes() == b"GGUF a" * 1000
    link.unlink()
    os.link(blob, link)
    remove_files(place.cache, [file])
    assert place.tree() == {}
    place.record.close()
