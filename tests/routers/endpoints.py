"""What G3 and G4 share: endpoints that the router asks, and the software behind them."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.routers.base import (
    Answered,
    Clock,
    Field,
    Request,
    Response,
    is_text,
    is_texts,
    is_whole,
    offset_instant,
    openai_failure,
    read_body,
    reply,
    text,
)
from tests.routers.models import FakeRouter, dashboard_stats, overview

HEALTH_S, INVENTORY_S = 30.0, 900.0
OLLAMA_NAMES = {"openai/gpt-oss-20b": "gpt-oss:20b", "google/gemma-2-9b-it": "gemma2:9b"}
"""The canonical names that the router can translate for Ollama."""
CANONICAL = {engine: name for name, engine in OLLAMA_NAMES.items()}


@dataclass
class Backend:
    """The software at an address: what an endpoint really is, whether the router knows it or not."""

    base_url: str
    software: str | None
    """An endpoint type; None for something unknown."""
    models: list[str] = field(default_factory=list)
    reachable: bool = True
    gpu_memory: int | None = None


@dataclass
class Endpoint:
    """What the router knows about an address."""

    name: str
    base_url: str
    endpoint_type: str
    registered_at: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "pending"
    health_check_interval_secs: int = 30
    inference_timeout_secs: int = 120
    latency_ms: int | None = None
    last_seen: float | None = None
    last_error: str | None = None
    error_count: int = 0
    notes: str | None = None
    inventory: list[str] = field(default_factory=list)
    inventory_at: float | None = None
    in_memory_status: str = "pending"
    """What G3's second registry believes; stale until a restart."""
    health_checked: bool = True


@dataclass
class Task:
    """One ordered download."""

    endpoint_id: str
    model: str
    engine_model: str
    created_at: float
    task_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "pending"
    progress: float = 0.0
    speed_mbps: float | None = None
    eta_seconds: int | None = None
    error_message: str | None = None

    def as_json(self) -> dict[str, Any]:
        """One item of the progress route; optional members are absent."""
        told = {"task_id": self.task_id, "model": self.model, "status": self.status, "progress": self.progress}
        optional = {name: getattr(self, name) for name in ("speed_mbps", "eta_seconds", "error_message")}
        return told | {name: value for name, value in optional.items() if value is not None}


class EndpointRouter(FakeRouter):
    """Endpoints, their inventories and download tasks."""

    tests_new_endpoints = True
    """Whether a new endpoint is tested, synced and watched without a restart (not in G3)."""

    def __init__(self, *, clock: Clock | None = None, auth_disabled: bool = False, huggingface: Any = None) -> None:
        self.world: dict[str, Backend] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.tasks: list[Task] = []
        super().__init__(clock=clock, auth_disabled=auth_disabled, huggingface=huggingface)
        self._began = self._checked = self.clock()

    # -- for tests

    def add_node(
        self,
        name: str = "ollama-1",
        software: str = "ollama",
        *,
        loaded: list[str] | None = None,
        status: str = "online",
        gpu_memory: int | None = None,
    ) -> Endpoint:
        """An endpoint that is there already, with its software behind it."""
        with self.lock:
            url = f"http://192.168.1.30:{11434 + len(self.endpoints)}"
            self.world[url] = Backend(url, software, list(loaded or []), status == "online", gpu_memory)
            endpoint = Endpoint(name, url, software, self.clock() + len(self.endpoints) * 1e-3)
            endpoint.inventory, endpoint.inventory_at = list(loaded or []), self.clock()
            endpoint.status = endpoint.in_memory_status = status
            if status == "online":
                endpoint.latency_ms, endpoint.last_seen = 12, self.clock()
            self.endpoints[endpoint.id] = endpoint
        return endpoint

    def backend(self, endpoint: Endpoint) -> Backend:
        """The software behind an endpoint."""
        return self.world[endpoint.base_url]

    def sync(self, endpoint: Endpoint) -> dict[str, int]:
        """Re-read an inventory."""
        with self.lock:
            before, now = set(endpoint.inventory), list(self.backend(endpoint).models)
            endpoint.inventory, endpoint.inventory_at = now, self.clock()
        counts = {"added": len(set(now) - before), "removed": len(before - set(now))}
        return {"synced_models": len(now), **counts, "updated": len(before & set(now))}

    def tasks_of(self, endpoint: Endpoint) -> list[Task]:
        """Newest first."""
        mine = [each for each in self.tasks if each.endpoint_id == endpoint.id]
        return sorted(mine, key=lambda each: each.created_at, reverse=True)

    # -- time

    def settle(self) -> None:
        """Health checks every 30 s; inventories are re-read at most every 15 minutes."""
        now = self.clock()
        rounds = math.floor((now - self._began) / HEALTH_S) - math.floor((self._checked - self._began) / HEALTH_S)
        self._checked = now
        for _ in range(min(rounds, 2)):
            for endpoint in self.endpoints.values():
                if endpoint.health_checked:
                    self.check(endpoint)

    def check(self, endpoint: Endpoint) -> bool:
        """One health check."""
        backend = self.backend(endpoint)
        if not backend.reachable:
            endpoint.error_count += 1
            endpoint.last_error = "connection refused"
            endpoint.status = "error" if endpoint.status in ("online", "pending") else "offline"
            return False
        endpoint.status, endpoint.error_count, endpoint.last_error = "online", 0, None
        endpoint.last_seen, endpoint.latency_ms = self.clock(), 12
        if endpoint.inventory_at is None or self.clock() - endpoint.inventory_at >= INVENTORY_S:
            self.sync(endpoint)
        return True

    # -- what the model lists need

    def holds(self, name: str) -> bool:
        return any(name in each.inventory for each in self.endpoints.values())

    def hub_items(self) -> list[dict[str, Any]]:
        return self.registered_hub_items()

    def gpu_memories(self) -> list[int]:
        return [each.gpu_memory for each in self.world.values() if each.gpu_memory]

    # -- errors: each generation has its own shape

    def refuse(self, status: int, sentence: str, code: str) -> Answered:
        """An endpoint handler's error."""
        raise NotImplementedError

    def must_write(self, request: Request) -> None:
        """Where the admin role is checked in the handler."""

    # -- routes

    def add_endpoint_routes(self, read: Any, write: Any) -> None:
        """`.../endpoints` and below."""
        base = f"{self.prefix}/endpoints"
        one = f"{base}/{{id}}"
        self.route("GET", base, self._list_endpoints, read)
        self.route("POST", base, self._create, write)
        self.route("GET", one, self._detail, read)
        self.route("PUT", one, self._update, write)
        self.route("DELETE", one, self._remove, write)
        self.route("GET", f"{one}/models", self._inventory, read)
        self.route("POST", f"{one}/test", self._test, write)
        self.route("POST", f"{one}/sync", self._sync, write)
        self.route("POST", f"{one}/download", self._download, write)
        self.route("GET", f"{one}/download/progress", self._progress, read)

    def find(self, request: Request) -> Endpoint:
        """The endpoint in the path."""
        try:
            uuid.UUID(request.params["id"])
        except ValueError:
            raise Answered(text(400, "Invalid URL: Cannot parse `id` to a `Uuid`")) from None
        endpoint = self.endpoints.get(request.params["id"])
        if endpoint is None:
            raise self.refuse(404, "Endpoint not found", "NOT_FOUND")
        return endpoint

    def endpoint_json(self, endpoint: Endpoint, *, counted: bool = False) -> dict[str, Any]:
        """Section 5.3."""
        gpu = self.backend(endpoint).gpu_memory
        cards = [{"name": "GPU", "total_memory_bytes": gpu, "used_memory_bytes": 0}]
        device = {"device_type": "gpu", "gpu_devices": cards}
        return (
            {
                "id": endpoint.id,
                "name": endpoint.name,
                "base_url": endpoint.base_url,
                "status": endpoint.status,
                "endpoint_type": endpoint.endpoint_type,
                "health_check_interval_secs": endpoint.health_check_interval_secs,
                "inference_timeout_secs": endpoint.inference_timeout_secs,
                "latency_ms": endpoint.latency_ms,
                "last_seen": None if endpoint.last_seen is None else offset_instant(endpoint.last_seen),
                "last_error": endpoint.last_error,
                "error_count": endpoint.error_count,
                "registered_at": offset_instant(endpoint.registered_at),
                "notes": endpoint.notes,
            }
            | ({"device_info": device} if gpu else {})
            | ({"model_count": len(endpoint.inventory)} if counted else {})
        )

    def newest_first(self) -> list[Endpoint]:
        """All endpoints."""
        return sorted(self.endpoints.values(), key=lambda each: each.registered_at, reverse=True)

    def _list_endpoints(self, request: Request) -> Response:
        status, kind = request.query.get("status"), request.query.get("type")
        told = [
            self.endpoint_json(each, counted=True)
            for each in self.newest_first()
            if status in (None, each.status) and kind in (None, each.endpoint_type)
        ]
        return reply({"endpoints": told, "total": len(told)})

    def inventory_json(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """What an endpoint has."""
        checked = None if endpoint.inventory_at is None else offset_instant(endpoint.inventory_at)
        return [
            {"model_id": each, "capabilities": ["chat"], "max_tokens": None, "last_checked": checked}
            | ({"canonical_name": CANONICAL[each]} if each in CANONICAL and self.generation == "G4" else {})
            for each in endpoint.inventory
        ]

    def _detail(self, request: Request) -> Response:
        endpoint = self.find(request)
        return reply(self.endpoint_json(endpoint) | {"models": self.inventory_json(endpoint)})

    def _inventory(self, request: Request) -> Response:
        endpoint = self.find(request)
        return reply({"endpoint_id": endpoint.id, "models": self.inventory_json(endpoint)})

    def _create(self, request: Request) -> Response:
        self.must_write(request)
        body = read_body(
            request,
            {
                "name": Field(is_text, required=True),
                "base_url": Field(is_text, required=True),
                "api_key": Field(is_text),
                "health_check_interval_secs": Field(is_whole(2**32)),
                "inference_timeout_secs": Field(is_whole(2**32)),
                "notes": Field(is_text),
                "capabilities": Field(is_texts),
            },
        )
        url = body["base_url"].rstrip("/")
        if not 10 <= (body["health_check_interval_secs"] or 30) <= 300:
            raise self.refuse(400, "health_check_interval_secs must be between 10 and 300", "VALIDATION_ERROR")
        if any(each.name == body["name"] for each in self.endpoints.values()):
            raise self.refuse(400, "Endpoint name already exists", "DUPLICATE_NAME")
        if any(each.base_url == url for each in self.endpoints.values()):
            raise self.refuse(409, "Endpoint URL already exists", "DUPLICATE_URL")
        backend = self.world.get(url)
        if backend is None or not backend.reachable:
            raise self.refuse(502, "Endpoint is unreachable", "UNREACHABLE")
        if backend.software is None:
            raise self.refuse(400, "Unsupported endpoint type", "UNSUPPORTED_TYPE")
        endpoint = Endpoint(body["name"], url, backend.software, self.clock(), notes=body["notes"])
        self.endpoints[endpoint.id] = endpoint
        told = reply(self.endpoint_json(endpoint), 201)
        if self.tests_new_endpoints:  # in the background: the answer still says pending
            self.check(endpoint)
        else:
            endpoint.health_checked = False
        return told

    def _update(self, request: Request) -> Response:
        self.must_write(request)
        endpoint = self.find(request)
        body = read_body(request, {"name": Field(is_text), "notes": Field(is_text)})
        endpoint.name, endpoint.notes = body["name"] or endpoint.name, body["notes"] or endpoint.notes
        return reply(self.endpoint_json(endpoint))

    def _remove(self, request: Request) -> Response:
        self.must_write(request)
        del self.endpoints[self.find(request).id]
        return Response(204)

    def _test(self, request: Request) -> Response:
        self.must_write(request)
        endpoint = self.find(request)
        good = self.check(endpoint)
        if good:
            self.sync(endpoint)
        told = {"success": good, "latency_ms": 12 if good else None, "error": None if good else endpoint.last_error}
        return reply(told | {"models_found": len(endpoint.inventory) if good else None})

    def _sync(self, request: Request) -> Response:
        self.must_write(request)
        endpoint = self.find(request)
        if not self.backend(endpoint).reachable:
            raise self.refuse(502, "Endpoint is unreachable", "UNREACHABLE")
        return reply(self.sync(endpoint))

    def _download(self, request: Request) -> Response:
        self.must_write(request)
        endpoint = self.find(request)
        given = {"model": Field(is_text, required=True), "hf_repo": Field(is_text), "quantization": Field(is_text)}
        return self.order(endpoint, read_body(request, given))

    def order(self, endpoint: Endpoint, body: dict[str, Any]) -> Response:
        """Take an order for a download, or refuse it."""
        raise NotImplementedError

    def accept(self, endpoint: Endpoint, model: str, engine_model: str) -> tuple[Task, Response]:
        """A new task; the answer always says `pending`."""
        task = Task(endpoint.id, model, engine_model, self.clock() + len(self.tasks) * 1e-3)
        self.tasks.append(task)
        return task, reply({name: value for name, value in task.as_json().items() if name != "speed_mbps"}, 202)

    def _progress(self, request: Request) -> Response:
        endpoint = self.find(request)
        return reply({"endpoint_id": endpoint.id, "tasks": [each.as_json() for each in self.tasks_of(endpoint)]})

    # -- dashboard and /v1

    def dashboard_items(self) -> list[dict[str, Any]]:
        """Endpoint objects as the dashboard shows them."""
        return [self.endpoint_json(each) for each in self.newest_first()]

    def dashboard_stats(self) -> dict[str, Any]:
        """Counts under their new names."""
        words = {"online": "online", "pending": "pending"}
        statuses = [words.get(each["status"], "offline") for each in self.dashboard_items()]
        return dashboard_stats("runtimes", statuses, {}, tokens=True)

    def dashboard_overview(self) -> dict[str, Any]:
        """`overview.nodes` became `overview.endpoints`."""
        return overview(self.clock, "endpoints", self.dashboard_items(), self.dashboard_stats())

    def v1_known(self, name: str) -> dict[str, Any]:
        """The keys that only models in the registry have."""
        model = self.models.get(name)
        if model is None:
            return {}
        yes = ("chat_completion", "completion", "inference")
        no = ["embeddings", "fine_tune", "text_to_speech", "speech_to_text", "image_generation"]
        more = ["image_understanding"] if self.generation == "G3" else []
        return {
            "capabilities": dict.fromkeys(yes, True) | dict.fromkeys(no + more, False),
            "repo": model.repo,
            "filename": model.filename,
            "size_bytes": model.size,
            "required_memory_bytes": model.required_memory,
            "source": model.source,
            "tags": model.tags,
            "description": model.description,
            "chat_template": model.chat_template,
        }

    def v1_item(self, name: str, *, ready: bool = True) -> dict[str, Any]:
        """One item of `/v1/models`."""
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "load balancer",
            "lifecycle_status": "registered",
            "download_progress": None,
            "ready": ready,
            "supported_apis": ["chat_completions"],
            **self.v1_known(name),
        }

    def v1_items(self) -> list[dict[str, Any]]:
        """What online endpoints have."""
        raise NotImplementedError

    def add_v1_routes(self, access: Any) -> None:
        """`/v1/models` and `/v1/models/{id}`."""
        self.route(
            "GET",
            "/v1/models",
            lambda _: reply({"object": "list", "data": self.v1_items() + self.cloud_items()}),
            access,
        )
        self.route("GET", "/v1/models/{id}", self._v1_model, access)

    def _v1_models(self, request: Request) -> Response:
        return reply({"object": "list", "data": self.v1_items() + self.cloud_items()})

    def _v1_model(self, request: Request) -> Response:
        name = request.params["id"]
        told = next((each for each in self.v1_items() if name in (each["id"], *each.get("aliases", ()))), None)
        if told is None and name in self.models:
            told = self.v1_item(name, ready=False) | {"lifecycle_status": "pending"}
        if told is None:
            return openai_failure(404, f"The model '{name}' does not exist")
        return reply({key: value for key, value in told.items() if key != "download_progress"})
