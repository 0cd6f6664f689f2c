"""A router in this process, spoken to over ASGI; and the little that a node does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.service.router.app import create_app
from modelhub_tui.service.router.auth import Hosts
from modelhub_tui.service.router.core import Router
from modelhub_tui.service.router.hub import Hub
from modelhub_tui.service.router.store import Store

ADMIN_KEY, NODE_KEY = "admin-key-for-tests", "node-key-for-tests"
TINY_BYTES = 56288
"""What the hub's GGUF files have; a catalog that says otherwise is contradicted by it."""
CATALOG = (
    CatalogEntry(
        id="tiny",
        name="Tiny",
        description="A tiny model.",
        repo="acme/Tiny-GGUF",
        files=(CatalogFile("Tiny-Q4_K_M.gguf", TINY_BYTES),),
        required_memory_bytes=5000,
        quantization="Q4_K_M",
        parameters="1M",
        context_length=2048,
        license="apache-2.0",
        tags=("chat",),
        capabilities=("text_generation",),
    ),
    CatalogEntry(
        id="one",
        name="One",
        description="",
        repo="acme/One-GGUF",
        files=(CatalogFile("one.Q8_0.gguf", TINY_BYTES),),
        capabilities=("vision",),
    ),
)


class Clock:
    """A clock that the test turns."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Service:
    """One router and clients for it."""

    router: Router
    admin: httpx.AsyncClient
    node: httpx.AsyncClient
    bare: httpx.AsyncClient
    clock: Clock
    stops: list[bool] = field(default_factory=list)
    busy: bool = False

    async def models(self) -> dict[str, dict[str, Any]]:
        """`GET /v0/models` by name."""
        return {each["name"]: each for each in (await self.admin.get("/v0/models")).json()}

    async def register(self, repo: str, **more: Any) -> httpx.Response:
        return await self.admin.post("/v0/models/register", json={"repo": repo, **more})


class FakeNode:
    """Speaks a node's side of the protocol."""

    def __init__(self, client: httpx.AsyncClient, **body: Any) -> None:
        self.client = client
        self.body = {
            "machine_name": "box",
            "ip_address": "127.0.0.1",
            "runtime_version": "0.1.0",
            "runtime_port": 30000,
            "gpu_available": False,
            **body,
        }
        self.id = self.token = ""

    async def register(self) -> httpx.Response:
        answer = await self.client.post("/v0/nodes", json=self.body)
        if answer.status_code < 300:
            self.id, self.token = answer.json()["node_id"], answer.json()["node_token"]
        return answer

    async def beat(self, **more: Any) -> httpx.Response:
        body = {"node_id": self.id, "cpu_usage": 0.0, "memory_usage": 0.0, "active_requests": 0, **more}
        return await self.client.post("/v0/health", json=body, headers={"X-Node-Token": self.token})


@asynccontextmanager
async def open_service(
    folder: Path,
    endpoint: str = "http://127.0.0.1:9",
    *,
    catalog: tuple[CatalogEntry, ...] = CATALOG,
    stats_dir: Path | None = None,
    open_metrics: bool = False,
) -> AsyncIterator[Service]:
    """Run a router on the database in `folder`. Its hub is asked without pauses between attempts."""
    store = Store(folder / "modelhub.db")
    clock = Clock()
    hub = Hub(endpoint, sleep=lambda _s: None)
    router = Router(store, catalog, endpoint, stats_dir=stats_dir, hub=hub, clock=clock, monotonic=clock)
    made: list[Service] = []

    def stop(if_idle: bool, _asker: int) -> str:
        made[0].stops.append(if_idle)
        return "busy" if if_idle and made[0].busy else ""

    hosts = Hosts(8000, ["testhost"])
    app = create_app(
        router,
        admin_key=ADMIN_KEY,
        node_key=NODE_KEY,
        hosts=hosts,
        state_id="run-1",
        stop=stop,
        open_metrics=open_metrics,
    )

    def client(key: str | None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 50000))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers, timeout=30)

    async with client(ADMIN_KEY) as admin, client(NODE_KEY) as node, client(None) as bare:
        service = Service(router, admin, node, bare, clock)
        made.append(service)
        router.start()
        try:
            yield service
        finally:
            await router.stop()
            store.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A router whose hub cannot be reached."""
    async with open_service(tmp_path) as opened:
        yield opened


@pytest.fixture
async def online(tmp_path: Path, hub: Any) -> AsyncIterator[Service]:
    """A router whose hub is the loopback hub, with its standard repos."""
    async with open_service(tmp_path, hub.url) as opened:
        yield opened


async def until(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Give the event loop turns until `check` holds."""
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.005)
