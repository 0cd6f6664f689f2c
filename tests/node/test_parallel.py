"""One file over several connections: each byte once, through kills, lost connections, lost maps and full disks."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.service.node import chunkmap
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.chunkmap import ChunkMap, mapped_bytes, note_durable
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.part import Part
from modelhub_tui.service.node.ranges import BLOCK_BYTES, Lines
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/big-gguf"
SIZE = 32 * MIB + 4321
CONNECTION_BPS = 12_000_000
STEP = CONNECTION_BPS // 20
"""What the hub sends at once to one connection."""
SPLIT: dict[str, Any] = {"parallel_bytes": MIB, "stall_s": 20.0}


@pytest.fixture
def repo(empty_hub: LoopbackHub) -> HubRepo:
    empty_hub.connection_bps = CONNECTION_BPS
    return empty_hub.add(HubRepo("acme/Big-GGUF", {"big.gguf": Generated(SIZE, seed=3)}))


def pull(
    router: StubRouter, hub: LoopbackHub | str, home: Path, repo: HubRepo, *, leave: bool = True, **tuning: Any
) -> Path:
    """Fetch it all; the file, after a look that nothing unfinished lies beside it."""
    router.register(NAME, manifest_of(repo, "big.gguf"))
    with NodeThread(router, hub, home, **{**SPLIT, **tuning}):
        placed = Path(router.wait_whole(NAME)["path"])
    assert hashlib.sha256(placed.read_bytes()).hexdigest() == repo["big.gguf"].sha256
    assert [each.name for each in placed.resolve().parent.iterdir()] == [repo["big.gguf"].sha256]
    return placed


def prepared(home: Path, repo: HubRepo) -> tuple[Cache, File]:
    """A cache with the repo's folders, and the file as it will be looked for there."""
    cache, blob = Cache(home / "hub"), repo["big.gguf"]
    commit = repo.main.id
    cache.prepare("acme/Big-GGUF", commit)
    return cache, File("acme/Big-GGUF", commit, "big.gguf", SIZE, blob.sha256, commit=commit)


def test_a_link_that_is_slow_for_each_connection_gets_several_and_each_byte_comes_once(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    pull(router, empty_hub, tmp_path, repo)
    assert empty_hub.served_bytes("*.gguf") == SIZE
    asked = [each.headers["range"] for each in empty_hub.requests("*.gguf", server="cdn", method="GET")]
    assert len(asked) >= 4
    assert not any(each.authorization for each in empty_hub.requests(server="cdn"))


def test_a_link_that_is_fast_keeps_one_connection(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    empty_hub.connection_bps = None
    pull(router, empty_hub, tmp_path, repo, fast_bps=1.0)
    asked = empty_hub.requests("*.gguf", server="cdn", method="GET")
    ends = [int(each.headers["range"].rpartition("-")[2]) for each in asked]
    assert ends == sorted(ends) and empty_hub.served_bytes("*.gguf") == SIZE


@pytest.mark.parametrize("after", ["several connections", "one connection"])
def test_kill_nine_costs_no_more_than_what_was_on_its_way(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo, after: str
) -> None:
    router.register(NAME, manifest_of(repo, "big.gguf"))
    process = start_process(router, empty_hub, tmp_path, tuning=SPLIT)
    try:
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] > SIZE // 3)
    finally:
        process.kill()
        process.wait()
    part, mapping = sorted(tmp_path.rglob("blobs/*.modelhub.*"), key=lambda each: each.suffix == ".map")
    there = mapped_bytes(mapping, part.stat().st_size, SIZE)
    assert there is not None and SIZE // 3 < there < SIZE
    asked = len(empty_hub.log)
    pull(router, empty_hub, tmp_path, repo, connections=8 if after == "several connections" else 1)
    before, since = (sum(each.file_bytes for each in log) for log in (empty_hub.log[:asked], empty_hub.log[asked:]))
    assert before - there <= 8 * (2 * STEP + BLOCK_BYTES)
    assert since == SIZE - there


def test_what_an_older_version_fetched_in_order_is_not_fetched_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    cache, file = prepared(tmp_path, repo)
    start = repo["big.gguf"].read()[: 5 * MIB + 7]
    cache.part(file.repo, file.etag or "").write_bytes(start)
    # Fetched by another life of this node: a part that it does not know of it would use as well.
    pull(router, empty_hub, tmp_path, repo)
    assert empty_hub.served_bytes("*.gguf") == SIZE - len(start)


def test_a_server_that_ignores_ranges_gets_one_connection_and_lost_bytes_are_shown_as_such(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    stop = empty_hub.fault(server="cdn", skip=2, times=None, status=503)
    router.register(NAME, manifest_of(repo, "big.gguf"))
    with NodeThread(router, empty_hub, tmp_path, **SPLIT, max_attempts=2):
        router.wait_offline(NAME)
    stop.remove()
    cache, file = prepared(tmp_path, repo)
    there = cache.part_bytes(file)
    assert 0 < there < SIZE
    empty_hub.connection_bps = None
    empty_hub.fault(server="cdn", ignore_range=True, times=None)
    pull(router, empty_hub, tmp_path, repo)
    seen = [t for beat in router.heartbeats for t in beat.get("transfers", ()) if t["name"] == NAME]
    done = [t["bytes_done"] for t in seen if t["bytes_done"]]
    assert done == sorted(done), "a total went backwards"


def test_a_server_that_asks_for_fewer_requests_gets_fewer(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    refused = empty_hub.fault(server="cdn", skip=2, times=2, status=429, headers={"Retry-After": "0"})
    pull(router, empty_hub, tmp_path, repo)
    assert refused.hits == 2
    assert empty_hub.served_bytes("*.gguf") == SIZE


@pytest.mark.parametrize(
    "fault",
    [{"reset_after": 2 * MIB}, {"close_after": MIB}, {"expired": True}, {"stall_after": MIB}],
    ids=["reset", "closed early", "expired", "stalled"],
)
def test_a_lost_connection_costs_no_bytes_and_the_others_go_on(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo, fault: dict[str, Any]
) -> None:
    empty_hub.fault(server="cdn", skip=2, times=3, **fault)
    pull(router, empty_hub, tmp_path, repo, stall_s=1.0)
    # A reset takes what was on its way with it.
    assert empty_hub.served_bytes("*.gguf") - SIZE <= 4 * (2 * STEP + BLOCK_BYTES)


def test_a_wrong_byte_is_found_and_all_is_fetched_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    empty_hub.connection_bps = None
    empty_hub.fault(server="cdn", flip_at=100)
    pull(router, empty_hub, tmp_path, repo)
    assert empty_hub.served_bytes("*.gguf") == 2 * SIZE
    seen = [t for beat in router.heartbeats for t in beat.get("transfers", ()) if t["name"] == NAME]
    assert max(t["bytes_done"] for t in seen) <= SIZE


def test_a_disk_that_fills_up_pauses_and_keeps_every_byte(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, put = [15 * MIB], Part.put

    def limited(part: Part, data: memoryview, at: int) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(data)
        return put(part, data, at)

    monkeypatch.setattr(Part, "put", limited)
    router.register(NAME, manifest_of(repo, "big.gguf"))
    with NodeThread(router, empty_hub, tmp_path, **SPLIT, space_check_s=0.5):
        router.wait(lambda: (t := router.transfer(NAME)) and t["phase"] == "paused" and t["error_code"] == "no_space")
        cache, file = prepared(tmp_path, repo)
        assert cache.part_bytes(file) >= 14 * MIB
        room[0] = 1 << 40
        router.wait_whole(NAME)
    # What the others had on their way when the first was refused.
    assert empty_hub.served_bytes("*.gguf") - SIZE <= 12 * (2 * STEP + BLOCK_BYTES)


def test_cancelling_removes_the_part_and_its_map_within_a_second(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    empty_hub.fault(server="cdn", skip=3, times=None, stall_after=MIB)
    router.register(NAME, manifest_of(repo, "big.gguf"))
    with NodeThread(router, empty_hub, tmp_path, **SPLIT):
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] > MIB)
        assert [*tmp_path.rglob("*.modelhub.map")]
        router.remove(NAME)
        router.wait(lambda: not [*tmp_path.rglob("*.modelhub.*")], 10)


def test_the_bandwidth_limit_holds_for_all_connections_together_and_nobody_waits_behind_it(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    router.limit(bandwidth_bps=16_000_000)
    router.register(NAME, manifest_of(repo, "big.gguf"))
    with NodeThread(router, empty_hub, tmp_path, **SPLIT):
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"])
        begin = time.monotonic()
        most = 16 * MIB
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] >= most)
        assert time.monotonic() - begin >= most / 16_000_000 * 0.8
        router.limit(bandwidth_bps=1024)
        router.wait(lambda: (t := router.transfer(NAME)) and (t["bytes_per_s"] or 1e9) < 10_000_000)
        assert router.placement(NAME) is None
        begin = time.monotonic()
    assert time.monotonic() - begin < 3, "the end waited behind the limit"
    assert [*tmp_path.rglob("*.modelhub.part")]


# -- the map


def test_a_part_with_gaps_is_never_taken_for_a_contiguous_one(tmp_path: Path, repo: HubRepo) -> None:
    cache, file = prepared(tmp_path, repo)
    with Part(cache, file, SIZE) as part:
        part.split()
        part.put(memoryview(b"a" * 5000), 0)
        part.put(memoryview(b"b" * 5000), 20 * MIB)
        assert (part.prefix, part.have) == (5000, 10_000)
    assert cache.part_bytes(file) == 10_000
    with Part(cache, file, SIZE) as part:
        assert (part.prefix, part.have) == (5000, 10_000)
    assert file.etag
    cache.map(file.repo, file.etag).unlink()
    with Part(cache, file, SIZE) as part:
        if part.have < 20 * MIB:  # the file system tells where its holes are
            assert part.map is None and part.have <= 5000
            assert os.fstat(part.fd).st_size == part.have


def test_the_map_of_a_part_that_is_gone_says_nothing_about_the_next(tmp_path: Path, repo: HubRepo) -> None:
    cache, file = prepared(tmp_path, repo)
    with Part(cache, file, SIZE) as part:
        part.split()
        part.put(memoryview(b"b" * 5000), 20 * MIB)
    part.path.unlink()
    with Part(cache, file, SIZE) as part:
        assert (part.have, part.map) == (0, None)
    assert not part.map_path.exists()


def test_after_a_reboot_only_what_was_flushed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, boot = tmp_path / "x.map", tmp_path / "boot"
    boot.write_text("1" * 36)
    monkeypatch.setattr(chunkmap, "_BOOT_ID", boot)
    chunks = ChunkMap.create(path, 10 * MIB, MIB)
    chunks.add(4 * MIB, 1000)
    fd = chunks.copy_fd()
    note_durable(fd, chunks.entries())
    os.close(fd)
    chunks.add(4 * MIB + 1000, 500)
    chunks.close()
    again = ChunkMap.load(path, 10 * MIB)
    assert again is not None and again.total == MIB + 1500
    again.close()
    boot.write_text("2" * 36)
    assert mapped_bytes(path, 5 * MIB, 10 * MIB) == MIB + 1000
    for _ in range(2):  # the second time it is of this boot
        rebooted = ChunkMap.load(path, 10 * MIB)
        assert rebooted is not None
        assert (rebooted.total, rebooted.gaps()) == (MIB + 1000, [(MIB, 4 * MIB), (4 * MIB + 1000, 10 * MIB)])
        rebooted.close()


@pytest.mark.parametrize("damage", ["cut", "magic", "count", "empty", "other size"])
def test_a_damaged_map_is_no_map(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.map"
    ChunkMap.create(path, 9 * MIB, 5 * MIB).close()
    raw = bytearray(path.read_bytes())
    if damage == "magic":
        raw[3] ^= 1
    elif damage == "count":
        raw[-24:-20] = raw[-12:-8] = b"\xff\xff\xff\xff"
    path.write_bytes({"cut": bytes(raw[:70]), "empty": b""}.get(damage, bytes(raw)))
    assert ChunkMap.load(path, 8 * MIB if damage == "other size" else 9 * MIB) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 9), st.lists(st.tuples(st.integers(0, 50), st.integers(1, 12)), max_size=30))
def test_the_map_agrees_with_a_plain_model_of_it(
    tmp_path_factory: pytest.TempPathFactory, size: int, chunk: int, writes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("map") / "m"
    chunks, there = ChunkMap.create(path, size, 0, chunk), bytearray(size)
    for where, count in writes:
        gap = next(((a, b) for a, b in chunks.gaps() if b > where), None)
        if gap is None:
            continue
        start, end = gap
        if where // chunk * chunk > start:
            start = where // chunk * chunk
        count = min(count, end - start)
        chunks.add(start, count)
        there[start : start + count] = b"x" * count
    chunks.close()
    again = ChunkMap.load(path, size, chunk)
    assert again is not None
    assert again.total == there.count(b"x")
    assert again.prefix() == (size if (first := there.find(b"\0")) < 0 else first)
    assert again.end() == there.rfind(b"x") + 1
    missing = {at for start, end in again.gaps() for at in range(start, end)}
    assert missing == {at for at, byte in enumerate(there) if not byte}
    again.close()


# -- how many connections


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def settle(lines: Lines, clock: Clock, speed: Any) -> int:
    """Let time pass on a link whose speed depends on the number of connections; how many it comes to."""
    done = 0.0
    for _ in range(100):
        clock.now += 0.05
        done += speed(lines.wanted) * 0.05
        lines.watch(lines.wanted, int(done))
    return lines.wanted


@pytest.mark.parametrize(
    ("speed", "wanted"),
    [
        (lambda count: 20e6 * count, 8),
        (lambda count: 50e6, 1),
        (lambda count: 600e6, 1),
        (lambda count: min(20e6 * count, 80e6), 4),
        (lambda count: 100e6 / count, 1),
    ],
    ids=["capped for each", "capped for all", "fast", "capped at four", "worse with more"],
)
def test_connections_are_added_while_that_makes_it_faster(speed: Any, wanted: int) -> None:
    clock = Clock()
    assert settle(Lines(8, 250e6, clock), clock, speed) == wanted


def test_never_more_connections_than_allowed_and_half_when_told_to_slow_down() -> None:
    clock = Clock()
    lines = Lines(6, 250e6, clock)
    assert settle(lines, clock, lambda count: 20e6 * count) == 6
    lines.slow_down(5)
    assert lines.wanted == 3 and 4.9 < lines.pause_s() <= 5
    clock.now += 100
    assert settle(lines, clock, lambda count: 20e6 * count) == 3
