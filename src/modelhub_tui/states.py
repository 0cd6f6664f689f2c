"""What follows from what a router tells: a model's one state, whether it fits, and the list that people see.

Pure functions over `modelhub_tui.domain`: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum

from modelhub_tui.domain import (
    CatalogEntry,
    HubStats,
    Model,
    ModelState,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterModel,
    RouterReport,
    Transfer,
)
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass


class FitKind(StrEnum):
    """Whether a model's required memory is there."""

    UNKNOWN = "unknown"
    GPU = "gpu"
    """Fits the graphics memory of a node."""
    RAM = "ram"
    """No node has a card, but it fits a node's main memory."""
    TOO_BIG = "too_big"


def also_registered(models: Mapping[str, Model]) -> str:
    """What of these models stays on the disk when they are deleted, in sentences; empty if nothing does.

    Args:
        models: By the words that name them in a sentence.
    """
    said = []
    for name, model in models.items():
        shared = [each for each in model.placements if each.shared_bytes]
        if shared:
            where = ", ".join(sorted({each.node for each in shared}))
            stays = sum(each.shared_bytes for each in shared)
            some = any(each.shared_bytes < (each.disk_bytes or 0) for each in shared)
            what = f"{human_size(stays)} of its files" if some else "its files"
            whose = "another modelhub service (state folder or user)"
            said.append(f"{name} is also registered with {whose} on {where}; {what} stay there.")
    return " ".join(said)


@dataclass(frozen=True, slots=True)
class Fit:
    """Answer to "does it run here?"."""

    kind: FitKind
    short_by_bytes: int = 0
    """How much the best node lacks; 0 unless TOO_BIG."""


def model_key(repo: str, file: str | None) -> str:
    """Join key of a catalog entry and a registered model: `lower(repo)` plus file.

    Shards of one model share the key of their first shard, because routers name any of them.
    """
    return f"{repo.lower()}::{file or ''}"


def derive_state(
    *,
    registered: bool,
    deleting: bool = False,
    paused: bool = False,
    placements: Iterable[Placement] = (),
    transfers: Iterable[Transfer] = (),
    nodes: Iterable[Node] = (),
) -> tuple[ModelState, str]:
    """Derive a model's state and, where there is something to explain, the reason in one sentence.

    The order matters: a model that is whole somewhere is downloaded even while a second node still fetches it, and an
    active transfer outranks a failed one.
    """
    placements, transfers = tuple(placements), tuple(transfers)
    if deleting:
        return ModelState.DELETING, ""
    if placements:
        return ModelState.DOWNLOADED, ""
    orphans = [each for each in transfers if each.orphaned]
    transfers = tuple(each for each in transfers if not each.orphaned)
    active = [each for each in transfers if each.phase in (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)]
    if active:
        return ModelState.DOWNLOADING, next((each.error for each in active if each.error), "")
    if not registered:
        return ModelState.AVAILABLE, ""
    if paused:
        return ModelState.PAUSED, next((each.error for each in transfers if each.error), "")
    for phase, state in ((Phase.PAUSED, ModelState.PAUSED), (Phase.WAITING, ModelState.QUEUED)):
        found = next((each for each in transfers if each.phase is phase), None)
        if found is not None:
            return state, found.error or (f"queued on {found.node}" if phase is Phase.WAITING else "")
    failed = next((each for each in transfers if each.phase is Phase.FAILED), None)
    if failed is not None:
        return ModelState.FAILED, failed.error or f"failed on {failed.node}"
    if orphans:
        return ModelState.FAILED, f"{orphans[0].node} is offline; nobody works on this download."
    fleet = _summed(tuple(nodes))
    if fleet.endpoints_only:
        return ModelState.QUEUED, "registered; no endpoint has it"  # endpoints fetch nothing by themselves
    return ModelState.QUEUED, f"waiting for {fleet.first_online}" if fleet.first_online else "no node online"


@dataclass(frozen=True, slots=True)
class _Sum:
    """What all nodes together come to, as far as it decides about a model that none of them has."""

    gpu_bytes: int
    ram_bytes: int
    """Of the best node."""
    first_online: str
    endpoints_only: bool


_last_sum: tuple[tuple[Node, ...], _Sum] = ((), _Sum(0, 0, "", False))
"""Asked for each of many models of one fleet: looked at once, not models times nodes times."""


def _summed(nodes: tuple[Node, ...]) -> _Sum:
    global _last_sum
    known, found = _last_sum  # read at once: clients parse in threads
    if nodes is not known:
        gpu = max((node.gpu_memory_bytes for node in nodes), default=0)
        ram = max((node.ram_bytes or 0 for node in nodes), default=0)
        online = next((node.name for node in nodes if node.status is NodeStatus.ONLINE), "")
        endpoints = bool(nodes) and all(node.kind == "endpoint" for node in nodes)
        found = _Sum(gpu, ram, online, endpoints)
        _last_sum = (nodes, found)
    return found


def fit(required_bytes: int | None, nodes: Iterable[Node]) -> Fit:
    """Say whether the best node has the memory a model needs.

    Graphics memory counts where any node has a card; otherwise main memory, because CPU-only machines run models too.
    """
    fleet = _summed(tuple(nodes))
    have, kind = (fleet.gpu_bytes, FitKind.GPU) if fleet.gpu_bytes else (fleet.ram_bytes, FitKind.RAM)
    if not required_bytes or not have:
        return Fit(FitKind.UNKNOWN)
    return Fit(kind) if required_bytes <= have else Fit(FitKind.TOO_BIG, required_bytes - have)


def join_models(
    catalog: Iterable[CatalogEntry],
    report: RouterReport | None,
    stats: Mapping[str, HubStats] | None = None,
) -> tuple[Model, ...]:
    """Join the catalog with what the router knows: catalog order first, then the other registered models by name.

    Args:
        stats: Hub stats by `lower(repo)`, for models whose router does not tell.
    """
    stats = stats or {}
    nodes = report.nodes if report else ()
    known: dict[str, RouterModel] = {}
    by_repo: dict[str, list[str]] = {}
    for each in report.models if report else ():
        key = model_key(each.repo, each.file)
        if key not in known or each.registered:
            known[key] = each
        by_repo.setdefault(each.repo.lower(), []).append(key)
    models: list[Model] = []
    entries = {model_key(entry.repo, entry.file): entry for entry in catalog}
    for key, entry in entries.items():
        told = known.pop(key, None)
        if told is None:
            # Some generations list a repo without its file, or name another shard of the same model.
            paths = {None, *(each.path for each in entry.files)}
            there = by_repo.get(entry.repo.lower(), ())
            # What is another entry's own file is left to that entry.
            free = (k for k in there if k in known and k not in entries)
            key_there = next((k for k in free if known[k].file in paths), None)
            told = known.pop(key_there) if key_there else None
        models.append(_joined(key, entry, told, nodes, stats))
    rest = sorted(known.items(), key=lambda item: item[1].name)
    models.extend(_joined(key, None, told, nodes, stats) for key, told in rest)
    return tuple(models)


def _joined(
    key: str,
    entry: CatalogEntry | None,
    told: RouterModel | None,
    nodes: tuple[Node, ...],
    stats: Mapping[str, HubStats],
) -> Model:
    """One row: the catalog's description of it and the router's view of its state."""
    if entry is not None:
        base = Model(
            key=key,
            name=told.name if told else entry.repo.lower(),
            title=entry.name,
            description=entry.description,
            repo=entry.repo,
            file=entry.file,
            state=ModelState.AVAILABLE,
            catalog_id=entry.id,
            revision=entry.revision,
            files=tuple(each.path for each in (*entry.files, *entry.companions)),
            size_bytes=entry.size_bytes,
            required_memory_bytes=entry.required_memory_bytes,
            required_memory_rule=entry.required_memory_rule,
            quantization=entry.quantization,
            parameters=entry.parameters,
            context_length=entry.context_length,
            license=entry.license,
            gated=entry.gated,
            tags=entry.tags,
            capabilities=entry.capabilities,
            format=entry.format,
        )
    else:
        assert told is not None
        base = Model(
            key=key,
            name=told.name,
            title=told.title or told.repo.rsplit("/", 1)[-1],
            description=told.description,
            repo=told.repo,
            file=told.file,
            state=ModelState.AVAILABLE,
            revision=told.revision,
            files=(told.file,) if told.file else (),
            size_bytes=told.size_bytes or None,
            required_memory_bytes=told.required_memory_bytes or None,
            quantization=told.quantization,
            parameters=told.parameters,
            context_length=told.context_length,
            license=told.license,
            gated=told.gated,
            tags=told.tags,
            capabilities=told.capabilities,
            format=told.format,
        )
    found = stats.get(base.repo.lower())
    if told is None:
        return replace(base, stats=found)
    state, reason = derive_state(
        registered=told.registered,
        deleting=told.deleting,
        paused=told.paused,
        placements=told.placements,
        transfers=told.transfers,
        nodes=nodes,
    )
    if told.unusable:
        state, reason = ModelState.FAILED, told.unusable
    return replace(
        base,
        state=state,
        reason=told.stuck if state is ModelState.DELETING else reason,
        registered=told.registered,
        paused=told.paused,
        queue_position=told.queue_position,
        found=told.found,
        unusable=told.unusable,
        transfers=told.transfers,
        placements=told.placements,
        stats=told.stats or found,
    )
