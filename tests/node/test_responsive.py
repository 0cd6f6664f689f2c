"""The node's event loop waits for nothing: no lock, no disk, no name server; and one state folder has one node."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.record import Record
from tests.hub import Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/tiny-gguf"
PAUSE_S = 1.0
"""A loop that never waits for what is held up here (twice as long, or for ever) comes back much sooner."""


class Pulse:
    """Measures the longest pause of a node's loop while it is used as a context manager."""

    def __init__(self, node: NodeThread) -> None:
        self._node, self.longest_s = node, 0.0

    def __enter__(self) -> Pulse:
        assert self._node._loop is not None
        self._task = asyncio.run_coroutine_threadsafe(self._beat(), self._node._loop)
        return self

    def __exit__(self, *exc: object) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            at = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_s = max(self.longest_s, time.monotonic() - at)


def tiny(hub: LoopbackHub, name: str = NAME) -> list[dict[str, Any]]:
    return manifest_of(hub.add(HubRepo(name, {"tiny.gguf": Generated(20_000, seed=len(name))})), "tiny.gguf")


def test_a_locked_record_is_told_and_waited_for(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    process = start_process(router, empty_hub, tmp_path)
    try:
        router.wait(lambda: "found" in router.last)
        other = sqlite3.connect(tmp_path / "state" / "node" / "node.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        router.register(NAME, tiny(empty_hub))
        told = router.wait(lambda: "locked" in router.last["problem"] and router.last)
        assert "node.db" in told["problem"]
        count = len(router.heartbeats)
        router.wait(lambda: len(router.heartbeats) > count + 5)
        assert not router.placement(NAME) and not [*(tmp_path / "hub").rglob("*.part")], "the row comes before the deed"
        other.execute("ROLLBACK")
        other.close()
        router.wait_whole(NAME)
        router.wait(lambda: not router.last["problem"])
        assert process.poll() is None and len(router.registrations) == 1, "it is still the same node"
        assert router.last["totals"]["longest_pause_s"] < PAUSE_S
    finally:
        process.kill()
        process.wait()


def test_a_record_that_is_locked_at_the_start_is_waited_for(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "node" / "node.db"
    Record(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    router.register(NAME, tiny(empty_hub))
    process = start_process(router, empty_hub, tmp_path)
    log = tmp_path / "state" / "node" / "node.log"
    try:
        deadline = time.monotonic() + 30
        while "waiting until it lets go" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        other.close()
        router.wait_whole(NAME)
    finally:
        process.kill()
        process.wait()


def test_a_second_node_in_the_same_folder_is_refused(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    first = start_process(router, empty_hub, tmp_path)
    try:
        router.wait(lambda: router.heartbeats)
        second = start_process(router, empty_hub, tmp_path, stderr=subprocess.PIPE)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"Another node (process {first.pid}) works with" in said.decode() and "Traceback" not in said.decode()
        assert first.poll() is None and len(router.registrations) == 1
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize("slow", ["disk", "names", "look"])
def test_what_does_not_answer_holds_nothing_up(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """A disk that does not say how full it is, a name server, a look at the files of a model."""
    router.register(NAME, tiny(empty_hub))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
    answered, asked = threading.Event(), threading.Event()
    owner, name = {"disk": (Cache, "usage"), "names": (socket, "getaddrinfo"), "look": (Cache, "is_whole")}[slow]
    real = getattr(owner, name)

    def held_up(*args: Any, **more: Any) -> Any:
        asked.set()
        answered.wait(30)
        return real(*args, **more)

    router.heartbeats.clear()
    monkeypatch.setattr(owner, name, held_up)
    with NodeThread(router, empty_hub, tmp_path) as node, Pulse(node) as pulse:
        try:
            assert asked.wait(30)
            if slow != "names":
                router.wait(lambda: len(router.heartbeats) > 3 and router.placement(NAME))
            threading.Event().wait(2 * PAUSE_S)
        finally:
            answered.set()
        router.wait(lambda: router.heartbeats and router.placement(NAME))
        assert pulse.longest_s < PAUSE_S
