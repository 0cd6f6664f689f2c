"""Our own service on a real loopback port, with the same handles as the fakes; and a node written from the text."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import httpx

from modelhub_tui.domain import CatalogEntry
from modelhub_tui.service.router.app import create_app
from modelhub_tui.service.router.auth import Hosts
from modelhub_tui.service.router.core import Router
from modelhub_tui.service.router.hub import Hub
from modelhub_tui.service.router.store import Store

GPU = {"model": "NVIDIA RTX 4090", "count": 1, "memory": 25757220864}


class PlainNode:
    """A node of the second generation, written from the description of the protocol alone."""

    def __init__(self, url: str, key: str, name: str = "gpu-01", port: int = 11434) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=20)
        self.body = {
            "machine_name": name,
            "ip_address": "127.0.0.1",
            "runtime_version": "1.0.0",
            "runtime_port": port,
            "gpu_available": True,
            "gpu_devices": [GPU],
            "gpu_count": 1,
            "gpu_model": GPU["model"],
            "supported_runtimes": ["llama_cpp", "nemotron_cpp"],
        }
        self.id = self.token = ""

    def register(self) -> httpx.Response:
        """`POST /v0/nodes`"""
        answer = self.http.post("/v0/nodes", json=self.body)
        if answer.is_success:
            self.id, self.token = answer.json()["node_id"], answer.json()["node_token"]
        return answer

    def beat(self, **more: Any) -> httpx.Response:
        """`POST /v0/health`"""
        body = {"node_id": self.id, "cpu_usage": 0.0, "memory_usage": 0.0, "gpu_usage": None, "active_requests": 0}
        lists = {"loaded_embedding_models": [], "loaded_asr_models": [], "loaded_tts_models": []}
        headers = {"X-Node-Token": self.token}
        return self.http.post("/v0/health", json=body | lists | {"initializing": False} | more, headers=headers)

    def progress(self, name: str, done: int, total: int, state: str = "running") -> httpx.Response:
        """A heartbeat that reports on the file being fetched."""
        told = {"model_id": name, "file": "model.gguf", "downloaded_bytes": done, "total_bytes": total}
        return self.beat(sync_state=state, sync_progress=told, loaded_models=[])


class OwnService:
    """Router and application of our service, without its own node."""

    generation = "local"
    admin_key, node_key = "admin-key-for-tests", "node-key-for-tests"

    def __init__(self, folder: Path, endpoint: str, catalog: Iterable[CatalogEntry] = ()) -> None:
        self._folder, self._endpoint, self._catalog = folder, endpoint, tuple(catalog)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30), "the service did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        self.down()

    def down(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the service did not stop"

    async def _serve(self) -> None:
        import uvicorn

        store = Store(self._folder / "modelhub.db")
        router = Router(store, self._catalog, self._endpoint, hub=Hub(self._endpoint, sleep=lambda _s: None))
        keys = {"admin_key": self.admin_key, "node_key": self.node_key}
        app = create_app(router, **keys, hosts=Hosts(self.port), state_id="run-1")
        ready = self._ready

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                ready.set()

        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
        self._server = Server(config)
        router.start()
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            await router.stop()
            store.close()
