"""From a router's answer to what the list shows: a poll with and without changes, and the first key of a search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from modelhub_tui.client.wire import models_reader
from modelhub_tui.domain import Connection, Fleet, Link, Model, RouterReport
from modelhub_tui.filtering import Filter, ModelView, SortKey
from modelhub_tui.fleet_state import FleetJoin, Following, steady

CHANGED = 16
"""Transfers that moved between two polls."""


def record(at: int, done: int | None = None) -> dict[str, Any]:
    """One model of the list as the service writes it; with `done` bytes of a transfer, or whole."""
    moving = done is not None
    return {
        "name": f"owner-{at % 97}/model-{at}-instruct-gguf",
        "repo": f"Owner-{at % 97}/Model-{at}-Instruct-GGUF",
        "filename": f"model-{at}-q4_k_m.gguf",
        "status": "downloading" if moving else "downloaded",
        "size_bytes": 4_000_000_000 + at,
        "tags": ["gguf", "chat"],
        "transfers": [
            {"node": "gpu-01", "node_id": "n1", "phase": "fetching", "bytes_done": done, "bytes_total": 4 * 10**9}
        ]
        if moving
        else [],
        "placements": [] if moving else [{"node": "gpu-01", "path": f"/srv/models/{at}.gguf"}],
    }


class Polls:
    """One router's list of `count` models, answered again and again."""

    def __init__(self, count: int) -> None:
        self._lines = [json.dumps(record(at)) for at in range(count)]
        self._moving = [at * count // CHANGED for at in range(CHANGED)]
        self._tick = 0
        self._reader, self._join = models_reader(), FleetJoin(())
        self._view = ModelView()
        self._followed = [Following(test) for test in (Model.is_local, Model.is_moving, Model.is_transferred)]
        self.fleet = Fleet()
        self._stats: dict[str, Any] = {}
        self._report: RouterReport | None = None
        self.take(self.body())

    def body(self) -> bytes:
        """The list now."""
        return ("[" + ",\n".join(self._lines) + "]").encode()

    def move(self) -> bytes:
        """The list after some transfers have moved."""
        self._tick += 1
        for at in self._moving:
            self._lines[at] = json.dumps(record(at, self._tick * 10**6))
        return self.body()

    def take(self, body: bytes) -> None:
        """All that a poll costs the dashboard, but for the drawing of what shows."""
        models = self._reader.read(body)
        report = RouterReport(models, ())
        joined = self._join.join(report, self._stats)
        models_now = steady(self.fleet.models, joined)
        self.fleet = Fleet(models_now, (), connection=Connection(Link.LIVE))
        self._view.show(self.fleet.models, Filter(), SortKey.CATALOG, ())
        for each in self._followed:
            each.of(self.fleet.models)

    def searched(self) -> ModelView:
        """A view that has been prepared for a search in idle moments."""
        view = ModelView()
        view.show(self.fleet.models, Filter(), SortKey.CATALOG, ())
        while not view.prepare(2):
            pass
        return view

    def first_key(self, view: ModelView) -> None:
        """The first key of a search."""
        view.show(self.fleet.models, Filter("c"), SortKey.CATALOG, ())


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of this thread that some work takes."""
    begin = time.thread_time()
    work()
    return (time.thread_time() - begin) * 1000
