"""Fleets of a service with a queue, a trash and nearly full disks."""

from __future__ import annotations

from dataclasses import replace

from modelhub_tui.domain import Event, Fleet, ModelState, Trashed
from tests.tui import fleets

GB = 1_000_000_000
HISTORY = (
    Event(fleets.NOW - 90_000, "started"),
    Event(fleets.NOW - 400, "stalled at 1.2 GB, retried"),
    Event(fleets.NOW - 60, "gpu-01 was restarted; went on from 1.7 GB"),
)
TRASHED = (
    Trashed("qwen", "Qwen2.5 7B Instruct", "b/q", "q.gguf", 5 * GB, fleets.NOW - 600, fleets.NOW + 3_000, ("gpu-01",)),
    Trashed("nemo", "Mistral Nemo", "b/n", None, 8 * GB, fleets.NOW - 90_600, fleets.NOW + 300_000, ("gpu-02",)),
)


def troubled() -> Fleet:
    """Everything a transfer can be in trouble with, in queue order, on disks with 6 GB left."""
    busy = fleets.busy()
    models = list(busy.models)
    first = models[0].transfers[0]
    models[0] = replace(
        models[0],
        queue_position=1,
        transfers=(
            replace(
                first,
                stalled_s=12.0,
                bytes_per_s=0.0,
                eta_s=None,
                refetched_bytes=1_200_000_000,
                file_index=2,
                file_count=5,
                history=HISTORY,
            ),
        ),
    )
    models[2] = replace(models[2], queue_position=4)
    models[5] = replace(models[5], queue_position=2, transfers=(replace(models[5].transfers[0], stalled_s=12.0),))
    held = replace(models[6].transfers[0], error_code="paused")
    models[6] = replace(models[6], paused=True, queue_position=3, transfers=(held,))
    full = fleets.paused(models[10])
    models[10] = replace(full, queue_position=5, transfers=(replace(full.transfers[0], error_code="no_space"),))
    gone = fleets.downloading(models[11], 0.4, orphaned=True, bytes_per_s=None, eta_s=None)
    models[11] = replace(gone, state=ModelState.FAILED, reason="gpu-01 is offline; nobody works on this download.")
    models[12] = replace(fleets.downloaded(models[12]), registered=False, found=True)
    nodes = tuple(
        replace(each, models_bytes=61 * GB, trash_bytes=trash, disk_free_bytes=6 * GB, disk_floor_bytes=GB // 2)
        for each, trash in zip(busy.nodes, (5 * GB, 8 * GB), strict=True)
    )
    return replace(busy, models=tuple(models), nodes=nodes)


def waiting(*positions: int) -> Fleet:
    """A queue of as many models, whose first ones in the list have these places in it."""
    models = list(fleets.catalog())
    for at, position in enumerate(positions):
        models[at] = replace(fleets.queued(models[at]), queue_position=position)
    return fleets.fleet(models=tuple(models))
