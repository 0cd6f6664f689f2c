"""The answers of the list endpoints, as ready bytes: built once per change, with a fragment kept per model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from modelhub_tui.domain import CatalogEntry, HubStats, ModelState, Phase, Placement, Transfer, Trashed
from modelhub_tui.service.router.adopt import Offer, Offers
from modelhub_tui.service.router.bodies import FoundBody
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.fleet import Fleet, LiveNode
from modelhub_tui.service.router.records import Registration, Removal
from modelhub_tui.service.router.registry import Registry
from modelhub_tui.service.router.rows import Unreadable
from modelhub_tui.service.router.supported import Supported
from modelhub_tui.states import derive_state
from modelhub_tui.untrusted import encodable
from modelhub_tui.values import dataclass

_SOURCES = {"gguf": "hf_gguf", "safetensors": "hf_safetensors", "onnx": "hf_onnx"}
_STATUS = {
    ModelState.AVAILABLE: "available",
    ModelState.QUEUED: "registered",
    ModelState.PAUSED: "downloading",
    ModelState.DOWNLOADING: "downloading",
    ModelState.FAILED: "error",
    ModelState.DOWNLOADED: "ready",
    ModelState.DELETING: "deleting",
}
_HUB_STATUS = {"downloading": "downloading", "ready": "downloaded"}
_LIFECYCLE = {"registered": "pending", "downloading": "caching", "ready": "registered", "error": "error"}
_SPOKEN = {"vision": "Vision", "embedding": "Embedding"}


@dataclass(frozen=True, slots=True)
class Page:
    """One answer, ready to send."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Row:
    """One model as it is now: what all list forms are made from."""

    name: str
    entry: CatalogEntry | None
    record: Registration | None
    status: str
    reason: str
    transfers: tuple[tuple[str, str, Transfer], ...]
    """(node id, node name, transfer)"""
    placements: tuple[tuple[str, str, Placement], ...]
    stats: HubStats | None
    position: int | None = None
    """Place in the queue, from 1; None for what is whole, or not registered."""
    found: bool = False
    """On a node's disk, and registered nowhere."""
    unusable: bool = False
    """Registered, with a record that cannot be read; `reason` says why. It can only be deleted."""


class Listing:
    """Builds and keeps the list answers.

    Args:
        stats: Hub stats by `lower(repo)`, as far as they are known now.
        supported: The catalog whose models are listed; None for the service's own.
    """

    def __init__(
        self,
        registry: Registry,
        fleet: Fleet,
        changes: Changes,
        stats: Callable[[], Mapping[str, HubStats]],
        supported: Supported | None = None,
    ) -> None:
        self._registry, self._fleet, self._changes, self._stats = registry, fleet, changes, stats
        self.supported = supported or registry.supported
        self._rows: tuple[int, tuple[Row, ...]] = (-1, ())
        self._pages: dict[str, tuple[int, Page]] = {}
        self._fragments: dict[tuple[str, str], tuple[Row, str]] = {}
        self.told_by_heartbeat: Callable[[], object] = lambda: None
        """What nodes learn from the answer to a heartbeat. The ETag of their list changes with it, so that they ask."""
        self._offers = Offers(registry, fleet, self.supported)

    def models(self) -> Page:
        """`GET /v0/models` for people: everything supported or registered."""
        return self._page("models", lambda: self._joined("models", self.rows(), model_json), self._fleet.unheard)

    def models_for_nodes(self, orders: bool = False) -> Page:
        """`GET /v0/models` for nodes: what is registered, without what nodes reported (it would wake them).

        Args:
            orders: And what they are to remove.
        """
        kind = "nodes-orders" if orders else "nodes-models"
        return self._page(kind, lambda: self._node_models(orders), repr(self.told_by_heartbeat()))

    def hub(self) -> Page:
        """`GET /v0/models/hub`"""
        return self._page("hub", lambda: self._joined("hub", [row for row in self.rows() if _is_known(row)], hub_json))

    def usable(self) -> Page:
        """`GET /v1/models`: only what is whole on disk."""
        ready = [row for row in self.rows() if row.status == "ready" and not row.found]
        return self._page("v1", lambda: f'{{"object":"list","data":{self._joined("v1", ready, openai_json)}}}')

    def nodes(self) -> Page:
        """`GET /v0/nodes`"""
        in_order = sorted(self._fleet.nodes.values(), key=lambda node: node.record.registered_at)
        return self._page("nodes", lambda: _dump(self._nodes(in_order)))

    def node(self, node: LiveNode) -> dict[str, Any]:
        """One member of `GET /v0/nodes`."""
        return self._nodes([node])[0]

    def _nodes(self, nodes: Iterable[LiveNode]) -> list[dict[str, Any]]:
        found = self._offers.bytes_by_node()
        return [node_json(node, found.get(node.id, 0)) for node in nodes]

    def row(self, name: str) -> Row | None:
        """The model with this name, if it is known."""
        return next((row for row in self.rows() if row.name == name), None)

    def rows(self) -> tuple[Row, ...]:
        """All models as they are now: the catalog in its order, then the others in order of registration."""
        if self._rows[0] == self._changes.revision:
            return self._rows[1]
        stats = self._stats()
        nodes = tuple(node.as_domain() for node in self._fleet.nodes.values())
        by_entry: dict[str, Registration] = {}
        others: list[Registration] = []
        for record in self._registry.records.values():
            entry = self.supported.entry_for(record.repo, record.filename)
            if entry is None or entry.id in by_entry:
                others.append(record)
            else:
                by_entry[entry.id] = record
        places = self._places()
        offers = [*self._offers.current().values()]
        curated = {offer.entry.id: offer for offer in offers if offer.entry is not None}
        broken = dict(self._registry.unreadable)
        rows = []
        for entry in self.supported.entries:
            found, hub = by_entry.get(entry.id), stats.get(entry.repo.lower())
            if found is None and entry.id in curated:
                rows.append(_found_row(curated[entry.id], hub))
                continue
            name = found.name if found else self._name_for(entry)
            if found is None and name in broken:
                rows.append(_unusable_row(broken.pop(name), entry, hub))
                continue
            rows.append(self._row(name, entry, found, hub, nodes, places.get(name)))
        rows += [
            self._row(record.name, None, record, stats.get(record.repo.lower()), nodes, places.get(record.name))
            for record in others
        ]
        rows += [_unusable_row(row, None, None) for row in broken.values()]
        rows += [_found_row(offer, stats.get(offer.record.repo.lower())) for offer in offers if offer.entry is None]
        self._rows = (self._changes.revision, tuple(rows))
        return self._rows[1]

    def _row(
        self,
        name: str,
        entry: CatalogEntry | None,
        record: Registration | None,
        stats: HubStats | None,
        nodes: tuple[Any, ...],
        position: int | None,
    ) -> Row:
        transfers: tuple[tuple[str, str, Transfer], ...] = ()
        placements: tuple[tuple[str, str, Placement], ...] = ()
        if record is not None:  # what a node says of a name that nobody registered is about another router's model
            transfers = tuple((node.id, node.name, each) for node, each in self._fleet.transfers_of(name))
            placements = tuple((node.id, node.name, each) for node, each in self._fleet.placements_of(name))
            if not record.deleting and not transfers:
                transfers = self._fleet.hindered()
        state, reason = derive_state(
            registered=record is not None,
            deleting=record is not None and record.deleting,
            paused=record is not None and record.paused,
            placements=[each for _, _, each in placements],
            transfers=[each for _, _, each in transfers],
            nodes=nodes,
        )
        if state is ModelState.DELETING:
            reason = self._fleet.why_kept(name)
        return Row(name, entry, record, _STATUS[state], reason, transfers, placements, stats, position)

    def _name_for(self, entry: CatalogEntry) -> str:
        return self._registry.name_for(entry.repo, entry.file, entry.quantization, self.supported)

    def offer(self, name: str) -> Registration | None:
        """What adopting a found model registers; None if no node reports it (any more)."""
        offers = self._offers.current()
        found = offers.get(name) or offers.get(name.lower())
        return found.record if found is not None else None

    def deleted(self, body: FoundBody) -> Registration | None:
        """What a node's word on a deleted model, which nobody else remembers, would have been registered as."""
        return self._offers.deleted(body)

    def unfinished(self) -> list[Registration]:
        """What is registered and whole on no node yet, in queue order."""
        return [each for each in self._registry.in_queue() if not self._fleet.placements_of(each.name)]

    def _places(self) -> dict[str, int]:
        return {record.name: place for place, record in enumerate(self.unfinished(), start=1)}

    def _page(self, kind: str, build: Callable[[], str], more: str = "") -> Page:
        found = self._pages.get(kind)
        if found is not None and found[0] == self._changes.revision:
            return found[1]
        body = encodable(build()).encode()
        page = Page(body, f'"{hashlib.blake2b(body + more.encode(), digest_size=12).hexdigest()}"')
        self._pages[kind] = (self._changes.revision, page)
        return page

    def _joined(self, kind: str, rows: list[Row] | tuple[Row, ...], form: Callable[[Row], dict[str, Any]]) -> str:
        """The rows as a JSON array, a line each."""
        return _array(self._fragments_of(kind, rows, form))

    def _fragments_of(
        self, kind: str, rows: list[Row] | tuple[Row, ...], form: Callable[[Row], dict[str, Any]]
    ) -> list[str]:
        """The rows as JSON; one that is equal to last time's is not encoded again."""
        parts = []
        for row in rows:
            found = self._fragments.get((kind, row.name))
            if found is None or found[0] != row:
                found = self._fragments[kind, row.name] = (row, _dump(form(row)))
            parts.append(found[1])
        if len(self._fragments) > 8 * len(self.rows()) + 64:
            self._fragments.clear()
        return parts

    def _node_models(self, orders: bool) -> str:
        # The place among all models, not only the unfinished: whatever nodes finish, the order they know stays right.
        places = {record.name: place for place, record in enumerate(self._registry.in_queue(), start=1)}
        quiet = [
            Row(row.name, row.entry, row.record, "registered", "", (), (), None, places.get(row.name))
            for row in self.rows()
            if row.record is not None and not row.record.deleting and not row.found
        ]
        # A node must not take what cannot be read for what was removed: it lets go of the files of that.
        told: list[dict[str, Any]] = [
            {"name": row.name, "unusable": True} for row in self._registry.unreadable.values() if row.named
        ]
        if orders:
            told += map(_removal_json, self._registry.removals.values())
        return _array([*self._fragments_of("nodes-models", quiet, model_json), *map(_dump, told)])


def _found_row(offer: Offer, stats: HubStats | None) -> Row:
    return Row(offer.record.name, offer.entry, offer.record, "ready", "", (), offer.placements, stats, found=True)


def _unusable_row(broken: Unreadable, entry: CatalogEntry | None, stats: HubStats | None) -> Row:
    reason = f"Its record in the service's database cannot be read ({broken.reason}). Delete it, and pull it again."
    return Row(broken.name, entry, None, _STATUS[ModelState.FAILED], reason, (), (), stats, unusable=True)


def _is_known(row: Row) -> bool:
    return row.entry is not None or row.record is not None


def _array(parts: list[str]) -> str:
    return "[" + ",\n".join(parts) + "]"


def model_json(row: Row) -> dict[str, Any]:
    """One item of `GET /v0/models`."""
    entry, record = row.entry, row.record
    return {
        "name": row.name,
        **({"id": entry.id} if entry else {}),
        **_description(row),
        "revision": record.revision if record else entry.revision if entry else None,
        "source": _source(row),
        "chat_template": record.chat_template if record else None,
        "registered": row.unusable or (record is not None and not record.deleting and not row.found),
        "registration": record.id or None if record else None,
        "attempt": record.attempt if record else 0,
        "paused": record is not None and record.paused,
        "queue_position": row.position,
        "found": row.found,
        "unusable": row.unusable,
        "status": row.status,
        "reason": row.reason,
        "download_progress": _progress(row),
        "transfers": [_transfer_json(*each) for each in row.transfers],
        "placements": [_placement_json(*each) for each in row.placements],
        "hf_info": _stats_json(row.stats, stale=True),
    }


def _removal_json(removal: Removal) -> dict[str, Any]:
    """One order in `GET /v0/models` for nodes."""
    return {**asdict(removal), "registered": False, "status": "deleting"}


def hub_json(row: Row) -> dict[str, Any]:
    """One item of `GET /v0/models/hub`: upstream's dashboard form. Absent members are absent there too."""
    told = _description(row)
    status = "available" if row.found or row.unusable else row.status
    progress, lifecycle, stats = _progress(row), _LIFECYCLE.get(status), _stats_json(row.stats, stale=False)
    return {
        "id": row.entry.id if row.entry else row.name,
        "name": told["title"],
        "description": told["description"],
        "repo": told["repo"],
        "recommended_filename": told["filename"],
        "size_bytes": told["size"],
        "required_memory_bytes": told["required_memory"],
        "tags": told["tags"],
        "capabilities": [_spoken(each) for each in told["capabilities"]],
        **({"quantization": told["quantization"]} if told["quantization"] else {}),
        **({"parameter_count": told["parameter_count"]} if told["parameter_count"] else {}),
        "status": _HUB_STATUS.get(status, "available"),
        **({"lifecycle_status": lifecycle} if lifecycle else {}),
        **({"download_progress": progress} if progress else {}),
        **({"hf_info": stats} if stats else {}),
    }


def openai_json(row: Row) -> dict[str, Any]:
    """One item of `GET /v1/models`: upstream's members."""
    told = _description(row)
    can = set(told["capabilities"])
    chat = "text_generation" in can
    return {
        "id": row.name,
        "object": "model",
        "created": int(row.record.registered_at) if row.record else 0,
        "owned_by": "router",
        "capabilities": {
            "chat_completion": chat,
            "completion": chat,
            "embeddings": "embedding" in can,
            "fine_tune": False,
            "inference": True,
            "text_to_speech": "text_to_speech" in can,
            "speech_to_text": "speech_to_text" in can,
            "image_generation": "image_generation" in can,
            "image_understanding": "vision" in can,
        },
        "lifecycle_status": "registered",
        "download_progress": None,
        "ready": True,
        "repo": told["repo"],
        "filename": told["filename"],
        "size_bytes": told["size"],
        "required_memory_bytes": told["required_memory"],
        "source": _source(row),
        "tags": told["tags"],
        "description": told["description"],
        "chat_template": row.record.chat_template if row.record else None,
    }


def node_json(node: LiveNode, found_bytes: int) -> dict[str, Any]:
    """One item of `GET /v0/nodes`. Absent members are absent upstream too."""
    body = node.body
    optional = {
        "online_since": node.online_since and _time(node.online_since),
        "gpu_devices": [each.model_dump() for each in body.gpu_devices],
        "gpu_count": body.gpu_count or sum(each.count for each in body.gpu_devices),
        "gpu_model": body.gpu_model or (body.gpu_devices[0].model if body.gpu_devices else None),
        "ready_models": node.ready_models,
        "sync_state": node.sync_state,
        "sync_progress": node.sync_progress
        and dict(zip(("model_id", "file", "downloaded_bytes", "total_bytes"), node.sync_progress, strict=True)),
        "sync_updated_at": node.sync_updated_at and _time(node.sync_updated_at),
    }
    return {
        "id": node.id,
        "machine_name": node.name,
        "ip_address": body.ip_address,
        "runtime_version": body.runtime_version,
        "runtime_port": body.runtime_port,
        "status": node.status.value,
        "registered_at": _time(node.record.registered_at),
        "last_seen": _time(node.last_seen_shown),
        "tags": [],
        "loaded_models": list(node.loaded_models) or list(node.placements),
        "loaded_embedding_models": [],
        "loaded_asr_models": [],
        "loaded_tts_models": [],
        "supported_runtimes": body.supported_runtimes,
        "gpu_available": body.gpu_available,
        "initializing": node.initializing,
        **{key: value for key, value in optional.items() if value},
        "ram_bytes": body.ram_bytes,
        "disk_free_bytes": node.disk_free_shown,
        "disk_total_bytes": body.disk_total_bytes,
        "models_dir": body.models_dir,
        "models_bytes": body.models_bytes,
        "found_bytes": found_bytes,
        "unfinished_bytes": body.unfinished_bytes,
        "trash_bytes": body.trash_bytes,
        "disk_floor_bytes": body.disk_floor_bytes,
        "problem": node.problem or None,
        "transfers": [
            {"name": name, **_transfer_json(node.id, node.name, each)} for name, each in node.transfers.items()
        ],
        "placements": [
            {"name": name, **_placement_json(node.id, node.name, each)} for name, each in node.placements.items()
        ],
    }


def trashed_json(trashed: Trashed) -> dict[str, Any]:
    """One item of `GET /v0/trash`."""
    told = asdict(trashed)
    told["filename"] = told.pop("file")
    return {**told, "deleted_at": _time(trashed.deleted_at), "expires_at": _time(trashed.expires_at)}


def _description(row: Row) -> dict[str, Any]:
    """What a model is: the catalog's words where it is curated, else what was found when it was registered."""
    entry, record = row.entry, row.record
    if entry is not None:
        return {
            "title": entry.name,
            "description": entry.description,
            "repo": entry.repo,
            "filename": entry.file,
            "size": (record.size if record and record.size else entry.size_bytes) or 0,
            "required_memory": entry.required_memory_bytes or (record.required_memory if record else 0) or 0,
            "tags": list(entry.tags),
            "capabilities": list(entry.capabilities),
            "format": entry.format,
            "quantization": entry.quantization,
            "parameter_count": entry.parameters,
            "context_length": entry.context_length,
            "license": entry.license,
            "gated": entry.gated,
        }
    if record is None:  # nothing but a name is known
        record = Registration(row.name, row.name, "", "", (), "", title=row.name)
    return {
        "title": record.title,
        "description": record.description,
        "repo": record.repo,
        "filename": record.filename or None,
        "size": record.size,
        "required_memory": record.required_memory,
        "tags": list(record.tags),
        "capabilities": list(record.capabilities),
        "format": record.format,
        "quantization": record.quantization,
        "parameter_count": record.parameter_count,
        "context_length": record.context_length,
        "license": record.license,
        "gated": record.gated,
    }


def _source(row: Row) -> str:
    kind = row.record.format if row.record else row.entry.format if row.entry else ""
    return _SOURCES.get(kind, "predefined")


def _progress(row: Row) -> dict[str, Any] | None:
    """Upstream's single progress: of the transfer that is furthest along."""
    if row.status not in ("downloading", "error"):
        return None
    best = max(
        (each for _, _, each in row.transfers),
        key=lambda each: (each.phase is not Phase.FAILED, each.bytes_done),
        default=None,
    )
    if best is None:
        return None  # held before any node has taken it up
    return {
        "percent": round(best.fraction or 0.0, 4),
        "bytes_downloaded": best.bytes_done,
        "bytes_total": best.bytes_total,
        "error": best.error,
    }


def _transfer_json(node_id: str, node: str, transfer: Transfer) -> dict[str, Any]:
    return {
        **asdict(transfer),
        "node_id": node_id,
        "node": node,
        "phase": transfer.phase.value,
        "history": [{"at": _time(each.at), "what": each.what} for each in transfer.history],
    }


def _placement_json(node_id: str, node: str, placement: Placement) -> dict[str, Any]:
    return {**asdict(placement), "node_id": node_id, "node": node}


def _stats_json(stats: HubStats | None, *, stale: bool) -> dict[str, Any] | None:
    """Hub stats as upstream gives them (members absent when unknown), with our `stale` where wanted."""
    if stats is None:
        return None
    told: dict[str, Any] = {key: value for key in ("downloads", "likes") if (value := getattr(stats, key)) is not None}
    return {**told, "stale": stats.stale} if stale else told


def _spoken(capability: str) -> str:
    """`text_generation` as upstream's hub spells it, `TextGeneration`."""
    return _SPOKEN.get(capability) or "".join(part.capitalize() for part in capability.split("_"))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
