"""A model of very many small files: work that grows with their number and no faster, and nothing lost on the way."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.domain import Limits
from modelhub_tui.service.node.cache import Cache, drop_file
from modelhub_tui.service.node.crowd import SMALL_BYTES, stretches
from modelhub_tui.service.node.disk_use import used_by, used_by_each
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.record import Record
from modelhub_tui.service.node.removal import remove_files
from modelhub_tui.service.node.reporting import MAX_PATHS
from modelhub_tui.service.node.trash import Trash
from tests.hub import HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/many"
COUNT = 600
SIZE = 900


def content(count: int = COUNT) -> dict[str, bytes]:
    noise = random.Random(7)
    return {f"d{number % 7}/part-{number:05}.json": noise.randbytes(SIZE) for number in range(count)}


def all_right(cache: Path, repo: HubRepo, files: dict[str, bytes]) -> bool:
    folder = cache / "models--acme--many" / "snapshots" / repo.sha
    return all((folder / path).read_bytes() == bytes_ for path, bytes_ in files.items())


def whole_size(router: StubRouter) -> int:
    return (router.transfer(NAME) or {}).get("bytes_done", 0)


def test_they_arrive_several_at_a_time_and_are_asked_for_once(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Record] = []
    real = Record.__init__

    def remember(self: Record, path: Path) -> None:
        real(self, path)
        records.append(self)

    monkeypatch.setattr(Record, "__init__", remember)
    files = content()
    repo = empty_hub.add(HubRepo(NAME, files))
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        told = router.wait_whole(NAME)
        assert all_right(node.cache, repo, files)
        assert told["disk_bytes"] == COUNT * SIZE and told["verified"] and len(told["paths"]) == MAX_PATHS
        rows = records[0]._db.total_changes
        # Each file is written when the list is known, before its first byte and when it is whole; the rest is little.
        assert rows < 4 * COUNT, "and not all of them for each"
    assert len(empty_hub.requests("*/resolve/*", method="GET")) == COUNT
    assert len(empty_hub.requests("*/resolve/*", method="HEAD")) <= 1, "what the registration pins is not asked for"
    assert router.last["totals"]["verified_bytes"] == COUNT * SIZE


def test_the_same_content_under_many_names_is_fetched_once(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    files = {f"d{number % 3}/same-{number}.json": b"{}" if number % 2 else b"" for number in range(200)}
    repo = empty_hub.add(HubRepo(NAME, files))
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        assert all_right(node.cache, repo, files)
    assert len(empty_hub.requests("*/resolve/*", method="GET")) == 1
    assert router.last["totals"]["retries"] == []


def test_deleted_undone_and_deleted_for_good(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    files = content()
    repo = empty_hub.add(HubRepo(NAME, files))
    router.limit(trash_seconds=3600, trash_bytes=2**40)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait_whole(NAME)
        served = empty_hub.served_bytes()
        router.remove(NAME, keep=True)
        router.wait_trashed(NAME)
        assert not [*node.cache.glob("models--acme--many/snapshots/*/*/*")]
        router.trash.clear()
        router.register(NAME, manifest_of(repo))
        router.wait_whole(NAME)
        assert all_right(node.cache, repo, files) and empty_hub.served_bytes() == served
        router.limit(trash_seconds=0)
        router.wait(lambda: router.last["trash_bytes"] == 0)
        router.remove(NAME)
        router.wait_gone(NAME)
        router.wait(lambda: not (node.cache / "models--acme--many").exists() or None)


def test_killed_in_the_middle_it_goes_on_and_fetches_little_twice(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    files = content()
    repo = empty_hub.add(HubRepo(NAME, files))
    empty_hub.throttle_bps = COUNT * SIZE / 3
    router.register(NAME, manifest_of(repo))
    process = start_process(router, empty_hub, tmp_path)
    try:
        router.wait(lambda: whole_size(router) > COUNT * SIZE / 3)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        empty_hub.throttle_bps = None
        count = len(router.heartbeats)
        process = start_process(router, empty_hub, tmp_path)
        router.wait(lambda: len(router.heartbeats) > count)
        router.wait_whole(NAME)
        assert all_right(tmp_path / "hub", repo, files)
        assert empty_hub.served_bytes() < (COUNT + 16) * SIZE, "no more than what was on its way, once again"
        # Cancelled after all: every file is ours, so nothing stays.
        router.remove(NAME)
        router.wait_gone(NAME)
        router.wait(lambda: not [*(tmp_path / "hub").rglob("*.json")] or None)
    finally:
        process.kill()
        process.wait()


def test_one_that_is_missing_is_named_and_the_others_stay(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = empty_hub.add(HubRepo(NAME, content()))
    manifest = manifest_of(repo)
    manifest[300] |= {"path": "d9/not-there.json"}
    router.register(NAME, manifest)
    with NodeThread(router, empty_hub, tmp_path):
        told = router.wait_phase(NAME, "failed")
        assert "d9/not-there.json" in told["error"]


def test_one_that_is_another_upstream_is_refused(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = empty_hub.add(HubRepo(NAME, content()))
    manifest = manifest_of(repo)
    manifest[300] |= {"blob_id": "c" * 40, "sha256": None}
    router.register(NAME, manifest)
    with NodeThread(router, empty_hub, tmp_path) as node:
        told = router.wait_phase(NAME, "failed")
        assert told["error_code"] in ("changed_upstream", "checksum") and manifest[300]["path"] in told["error"]
        assert not os.path.lexists(node.cache / "models--acme--many" / "blobs" / ("c" * 40))


def test_cancelled_in_the_middle_nothing_is_left(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = empty_hub.add(HubRepo(NAME, content()))
    empty_hub.throttle_bps = COUNT * SIZE / 5
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        router.wait(lambda: whole_size(router) > COUNT * SIZE / 4)
        router.remove(NAME)
        router.wait_gone(NAME)
        assert [each for each in node.cache.rglob("*") if "models--acme--many" in str(each)] == []


def test_only_files_of_which_all_is_known_make_a_crowd() -> None:
    small = File("a/b", "main", "f", 5, "b" * 64, commit="a" * 40)
    large = File("a/b", "main", "g", SMALL_BYTES + 1, "c" * 64, commit="a" * 40)
    bare = File("a/b", "main", "h", 5, None, commit="a" * 40)
    assert [*stretches([small] * 20 + [large] + [small] * 3 + [bare] + [small] * 16)] == [
        range(20),
        *(range(at, at + 1) for at in range(20, 25)),
        range(25, 41),
    ]
    assert [*stretches([])] == []


def test_what_goes_while_it_is_counted_is_never_less_than_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router refuses a report with less than nothing in it."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.write_bytes(bytes(100_000))
    part.write_bytes(bytes(50_000))
    assert used_by_each([whole], [whole, part]) == (used_by([whole]), used_by([part]))
    stat = Path.stat

    def last_look(self: Path, **options: Any) -> Any:
        told = stat(self, **options)
        self.unlink()
        return told

    monkeypatch.setattr(Path, "stat", last_look)
    models, others = used_by_each([whole], [whole, part])
    assert models > 0 and others > 0


def test_what_is_in_the_trash_goes_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One unlink waits for the file system's journal as long as many."""
    cache, files = in_cache(tmp_path / "hub")
    trash = Trash(cache, Record(tmp_path / "record"))
    trash.limits = Limits(trash_seconds=3600, trash_bytes=2**40)
    trash.discard(NAME, "store", files)
    # Each waits for another one: alone, none would go.
    together = threading.Barrier(2, timeout=10)

    def drop(path: Path) -> None:
        together.wait()
        drop_file(path)

    monkeypatch.setattr("modelhub_tui.service.node.trash.drop_file", drop)
    assert trash.free([NAME]) > 0
    assert not [*cache.root.glob("models--*")]


def test_parts_are_looked_for_only_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, files = in_cache(tmp_path / "hub")
    begun = files[7]
    assert begun.etag
    cache.part(begun.repo, begun.etag).write_bytes(b"x")
    asked: list[str] = []
    real = Cache.drop_part

    def drop_part(self: Cache, repo: str, etag: str) -> None:
        asked.append(etag)
        real(self, repo, etag)

    monkeypatch.setattr(Cache, "drop_part", drop_part)
    remove_files(cache, files)
    assert asked == [begun.etag] and not [*cache.root.glob("models--*")]


def in_cache(root: Path, count: int = 64) -> tuple[Cache, tuple[File, ...]]:
    """A model of which each file is whole in the cache."""
    cache, commit = Cache(root), "a" * 40
    cache.prepare(NAME, commit)
    files = []
    for path, bytes_ in content(count).items():
        etag = hashlib.sha256(bytes_).hexdigest()
        file = File(NAME, commit, path, len(bytes_), etag, commit=commit, done=True, fetched=True)
        cache.blob(NAME, etag).write_bytes(bytes_)
        cache.make_link(file)
        files.append(file)
    return cache, tuple(files)
