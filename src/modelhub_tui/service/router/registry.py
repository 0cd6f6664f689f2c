"""The registered models, in memory, written through to the store; and the names they get."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace

from modelhub_tui.domain import CatalogEntry, Place
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.records import Registration
from modelhub_tui.service.router.store import Store, Unreadable
from modelhub_tui.service.router.supported import Supported, suffixed


class Taken(Exception):
    """The model is registered already, as `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Registry:
    """Registered models by name, in registration order.

    Args:
        records: What the store held at start.
        unreadable: Registrations there that cannot be used.
    """

    def __init__(
        self,
        store: Store,
        catalog: Iterable[CatalogEntry],
        changes: Changes,
        records: Iterable[Registration],
        unreadable: Iterable[Unreadable] = (),
    ) -> None:
        self.supported = Supported(catalog)
        """What is meant where a request names no catalog."""
        self.records: dict[str, Registration] = {}
        self.unreadable = {row.name: row for row in unreadable}
        """Registrations whose records cannot be used, by the name they go by; registering one again replaces it."""
        self._names_of_repo: dict[str, set[str]] = {}
        for record in records:
            self._put(record)
        self._store = store
        self._changes = changes
        self._lock = asyncio.Lock()

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

    async def add(self, record: Registration, supported: Supported | None = None) -> Registration:
        """Store a new model under its final name; durable when this returns.

        Args:
            record: With a name (restored, adopted) it keeps that; without, it gets the next free one.
            supported: The catalog that says which names are whose; None for the service's own.

        Raises:
            Taken: Somebody registered it meanwhile, or another model under this name.
            BadRecord: It has something in it that no registration can have.
            StoreFailed: The database cannot be written.
        """
        async with self._lock:
            there = self.find(record.repo, record.filename)
            if there is not None:
                raise Taken(there.name)
            name = record.name or self.name_for(record.repo, record.filename, record.quantization, supported)
            # Read back as it will be after a restart: what cannot be read is not written.
            record = Registration.from_json(replace(record, name=name).to_json())
            before = self.records.get(name)
            if before is not None and not before.deleting:
                raise Taken(name)
            if before is not None:
                # Registered again while a node still deletes it: a higher attempt, so that nodes see a new wish.
                record = replace(record, attempt=before.attempt + 1)
            last = max((each.queue for each in self.records.values()), default=0.0)
            record = replace(record, queue=last + 1)
            await self._store.put_model(record)
            self._put(record)
            self._changes.touch()
            return record

    async def update(self, record: Registration) -> None:
        """Store a changed model; durable when this returns."""
        async with self._lock:
            await self._store.put_model(record)
            self._put(record)
            self._changes.touch()

    def in_queue(self) -> list[Registration]:
        """All models that nodes are to hold, in the order in which they take them up."""
        alive = [record for record in self.records.values() if not record.deleting]
        return sorted(alive, key=lambda record: record.queue)  # stable: equals stay in order of registration

    async def move(self, record: Registration, to: Place, among: list[Registration]) -> None:
        """Give a model another place.

        Args:
            among: The models that count, in queue order, `record` with them.
        """
        at = next(index for index, each in enumerate(among) if each.name == record.name)
        others = among[:at] + among[at + 1 :]
        wanted = {Place.FIRST: 0, Place.EARLIER: max(at - 1, 0), Place.LATER: at + 1, Place.LAST: len(others)}[to]
        before, after = others[:wanted], others[wanted:]
        low = before[-1].queue if before else None
        high = after[0].queue if after else None
        if low is not None and high is not None and not low < (low + high) / 2 < high:
            # No number is left between the two: number all of them anew.
            for number, each in enumerate([*before, record, *after], start=1):
                await self.update(replace(self.records[each.name], queue=float(number)))
            return
        place = 0.0 if low is None and high is None else (high or 0.0) - 1 if low is None else low + 1
        if low is not None and high is not None:
            place = (low + high) / 2
        await self.update(replace(record, queue=place))

    async def retry(self, name: str) -> bool:
        """Count one more attempt, so that nodes start over; False if `name` is not registered."""
        record = self.records.get(name)
        if record is None or record.deleting:
            return False
        await self.update(replace(record, attempt=record.attempt + 1))
        return True

    async def drop(self, name: str) -> None:
        """Forget a model for good."""
        async with self._lock:
            await self._store.drop_model(name)
            if self._pop(name):
                self._changes.touch()

    async def drop_unreadable(self, row: Unreadable) -> None:
        """Forget a registration that cannot be used."""
        async with self._lock:
            if self.unreadable.get(row.name) is row:
                await self._store.drop_unreadable(row)
                del self.unreadable[row.name]
                self._changes.touch()

    async def drop_if_deleting(self, name: str) -> None:
        """Forget a model that every node has removed, unless it was registered again meanwhile."""
        async with self._lock:
            record = self.records.get(name)
            if record is not None and record.deleting:
                await self._store.drop_model(name)
                self._pop(name)
                self._changes.touch()
