"""The disk plan: is there room for a model, beside everything that is still to be written?

A pure function of what the node last told, so that the dashboard can answer at the press of a key. The node makes the
same calculation again, with fresh figures, before and while it writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelhub_tui.domain import IN_FLIGHT, Model, Node
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """One node's disk, if this model were fetched too. Bytes."""

    needs: int
    """Still to be written for this model."""
    free: int
    """Free now, less the floor that transfers leave alone, plus what emptying the trash gives."""
    queued: int
    """Still to be written for the other models that are queued, held or moving."""
    trash: int = 0
    """What of `free` only emptying the trash gives."""
    floor: int = 0
    """What transfers leave alone; already taken off `free`."""

    @property
    def short_by(self) -> int:
        """What is missing; 0 if it all fits."""
        return max(self.needs + self.queued - self.free, 0)

    def sentence(self) -> str:
        """Such as `needs 18.4 GB, free 22.1 GB, other queued 9.0 GB: short by 5.3 GB`.

        The trash is named when there is no room without it: then a pull empties it, or not even that would do. What is
        kept free is named when that is why there is none: the disk itself shows more.
        """
        trash = min(self.trash, self.free)
        said = f" ({human_size(trash)} of it trash)" if trash and self.needs + self.queued > self.free - trash else ""
        parts = [f"needs {human_size(self.needs)}", f"free {human_size(self.free)}{said}"]
        if self.floor and self.short_by:
            parts.append(f"kept free {human_size(self.floor)}")
        if self.queued:
            parts.append(f"other queued {human_size(self.queued)}")
        said = ", ".join(parts)
        return f"{said}: short by {human_size(self.short_by)}" if self.short_by else said


def plan_for(wanted: Iterable[Model], models: Iterable[Model], nodes: Iterable[Node]) -> DiskPlan | None:
    """Plan the disk of the node with the most room for pulling `wanted`.

    Args:
        models: Everything the router knows, `wanted` included.

    Returns:
        None while no node tells its free space, or no size is known.
    """
    wanted = tuple(wanted)
    keys = {model.key for model in wanted}
    missing = [left for model in wanted if (left := _missing(model)) is not None]
    rooms = [
        (_room(node), node.trash_bytes or 0, node.disk_floor_bytes or 0)
        for node in nodes
        if node.disk_free_bytes is not None
    ]
    if not rooms or not missing:
        return None
    free, trash, floor = max(
        rooms, key=lambda room: (room[0], -room[1])
    )  # of two with as much room, the one with less trash
    queued = sum(_missing(model) or 0 for model in models if model.state in IN_FLIGHT and model.key not in keys)
    return DiskPlan(needs=sum(missing), free=free, queued=queued, trash=trash, floor=floor)


def _room(node: Node) -> int:
    return max((node.disk_free_bytes or 0) + (node.trash_bytes or 0) - (node.disk_floor_bytes or 0), 0)


def _missing(model: Model) -> int | None:
    """Bytes of a model that are not on disk yet; None while its size is unknown."""
    total, transfer = model.size_bytes, model.transfer
    if transfer is not None and transfer.bytes_total is not None:
        return max(transfer.bytes_total - transfer.bytes_done, 0)
    return total
