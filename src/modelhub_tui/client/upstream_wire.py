"""The upstream router's JSON, all generations, as it enters: tolerant as `wire` is, and made of its readers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from modelhub_tui import net
from modelhub_tui.client import wire
from modelhub_tui.client.wire import (
    UnusableError,
    WrongShapeError,
    read_count,
    read_identity,
    read_line,
    read_lines,
    read_number,
    read_path,
    read_paths,
    read_record,
    read_time,
    read_usable,
    read_word,
)
from modelhub_tui.domain import Gpu, HubStats, Node, NodeStatus, Placement, RouterModel
from modelhub_tui.untrusted import clean_block
from modelhub_tui.values import dataclass

T = TypeVar("T")

PROVIDERS = frozenset({"openai", "google", "anthropic"})
"""Owners of models that run elsewhere; nobody has them on a disk."""
SOMEWHERE = "a node"
"""Who holds a model where the router does not say who."""


@dataclass(frozen=True, slots=True)
class Sync:
    """What a G2 node last said about the file it fetches."""

    name: str
    file: str | None
    bytes_done: int
    bytes_total: int | None
    at: float
    """When, in the router's time."""


@dataclass(frozen=True, slots=True)
class ReportedNode:
    """A node and what it says it has."""

    node: Node
    loaded: tuple[str, ...] = ()
    """Names, or absolute paths."""
    sync: Sync | None = None
    """Only while it runs."""
    tells_sync: bool = False


@dataclass(frozen=True, slots=True)
class HubItem:
    """One supported model of the router's own list."""

    model: RouterModel
    downloaded: bool


@dataclass(frozen=True, slots=True)
class Held:
    """One model of an endpoint's inventory."""

    id: str
    canonical: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One download that was ordered on an endpoint."""

    id: str
    model: str
    status: str
    percent: float
    eta_s: float | None
    error: str


def read_list(
    body: bytes, convert: Callable[[Any], T], member: str = "", most: int = wire.MOST_MODELS
) -> tuple[T, ...]:
    """Read the usable records of a list, or of the one that is a member of an object.

    Raises:
        WrongShapeError: It is not there, or has more than `most` records.
    """
    try:
        told = net.loads(body)
    except ValueError as error:
        raise WrongShapeError("no JSON") from error
    if member and isinstance(told, dict):
        told = told.get(member) or []
    if not isinstance(told, list):
        raise WrongShapeError("not a list")
    if len(told) > most:
        raise WrongShapeError(f"it has more than {most:,} entries")
    found = (read_usable(convert, each) for each in told)
    return tuple(each for each in found if each is not None)


def capabilities(value: Any) -> tuple[str, ...]:
    """In snake_case, from any of the router's spellings: snake_case, CamelCase, or an object of booleans."""
    if isinstance(value, dict):
        value = [name for name, can in value.items() if can is True]
    return tuple(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", each).lower() for each in read_lines(value))


def registered(value: Any) -> RouterModel:
    """One member of `/models`: all of them are registered."""
    told = read_record(value)
    # Upstream's word for it is always "registered"; a foreign one must not make a model available.
    model = wire.read_model({**told, "status": "registered", "registered": True, "capabilities": []})
    return replace(model, capabilities=capabilities(told.get("capabilities")))


def hub_item(value: Any) -> HubItem:
    """One member of `/models/hub`."""
    told = read_record(value)
    # G3 and G4 leave out the repo of what they do not know; the name is all there is then.
    repo = read_identity(told.get("repo") or told.get("id"))
    description = told.get("description")
    stats = told.get("hf_info")
    stats = stats if isinstance(stats, dict) else {}
    downloads, likes = read_count(stats.get("downloads")), read_count(stats.get("likes"))
    return HubItem(
        RouterModel(
            name=repo.lower(),
            repo=repo,
            file=read_path(told.get("recommended_filename")),
            registered=read_word(told.get("lifecycle_status")) == "registered",
            title=read_line(told.get("name")),
            description=clean_block(description) if isinstance(description, str) else "",
            size_bytes=read_count(told.get("size_bytes")) or None,
            required_memory_bytes=read_count(told.get("required_memory_bytes")) or None,
            quantization=read_line(told.get("quantization")),
            parameters=read_line(told.get("parameter_count")),
            tags=read_lines(told.get("tags")),
            capabilities=capabilities(told.get("capabilities")),
            stats=None if downloads is None and likes is None else HubStats(downloads, likes),
        ),
        read_word(told.get("status")) == "downloaded",
    )


def served(value: Any) -> RouterModel:
    """One member of `/v1/models`, which a key opens that opens nothing else."""
    told = read_record(value)
    if read_line(told.get("owned_by")).lower() in PROVIDERS:
        raise UnusableError("a model that runs elsewhere")
    name = read_identity(told.get("id"))
    size = {"size": told.get("size_bytes"), "required_memory": told.get("required_memory_bytes")}
    model = registered({**told, "name": name, **size})
    return replace(model, placements=(Placement(SOMEWHERE),) if told.get("ready") is True else ())


def node(value: Any) -> ReportedNode:
    """One member of `/v0/nodes`."""
    told = read_record(value)
    at = read_time(told.get("sync_updated_at"))
    sync: Sync | None = None
    progress = told.get("sync_progress")
    if told.get("sync_state") == "running" and isinstance(progress, dict) and at is not None:
        name = read_line(progress.get("model_id"))
        done, total = read_count(progress.get("downloaded_bytes")) or 0, read_count(progress.get("total_bytes"))
        sync = Sync(name.lower(), read_path(progress.get("file")), done, total or None, at) if name else None
    tells = any(told.get(name) is not None for name in ("sync_state", "sync_updated_at"))
    return ReportedNode(wire.read_node(told), read_paths(told.get("loaded_models")), sync, tells)


def endpoint(value: Any) -> Node:
    """One member of `/endpoints`; who can download and delete is for the client to say."""
    told = read_record(value)
    node_id, status = read_identity(told.get("id")), read_word(told.get("status"))
    device = told.get("device_info")
    gpus = device.get("gpu_devices") if isinstance(device, dict) else None
    states = {"online": NodeStatus.ONLINE, "pending": NodeStatus.PENDING}
    return Node(
        id=node_id,
        name=read_line(told.get("name")) or node_id,
        status=states.get(status, NodeStatus.OFFLINE),
        last_seen=read_time(told.get("last_seen")),
        gpus=wire.read_each(_card, gpus),
        kind="endpoint",
        software=read_line(told.get("endpoint_type")),
        latency_ms=read_number(told.get("latency_ms")),
        problem=read_line(told.get("last_error")),
    )


def _card(value: Any) -> Gpu:
    told = read_record(value)
    memory_bytes = read_count(told.get("total_memory_bytes"))
    if not memory_bytes:
        raise UnusableError("a card without memory")
    return Gpu(read_line(told.get("name")), memory_bytes)


def held(value: Any) -> Held:
    """One member of an endpoint's inventory."""
    told = read_record(value)
    return Held(read_identity(told.get("model_id")), read_line(told.get("canonical_name")))


def task(value: Any) -> Task:
    """One download task."""
    told = read_record(value)
    return Task(
        read_identity(told.get("task_id")),
        read_identity(told.get("model")),
        read_word(told.get("status")),
        min(read_number(told.get("progress")) or 0.0, 100.0),
        read_number(told.get("eta_seconds")),
        read_line(told.get("error_message")),
    )
