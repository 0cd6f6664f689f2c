"""The last known state of the fleet, so that the first frame shows it: written on leaving, read on start.

Plain JSON and the standard library: 200 models cost about three milliseconds. The file is 0600, and it is believed only
if every value in it has the type, and every text the harmless characters, that the program itself would have written.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain, compress, count, islice, starmap
from math import isfinite
from operator import not_
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from modelhub_tui.domain import (
    Ability,
    CatalogEntry,
    Connection,
    Event,
    Fleet,
    Gpu,
    HubStats,
    Link,
    Model,
    ModelState,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterInfo,
    RouterModel,
    RouterReport,
    Transfer,
)
from modelhub_tui.small_files import read_small
from modelhub_tui.states import join_models, model_key

VERSION = 1
MAX_BYTES = 16_000_000
"""8 KB for each of `MOST_MODELS`; a larger file, whoever put it there, holds up no start."""
MOST_MODELS = 2_000
"""So many models are kept, what is or moves on a disk before the rest: reading them takes 70 ms of every start, and of
100,000 it would be 4 s and 300 MB. The router tells the others as soon as it answers."""
_MAX_TEXT = 40_000

T = TypeVar("T")

_TEXT, _TEXT_OR_NONE, _TEXTS = "text", "text?", "texts"
_ABILITIES = "abilities"
_INT, _INT_OR_NONE, _FLOAT, _FLOAT_OR_NONE = "int", "int?", "float", "float?"
_BOOL, _BOOL_OR_NONE = "bool", "bool?"
_NONE = type(None)
_TYPES: dict[Any, set[type]] = {
    _TEXT: {str},
    _TEXT_OR_NONE: {str, _NONE},
    _TEXTS: {list},
    _ABILITIES: {list},
    _INT: {int},
    _INT_OR_NONE: {int, _NONE},
    _FLOAT: {int, float},
    _FLOAT_OR_NONE: {int, float, _NONE},
    _BOOL: {bool},
    _BOOL_OR_NONE: {bool, _NONE},
}
NOT_KEPT = frozenset(
    {
        "bytes_per_s",
        "eta_s",
        "retry_in_s",
        "stalled_s",
        "cpu_percent",
        "memory_percent",
        "gpu_percent",
        "latency_ms",
        "problem",
    }
)
"""Members of transfers and nodes that are wrong as soon as time has passed."""

# How each class is kept: its members in order, by kind. A nested class is kept as a list of lists.
_GPU = {"name": _TEXT, "memory_bytes": _INT, "count": _INT}
SHAPES: dict[type, dict[str, Any]] = {
    HubStats: {"downloads": _INT_OR_NONE, "likes": _INT_OR_NONE, "stale": _BOOL},
    Gpu: _GPU,
    Event: {"at": _FLOAT, "what": _TEXT},
    Transfer: {
        "node": _TEXT,
        "phase": Phase,
        "bytes_done": _INT,
        "bytes_total": _INT_OR_NONE,
        "file": _TEXT_OR_NONE,
        "file_index": _INT,
        "file_count": _INT,
        "attempt": _INT,
        "max_attempts": _INT,
        "error": _TEXT_OR_NONE,
        "error_code": _TEXT_OR_NONE,
        "refetched_bytes": _INT,
        "orphaned": _BOOL,
        "history": (Event,),
        "node_id": _TEXT,
    },
    Placement: {
        "node": _TEXT,
        "path": _TEXT_OR_NONE,
        "paths": _TEXTS,
        "disk_bytes": _INT_OR_NONE,
        "node_id": _TEXT,
        "verified": _BOOL_OR_NONE,
        "unverified": _TEXTS,
        "shared_bytes": _INT,
    },
    Node: {
        "id": _TEXT,
        "name": _TEXT,
        "status": NodeStatus,
        "last_seen": _FLOAT_OR_NONE,
        "gpus": (Gpu,),
        "ram_bytes": _INT_OR_NONE,
        "disk_free_bytes": _INT_OR_NONE,
        "disk_total_bytes": _INT_OR_NONE,
        "models_dir": _TEXT_OR_NONE,
        "models_bytes": _INT_OR_NONE,
        "trash_bytes": _INT_OR_NONE,
        "disk_floor_bytes": _INT_OR_NONE,
        "unfinished_bytes": _INT_OR_NONE,
        "found_bytes": _INT_OR_NONE,
        "version": _TEXT,
        "kind": _TEXT,
        "software": _TEXT,
        "takes_downloads": _BOOL,
        "deletes": _BOOL,
    },
    RouterInfo: {
        "label": _TEXT,
        "url": _TEXT,
        "version": _TEXT,
        "generation": _TEXT,
        "supplies_stats": _BOOL,
        "abilities": _ABILITIES,
    },
    Model: {
        "key": _TEXT,
        "name": _TEXT,
        "title": _TEXT,
        "description": _TEXT,
        "repo": _TEXT,
        "file": _TEXT_OR_NONE,
        "state": ModelState,
        "reason": _TEXT,
        "catalog_id": _TEXT_OR_NONE,
        "revision": _TEXT_OR_NONE,
        "files": _TEXTS,
        "size_bytes": _INT_OR_NONE,
        "required_memory_bytes": _INT_OR_NONE,
        "required_memory_rule": _TEXT,
        "quantization": _TEXT,
        "parameters": _TEXT,
        "context_length": _INT_OR_NONE,
        "license": _TEXT,
        "gated": _BOOL,
        "tags": _TEXTS,
        "capabilities": _TEXTS,
        "format": _TEXT,
        "registered": _BOOL,
        "paused": _BOOL,
        "queue_position": _INT_OR_NONE,
        "found": _BOOL,
        "unusable": _TEXT,
        "transfers": (Transfer,),
        "placements": (Placement,),
        "stats": HubStats,
    },
}


class Kept(NamedTuple):
    """A fleet from an earlier session."""

    fleet: Fleet
    catalog: str
    """Fingerprint of the catalog it was joined with; if today's is another, `rejoin()`."""


class _Untrusted(Exception):
    """The file is not what this program writes."""


def fleet_path(cache_dir: Path, router: str | None, catalog: str) -> Path:
    """Where the fleet of one router and one catalog is kept: two routers never show each other's states."""
    identity = zlib.crc32(f"{router or ''}\n{catalog}".encode())
    return cache_dir / f"fleet-{identity:08x}.json"


def save_fleet(path: Path, fleet: Fleet, catalog: str = "") -> None:
    """Keep a fleet for the next start, or the first `MOST_MODELS` of it; the file appears whole or not at all.

    Args:
        catalog: Fingerprint of the catalog in it.

    Raises:
        OSError: It cannot be written.
    """
    models = [_pack(each) for each in _worth_keeping(fleet.models)]
    raw = {
        "version": VERSION,
        "shape": _shape(),
        "catalog": catalog,
        "models": models,
        "unlisted": fleet.unlisted + len(fleet.models) - len(models),
        "nodes": [_pack(each) for each in fleet.nodes],
        "router": _pack(fleet.router),
        "heard_at": fleet.connection.heard_at,
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(raw, ensure_ascii=False, separators=(",", ":")))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _worth_keeping(models: tuple[Model, ...]) -> Iterable[Model]:
    if len(models) <= MOST_MODELS:
        return models
    states = [each.is_local() or each.is_moving() for each in models]
    before = [*compress(count(), states), *compress(count(), map(not_, states))]
    return map(models.__getitem__, sorted(before[:MOST_MODELS]))


def load_fleet(path: Path) -> Kept | None:
    """Return the kept fleet, not connected and without speeds; None if there is none, or it cannot be trusted."""
    try:
        raw = json.loads(read_small(path, MAX_BYTES, only_ours=True).decode())
        if not isinstance(raw, dict) or raw.get("version") != VERSION or raw.get("shape") != _shape():
            return None
        models = _unpack_all(Model, raw.get("models"))
        if len({each.key for each in models}) != len(models) or type(raw.get("catalog")) is not str:
            return None
        (heard_at,) = _column(_FLOAT_OR_NONE, (raw.get("heard_at"),))
        (unlisted,) = _column(_INT, (raw.get("unlisted", 0),))
        (router,) = _unpack_all(RouterInfo, [raw.get("router")])
        connection = Connection(link=Link.CONNECTING, heard_at=heard_at)
        nodes = _unpack_all(Node, raw.get("nodes"))
        return Kept(Fleet(models, nodes, router, connection, unlisted=unlisted), raw["catalog"])
    except (OSError, ValueError, KeyError, RecursionError, MemoryError, _Untrusted):
        return None


def forget(path: Path, keys: Collection[str]) -> None:
    """Let the kept fleet know of a person's own deletions, so that the next start does not call them news.

    Raises:
        OSError: It cannot be written.
    """
    kept = load_fleet(path)
    if kept is None or not any(each.key in keys and each.is_local() for each in kept.fleet.models):
        return
    models = tuple(
        replace(each, state=ModelState.DELETING) if each.key in keys and each.is_local() else each
        for each in kept.fleet.models
    )
    save_fleet(path, replace(kept.fleet, models=models), kept.catalog)


def rejoin(catalog: Iterable[CatalogEntry], kept: Fleet | None) -> Fleet:
    """Join today's catalog with the states a kept fleet knew: an entry changed or gone since shows as it is today."""
    catalog = tuple(catalog)
    if kept is None:
        return Fleet(models=join_models(catalog, None))
    keys = {model_key(each.repo, each.file) for each in catalog}
    alive = [each for each in kept.models if each.key in keys or each.registered or each.placements]
    models = join_models(catalog, RouterReport(tuple(_as_told(each) for each in alive), kept.nodes))
    reasons = {each.key: each.reason for each in alive}
    return replace(kept, models=tuple(replace(each, reason=reasons.get(each.key, each.reason)) for each in models))


def _as_told(model: Model) -> RouterModel:
    """A kept model as its router described it."""
    return RouterModel(
        name=model.name,
        repo=model.repo,
        file=model.file,
        registered=model.registered,
        title=model.title,
        description=model.description,
        revision=model.revision,
        size_bytes=model.size_bytes,
        required_memory_bytes=model.required_memory_bytes,
        quantization=model.quantization,
        parameters=model.parameters,
        context_length=model.context_length,
        license=model.license,
        gated=model.gated,
        tags=model.tags,
        capabilities=model.capabilities,
        format=model.format,
        deleting=model.state is ModelState.DELETING,
        paused=model.paused,
        queue_position=model.queue_position,
        found=model.found,
        unusable=model.unusable,
        transfers=model.transfers,
        placements=model.placements,
        stats=model.stats,
    )


def _shape() -> str:
    """The classes' members, so that a file of another version of them is not read as this one's."""
    return ";".join(f"{kind.__name__}:{','.join(shape)}" for kind, shape in SHAPES.items())


def _pack(value: Any) -> list[Any]:
    """An instance as the list of its members."""
    packed: list[Any] = []
    for name, kind in SHAPES[type(value)].items():
        member = getattr(value, name)
        if kind is _ABILITIES:
            member = sorted(member)
        elif type(kind) is tuple:
            member = [_pack(each) for each in member]
        elif kind in SHAPES:
            member = None if member is None else _pack(member)
        packed.append(member)
    return packed


def _unpack_all(kind: type[T], rows: Any) -> tuple[T, ...]:
    """Instances from their packed members, checked by column: that costs less than looking at each value.

    Raises:
        _Untrusted: A value is not of its kind.
    """
    shape = SHAPES[kind]
    if type(rows) is not list or set(map(type, rows)) - {list} or set(map(len, rows)) - {len(shape)}:
        raise _Untrusted
    columns = zip(*rows, strict=True)
    checked = [_column(wanted, column) for wanted, column in zip(shape.values(), columns, strict=False)]
    if kind.__match_args__[: len(shape)] == tuple(shape):  # type: ignore[attr-defined]
        return tuple(starmap(kind, zip(*checked, strict=True)))
    return tuple(kind(**dict(zip(shape, values, strict=True))) for values in zip(*checked, strict=True))


def _column(kind: Any, column: tuple[Any, ...]) -> Iterable[Any]:
    """The values of one member, if all are of its kind."""
    default = {list, _NONE} if kind in SHAPES else {list} if type(kind) is tuple else {str}
    allowed = _TYPES.get(kind, default)
    if set(map(type, column)) - allowed:
        raise _Untrusted
    if kind in (_TEXT, _TEXT_OR_NONE):
        _check_texts(column, optional=kind is _TEXT_OR_NONE)
        return _shared(column)
    if kind is _TEXTS:
        _check_texts(_flat(column))
        return _shared(map(tuple, column))
    if kind is _ABILITIES:
        _check_texts(_flat(column))
        known = {str(each) for each in Ability}
        # One of a later version is left out: the router will be asked again anyhow.
        return [frozenset(Ability(each) for each in told if each in known) for told in column]
    if kind in (_BOOL, _BOOL_OR_NONE):
        return column
    if kind in (_INT, _INT_OR_NONE, _FLOAT, _FLOAT_OR_NONE):
        numbers = [each for each in column if each is not None]
        # A comparison with NaN is false, so this refuses it too.
        if numbers and not (min(numbers) >= 0 and max(numbers) < 2**63 and all(map(isfinite, numbers))):
            raise _Untrusted
        return column
    if type(kind) is tuple:
        inner = iter(_unpack_all(kind[0], _flat(column)))
        return _shared(tuple(islice(inner, len(each))) for each in column)
    if kind in SHAPES:
        single = iter(_unpack_all(kind, [each for each in column if each is not None]))
        return [None if each is None else next(single) for each in column]
    return map({str(each): each for each in kind}.__getitem__, column)


def _shared(values: Iterable[Any]) -> list[Any]:
    """The same values, equal ones as one object: JSON has a text anew for each model that has it."""
    known: dict[Any, Any] = {}
    return [known.setdefault(each, each) for each in values]


def _flat(column: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(column))


def _check_texts(texts: Iterable[Any], *, optional: bool = False) -> None:
    """Line breaks apart, whatever does not print is none of ours: it was cleaned before it was ever shown."""
    told = [each for each in texts if not (optional and each is None)]
    if set(map(type, told)) - {str} or max(map(len, told), default=0) > _MAX_TEXT:
        raise _Untrusted
    if not "".join(told).replace("\n", "").isprintable():
        raise _Untrusted
