"""The node's small parts, each by itself: progress, record, manifest, queue, budget, checksum, plan."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.fetch import Budget
from modelhub_tui.service.node.hardware import Card, Hardware, _amd
from modelhub_tui.service.node.hasher import Hasher, Verdict, look_at
from modelhub_tui.service.node.held import Held
from modelhub_tui.service.node.hub import Hub, next_hop, origin
from modelhub_tui.service.node.manifest import File, fetch_order, read_list, read_manifest
from modelhub_tui.service.node.progress import Progress, RateMeter
from modelhub_tui.service.node.protocol import RouterTrouble, manifest_fault
from modelhub_tui.service.node.record import Entry, Record, State
from modelhub_tui.service.node.room import Room
from modelhub_tui.service.node.slots import Slots
from modelhub_tui.service.node.tuning import Tuning

ENDPOINT = "https://huggingface.co"
COMMIT = "a" * 40


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# -- progress


def test_speed_is_a_moving_window_that_falls_to_zero() -> None:
    clock = Clock()
    meter = RateMeter(clock)
    assert meter.rate() is None
    meter.start()
    for _ in range(40):
        clock.now += 0.1
        meter.add(1000)
    assert meter.rate() == pytest.approx(10_000, rel=0.1)
    clock.now += 2.5
    assert 0 < (meter.rate() or 0) < 6_000
    clock.now += 3
    assert meter.rate() == 0


@given(st.lists(st.tuples(st.floats(0.001, 3), st.integers(0, 10**9)), min_size=1, max_size=200))
def test_speed_is_never_more_than_what_came_in_the_window(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    meter = RateMeter(clock)
    meter.start()
    total = 0
    for pause, count in steps:
        clock.now += pause
        meter.add(count)
        total += count
        rate = meter.rate()
        assert rate is None or 0 <= rate * 0.5 <= total


def test_resumed_bytes_count_as_done_but_not_as_speed() -> None:
    clock = Clock()
    progress = Progress("m", clock=clock)
    progress.plan([("a", 1000, 400), ("b", 1000, 0)])
    progress.phase(Phase.FETCHING)
    progress.begin_file(0, 1000, 400)
    clock.now += 1
    seen = progress.snapshot()
    assert (seen.bytes_done, seen.bytes_total, seen.bytes_per_s, seen.eta_s) == (400, 2000, 0.0, None)
    progress.advanced(0, 100)
    clock.now += 1
    seen = progress.snapshot()
    assert (seen.bytes_done, seen.bytes_per_s) == (500, 50.0)
    assert seen.eta_s == pytest.approx(1500 / 50)
    assert (seen.file, seen.file_index, seen.file_count) == ("a", 1, 2)
    assert progress.missing_bytes() == 1500


def test_the_total_is_unknown_until_every_size_is_known() -> None:
    progress = Progress("m")
    progress.plan([("a", 10, 0), ("b", None, 0)])
    assert progress.snapshot().bytes_total is None
    progress.begin_file(1, 5, 0)
    assert progress.snapshot().bytes_total == 15


def test_a_retry_counts_down_and_is_forgotten_with_the_next_byte() -> None:
    clock = Clock()
    told: list[None] = []
    progress = Progress("m", max_attempts=6, clock=clock, on_phase=lambda: told.append(None))
    progress.plan([("a", 10, 0)])
    progress.phase(Phase.FETCHING)
    progress.begin_file(0, 10, 0)
    progress.phase(Phase.RETRYING, faults.stalled("cdn", 12), attempt=2, retry_in_s=4)
    clock.now += 1
    seen = progress.snapshot().as_wire()
    assert (seen["phase"], seen["attempt"], seen["max_attempts"], seen["retry_in_s"]) == ("retrying", 2, 6, 3.0)
    assert seen["error"] == "cdn has sent nothing for 0:12." and seen["error_code"] == "stalled"
    assert seen["bytes_per_s"] is None
    progress.phase(Phase.FETCHING)
    assert progress.snapshot().error is not None
    progress.advanced(0, 1)
    assert (progress.snapshot().error, progress.snapshot().attempt) == (None, 0)
    assert len(told) == 3


# -- record


def test_the_record_survives_and_keeps_its_order(tmp_path: Path) -> None:
    file = File("a/b", COMMIT, "x/y.gguf", 5, "b" * 64, 1, COMMIT, True, True)
    record = Record(tmp_path / "node" / "node.db")
    record.put(Entry("z", "store", "f", 2, State.WHOLE, True, (file,)))
    record.put(Entry("a", None, error="why", error_code="gated", state=State.FAILED))
    record.put(Entry("z", "other", "f", 3, State.REMOVING, True, (file,)))
    # Not closed: as after kill -9.
    entries = Record(tmp_path / "node" / "node.db").entries()
    assert entries == [
        Entry("z", "other", "f", 3, State.REMOVING, True, (file,)),
        Entry("a", None, error="why", error_code="gated", state=State.FAILED),
    ]
    record.drop("z")
    record.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_broken_record_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(content)
    record = Record(path)
    assert record.entries() == []
    record.put(Entry("a", None))
    record.close()
    aside = [
        each for each in tmp_path.iterdir() if ".damaged-" in each.name and each.suffix not in (".db-wal", ".db-shm")
    ]
    assert [each.read_bytes() for each in aside] == [content]


def test_rows_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    record.put(Entry("good", "s"))
    record.close()
    with sqlite3.connect(tmp_path / "node.db") as db:
        for number, body in enumerate(
            ["{", "[]", '{"state": "odd", "files": []}', '{"state": "whole", "files": [{}]}', "null"]
        ):
            db.execute("INSERT INTO models(name, body) VALUES (?, ?)", (f"bad{number}", body))
    db.close()
    assert [each.name for each in Record(tmp_path / "node.db").entries()] == ["good"]


# -- lists and manifests


def test_only_registered_models_are_wanted() -> None:
    listed = [
        {"name": "a", "registered": True, "status": "downloading", "attempt": 3, "repo": "o/a"},
        {"name": "b", "registered": False, "status": "available"},
        {"name": "c", "registered": False, "status": "deleting"},
        {"name": "d", "repo": "o/d", "filename": "d.gguf"},
        {"name": "e", "status": "deleting"},
    ]
    wanted = read_list(listed).wanted
    assert list(wanted) == ["a", "d"]
    assert (wanted["a"].attempt, wanted["d"].attempt) == (3, 0)
    assert wanted["d"].fingerprint == "o/d|d.gguf|"


@pytest.mark.parametrize("raw", [None, {}, "text", 7, True, {"error": "x"}, {"data": {}}, {"data": None}])
def test_what_is_no_list_is_never_taken_for_an_empty_one(raw: Any) -> None:
    with pytest.raises(ValueError):
        read_list(raw)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "o/b", "registered": "no"},
        {"name": "o/b", "status": ["available"]},
        {"name": "o/b", "repo": {"a": 1}},
        {"name": "o/b", "revision": 5, "paused": 1},
        {"name": "o/b", "unusable": True},
    ],
)
def test_a_model_that_cannot_be_read_is_neither_wanted_nor_gone(bad: Any) -> None:
    listed = read_list([{"name": "o/a"}, bad, {"name": "o/c", "registered": True}])
    assert list(listed.wanted) == ["o/a", "o/c"]
    assert listed.may_list("o/b") and not listed.may_list("o/d")


@pytest.mark.parametrize("bad", [1, None, [], {}, {"name": 5}, {"name": ""}, {"name": None, "id": {"o/d": 1}}])
def test_what_has_no_name_may_stand_for_any_model(bad: Any) -> None:
    listed = read_list([{"name": "o/a"}, bad])
    assert list(listed.wanted) == ["o/a"] and listed.may_list("o/d")


@pytest.mark.parametrize("name", ["o/\x07a", "o/\ud800", "o/" + "x" * 400, "o/\u202ea", " o/a"])
def test_a_name_that_no_model_here_can_have_harms_no_other(name: str) -> None:
    listed = read_list([{"name": "o/a"}, {"name": name}])
    assert list(listed.wanted) == ["o/a"] and not listed.may_list("o/d")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=20,
    )
)
def test_any_json_as_a_manifest_is_read_or_refused(raw: Any) -> None:
    for each in (
        raw,
        {"files": raw},
        {"files": [raw]},
        {"files": [{"repo": "a/b", "path": raw, "revision": raw, "size": raw}]},
    ):
        try:
            files = read_manifest(each, ENDPOINT)
        except faults.Fault as fault:
            assert fault.code == "unsupported" and not fault.passing
        else:
            assert all(".." not in file.path.split("/") for file in files)


def test_an_upstream_manifest_gives_repo_revision_and_path() -> None:
    url = "https://huggingface.co/bartowski/Phi-3-GGUF/resolve/main/sub%20dir/Phi-3-Q4.gguf?download=true"
    (file,) = read_manifest({"files": [{"name": "model.gguf", "url": url}]}, "http://mirror:8080")
    assert (file.repo, file.revision, file.path) == ("bartowski/Phi-3-GGUF", "main", "sub dir/Phi-3-Q4.gguf")
    assert (file.size, file.etag, file.commit) == (None, None, None)


def test_a_hub_below_a_path_is_recognised() -> None:
    url = f"https://mirror.example/hf/acme/x/resolve/{COMMIT}/x.gguf"
    (file,) = read_manifest({"files": [{"name": "x", "url": url}]}, "https://mirror.example/hf")
    assert (file.repo, file.commit) == ("acme/x", COMMIT)


def test_files_are_fetched_by_priority_then_small_ones_then_by_name() -> None:
    big = 20_000_000
    files = tuple(
        File("a/b", COMMIT, path, size, priority=priority)
        for path, size, priority in [
            ("s2", big, 0),
            ("s1", big, 0),
            ("readme", 10, 0),
            ("config", 10, 10),
            ("late", 1, -1),
        ]
    )
    assert [files[i].path for i in fetch_order(files)] == ["config", "readme", "s1", "s2", "late"]


# -- trouble


def test_retries_grow_with_jitter_are_capped_and_end() -> None:
    tuning = Tuning(max_attempts=8, backoff_base_s=1, backoff_cap_s=10)
    budget = Budget(tuning)
    waits = [budget.spend(faults.stalled("h", 1)) for _ in range(7)]
    for wait, full in zip(waits, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert full / 2 <= wait <= full
    with pytest.raises(faults.Fault):
        budget.spend(faults.stalled("h", 1))
    budget.progressed()
    assert budget.spend(faults.stalled("h", 1)) <= 1


def test_a_server_that_asks_for_a_pause_gets_it_within_reason() -> None:
    assert Budget(Tuning()).spend(faults.rate_limited(42)) == 42
    assert Budget(Tuning()).spend(faults.rate_limited(10**9)) == 300


def test_a_token_is_for_one_origin_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secrettoken")
    hub = Hub("https://hub.example")
    assert hub.headers_for("https://hub.example/x")["Authorization"] == "Bearer hf_secrettoken"
    for other in (
        "https://hub.example:444/x",
        "http://hub.example/x",
        "https://cdn.hub.example/x",
        "https://hub.example.evil/x",
    ):
        assert "Authorization" not in hub.headers_for(other)
    assert origin("https://A.b/x") == origin("https://a.B:443/y")


def test_a_token_that_no_header_can_carry_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_pasted…")
    with pytest.raises(faults.Fault, match="set a valid HF_TOKEN"):
        Hub("https://hub.example").headers_for("https://hub.example/x")


def test_a_model_folder_that_is_a_file_says_which_setting(tmp_path: Path) -> None:
    (tmp_path / "hub").touch()
    with pytest.raises(OSError) as caught:
        (tmp_path / "hub").mkdir()
    fault = faults.disk_trouble(caught.value)
    assert not fault.passing
    assert fault.sentence.startswith(f"{tmp_path / 'hub'} is not a folder: set HF_HUB_CACHE")


def test_nobody_is_sent_from_https_back_to_http_or_elsewhere() -> None:
    assert (
        next_hop("https://a/x", "https://b/x")
        and next_hop("http://a", "http://b")
        and next_hop("http://a", "https://b")
    )
    assert not next_hop("https://a", "http://b") and not next_hop("http://a", "file:///etc/passwd")


@pytest.mark.parametrize(
    ("trouble", "passing", "code"),
    [
        (RouterTrouble("timeout"), True, "router"),
        (
            RouterTrouble("error 502", 502, {"error": "HTTP client error: x", "code": "hub_unreachable"}),
            True,
            "hub_unreachable",
        ),
        (
            RouterTrouble("error 400", 400, {"error": "Validation error: gone", "code": "no_such_file"}),
            False,
            "no_such_file",
        ),
        (RouterTrouble("error 404", 404, {"error": "Model not found: x"}), True, "router"),
        (RouterTrouble("error 400", 400, None), True, "router"),
    ],
)
def test_a_routers_refusal_of_a_manifest_keeps_its_words(trouble: RouterTrouble, passing: bool, code: str) -> None:
    fault = manifest_fault(trouble)
    assert (fault.passing, fault.code) == (passing, code)
    if isinstance(trouble.body, dict):
        assert trouble.body["error"] in fault.sentence


def test_tuning_ignores_what_makes_no_sense() -> None:
    assert Tuning.from_json('{"stall_s": 3, "nonsense": 1, "poll_s": "x", "max_attempts": true}') == Tuning(stall_s=3)
    assert Tuning.from_json("[") == Tuning.from_json(None) == Tuning.from_json("[]") == Tuning()


# -- queue


async def test_places_are_given_in_the_queues_order() -> None:
    slots, ran = Slots(1), []
    gate = asyncio.Event()

    async def work(order: int) -> None:
        async with slots.hold(lambda: order):
            ran.append(order)
            await gate.wait()

    tasks = [asyncio.create_task(work(order)) for order in (5, 9, 7, 8, 6)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ran == [5, 6, 7, 9]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 4)), max_size=25), st.integers(1, 3))
def test_cancelling_the_waiting_never_loses_a_place(plan: list[tuple[int, bool, int]], count: int) -> None:
    async def main() -> None:
        slots, inside, worst = Slots(count), 0, 0

        async def work(order: int, steps: int) -> None:
            nonlocal inside, worst
            async with slots.hold(lambda: order):
                inside += 1
                worst = max(worst, inside)
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    inside -= 1

        tasks = []
        for order, cancel, steps in plan:
            tasks.append(asyncio.create_task(work(order, steps)))
            if steps % 2:
                await asyncio.sleep(0)
            if cancel:
                tasks[len(tasks) // 2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert worst <= count
        async with asyncio.timeout(5), slots.hold(lambda: 0):
            pass
        assert not slots._inside and not slots._waiting

    asyncio.run(main())


# -- disk


def test_the_checksum_follows_a_growing_file(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3_000_000)
    for etag in (hashlib.sha256(content).hexdigest(), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()):
        path = tmp_path / etag
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        hasher = Hasher(fd, etag, len(content))
        for at in range(0, len(content), 700_001):
            os.pwrite(fd, content[at : at + 700_001], at)
            hasher.written(min(at + 700_001, len(content)))
        assert hasher.finished(30) and hasher.verdict() is Verdict.GOOD
        hasher.close()
        os.close(fd)
        assert look_at(str(path), etag, len(content), threading.Event()) is Verdict.GOOD
        with path.open("r+b") as file:
            file.write(b"!")
        assert look_at(str(path), etag, len(content), threading.Event()) is Verdict.DAMAGED
        assert look_at(str(path), etag, len(content) + 1, threading.Event()) is Verdict.DAMAGED


def test_news_that_comes_late_never_holds_the_checksum_back(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(2_000_000)
    path = tmp_path / "x"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    hasher = Hasher(fd, hashlib.sha256(content).hexdigest(), len(content))
    for upto in (500_000, len(content), 1_200_000):  # as several connections tell it
        hasher.written(upto)
    assert hasher.finished(30) and hasher.verdict() is Verdict.GOOD
    hasher.close()
    os.close(fd)


def test_a_file_cut_short_while_it_is_read_is_an_error_not_a_hang(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    hasher = Hasher(fd, "0" * 64, 100)
    hasher.written(100)
    assert hasher.finished(30)
    with pytest.raises(OSError):
        hasher.verdict()
    hasher.close()
    os.close(fd)


def test_room_leaves_a_margin() -> None:
    assert Room(lambda: (10_000, 100_000), None).free() == 8_000
    assert Room(lambda: (10**12, 10**13), None).free() == 10**12 - 512 * 2**20
    assert Room(lambda: (5, 100), 50).free() == 0
    assert faults.no_space(18_400_000_000, 22_100_000_000, 9_000_000_000).sentence.startswith(
        "Needs 18.4 GB, free 22.1 GB, other queued 9.0 GB: short by 5.3 GB."
    )


class Disk:
    """A disk of 1,000 bytes with a trash that holds some of it."""

    def __init__(self, *, free: int, trash: int, floor: int = 0) -> None:
        self.free, self.trash = free, trash
        self.room = Room(lambda: (self.free, 1000), floor)
        self.room.reclaimable, self.room.make_room = (lambda: self.trash), self.empty

    def empty(self, needed: int) -> None:
        freed = min(needed, self.trash)
        self.free, self.trash = self.free + freed, self.trash - freed

    def asks(self, size: int, ahead: int = 0) -> str | None:
        """The sentence for a model of `size` bytes behind another of `ahead`; None if it may start."""
        held = Held(Entry("a", None), Progress("a"), 1)
        other = Held(Entry("b", None), Progress("b"), 0)
        held.progress.plan([("a", size, 0)])
        other.progress.plan([("b", ahead, 0)])
        fault = self.room.refusal(held, [held, other])
        return fault.sentence if fault else None


def test_the_trash_is_emptied_only_for_what_fits_then() -> None:
    disk = Disk(free=100, trash=200)
    said = disk.asks(301)
    assert disk.trash == 200, "it was freed, and the model does not fit all the same"
    assert said == "Needs 301 B, free 300 B (200 B of it trash): short by 1 B. Goes on when there is room."
    assert disk.asks(250, ahead=51) and disk.trash == 200
    assert disk.asks(100) is None and disk.trash == 200
    assert disk.asks(120, ahead=30) is None and disk.trash == 150, "no more than needed"
    assert disk.asks(300) is None and disk.trash == 0


def test_a_touched_floor_is_made_up_for_first() -> None:
    disk = Disk(free=40, trash=60, floor=50)
    assert disk.asks(51) and disk.trash == 60
    assert disk.asks(50) is None and (disk.free, disk.trash) == (100, 0)


def test_a_file_is_whole_only_with_its_length_in_place(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    file = File("a/b", COMMIT, "x.gguf", 3, "c" * 64, commit=COMMIT)
    assert not cache.is_whole(file)
    cache.prepare("a/b", COMMIT)
    cache.blob("a/b", "c" * 64).write_bytes(b"ab")
    cache.make_link(file)
    assert not cache.is_whole(file)
    cache.blob("a/b", "c" * 64).write_bytes(b"abc")
    assert cache.is_whole(file)
    cache.make_link(file)  # again: nothing to do
    assert os.readlink(cache.path_of(file)) == f"../../blobs/{'c' * 64}"


# -- hardware


def test_amd_cards_are_read_from_sysfs(tmp_path: Path) -> None:
    device = tmp_path / "card0" / "device"
    device.mkdir(parents=True)
    for name, value in {
        "vendor": "0x1002",
        "mem_info_vram_total": "17163091968",
        "mem_info_vram_used": "1000",
        "gpu_busy_percent": "7",
    }.items():
        (device / name).write_text(value + "\n")
    (tmp_path / "card1" / "device").mkdir(parents=True)
    (tmp_path / "card1" / "device" / "vendor").write_text("0x8086\n")
    (tmp_path / "card0-DP-1").mkdir()
    assert _amd(tmp_path) == (Card("AMD graphics", 17163091968, 1000, 7.0),)


def test_hardware_is_told_without_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelhub_tui.service.node import hardware

    cards = (Card("X", 8 * 2**30, 2**30, 50.0, 60.0), Card("X", 8 * 2**30, 2**30, 70.0, 70.0))
    monkeypatch.setattr(hardware, "_nvidia", lambda: cards)
    machine = Hardware(drm=tmp_path)
    assert machine.describe()["gpu_devices"] == [{"model": "X", "count": 2, "memory": 8 * 2**30}]
    load = machine.load()
    assert (load["gpu_memory_total_mb"], load["gpu_memory_used_mb"], load["gpu_usage"]) == (16384, 2048, 60.0)
    assert load["ram_bytes"] > 0 and 0 <= load["memory_usage"] <= 100

    def broken() -> tuple[Card, ...]:
        raise RuntimeError("driver")

    monkeypatch.setattr(hardware, "_nvidia", broken)
    assert Hardware(drm=tmp_path).describe()["gpu_available"] is False
