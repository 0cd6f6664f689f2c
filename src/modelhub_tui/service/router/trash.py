"""What was deleted and can be had back: the registrations. Their bytes are in the nodes' trash."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from modelhub_tui.domain import Limits, Trashed
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.fleet import Fleet
from modelhub_tui.service.router.records import Registration
from modelhub_tui.service.router.registry import Draft, Registry


class Trash:
    """The deleted models of a registry: which there are, and how long.

    Args:
        clock: Wall clock: an hour in the trash is an hour also while the service does not run.
        monotonic: While it runs this one counts, so that a wall clock that jumps by an hour empties no trash.
    """

    def __init__(
        self,
        registry: Registry,
        fleet: Fleet,
        limits: Callable[[], Limits],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._fleet, self._limits = registry, fleet, limits
        self._monotonic, self._wall_at_start, self._started = monotonic, clock(), monotonic()

    def __contains__(self, name: object) -> bool:
        """Whether a deleted model's bytes are to be kept; also of one whose record cannot be read."""
        return name in self._registry.binned or name in self._registry.unreadable_trash

    def names(self) -> tuple[str, ...]:
        """Of all deleted models that can be had back."""
        return tuple(self._registry.binned)

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
            for record, at in sorted(self._registry.binned.values(), key=lambda kept: -kept[1])
        ]

    def put(self, draft: Draft, record: Registration) -> None:
        """Keep the registration of a model that an order deletes."""
        before = self._registry.binned.get(record.name)
        draft.bin(record if before is None else record.after(before[0]), self._now())

    def get(self, name: str) -> Registration:
        """The registration of a deleted model.

        Raises:
            Refused: `not_in_trash`.
        """
        binned = self._registry.binned
        kept = binned.get(name) or binned.get(name.lower())
        if kept is None:
            raise Refused("not_in_trash", f"{name} is not in the trash (any more).", status=404)
        return kept[0]

    def free(self, draft: Draft, record: Registration) -> None:
        """Forget a deleted model, and have nodes free its bytes."""
        draft.unbin(record.name)
        for each in dict.fromkeys((*record.earlier, record.id)):
            draft.remove(replace(record, id=each), keep=False)

    async def empty(self, name: str | None = None) -> None:
        """Free a deleted model for good, or all of them.

        Raises:
            Refused: `not_in_trash`.
        """

        def work(draft: Draft) -> None:
            if name is not None:
                self.free(draft, self.get(name))
                return
            for record, _ in self._registry.binned.values():
                self.free(draft, record)
            for row in self._registry.unreadable_trash.values():  # nothing can bring them back
                draft.drop_unreadable(row)

        await self._registry.change(work)

    async def tidy(self) -> None:
        """Forget what is too old, what no node could put back, and what was registered again just as it was."""
        await self._registry.change(self._tidy)

    def _tidy(self, draft: Draft) -> None:
        limit_s, now = self._limits().trash_seconds, self._now()
        for row in self._registry.unreadable_trash.values():
            if now - row.at >= limit_s:
                draft.drop_unreadable(row)
        # A node that was not heard yet, or is away, may still hold what no other one does.
        all_told = self._fleet.all_told
        for name, (kept, at) in self._registry.binned.items():
            record = self._registry.records.get(name)  # also while nodes are still at removing it
            held = record is not None or self._fleet.holds(name) or self._fleet.trash_of(name)
            if now - at >= limit_s:
                self.free(draft, kept)
            elif record is not None and not record.deleting and record.files == kept.files:
                draft.unbin(name)  # what the node kept of it was put back
            elif all_told and not held:
                draft.unbin(name)

    def _now(self) -> float:
        return self._wall_at_start + self._monotonic() - self._started
