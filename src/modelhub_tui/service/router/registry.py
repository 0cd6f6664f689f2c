"""What is registered, what was deleted, what nodes are to remove: in memory, written through to the store.

Whatever is changed is changed by `Registry.change()`: one order at a time, and each in one transaction.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from modelhub_tui.domain import CatalogEntry
from modelhub_tui.service.router import rows
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.records import Registration, Removal
from modelhub_tui.service.router.store import Store
from modelhub_tui.service.router.supported import Supported, suffixed

T = TypeVar("T")
MAX_REMOVALS = 10_000
"""Orders that wait for nodes; beyond that the oldest is given up, and what it was about stays where it is."""


class Taken(Exception):
    """The model is registered already, as `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Registry:
    """Registered models by name, in registration order; deleted ones; and the orders to remove them.

    Args:
        remembered: What the store held at start.
    """

    def __init__(
        self,
        store: Store,
        catalog: Iterable[CatalogEntry],
        changes: Changes,
        remembered: rows.Rows,
    ) -> None:
        self.supported = Supported(catalog)
        """What is meant where a request names no catalog."""
        self.records: dict[str, Registration] = {}
        self.unreadable = {row.name: row for row in remembered.unreadable if row.table == "models"}
        """Registrations whose records cannot be used, by the name they go by; registering one again replaces it."""
        self.binned = {record.name: (record, at) for record, at in remembered.trash}
        """Deleted models that can be had back, by name, and when each was deleted."""
        self.unreadable_trash = {row.name: row for row in remembered.unreadable if row.table == "trash"}
        self.removals = {each.registration: each for each in remembered.removals}
        """What nodes are to remove, by registration, the oldest order first."""
        self._names_of_repo: dict[str, set[str]] = {}
        for record in remembered.models:
            self._put(record)
        self._store = store
        self._changes = changes
        self._lock = asyncio.Lock()
        self._at_work: set[asyncio.Task[Any]] = set()

    def find(self, repo: str, file: str) -> Registration | None:
        """The registered model that holds this file of this repo; None if there is none, or it is being deleted."""
        for record in self._of_repo(repo):
            held = any(each.path == file and each.repo == record.repo for each in record.files)
            if not record.deleting and (held or file == record.filename):
                return record
        return None

    def _of_repo(self, repo: str) -> list[Registration]:
        return [self.records[name] for name in sorted(self._names_of_repo.get(repo.lower(), ()))]

    def _put(self, record: Registration) -> None:
        self.records[record.name] = record
        self.unreadable.pop(record.name, None)
        self._names_of_repo.setdefault(record.repo.lower(), set()).add(record.name)

    def _pop(self, name: str) -> bool:
        record = self.records.pop(name, None)
        if record is not None:
            self._names_of_repo[record.repo.lower()].discard(name)
        return record is not None

    def name_for(self, repo: str, file: str, quantization: str = "", supported: Supported | None = None) -> str:
        """The name that registering this file gives: `lower(repo)`, with a suffix when that is another file's.

        A catalog entry's name does not depend on what was registered first.
        """
        base, supported = repo.lower(), supported or self.supported
        same = next((each.name for each in self._of_repo(base) if each.filename == file), None)
        if same is not None:
            return same
        entry = supported.entry_for(base, file)
        own = supported.names_of(base)[entry.id] if entry is not None else base
        # What an unreadable record was about is not known, unless the name is a catalog entry's own.
        free = own not in self.records and (entry is not None or own not in self.unreadable)
        return own if free else self._suffixed_name(base, file, quantization, (), supported)

    def new_name(
        self, repo: str, file: str, quantization: str, taken: Iterable[str], supported: Supported | None = None
    ) -> str:
        """A name for a file that is in no catalog, which neither a model nor a catalog entry nor `taken` has."""
        base, taken, supported = repo.lower(), {*taken}, supported or self.supported
        if not supported.names_of(base) and not any(base in names for names in (self.records, self.unreadable, taken)):
            return base
        return self._suffixed_name(base, file, quantization, taken, supported)

    def _suffixed_name(
        self, base: str, file: str, quantization: str, taken: Collection[str], supported: Supported
    ) -> str:
        others = {*supported.names_of(base).values(), *self.unreadable, *taken}
        return next(
            name for name in suffixed(base, file, quantization) if name not in self.records and name not in others
        )

    # -- changes --------------------------------------------------------------------------------------------------

    async def change(self, work: Callable[[Draft], T]) -> T:
        """Carry out one order: all of it or nothing, and nothing of another one between; durable when this returns.

        Args:
            work: Looks at what is registered *then*, tells the draft what is to be, and must not wait. What it raises
                is raised, and nothing is changed.

        Raises:
            StoreFailed: The database cannot be written.
        """
        # Shielded: a caller that hangs up must not part memory from what is written.
        task = asyncio.create_task(self._change(work))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _change(self, work: Callable[[Draft], T]) -> T:
        async with self._lock:
            draft = Draft(self)
            result = work(draft)
            if draft.writes:
                await self._store.apply(draft.writes)
                for step in draft.steps:
                    step()
                self._changes.touch()
            return result

    async def settle(self) -> None:
        """Wait for the orders under way."""
        await asyncio.gather(*self._at_work, return_exceptions=True)

    async def add(self, record: Registration, supported: Supported | None = None) -> Registration:
        """Register a model under its final name; durable when this returns. Raises as `enter()`, and StoreFailed."""
        return await self.change(lambda draft: self.enter(draft, record, supported))

    def enter(self, draft: Draft, record: Registration, supported: Supported | None = None) -> Registration:
        """Register a model, as a part of an order. It gets an identity, and the last place in the queue.

        Args:
            record: With a name (restored, adopted) it keeps that; without, it gets the next free one.
            supported: The catalog that says which names are whose; None for the service's own.

        Raises:
            Taken: Somebody registered it meanwhile, or another model under this name.
            BadRecord: It has something in it that no registration can have.
        """
        there = self.find(record.repo, record.filename)
        if there is not None:
            raise Taken(there.name)
        name = record.name or self.name_for(record.repo, record.filename, record.quantization, supported)
        before = self.records.get(name)
        if before is not None and not before.deleting:
            raise Taken(name)
        # Registered again while a node still deletes it: a higher attempt, so that nodes see a new wish.
        attempt = record.attempt if before is None else before.attempt + 1
        queue = max((each.queue for each in self.records.values()), default=0.0) + 1
        record = replace(record, name=name, id=str(uuid.uuid4()), attempt=attempt, queue=queue, deleting=False)
        # Read back as it will be after a restart: what cannot be read is not written.
        record = Registration.from_json(record.to_json())
        draft.put(record)
        return record

    def in_queue(self) -> list[Registration]:
        """All models that nodes are to hold, in the order in which they take them up."""
        alive = [record for record in self.records.values() if not record.deleting]
        return sorted(alive, key=lambda record: record.queue)  # stable: equals stay in order of registration


class Draft:
    """What one order changes: statements for the database, and the same for memory once that is written."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.writes: list[rows.Write] = []
        self.steps: list[Callable[[], object]] = []

    def _add(self, step: Callable[[], object], *writes: rows.Write) -> None:
        self.writes += writes
        self.steps.append(step)

    def put(self, record: Registration) -> None:
        """Register a model, or change what is registered."""
        self._add(lambda: self._registry._put(record), rows.put_model(record))

    def drop(self, name: str) -> None:
        """Forget a model."""
        self._add(lambda: self._registry._pop(name), rows.drop_model(name))

    def bin(self, record: Registration, at: float) -> None:
        """Keep a deleted model's registration for a while; `at` is in seconds since the epoch."""

        def step() -> None:
            self._registry.binned[record.name] = (record, at)
            self._registry.unreadable_trash.pop(record.name, None)  # it was written over

        self._add(step, rows.put_trash(record, at))

    def unbin(self, name: str) -> None:
        """Forget a deleted model."""
        self._add(lambda: self._registry.binned.pop(name, None), rows.drop_trash(name))

    def remove(self, record: Registration, *, keep: bool) -> None:
        """Order nodes to take a registration's files off the disk; an earlier order about it is replaced.

        Args:
            keep: Into the trash. Else they are freed, also what is in the trash already.
        """
        removal = Removal(str(uuid.uuid4()), record.id, record.name, keep)
        removals = self._registry.removals

        def step() -> None:
            removals.pop(removal.registration, None)
            removals[removal.registration] = removal

        self._add(step, *rows.put_removal(removal))
        if len(removals) >= MAX_REMOVALS:  # of nodes that never come back
            self.confirm(next(iter(removals)))

    def confirm(self, registration: str) -> None:
        """Every node has carried out an order."""
        self._add(lambda: self._registry.removals.pop(registration, None), rows.drop_removal(registration))

    def drop_unreadable(self, row: rows.Unreadable) -> None:
        """Forget a row that cannot be used."""
        of = self._registry.unreadable if row.table == "models" else self._registry.unreadable_trash
        self._add(lambda: of.pop(row.name, None), rows.drop_unreadable(row))
