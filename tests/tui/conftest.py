"""Apps without a router: a watcher that says what it is told to and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from modelhub_tui.app import ModelHubApp
from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.domain import Fleet, Limits, Model, Node, Place, Trashed
from modelhub_tui.errors import ModelHubError
from tests.tui import fleets


class FakeWatcher:
    """Stands in for the fleet watcher."""

    def __init__(self, *said: Fleet) -> None:
        self._queue: asyncio.Queue[Fleet] = asyncio.Queue()
        for each in said:
            self._queue.put_nowait(each)
        self.asked: list[tuple[str, str]] = []
        """What was asked for: action and title, or repo."""
        self.registered: list[RegisterRequest] = []
        self.refreshed = 0
        self.closed = False
        self.problem: ModelHubError | None = None
        """Raised by the next requests."""
        self.answer = Registered("owner/name", "name.gguf", 1_000)
        self.trashed: tuple[Trashed, ...] = ()
        self.in_force = Limits()
        self.gate: asyncio.Event | None = None
        """Requests wait until it is set."""

    def say(self, fleet: Fleet) -> None:
        """The router has news."""
        self._queue.put_nowait(fleet)

    async def fleets(self) -> AsyncIterator[Fleet]:
        while True:
            yield await self._queue.get()

    def refresh(self) -> None:
        self.refreshed += 1

    async def _ask(self, action: str, what: str) -> None:
        self.asked.append((action, what))
        if self.gate is not None:
            await self.gate.wait()
        if self.problem is not None:
            raise self.problem

    async def pull(self, model: Model) -> None:
        await self._ask("pull", model.title)

    async def cancel(self, model: Model) -> None:
        await self._ask("cancel", model.title)

    async def delete(self, model: Model, keep: bool = True) -> None:
        await self._ask("delete" if keep else "delete for good", model.title)

    async def pause(self, model: Model) -> None:
        await self._ask("pause", model.title)

    async def resume(self, model: Model) -> None:
        await self._ask("resume", model.title)

    async def move(self, model: Model, to: Place) -> None:
        await self._ask(f"move {to.value}", model.title)

    async def adopt(self, model: Model) -> None:
        await self._ask("adopt", model.title)

    async def trash(self) -> tuple[Trashed, ...]:
        return self.trashed

    async def restore(self, name: str) -> Registered:
        await self._ask("restore", name)
        self.trashed = tuple(each for each in self.trashed if each.name != name)
        return Registered(name)

    async def empty_trash(self, name: str | None = None) -> None:
        await self._ask("empty_trash", name or "all")
        self.trashed = tuple(each for each in self.trashed if name and each.name != name)

    async def limits(self) -> Limits:
        return self.in_force

    async def set_limits(self, limits: Limits) -> Limits:
        await self._ask("set_limits", "")
        self.in_force = limits
        return limits

    async def retry(self, model: Model) -> None:
        await self._ask("retry", model.title)

    async def register(self, request: RegisterRequest) -> Registered:
        self.registered.append(request)
        await self._ask("register", request.repo)
        return self.answer

    async def download(self, model: Model, node_id: str, quantization: str | None = None) -> None:
        await self._ask("download", f"{model.title} on {node_id} as {quantization}")

    async def delete_on(self, model: Model, node_id: str) -> None:
        await self._ask("delete_on", f"{model.title} on {node_id}")

    async def approve(self, node: Node) -> None:
        await self._ask("approve", node.name)

    async def aclose(self) -> None:
        self.closed = True


MakeApp = Callable[..., ModelHubApp]


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch) -> MakeApp:
    """Builds an app with a fixed clock, theme and version; `app.watcher` is its fake watcher."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    def make(fleet: Fleet | None = None, *, watcher: FakeWatcher | None = None, **options: Any) -> ModelHubApp:
        fake = watcher or FakeWatcher()

        async def open_watcher() -> FakeWatcher:
            return fake

        given = {
            "clock": lambda: fleets.NOW,
            "env": {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
            "theme": "dark",
            "version": "0.1.0",
        }
        app = ModelHubApp(
            fleet if fleet is not None else fleets.fleet(),
            options.pop("open_watcher", open_watcher),
            **{**given, **options},
        )
        app.watcher = fake  # type: ignore[attr-defined]
        return app

    return make
