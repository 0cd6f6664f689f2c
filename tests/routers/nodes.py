"""Nodes as G1 and G2 remember them, what they may say, and how they are shown."""

from __future__ import annotations

import ipaddress
import json
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from tests.routers.base import Field, instant, is_flag, is_number, is_text, is_texts, is_whole

RUNTIMES = ("llama_cpp", "nemotron_cpp", "gptoss_cpp", "whisper_cpp", "onnx_runtime", "stable_diffusion")
GPU = {"model": "NVIDIA RTX 4090", "count": 1, "memory": 25757220864}
METRICS = ("cpu_usage", "memory_usage", "gpu_usage", "gpu_memory_usage", "average_response_time_ms")
_CARD = ("gpu_memory_total_mb", "gpu_memory_used_mb", "gpu_temperature", "gpu_model_name")
_CARD_MORE = ("gpu_compute_capability", "gpu_capability_score")


@dataclass
class FakeNode:
    """One node as the router remembers it."""

    machine_name: str
    ip_address: str
    runtime_port: int
    registered_at: float
    last_seen: float
    runtime_version: str = "1.0.0"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    token: str = ""
    status: str = "pending"
    online_since: float | None = None
    loaded_models: list[str] = field(default_factory=list)
    supported_runtimes: list[str] = field(default_factory=lambda: ["llama_cpp"])
    gpu_devices: list[dict[str, Any]] = field(default_factory=list)
    gpu_count: int | None = None
    gpu_model: str | None = None
    initializing: bool = False
    ready_models: tuple[int, int] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sync_state: str | None = None
    sync_progress: dict[str, Any] | None = None
    sync_updated_at: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    metrics_at: float | None = None

    def ready(self) -> bool:
        """Whether it has all it should have."""
        ready, total = self.ready_models or (0, 0)
        return ready >= total

    def enter(self, status: str, now: float) -> None:
        """Change status, with `online_since`."""
        self.status = status
        if status == "online":
            self.online_since = now
        elif status == "offline":
            self.online_since = None

    def sync_json(self) -> dict[str, Any]:
        """G2's three keys; absent when unset."""
        told = {"sync_state": self.sync_state, "sync_progress": self.sync_progress}
        if self.sync_updated_at is not None:
            told["sync_updated_at"] = instant(self.sync_updated_at)
        return {name: value for name, value in told.items() if value is not None}


def probe(host: str, port: int) -> tuple[list[str], tuple[int, int] | None, bool] | None:
    """The connection check: models, ready_models, initializing; None if it failed."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://{host}:{port}/v1/models", timeout=5) as answer:
            told = json.loads(answer.read())
    except (URLError, OSError, ValueError):
        return None
    if not isinstance(told, dict):
        return [], None, False
    models = [each["id"] for each in told.get("data", [])]
    given = told.get("ready_models")
    ready = (given[0], given[1]) if given else (len(models), len(models)) if models else None
    return models, ready, told.get("initializing", bool(ready and ready[0] < ready[1]))


def node_json(node: FakeNode, *, synced: bool) -> dict[str, Any]:
    """Section 2.7: absent when unset."""
    optional = {
        "online_since": None if node.online_since is None else instant(node.online_since),
        "gpu_devices": node.gpu_devices or None,
        "gpu_count": node.gpu_count,
        "gpu_model": node.gpu_model,
        "node_api_port": node.runtime_port + 1,
        "ready_models": list(node.ready_models) if node.ready_models else None,
        **{name: node.settings.get(name) for name in ("custom_name", "notes")},
        **{name: node.metrics.get(name) for name in ("gpu_model_name", *_CARD_MORE)},
    }
    return (
        {
            "id": node.id,
            "machine_name": node.machine_name,
            "ip_address": node.ip_address,
            "runtime_version": node.runtime_version,
            "runtime_port": node.runtime_port,
            "status": node.status,
            "registered_at": instant(node.registered_at),
            "last_seen": instant(node.last_seen),
            "tags": node.settings.get("tags", []),
            "loaded_models": node.loaded_models,
            "loaded_embedding_models": [],
            "loaded_asr_models": [],
            "loaded_tts_models": [],
            "supported_runtimes": node.supported_runtimes,
            "gpu_available": bool(node.gpu_devices),
            "initializing": node.initializing,
        }
        | {name: value for name, value in optional.items() if value is not None}
        | (node.sync_json() if synced else {})
    )


def dashboard_json(node: FakeNode, now: float, *, synced: bool) -> dict[str, Any]:
    """Section 2.8."""
    told = node_json(node, synced=synced)
    kept = ("id", "machine_name", "ip_address", "runtime_version", "runtime_port", "status", "registered_at")
    card = {name: node.metrics[name] for name in (*_CARD, *_CARD_MORE) if node.metrics.get(name) is not None}
    more = ("gpu_devices", "gpu_model", "gpu_count", "sync_state", "sync_progress", "sync_updated_at")
    return (
        {name: told[name] for name in (*kept, "last_seen", "loaded_models", "gpu_available")}
        | {"uptime_seconds": int(now - node.online_since) if node.online_since is not None else 0}
        | {name: node.metrics.get(name) for name in METRICS}
        | dict.fromkeys(("total_requests", "successful_requests", "failed_requests"), 0)
        | {"active_requests": node.metrics.get("active_requests", 0)}
        | {"metrics_last_updated_at": None if node.metrics_at is None else instant(node.metrics_at)}
        | {"metrics_stale": node.metrics_at is None or now - node.metrics_at > 120}
        | card
        | {name: told[name] for name in more if name in told}
    )


def _is_address(value: Any) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return isinstance(value, str)


def _is_progress(value: Any) -> bool:
    """All four members are required."""
    numbers = ("downloaded_bytes", "total_bytes")
    return (
        isinstance(value, dict)
        and all(is_text(value.get(name)) for name in ("model_id", "file"))
        and all(is_whole(2**64)(value.get(name)) for name in numbers)
    )


NODE_MEMBERS = {
    "machine_name": Field(is_text, required=True),
    "ip_address": Field(_is_address, required=True, what="an IP address"),
    "runtime_version": Field(is_text, required=True),
    "runtime_port": Field(is_whole(2**16), required=True, what="u16"),
    "gpu_available": Field(is_flag, required=True),
    "gpu_devices": Field(lambda each: isinstance(each, list)),
    "gpu_count": Field(is_whole(2**32)),
    "gpu_model": Field(is_text),
    "supported_runtimes": Field(lambda each: is_texts(each) and set(each) <= set(RUNTIMES)),
}
"""What `POST /v0/nodes` reads."""
HEARTBEAT_MEMBERS = {
    "node_id": Field(is_text, required=True),
    "cpu_usage": Field(is_number, required=True),
    "memory_usage": Field(is_number, required=True),
    "active_requests": Field(is_whole(2**32), required=True, what="u32"),
    "gpu_usage": Field(is_number),
    "gpu_memory_usage": Field(is_number),
    "average_response_time_ms": Field(is_number),
    "loaded_models": Field(is_texts),
    "initializing": Field(is_flag),
    "ready_models": Field(lambda two: isinstance(two, list) and len(two) == 2 and all(map(is_whole(256), two))),
    **{name: Field(lambda _: True) for name in (*_CARD, *_CARD_MORE)},
}
"""What `POST /v0/health` reads."""
SYNC_MEMBERS = {
    "sync_state": Field(lambda each: each in ("idle", "running", "success", "failed")),
    "sync_progress": Field(_is_progress),
}
"""What G2 reads beside them."""
