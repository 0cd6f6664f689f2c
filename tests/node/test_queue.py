"""Pause, order and limits, while bytes move and over kills: what people want happens, and no byte is lost."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.slots import Slots
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

SOON_S = 3.0
"""A second, on a machine that is not busy."""


def add(router: StubRouter, hub: LoopbackHub, *names: str, size: int = 8 * MIB) -> dict[str, HubRepo]:
    """Register models of one file each, in this order; one connection brings 1 MB/s, so that all of them take long."""
    repos = {}
    for place, name in enumerate(names, start=1):
        repos[name] = hub.add(HubRepo(f"acme/{name}", {"m.gguf": Generated(size, seed=hash(name) % 1000)}))
        router.register(name, manifest_of(repos[name], "m.gguf"), queue_position=place, paused=False)
    return repos


def phases(router: StubRouter) -> dict[str, str]:
    return {each["name"]: each["phase"] for each in router.last.get("transfers", ())}


def wait_phases(router: StubRouter, **expected: str) -> float:
    """Wait until every model is in this phase; returns how long that took."""
    at = time.monotonic()
    router.wait(lambda: phases(router) == expected)
    return time.monotonic() - at


def events(router: StubRouter, name: str) -> list[str]:
    found = router.transfer(name)
    return [each["what"] for each in found["history"]] if found else []


def whole_and_right(router: StubRouter, name: str, repo: HubRepo) -> bool:
    content = Path(router.wait_whole(name)["path"]).read_bytes()
    return hashlib.sha256(content).hexdigest() == repo["m.gguf"].sha256


@pytest.fixture
def slow(empty_hub: LoopbackHub) -> Iterator[LoopbackHub]:
    empty_hub.connection_bps = 1e6
    yield empty_hub


def test_pause_stops_at_once_keeps_every_byte_and_resume_fetches_only_the_rest(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path
) -> None:
    repos = add(router, slow, "a")
    with NodeThread(router, slow, tmp_path):
        router.wait(lambda: (t := router.transfer("a")) and t["bytes_done"] > MIB)
        router.change("a", paused=True)
        assert wait_phases(router, a="paused") < SOON_S
        held = router.wait(lambda: (t := router.transfer("a")) and t["error_code"] == "paused" and t)
        assert held["error"] == "Paused." and held["bytes_done"] > MIB and held["bytes_per_s"] is None
        # It stays so: what arrives after the pause would show here.
        beats = len(router.heartbeats)
        router.wait(lambda: len(router.heartbeats) > beats + 1)
        now = router.transfer("a")
        assert now is not None and now["bytes_done"] == held["bytes_done"]
        slow.connection_bps = None
        router.change("a", paused=False)
        router.wait(lambda: "Resumed." in events(router, "a") or router.placement("a"))
        assert whole_and_right(router, "a", repos["a"])
    total = repos["a"]["m.gguf"].size
    resumed = slow.requests("*.gguf", server="cdn", method="GET")[-1]
    assert resumed.range is not None and not resumed.range.startswith("bytes=0-")
    # What was in the sockets' buffers at the pause is lost; a chunk on disk never is.
    assert slow.served_bytes("*.gguf") < total + 6 * MIB


def test_a_paused_transfer_leaves_its_turn_to_the_next_and_waits_for_one_when_resumed(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path
) -> None:
    add(router, slow, "a", "b", "c", size=64 * MIB)
    router.limit(parallel_transfers=1)
    with NodeThread(router, slow, tmp_path):
        wait_phases(router, a="fetching", b="waiting", c="waiting")
        router.change("a", paused=True)
        wait_phases(router, a="paused", b="fetching", c="waiting")
        router.change("c", paused=True)
        wait_phases(router, a="paused", b="fetching", c="paused")
        router.change("a", paused=False)
        wait_phases(router, a="waiting", b="fetching", c="paused")


def test_who_is_first_now_pushes_the_last_out_and_both_keep_their_bytes(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path
) -> None:
    repos = add(router, slow, "a", "b", "c", size=4 * MIB)
    router.limit(parallel_transfers=2)
    with NodeThread(router, slow, tmp_path):
        wait_phases(router, a="fetching", b="fetching", c="waiting")
        router.wait(lambda: (t := router.transfer("b")) and t["bytes_done"] > MIB // 2)
        for place, name in enumerate("cab", start=1):
            router.models[name]["queue_position"] = place
        router.touch()
        assert wait_phases(router, c="fetching", a="fetching", b="waiting") < SOON_S
        assert [each["name"] for each in router.last["transfers"]] == ["c", "a", "b"]
        put_off = router.transfer("b")
        assert put_off is not None and put_off["bytes_done"] > MIB // 2
        assert events(router, "b")[-1].startswith("Made way for another download at ")
        slow.connection_bps = None
        assert all(whole_and_right(router, name, repos[name]) for name in "abc")


def test_the_number_of_transfers_changes_while_they_run(router: StubRouter, slow: LoopbackHub, tmp_path: Path) -> None:
    add(router, slow, "a", "b", "c", size=64 * MIB)
    router.limit(parallel_transfers=1)
    with NodeThread(router, slow, tmp_path):
        wait_phases(router, a="fetching", b="waiting", c="waiting")
        router.limit(parallel_transfers=3)
        assert wait_phases(router, a="fetching", b="fetching", c="fetching") < SOON_S
        router.limit(parallel_transfers=1)
        assert wait_phases(router, a="fetching", b="waiting", c="waiting") < SOON_S


def test_changed_limits_reach_an_idle_node_soon_and_stay_over_a_restart(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path
) -> None:
    with NodeThread(router, slow, tmp_path, heartbeat_s=60, margin_bytes=None):
        router.wait(lambda: router.heartbeats)
        router.limit(parallel_transfers=1, disk_floor_bytes=7)
        at = time.monotonic()
        router.wait(lambda: router.last["disk_floor_bytes"] == 7)
        assert time.monotonic() - at < SOON_S
    router.limits = None  # a router that says nothing: what was last said holds
    add(router, slow, "a", "b", size=64 * MIB)
    with NodeThread(router, slow, tmp_path):
        wait_phases(router, a="fetching", b="waiting")


def test_the_bandwidth_is_capped_for_all_together_while_they_run(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    add(router, empty_hub, "a", "b", size=256 * MIB)
    router.limit(bandwidth_bps=1_000_000)
    with NodeThread(router, empty_hub, tmp_path):

        def together() -> float:
            return sum(each["bytes_per_s"] or 0 for each in router.last.get("transfers", ()))

        router.wait(lambda: all(each["bytes_per_s"] for each in router.last.get("transfers", ())) and together())
        router.wait(lambda: 300_000 < together() < 2_000_000)
        router.limit(bandwidth_bps=0)
        router.wait(lambda: together() > 10_000_000 or router.last["placements"])


def test_pause_and_order_survive_a_kill_also_while_the_router_is_away(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path
) -> None:
    repos = add(router, slow, "a", "b", "c", size=4 * MIB)
    router.limit(parallel_transfers=1)
    router.change("a", paused=True)
    router.models["b"]["queue_position"], router.models["c"]["queue_position"] = 3, 2
    router.touch()
    tuning: dict[str, Any] = {"stall_s": 60}
    process = start_process(router, slow, tmp_path, tuning=tuning)
    try:
        wait_phases(router, a="paused", c="fetching", b="waiting")
        got = router.wait(lambda: (t := router.transfer("c")) and t["bytes_done"] > MIB and t)["bytes_done"]
    finally:
        process.kill()
        process.wait(10)
    router.refuse = {"/v0/models": (500, None)}  # no list, no manifest: only its own record tells the node what to do
    router.heartbeats.clear()
    process = start_process(router, slow, tmp_path, tuning=tuning)
    try:
        router.wait(lambda: phases(router).get("c") == "fetching")
        # Without a manifest, b can only wait for one.
        assert phases(router) == {"a": "paused", "c": "fetching", "b": "waiting"}
        again = router.transfer("c")
        assert again is not None and again["bytes_done"] >= got
        assert events(router, "c")[0] == "Started."
        assert events(router, "c")[-1].startswith("Went on after a restart, from ")
        router.refuse = {}
        slow.connection_bps = None
        router.change("a", paused=False)
        assert all(whole_and_right(router, name, repos[name]) for name in "abc")
    finally:
        process.kill()
        process.wait(10)


def test_what_does_not_fit_beside_the_queue_waits_with_the_sum_and_goes_on_by_itself(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10 * MIB]
    monkeypatch.setattr(Cache, "usage", lambda self: (free[0], 1000 * MIB))
    slow.connection_bps = 2e4
    add(router, slow, "a", size=6 * MIB)
    router.limit(parallel_transfers=3)
    with NodeThread(router, slow, tmp_path):
        wait_phases(router, a="fetching")
        add(router, slow, "b", "c", size=6 * MIB)
        wait_phases(router, a="fetching", b="paused", c="paused")
        short = router.transfer("b")
        assert short is not None and short["error_code"] == "no_space"
        assert short["error"].startswith("Needs 6.3 MB, free 10.5 MB, other queued ")
        assert ": short by " in short["error"] and short["error"].endswith("Goes on when there is room.")
        free[0] = 500 * MIB
        wait_phases(router, a="fetching", b="fetching", c="fetching")


def test_near_the_floor_a_running_transfer_pauses_with_its_bytes_and_goes_on(
    router: StubRouter, slow: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [500 * MIB]
    monkeypatch.setattr(Cache, "usage", lambda self: (free[0], 1000 * MIB))
    repos = add(router, slow, "a", size=6 * MIB)
    with NodeThread(router, slow, tmp_path, margin_bytes=None):
        router.wait(lambda: (t := router.transfer("a")) and t["bytes_done"] > MIB)
        assert router.last["disk_floor_bytes"] == 20 * MIB
        free[0] = 21 * MIB
        paused = router.wait_phase("a", "paused")
        assert paused["error_code"] == "no_space" and paused["bytes_done"] > MIB
        slow.connection_bps = None
        router.limit(disk_floor_bytes=MIB)  # the floor gives way
        assert whole_and_right(router, "a", repos["a"])


def test_cancelling_what_is_paused_removes_its_parts(router: StubRouter, slow: LoopbackHub, tmp_path: Path) -> None:
    add(router, slow, "a")
    with NodeThread(router, slow, tmp_path) as node:
        router.wait(lambda: (t := router.transfer("a")) and t["bytes_done"] > MIB)
        router.change("a", paused=True)
        wait_phases(router, a="paused")
        assert [*node.cache.rglob("*.part")]
        router.remove("a")
        router.wait_gone("a")
        assert not [each for each in node.cache.rglob("*") if each.is_file() and each.name != "CACHEDIR.TAG"]


# -- places


async def _enter(slots: Slots, order: dict[str, int], name: str, inside: list[str]) -> None:
    """Hold a place until asked to leave it, then come back for another."""
    while True:
        leave = asyncio.Event()
        async with slots.hold(lambda: order[name], leave.set):
            inside.append(name)
            try:
                await leave.wait()
            finally:
                inside.remove(name)


async def _settled(check: Any) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0)


async def test_places_follow_the_order_only_when_told_to() -> None:
    order, inside = {"a": 1, "b": 2, "c": 3, "d": 4}, list[str]()
    slots = Slots(2)
    tasks = [asyncio.create_task(_enter(slots, order, name, inside)) for name in order]
    await _settled(lambda: sorted(inside) == ["a", "b"])
    order["d"] = 0
    await asyncio.sleep(0)
    assert sorted(inside) == ["a", "b"]
    slots.rearrange()
    await _settled(lambda: sorted(inside) == ["a", "d"])
    slots.resize(4)
    await _settled(lambda: sorted(inside) == ["a", "b", "c", "d"])
    slots.resize(1)
    await _settled(lambda: inside == ["d"])
    slots.rearrange()
    slots.rearrange()  # nothing to do is nothing done
    assert inside == ["d"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not inside
