"""G1 and G2: models and nodes that report to the router. G2 adds what a node says about its sync."""

from __future__ import annotations

import math
import uuid
from typing import Any

from tests.routers.base import (
    Answered,
    Clock,
    Field,
    Request,
    Response,
    failure,
    is_text,
    is_texts,
    openai_failure,
    read_body,
    reply,
    text,
)
from tests.routers.hf import BUILTIN
from tests.routers.models import FakeRouter, Stored, dashboard_stats, overview
from tests.routers.nodes import (
    GPU,
    HEARTBEAT_MEMBERS,
    METRICS,
    NODE_MEMBERS,
    SYNC_MEMBERS,
    FakeNode,
    dashboard_json,
    node_json,
    probe,
)

SILENCE_S, CHECK_S, CONSISTENCY_S = 60.0, 30.0, 300.0


class FakeG1(FakeRouter):
    """llm-router of 2026-01-01. Node fields are as the text describes; G1 ignores what nodes say about syncing."""

    generation = "G1"
    sync_fields = False
    shards_to_index = False

    def __init__(self, *, clock: Clock | None = None, auth_disabled: bool = False, huggingface: Any = None) -> None:
        self.nodes: dict[str, FakeNode] = {}
        self._rows: dict[str, Stored] = {}
        super().__init__(clock=clock, auth_disabled=auth_disabled, huggingface=huggingface)
        self._began = self._checked = self._restored = self.clock()

    # -- for tests

    def add_node(
        self,
        name: str = "gpu-01",
        *,
        loaded: list[str] | None = None,
        status: str = "online",
        gpu: bool = True,
        port: int = 11434,
    ) -> FakeNode:
        """A node that is there already, without the connection check of a real registration."""
        now = self.clock()
        with self.lock:
            node = FakeNode(name, "192.168.1.20", port, now, now, token=f"nt_{uuid.uuid4()}")
            node.loaded_models = list(loaded or [])
            node.gpu_devices = [dict(GPU)] if gpu else []
            node.gpu_count, node.gpu_model = (1, GPU["model"]) if gpu else (None, None)
            node.enter(status, now)
            self.nodes[node.id] = node
        return node

    def heartbeat(self, node: FakeNode, **more: Any) -> None:
        """What `POST /v0/health` of this node does."""
        body = {"node_id": node.id, "cpu_usage": 0.0, "memory_usage": 0.0, "active_requests": 0, **more}
        with self.lock:
            self.settle()
            self._beat(node, body)

    def progress(self, node: FakeNode, name: str, done: int, total: int, state: str = "running") -> None:
        """A heartbeat that reports on the file being fetched (G2)."""
        told = {"model_id": name, "file": "model.gguf", "downloaded_bytes": done, "total_bytes": total}
        self.heartbeat(node, sync_state=state, sync_progress=told)

    def restart(self) -> None:
        """Stop and start the router: the database stays, sync fields do not."""
        with self.lock:
            self.models = dict(self._rows)
            for node in self.nodes.values():
                node.sync_state = node.sync_progress = node.sync_updated_at = None

    # -- time

    def settle(self) -> None:
        """Notice silent nodes every 30 s; bring back deleted models every 5 minutes (the bug of section 2.4)."""
        now = self.clock()
        last_check = self._began + math.floor((now - self._began) / CHECK_S) * CHECK_S
        if last_check > self._checked:
            self._checked = last_check
            for node in self.nodes.values():
                if node.status != "offline" and last_check - node.last_seen > SILENCE_S:
                    node.enter("offline", now)
        last_repair = self._began + math.floor((now - self._began) / CONSISTENCY_S) * CONSISTENCY_S
        if last_repair > self._restored:
            self._restored = last_repair
            for name, row in self._rows.items():
                self.models.setdefault(name, row)

    def stored(self, name: str) -> None:
        self._rows[name] = self.models[name]

    def holds(self, name: str) -> bool:
        return any(name in node.loaded_models for node in self.nodes.values())

    def gpu_memories(self) -> list[int]:
        return [each["memory"] for node in self.nodes.values() for each in node.gpu_devices if each.get("memory")]

    def hub_items(self) -> list[dict[str, Any]]:
        """Always the five compiled-in models."""
        told = []
        for each in BUILTIN:
            name = each.repo.lower()
            here = name in self.models
            item = {
                "id": each.id,
                "name": each.name,
                "description": each.description,
                "repo": each.repo,
                "recommended_filename": each.file,
                "size_bytes": each.size,
                "required_memory_bytes": each.memory,
                "tags": list(each.tags),
                "capabilities": ["TextGeneration"],
                "quantization": "Q4_K_M",
                "parameter_count": each.params,
                "status": "downloaded" if here and self.holds(name) else "available",
            }
            told.append(item | ({"lifecycle_status": "registered"} if here else {}) | self.hub_stats(each.repo))
        return told

    # -- routes

    def add_keys(self) -> None:
        self.admin_key = self.auth.add_key("admin", name="admin")
        self.node_key = self.auth.add_key("node", name="node")
        self.api_key = self.auth.add_key("api", name="api")

    def add_routes(self) -> None:
        auth = self.auth
        admin = auth.jwt_or_key({"admin"}, "Admin scope required")
        node = {"admin", "node"}
        lists = auth.jwt_or_key(node, "Admin or Node scope required", always=True)
        self.add_model_routes(lists, admin, auth.key_only(node, "Admin or Node scope required"))
        self.add_auth_routes(admin)
        self.route("GET", "/v0/nodes", self._list_nodes, admin)
        self.route("POST", "/v0/nodes", self._register_node, auth.key_only(node))
        self.route("GET", "/v0/nodes/metrics", lambda _: reply([self._metrics(n) for n in self._sorted()]), admin)
        self.route("DELETE", "/v0/nodes/{id}", self._delete_node, admin)
        self.route("POST", "/v0/nodes/{id}/approve", self._approve, admin)
        self.route("POST", "/v0/nodes/{id}/disconnect", self._disconnect, admin)
        self.route("PUT", "/v0/nodes/{id}/settings", self._settings, admin)
        self.route("POST", "/v0/health", self._health, self._key_and_token)
        for name in ("nodes", "stats", "overview"):
            self.route("GET", f"/v0/dashboard/{name}", getattr(self, f"_dashboard_{name}"), admin)
        self.route("GET", "/v1/models", self._v1_models, self._node_or_api)
        self.route("GET", "/v1/models/{id}", self._v1_model, self._node_or_api)
        page = Response(200, b"<!doctype html><title>llm-router</title>", {"Content-Type": "text/html"})
        self.route("GET", "/playground", lambda _: page)

    def _by_token(self, request: Request) -> FakeNode | None:
        token = request.headers.get("x-node-token")
        return next((each for each in self.nodes.values() if token and each.token == token), None)

    def _key_and_token(self, request: Request) -> None:
        self.auth.key_only({"admin", "node"})(request)
        if self.auth.disabled:
            return
        if "x-node-token" not in request.headers:
            raise Answered(text(401, "Missing X-Node-Token header"))
        if self._by_token(request) is None:
            raise Answered(text(401, "Invalid node token"))

    def _node_or_api(self, request: Request) -> None:
        """A node token goes before any key, without fall-back."""
        if self.auth.disabled:
            return
        if "x-node-token" in request.headers:
            if self._by_token(request) is None:
                raise Answered(text(401, "Invalid node token"))
            return
        if "x-api-key" not in request.headers and "authorization" not in request.headers:
            raise Answered(text(401, "Missing X-Node-Token header or API key"))
        self.auth.key_only({"admin", "api"})(request)

    # -- nodes

    def _sorted(self) -> list[FakeNode]:
        return sorted(self.nodes.values(), key=lambda each: each.registered_at)

    def _list_nodes(self, request: Request) -> Response:
        return reply([node_json(each, synced=self.sync_fields) for each in self._sorted()])

    def _register_node(self, request: Request) -> Response:
        body = read_body(
            request,
            NODE_MEMBERS,
        )
        devices = body["gpu_devices"] or []
        good = all(str(each.get("model", "")).strip() and each.get("count", 0) > 0 for each in devices)
        if not (body["gpu_available"] and devices and good):
            return failure(403, "Request error")
        probed = probe(body["ip_address"], body["runtime_port"] + 1)
        if probed is None:
            return failure(500, "Internal server error")
        now = self.clock()
        identity = (body["machine_name"], body["runtime_port"])
        node = next((n for n in self.nodes.values() if (n.machine_name, n.runtime_port) == identity), None)
        known = node is not None
        if node is None:
            node = FakeNode(body["machine_name"], body["ip_address"], body["runtime_port"], now, now)
            self.nodes[node.id] = node
        node.ip_address, node.runtime_version, node.last_seen = body["ip_address"], body["runtime_version"], now
        node.token = f"nt_{uuid.uuid4()}"
        node.status, node.online_since = "pending", None
        node.gpu_devices = devices
        node.gpu_count = body["gpu_count"] or sum(each["count"] for each in devices)
        node.gpu_model = body["gpu_model"] or devices[0]["model"]
        node.supported_runtimes = body["supported_runtimes"] or []
        node.loaded_models, node.ready_models, node.initializing = probed
        node.sync_state = node.sync_progress = node.sync_updated_at = None
        told = {
            "node_id": node.id,
            "status": "updated" if known else "registered",
            "node_api_port": node.runtime_port + 1,
            "node_token": node.token,
        }
        return reply(told, 200 if known else 201)

    def _node(self, request: Request) -> FakeNode:
        try:
            uuid.UUID(request.params["id"])
        except ValueError:
            raise Answered(text(400, "Invalid URL: Cannot parse `id` to a `Uuid`")) from None
        node = self.nodes.get(request.params["id"])
        if node is None:
            raise Answered(failure(404, "Node not found"))
        return node

    def _approve(self, request: Request) -> Response:
        node = self._node(request)
        if node.status != "pending":
            return failure(400, "Request error")
        node.enter("online" if node.ready() else "registering", self.clock())
        return reply(node_json(node, synced=self.sync_fields))

    def _delete_node(self, request: Request) -> Response:
        del self.nodes[self._node(request).id]
        return Response(204)

    def _disconnect(self, request: Request) -> Response:
        self._node(request).enter("offline", self.clock())
        return Response(202)

    def _settings(self, request: Request) -> Response:
        node = self._node(request)
        given = {"custom_name": Field(is_text), "tags": Field(is_texts), "notes": Field(is_text)}
        node.settings |= {name: value for name, value in read_body(request, given).items() if value is not None}
        return reply(node_json(node, synced=self.sync_fields))

    def _health(self, request: Request) -> Response:
        members = HEARTBEAT_MEMBERS | (SYNC_MEMBERS if self.sync_fields else {})
        body = read_body(request, members)
        node = self.nodes.get(body["node_id"])
        if node is None:
            return failure(404, "Node not found")
        self._beat(node, {name: value for name, value in body.items() if value is not None})
        return reply(None)

    def _beat(self, node: FakeNode, body: dict[str, Any]) -> None:
        """Section 3.3."""
        now = node.last_seen = self.clock()
        loaded = list(dict.fromkeys(each.strip() for each in body.get("loaded_models", [])))
        if loaded:
            node.loaded_models = loaded
        node.initializing = body.get("initializing", False)
        if "ready_models" in body:
            node.ready_models = (body["ready_models"][0], body["ready_models"][1])
        if node.status == "offline":
            node.enter("registering", now)
        elif node.status == "registering" and node.ready():
            node.enter("online", now)
        node.metrics = body
        node.metrics_at = now
        if self.sync_fields and ("sync_state" in body or "sync_progress" in body):
            node.sync_state, node.sync_progress = body.get("sync_state"), body.get("sync_progress")
            node.sync_updated_at = now

    # -- dashboard

    def _metrics(self, node: FakeNode) -> dict[str, Any]:
        return {"node_id": node.id, **{name: node.metrics.get(name) for name in METRICS}}

    def _dashboard_nodes(self, request: Request) -> Response:
        return reply([dashboard_json(each, self.clock(), synced=self.sync_fields) for each in self._sorted()])

    def _stats(self) -> dict[str, Any]:
        return dashboard_stats("nodes", [each.status for each in self.nodes.values()], {}, tokens=False)

    def _dashboard_stats(self, request: Request) -> Response:
        return reply(self._stats())

    def _dashboard_overview(self, request: Request) -> Response:
        nodes = [dashboard_json(each, self.clock(), synced=self.sync_fields) for each in self._sorted()]
        return reply(overview(self.clock, "nodes", nodes, self._stats()))

    # -- /v1

    def _v1_item(self, model: Stored) -> dict[str, Any]:
        ready = self.holds(model.name)
        told = model.as_json()
        yes = ("chat_completion", "completion", "inference")
        no = ("embeddings", "fine_tune", "text_to_speech", "speech_to_text", "image_generation", "image_understanding")
        return {
            "id": model.name,
            "object": "model",
            "created": 0,
            "owned_by": "router",
            "capabilities": dict.fromkeys(yes, True) | dict.fromkeys(no, False),
            "lifecycle_status": "registered" if ready else "pending",
            "download_progress": None,
            "ready": ready,
            "repo": model.repo,
            "filename": model.filename,
            "size_bytes": model.size,
            "required_memory_bytes": model.required_memory,
            "source": model.source,
            "tags": model.tags,
            "description": model.description,
            "chat_template": told.get("chat_template"),
        }

    def _v1_models(self, request: Request) -> Response:
        return reply(
            {"object": "list", "data": [self._v1_item(each) for each in self.models.values()] + self.cloud_items()}
        )

    def _v1_model(self, request: Request) -> Response:
        model = self.models.get(request.params["id"])
        if model is None:
            return openai_failure(404, f"The model '{request.params['id']}' does not exist")
        told = self._v1_item(model)
        del told["download_progress"]
        return reply(told)


class FakeG2(FakeG1):
    """llm-router of 2026-01-02."""

    generation = "G2"
    sync_fields = True
    shards_to_index = True
