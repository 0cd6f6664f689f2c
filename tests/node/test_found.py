"""What is offered for adoption: whole models of the real cache layout, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download

from modelhub_tui.service.node import found
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.disk_use import freed_by_removing, used_by
from modelhub_tui.service.node.folders import Folder
from modelhub_tui.service.node.found import Finder
from modelhub_tui.service.node.manifest import File
from tests.hub import HubRepo, LoopbackHub
from tests.hub.blobs import pointer

CONFIG = json.dumps({"architectures": ["Tiny"]})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hub")


def fetch(hub: LoopbackHub, cache: Cache, repo: HubRepo, *paths: str, revision: str | None = None) -> None:
    """As somebody with the library would."""
    for path in paths or repo.main.files:
        hf_hub_download(repo.id, path, revision=revision, cache_dir=cache.root, endpoint=hub.url, token=False)


def names(finder: Finder, held: tuple[File, ...] = ()) -> list[list[str]]:
    finder.scan()
    return [[file["path"] for file in group["files"]] for group in finder.report(held)]


def test_what_the_library_fetched_is_found_with_its_checksums_and_paths(empty_hub: LoopbackHub, cache: Cache) -> None:
    repo = empty_hub.add(HubRepo("acme/tiny", {"tiny.Q4_K_M.gguf": b"GGUF one", "README.md": "# Tiny"}))
    fetch(empty_hub, cache, repo)
    finder = Finder(cache)
    finder.scan()
    blob = repo["tiny.Q4_K_M.gguf"]
    assert finder.report(()) == [
        {
            "repo": "acme/tiny",
            "revision": repo.sha,
            "files": [{"path": "tiny.Q4_K_M.gguf", "size": blob.size, "sha256": blob.sha256, "blob_id": None}],
            "paths": [str(cache.link("acme/tiny", repo.sha, "tiny.Q4_K_M.gguf"))],
        }
    ]
    assert Path(finder.report(())[0]["paths"][0]).read_bytes() == b"GGUF one"


def safetensors(number: int) -> bytes:
    """The least that can be a safetensors file."""
    return (2).to_bytes(8, "little") + b"{}" + bytes([number])


def test_what_holds_a_pointer_is_not_offered(empty_hub: LoopbackHub, cache: Cache) -> None:
    bad = {"pointer.gguf": pointer("0" * 64, 10**9), "page.gguf": b"<html>", "good.gguf": b"GGUF"}
    fetch(empty_hub, cache, empty_hub.add(HubRepo("acme/mixed", bad)))
    assert names(Finder(cache)) == [["good.gguf"]]


def test_groups_of_each_kind(empty_hub: LoopbackHub, cache: Cache) -> None:
    gguf = {f"big-0000{n}-of-00002.gguf": f"GGUF {n}".encode() for n in (1, 2)}
    more = {"small.gguf": b"GGUF s", "mmproj-f16.gguf": b"GGUF p", "x.imatrix.gguf": b"GGUF i", "notes.txt": "no model"}
    ggufs = empty_hub.add(HubRepo("acme/ggufs", {**gguf, **more}))
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    sharded = {f"model-0000{n}-of-00002.safetensors": safetensors(n) for n in (1, 2)}
    tensors = empty_hub.add(
        HubRepo(
            "acme/tensors",
            {
                **sharded,
                "model.safetensors.index.json": index,
                "config.json": CONFIG,
                "README.md": "#",
                "a.png": b"png",
            },
        )
    )
    whisper = empty_hub.add(HubRepo("acme/whisper", {"ggml-base.bin": b"lmgg base", "ggml-tiny.bin": b"lmgg tiny"}))
    part = empty_hub.add(
        HubRepo("acme/part", {"vae/x.safetensors": safetensors(5), "y-00001-of-00002.safetensors": safetensors(6)})
    )
    zero = {f"model-0000{n}-of-00002.safetensors": safetensors(n) for n in (0, 1)}  # counted from 0
    index0 = json.dumps({"weight_map": dict(zip("ab", zero, strict=True))})
    from_zero = empty_hub.add(
        HubRepo("acme/zero", {**zero, "model.safetensors.index.json": index0, "config.json": CONFIG})
    )
    data = empty_hub.add(HubRepo("acme/nothing", {"config.json": CONFIG, "vocab.txt": "a b"}))
    for repo in (ggufs, tensors, whisper, part, from_zero, data):
        fetch(empty_hub, cache, repo)
    assert sorted(names(Finder(cache))) == sorted(
        [
            ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"],
            ["small.gguf"],
            ["mmproj-f16.gguf"],
            ["config.json", *sharded, "model.safetensors.index.json"],
            ["vae/x.safetensors"],
            ["config.json", *zero, "model.safetensors.index.json"],
            ["ggml-base.bin"],
            ["ggml-tiny.bin"],
        ]
    )


def test_what_is_not_whole_is_not_offered(empty_hub: LoopbackHub, cache: Cache) -> None:
    shards = {f"big-0000{n}-of-00002.gguf": f"GGUF {n}".encode() for n in (1, 2)}
    index = json.dumps({"weight_map": {"a": "part-a.safetensors", "b": "part-b.safetensors"}})
    weights = {"part-a.safetensors": safetensors(7), "part-b.safetensors": safetensors(8)}
    one = empty_hub.add(HubRepo("acme/one", shards))
    two = empty_hub.add(HubRepo("acme/two", {**weights, "model.safetensors.index.json": index, "config.json": CONFIG}))
    three = empty_hub.add(HubRepo("acme/three", {"whole.gguf": b"GGUF three", "other.gguf": b"GGUF four"}))
    fetch(empty_hub, cache, one, "big-00001-of-00002.gguf")
    fetch(empty_hub, cache, two, "part-a.safetensors", "model.safetensors.index.json", "config.json")
    snapshot_download(three.id, cache_dir=cache.root, endpoint=empty_hub.url, token=False)
    finder = Finder(cache)
    assert names(finder) == [["other.gguf"], ["whole.gguf"]]
    # The library noted each file's length when it listed the repo: a blob of another length is damaged.
    cache.blob("acme/three", three["whole.gguf"].sha256).write_bytes(b"GGUF")
    # A link that leads nowhere.
    cache.blob("acme/three", three["other.gguf"].sha256).unlink()
    assert names(finder) == []
    fetch(empty_hub, cache, one)
    fetch(empty_hub, cache, two)
    assert names(finder) == [
        ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"],
        ["config.json", "model.safetensors.index.json", "part-a.safetensors", "part-b.safetensors"],
    ]


def test_a_users_own_files_and_foreign_folders_are_left_alone(cache: Cache, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF own")
    commit = "a" * 40
    cache.prepare("acme/linked", commit)
    cache.link("acme/linked", commit, "own.gguf").symlink_to(own)
    blob = cache.blob("acme/linked", "c" * 64)
    blob.symlink_to(own)  # a blob that leads out of the cache
    cache.link("acme/linked", commit, "led-out.gguf").symlink_to(
        os.path.relpath(blob, cache.link("acme/linked", commit, "led-out.gguf").parent)
    )
    os.mkfifo(cache.link("acme/linked", commit, "pipe.gguf"))
    (cache.root / "models--odd" / "snapshots" / "not-a-commit").mkdir(parents=True)
    (cache.root / "models--..--..").mkdir()
    (cache.root / "stray.txt").write_text("?")
    assert names(Finder(cache)) == []
    assert names(Finder(Cache(tmp_path / "no-such-folder"))) == []


def test_held_models_are_known_but_their_companions_may_be_shared(empty_hub: LoopbackHub, cache: Cache) -> None:
    repo = empty_hub.add(HubRepo("acme/tiny", {"a.gguf": b"GGUF a", "b.gguf": b"GGUF b", "mmproj.gguf": b"GGUF p"}))
    fetch(empty_hub, cache, repo)
    held = tuple(
        File(repo.id, repo.sha, path, repo[path].size, repo[path].sha256, commit=repo.sha)
        for path in ("a.gguf", "mmproj.gguf")
    )
    finder = Finder(cache)
    assert names(finder, held) == [["b.gguf"], ["mmproj.gguf"]]
    # Deleted a moment ago: not to be offered again on the word of the last look.
    finder.forget(["acme/tiny"])
    assert finder.report(()) == []
    assert names(finder) == [["a.gguf"], ["b.gguf"], ["mmproj.gguf"]]


def test_one_file_in_two_snapshots_is_one_model(empty_hub: LoopbackHub, cache: Cache) -> None:
    repo = empty_hub.add(HubRepo("acme/tiny", {"a.gguf": b"GGUF a", "old.gguf": b"GGUF old"}))
    first = repo.sha
    fetch(empty_hub, cache, repo)
    repo.commit({"a.gguf": b"GGUF a, newer"})
    fetch(empty_hub, cache, repo, "a.gguf")
    finder = Finder(cache)
    finder.scan()
    revisions = {group["files"][0]["path"]: group["revision"] for group in finder.report(())}
    assert revisions == {"a.gguf": repo.sha, "old.gguf": first}


def test_an_unchanged_repo_is_not_read_again(
    empty_hub: LoopbackHub, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = empty_hub.add(HubRepo("acme/tiny", {"a.gguf": b"GGUF a"}))
    fetch(empty_hub, cache, repo)
    finder = Finder(cache)
    assert names(finder) == [["a.gguf"]]
    read: list[str] = []
    real = found._files_of

    def counted(cache: Cache, home: Folder, name: str, commit: str) -> dict[str, File]:
        read.append(name)
        return real(cache, home, name, commit)

    monkeypatch.setattr(found, "_files_of", counted)
    assert names(finder) == [["a.gguf"]] and read == []
    other = empty_hub.add(HubRepo("acme/other", {"b.gguf": b"GGUF b"}))
    fetch(empty_hub, cache, other)
    assert names(finder) == [["b.gguf"], ["a.gguf"]] and read == ["acme/other"]


def test_a_heartbeat_never_gets_too_large() -> None:
    def group(name: str, count: int) -> found.Group:
        files = tuple(File(name, "a" * 40, f"{n}.bin", 1, "b" * 64, commit="a" * 40) for n in range(count))
        return found.Group(name, "a" * 40, files, frozenset("b" * 64))

    groups = [group("acme/huge", 2001), group(f"acme/{'x' * 250}", 1), *(group(f"acme/{n}", 1500) for n in range(9))]
    assert [each.repo for each in found._within_limits(groups)] == [f"acme/{n}" for n in range(6)]
    assert len([*found._within_limits(group("acme/a", 1) for _ in range(600))]) == 500


def test_disk_use_counts_blocks_and_every_file_once(tmp_path: Path) -> None:
    one, two, hole = tmp_path / "one", tmp_path / "two", tmp_path / "hole"
    one.write_bytes(os.urandom(100_000))
    two.write_bytes(os.urandom(50_000))
    with hole.open("wb") as file:
        file.truncate(10_000_000)
    (tmp_path / "link").symlink_to(one)
    (tmp_path / "again").hardlink_to(two)
    paths = [*tmp_path.iterdir(), tmp_path / "missing"]
    assert 150_000 <= used_by(paths) < 400_000
    assert used_by([one]) == freed_by_removing(one)
    assert freed_by_removing(two) == 0  # it has another name
