"""What a heartbeat says about the models of this node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelhub_tui.domain import Phase
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.held import Held
from modelhub_tui.service.node.record import Entry, State

MAX_PATHS = 500
"""Most files of one model whose places are told: enough for any set of shards."""
_MOVING = (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)


def report(models: Iterable[Held], cache: Cache) -> dict[str, Any]:
    """Members of a heartbeat: transfers in the queue's order, placements, and the upstream's single progress."""
    transfers, stuck, placements, loaded = [], [], [], []
    failed = False
    for held in sorted(models, key=lambda each: each.order):
        entry = held.entry
        if is_placed(entry):
            more = {"error": held.stuck or None, "shared_bytes": held.shared_bytes}
            placements.append({**_placement(held, cache), **more})
            loaded.append(entry.name)
        else:
            snapshot = held.progress.snapshot()
            failed |= snapshot.phase is Phase.FAILED or snapshot.retry_in_s is not None
            stuck.append(held.stuck)
            transfers.append(snapshot)
    moving = [each for each in transfers if each.phase in _MOVING]
    told: dict[str, Any] = {
        "loaded_models": loaded,
        "sync_state": "running" if moving else "failed" if failed else "success",
        "transfers": [
            {**each.as_wire(), "error": why} if why else each.as_wire()
            for each, why in zip(transfers, stuck, strict=True)
        ],
        "placements": placements,
    }
    if moving:
        first = max(moving, key=lambda each: each.bytes_done)
        told["sync_progress"] = {
            "model_id": first.name,
            "file": first.file or "",
            "downloaded_bytes": first.bytes_done,
            "total_bytes": first.bytes_total or 0,
        }
    return told


def is_placed(entry: Entry) -> bool:
    """Whether a model is told as whole: until the last of its files is gone."""
    return entry.whole and entry.state in (State.WHOLE, State.REMOVING)


def _placement(held: Held, cache: Cache) -> dict[str, Any]:
    """Made once for the same files: heartbeats are many, and so may be the files."""
    entry = held.entry
    if held.placement is None or held.placement[0] is not entry.files:
        held.placement = (entry.files, _described(entry, cache))
    return held.placement[1]


def _described(entry: Entry, cache: Cache) -> dict[str, Any]:
    files = [each for each in entry.files if each.commit]
    paths = [str(cache.path_of(each)) for each in files[:MAX_PATHS]]
    blobs = {(each.repo, each.etag): each.size or 0 for each in entry.files}
    return {
        "name": entry.name,
        "path": paths[0] if paths else None,
        "paths": paths,
        "disk_bytes": sum(blobs.values()),
        "verified": all(each.digest is not None for each in files),
        "unverified": [path for each, path in zip(files, paths, strict=False) if each.digest is None],
    }
