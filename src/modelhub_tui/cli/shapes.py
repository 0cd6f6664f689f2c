"""The `--json` shapes: stable, bytes as integers, times as ISO 8601 UTC, absent values as null."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelhub_tui.domain import IN_FLIGHT, Model, Node, Placement, Transfer, Trashed
from modelhub_tui.states import fit


def model_json(model: Model, nodes: Iterable[Node] = ()) -> dict[str, Any]:
    """One model, as `list --json` prints it."""
    stats, transfer = model.stats, model.transfer
    return {
        "id": model.catalog_id,
        "name": model.name,
        "title": model.title,
        "description": model.description,
        "repo": model.repo,
        "revision": model.revision,
        "files": list(model.files),
        "state": str(model.state),
        "reason": model.reason,
        "registered": model.registered,
        "found": model.found,
        "paused": model.paused,
        "queue_position": model.queue_position,
        "size_bytes": model.size_bytes,
        "required_memory_bytes": model.required_memory_bytes,
        "fits": str(fit(model.required_memory_bytes, nodes).kind),
        "quantization": model.quantization,
        "parameters": model.parameters,
        "context_length": model.context_length,
        "license": model.license,
        "gated": model.gated,
        "format": model.format,
        "tags": list(model.tags),
        "capabilities": list(model.capabilities),
        "downloads": stats.downloads if stats else None,
        "likes": stats.likes if stats else None,
        "progress": transfer_json(transfer) if transfer and model.state in IN_FLIGHT else None,
        "placements": [_placement_json(each) for each in model.placements],
    }


def local_json(model: Model, nodes: Iterable[Node] = ()) -> dict[str, Any]:
    """One model on disk, as `local --json` prints it: also where its files are."""
    here = next((each for each in model.placements if each.path), None)
    return {
        **model_json(model, nodes),
        "path": here.path if here else None,
        "paths": list(here.paths) if here else [],
        "disk_bytes": model.disk_bytes,
    }


def transfer_json(transfer: Transfer) -> dict[str, Any]:
    """The progress of one transfer."""
    return {
        "bytes_done": transfer.bytes_done,
        "bytes_total": transfer.bytes_total,
        "bytes_per_s": None if transfer.bytes_per_s is None else round(transfer.bytes_per_s),
        "eta_s": None if transfer.eta_s is None else round(transfer.eta_s, 1),
        "phase": str(transfer.phase),
        "error": transfer.error,
        "error_code": transfer.error_code,
        "node": transfer.node,
        "file": transfer.file,
        "file_index": transfer.file_index or None,
        "file_count": transfer.file_count or None,
        "attempt": transfer.attempt or None,
        "max_attempts": transfer.max_attempts or None,
        "retry_in_s": transfer.retry_in_s,
        "stalled_s": transfer.stalled_s,
        "refetched_bytes": transfer.refetched_bytes,
        "orphaned": transfer.orphaned,
    }


def node_json(node: Node) -> dict[str, Any]:
    """One node, as `status --json` prints it."""
    return {
        "id": node.id,
        "name": node.name,
        "status": str(node.status),
        "version": node.version,
        "last_seen": None if node.last_seen is None else _time(node.last_seen),
        "gpus": [{"name": each.name, "memory_bytes": each.memory_bytes, "count": each.count} for each in node.gpus],
        "ram_bytes": node.ram_bytes,
        "disk_free_bytes": node.disk_free_bytes,
        "disk_total_bytes": node.disk_total_bytes,
        "models_bytes": node.models_bytes,
        "found_bytes": node.found_bytes,
        "unfinished_bytes": node.unfinished_bytes,
        "trash_bytes": node.trash_bytes,
        "disk_floor_bytes": node.disk_floor_bytes,
        "models_dir": node.models_dir,
    }


def event_json(model: Model) -> dict[str, Any]:
    """One line of `pull --json`: where a model is now."""
    transfer = model.transfer
    here = next((each for each in model.placements if each.path), None)
    return {
        "id": model.catalog_id,
        "name": model.name,
        "title": model.title,
        "state": str(model.state),
        "reason": model.reason,
        "paused": model.paused,
        "queue_position": model.queue_position,
        "progress": transfer_json(transfer) if transfer and model.state in IN_FLIGHT else None,
        "path": here.path if here else None,
        "verified": here.verified if here else None,
    }


def transfers_json(model: Model) -> dict[str, Any]:
    """One model of `status --json`: where it is, and what happened to its transfer so far."""
    history = model.transfer.history if model.transfer else ()
    return {**event_json(model), "history": [{"at": _time(each.at), "what": each.what} for each in history]}


def trashed_json(each: Trashed) -> dict[str, Any]:
    """One deleted model, as `trash --json` prints it."""
    return {
        "name": each.name,
        "title": each.title,
        "repo": each.repo,
        "file": each.file,
        "bytes": each.bytes,
        "deleted_at": _time(each.deleted_at),
        "expires_at": _time(each.expires_at),
        "nodes": list(each.nodes),
    }


def _placement_json(placement: Placement) -> dict[str, Any]:
    return {
        "node": placement.node,
        "path": placement.path,
        "paths": list(placement.paths),
        "disk_bytes": placement.disk_bytes,
        "verified": placement.verified,
        "unverified": list(placement.unverified),
        "shared_bytes": placement.shared_bytes,
    }


def _time(at: float) -> str:
    from datetime import UTC, datetime  # most answers name no time

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
