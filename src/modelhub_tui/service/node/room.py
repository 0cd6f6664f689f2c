"""The disk plan: may this many bytes be written, with all the others that are still to come?"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.held import Held

FLOOR_BYTES = 512 * 1024 * 1024
_FLOOR_SHARE = 50
_COMING = frozenset({Phase.WAITING, Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING})


class DiskSpace:
    """What a disk told of itself when it was last asked, for those who must not wait for it."""

    def __init__(self, usage: Callable[[], tuple[int, int]]) -> None:
        self._usage = usage
        self._told: tuple[int, int] | None = None

    def look(self) -> tuple[int, int]:
        """Free and total bytes now. For threads: blocks, for ever on a network disk that is gone."""
        self._told = told = self._usage()
        return told

    def report(self, floor_of: Callable[[int], int]) -> dict[str, int | None]:
        """Members of a heartbeat; `floor_of` as `Room` has it. All None before the first look."""
        free, total = self._told or (None, None)
        floor = None if total is None else floor_of(total)
        return {"disk_free_bytes": free, "disk_total_bytes": total, "disk_floor_bytes": floor}


class Room:
    """The space on the disk of the model folder. Thread-safe.

    Args:
        usage: Free and total bytes of that disk.
    """

    def __init__(self, usage: Callable[[], tuple[int, int]], floor_bytes: int | None = None) -> None:
        self._usage = usage
        self.floor_bytes = floor_bytes
        """Free space that transfers leave alone; None means 2 % of the disk, at most 512 MiB."""
        self.reclaimable: Callable[[], int] = lambda: 0
        """Bytes that `make_room` would free if it freed all it can: the trash, less what anything else uses."""
        self.make_room: Callable[[int], object] = lambda _needed: None
        """Frees at least that many bytes, if there are so many to free. Blocks."""

    def free(self) -> int:
        """Bytes that may be written before the floor is touched; never negative."""
        return max(self._spare(), 0)

    def _spare(self) -> int:
        """Bytes above the floor; negative when it is touched already, which a transfer has to make up for first."""
        free, total = self._usage()
        return free - self.floor_of(total)

    def floor_of(self, total: int) -> int:
        """Free bytes that transfers leave alone on a disk of `total` bytes. Does not look at the disk."""
        return min(FLOOR_BYTES, total // _FLOOR_SHARE) if self.floor_bytes is None else self.floor_bytes

    def refusal(self, held: Held, models: Iterable[Held]) -> faults.Fault | None:
        """Why a model's transfer may not start, or go on; None if it may. Blocks while it empties the trash.

        What is still to be written before it counts: by those that run, and by those ahead of it in the queue. Not by
        those behind it, which would make all wait for each other; nor by those that are held or have failed, which
        write nothing. A transfer that runs already gives way only to others that run ahead of it.

        The trash is emptied only when that makes the transfer fit: what can still be had back is not given for nothing.
        """
        needs = held.progress.missing_bytes()
        if not needs:
            return None
        others = sum(each.progress.missing_bytes() for each in models if each is not held and _comes_first(each, held))
        short_by = needs + others - self._spare()
        if 0 < short_by <= self.reclaimable():
            self.make_room(short_by)
            short_by = needs + others - self._spare()
        if short_by <= 0:
            return None
        trash = self.reclaimable()
        return faults.no_space(needs, max(self._spare() + trash, 0), others, trash)


def _comes_first(other: Held, held: Held) -> bool:
    if not other.unfinished or other.entry.paused:
        return False
    if held.job is not None:
        return other.job is not None and other.order < held.order
    return other.job is not None or (other.order < held.order and other.progress.current_phase in _COMING)
