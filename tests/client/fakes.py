"""A router client of which a test decides every answer, and a clock and sleep that only move when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.domain import (
    CatalogEntry,
    CatalogFile,
    Node,
    NodeStatus,
    Place,
    RouterInfo,
    RouterModel,
    RouterReport,
)
from modelhub_tui.errors import ModelHubError, NotFound

ENTRY = CatalogEntry(
    id="tiny",
    name="Tiny Instruct",
    description="A tiny model.",
    repo="Acme/Tiny-GGUF",
    files=(CatalogFile("tiny-Q4.gguf", 1000),),
    revision="abc",
    tags=("chat",),
)
OTHER = CatalogEntry(
    id="other", name="Other", description="Another.", repo="Acme/Other-GGUF", files=(CatalogFile("other.gguf", 2000),)
)
NODE = Node("n1", "gpu-01", NodeStatus.ONLINE, last_seen=100.0)


def told(**changes: object) -> RouterModel:
    """What a router says about `ENTRY`, registered unless told otherwise."""
    members: dict[str, object] = {
        "name": "acme/tiny-gguf",
        "repo": "Acme/Tiny-GGUF",
        "file": "tiny-Q4.gguf",
        "registered": True,
        **changes,
    }
    return RouterModel(**members)  # type: ignore[arg-type]


class FakeClock:
    """Time that passes only while somebody sleeps, and as much as they sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class FakeClient:
    """A router that says `report` until `say()` replaces it; `wait_s` is honoured."""

    def __init__(self, report: RouterReport | None = None, *, info: RouterInfo | None = None) -> None:
        self.current = report or RouterReport(nodes=(NODE,))
        self.router = info or RouterInfo(label="this machine", generation="local", supplies_stats=True)
        self.calls: list[tuple[object, ...]] = []
        self.said: list[dict[str, bool]] = []
        """What each deletion said beside the name."""
        self.failure: ModelHubError | None = None
        self.holds = True
        self.closed = False
        self.on_register: Callable[[RegisterRequest], Awaitable[Registered]] | None = None
        self.on_delete: Callable[[str], Awaitable[None]] | None = None
        self._news = asyncio.Event()
        self._given: RouterReport | None = None

    def say(self, *models: RouterModel, nodes: tuple[Node, ...] = (NODE,)) -> None:
        """Change what the router says; a held request is answered."""
        self.current = RouterReport(models, nodes)
        self._news.set()

    def fail(self, error: ModelHubError | None) -> None:
        """Make requests for news fail, also the held one."""
        self.failure = error
        self._news.set()

    async def info(self) -> RouterInfo:
        self.calls.append(("info",))
        if self.failure:
            raise self.failure
        return self.router

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        self.calls.append(("report", wait_s))
        while wait_s and self.holds and self.current is self._given and not self.failure:
            self._news.clear()
            await self._news.wait()
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        self._given = self.current
        return self.current

    async def register(self, request: RegisterRequest) -> Registered:
        self.calls.append(("register", request))
        if self.on_register:
            return await self.on_register(request)
        return Registered(request.repo.lower(), request.file)

    async def delete(self, name: str, *, cancel: bool = False, keep: bool = True) -> None:
        self.calls.append(("delete", name))
        self.said.append({"cancel": cancel, "keep": keep})
        if self.on_delete:
            await self.on_delete(name)
        elif all(each.name != name for each in self.current.models):
            raise NotFound(name)

    async def retry(self, name: str) -> None:
        self.calls.append(("retry", name))

    async def pause(self, name: str) -> None:
        self.calls.append(("pause", name))

    async def resume(self, name: str) -> None:
        self.calls.append(("resume", name))

    async def move(self, name: str, to: Place) -> None:
        self.calls.append(("move", name, to))

    async def restore(self, name: str) -> Registered:
        self.calls.append(("restore", name))
        return Registered(name)

    async def adopt(self, name: str) -> Registered:
        self.calls.append(("adopt", name))
        return Registered(name)

    async def aclose(self) -> None:
        self.closed = True
