"""What was deleted and can be had back: the registrations. Their bytes are in the nodes' trash."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelhub_tui.domain import Limits, Trashed
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.fleet import Fleet
from modelhub_tui.service.router.records import Registration
from modelhub_tui.service.router.store import Rows, Store


class Trash:
    """Deleted models by name, in memory, written through to the store.

    Args:
        rows: What the store held at start.
        clock: Wall clock: an hour in the trash is an hour also while the service does not run.
        monotonic: While it runs this one counts, so that a wall clock that jumps by an hour empties no trash.
    """

    def __init__(
        self,
        store: Store,
        rows: Rows,
        fleet: Fleet,
        changes: Changes,
        limits: Callable[[], Limits],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._fleet, self._changes, self._limits = store, fleet, changes, limits
        self._monotonic, self._wall_at_start, self._started = monotonic, clock(), monotonic()
        self._kept = {record.name: (record, at) for record, at in rows.trash}
        self._unreadable = {row.name: row for row in rows.unreadable if row.table == "trash"}

    def __contains__(self, name: object) -> bool:
        """Whether a deleted model's bytes are to be kept; also of one whose record cannot be read."""
        return name in self._kept or name in self._unreadable

    def names(self) -> tuple[str, ...]:
        """Of all deleted models that can be had back."""
        return tuple(self._kept)

    def listing(self) -> list[Trashed]:
        """What can be had back, the newest first."""
        ttl = self._limits().trash_seconds
        return [
            Trashed(
                name=record.name,
                title=record.title or record.name,
                repo=record.repo,
                file=record.filename,
                bytes=sum(count for _, count in self._fleet.trash_of(record.name)) or record.size,
                deleted_at=at,
                expires_at=at + ttl,
                nodes=tuple(node.name for node, _ in self._fleet.trash_of(record.name)),
            )
            for record, at in sorted(self._kept.values(), key=lambda kept: -kept[1])
        ]

    async def put(self, record: Registration) -> None:
        """Keep a registration that is about to be deleted; durable when this returns.

        Raises:
            StoreFailed: The database cannot be written.
        """
        at = self._now()
        await self._store.put_trash(record, at)
        self._kept[record.name] = (record, at)
        self._unreadable.pop(record.name, None)  # it was written over

    def get(self, name: str) -> Registration:
        """The registration of a deleted model.

        Raises:
            Refused: `not_in_trash`.
        """
        kept = self._kept.get(name) or self._kept.get(name.lower())
        if kept is None:
            raise Refused("not_in_trash", f"{name} is not in the trash (any more).", status=404)
        return kept[0]

    async def drop(self, name: str) -> None:
        """Forget a deleted model; nodes then free its bytes. Nothing happens when it is not there."""
        if name in self._kept:
            await self._store.drop_trash(name)
            self._kept.pop(name, None)
            self._changes.touch()

    async def drop_unreadable(self, before: float | None = None) -> None:
        """Forget the records that cannot be read, which nothing can bring back.

        Args:
            before: Only those of models that were deleted before this time.
        """
        for name, row in [*self._unreadable.items()]:
            if before is None or row.at <= before:
                await self._store.drop_unreadable(row)
                self._unreadable.pop(name, None)
                self._changes.touch()

    async def tidy(self, registered: Callable[[str], Registration | None]) -> None:
        """Forget what is too old, what no node could put back, and what was registered again just as it was.

        Args:
            registered: The registration of a name, also while nodes are still at removing it; None without one.
        """
        limit_s, now = self._limits().trash_seconds, self._now()
        await self.drop_unreadable(now - limit_s)
        # A node that was not heard yet, or is away, may still hold what no other one does.
        all_told = self._fleet.all_told
        for name, (kept, at) in [*self._kept.items()]:
            record = registered(name)
            again = record is not None and not record.deleting and record.files == kept.files
            held = record is not None or self._fleet.holds(name) or self._fleet.trash_of(name)
            if now - at >= limit_s or again or (all_told and not held):
                await self.drop(name)

    def _now(self) -> float:
        return self._wall_at_start + self._monotonic() - self._started
