"""The router's parts put together, and what can be done with them. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from modelhub_tui.domain import CatalogEntry, Limits, Phase, Place
from modelhub_tui.service.limits import LIMITS_FILE
from modelhub_tui.service.router import rows
from modelhub_tui.service.router.bodies import FoundBody, Heartbeat, NodeBody, RegisterBody
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.fleet import Fleet, LiveNode
from modelhub_tui.service.router.hub import Hub
from modelhub_tui.service.router.limits_file import LimitsFile
from modelhub_tui.service.router.listing import Listing
from modelhub_tui.service.router.queue import moved
from modelhub_tui.service.router.records import BadRecord, Registration
from modelhub_tui.service.router.registry import Draft, Registry, Taken
from modelhub_tui.service.router.resolve import Resolver
from modelhub_tui.service.router.stats import StatsFeed
from modelhub_tui.service.router.store import Store, StoreFailed
from modelhub_tui.service.router.supported import Catalogs, Supported
from modelhub_tui.service.router.trash import Trash
from modelhub_tui.states import FitKind, fit
from modelhub_tui.units import human_size

log = logging.getLogger(__name__)

TICK_S = 1.0
SAVE_AGAIN_S = 10.0
"""Pause before what could not be written is tried again."""


class Router:
    """Models, nodes and everything that is known about them. Create it on the event loop.

    Args:
        catalog: What is meant where a request names no catalog.
        stats_dir: Where hub statistics are cached; None reports none.
        catalog_dir: Where the checked forms of other catalogs are kept.
        limits: What holds until somebody changes it.
    """

    def __init__(
        self,
        store: Store,
        catalog: Iterable[CatalogEntry],
        endpoint: str,
        *,
        stats_dir: Path | None = None,
        catalog_dir: Path | None = None,
        hub: Hub | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.store = store
        self._limits = LimitsFile(store.path.with_name(LIMITS_FILE))
        self.limits = self._limits.read(limits or Limits(), store.get_meta("limits"))
        self.changes = Changes()
        remembered = store.load()
        for row in remembered.unreadable:
            log.warning("%s of the database cannot be read, and is left out: %s", row.name, row.reason)
        self._clock = clock
        self.registry = Registry(store, catalog, self.changes, remembered)
        self.fleet = Fleet(self.changes, remembered.nodes, clock=clock, monotonic=monotonic)
        self.trash = Trash(self.registry, self.fleet, lambda: self.limits, clock, monotonic)
        self.resolver = Resolver(self.registry, hub or Hub(endpoint), clock=clock)
        self.stats = StatsFeed(stats_dir, endpoint, self._repos, self.changes.touch) if stats_dir is not None else None
        self.listing = self._listing(self.registry.supported)
        self._listings = Catalogs(self._listing, catalog_dir)
        self.listing.told_by_heartbeat = lambda: (self.limits, self.trash.names())
        self.longest_pause_s = 0.0
        """How late the event loop has come back at most, as far as one look a second tells."""
        self._tasks: list[asyncio.Task[None]] = []
        self._unsaved: set[str] = set()
        self._save = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin what runs in the background."""
        self._tasks.append(asyncio.create_task(self._tick()))
        self._tasks.append(asyncio.create_task(self._save_nodes()))
        if self.stats is not None:
            self._tasks.append(asyncio.create_task(self.stats.run()))

    async def stop(self) -> None:
        """Send waiting readers home, end the background work and write what is left. The store stays open."""
        self.changes.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.registry.settle()
        with contextlib.suppress(StoreFailed):
            await self._write_nodes()

    @property
    def busy(self) -> bool:
        """True while there is work that an exit would interrupt or put off.

        What waits for a place, a node or room on the disk is such work: it is to go on by itself. What waits for a
        person, because one paused it or because it gave up, is not.
        """
        return self.fleet.moving or any(self._is_work(record) for record in self.registry.records.values())

    def _is_work(self, record: Registration) -> bool:
        if record.deleting:
            return True
        if record.paused or self.fleet.placements_of(record.name):
            return False
        phases = [transfer.phase for _, transfer in self.fleet.transfers_of(record.name)]
        return not phases or any(each is not Phase.FAILED for each in phases)

    async def _tick(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            self.longest_pause_s = max(self.longest_pause_s, clock() - due)
            self.fleet.tick()
            with contextlib.suppress(StoreFailed):
                await self.store.check()
                await self.trash.tidy()

    async def _save_nodes(self) -> None:
        """Write changed nodes behind their heartbeats.

        What nodes say can be heard again, so a full disk must not make the router refuse it: that is when people need
        to see what happens.
        """
        while True:
            await self._save.wait()
            self._save.clear()
            try:
                await self._write_nodes()
                await self._drop_removed()
            except StoreFailed as error:
                log.error("store: %s", error.reason)
                self._save.set()
                await asyncio.sleep(SAVE_AGAIN_S)

    async def _write_nodes(self) -> None:
        for node_id in [*self._unsaved]:
            node = self.fleet.nodes.get(node_id)
            if node is not None:
                await self.store.apply([rows.put_node(node.record)])
            self._unsaved.discard(node_id)

    def _save_soon(self, node: LiveNode) -> None:
        self._unsaved.add(node.id)
        self._save.set()

    def _repos(self) -> list[str]:
        catalogs = [each.supported.entries for each in (self.listing, *self._listings.held)]
        return [*(each.repo for each in chain(*catalogs)), *(each.repo for each in self.registry.records.values())]

    def _listing(self, supported: Supported) -> Listing:
        known = lambda: self.stats.known if self.stats else {}  # noqa: E731
        return Listing(self.registry, self.fleet, self.changes, known, supported)

    async def listing_of(self, catalog: Path | None) -> Listing:
        """What is listed to somebody who goes by the catalog in this file; None for the service's own.

        Raises:
            Refused: `bad_catalog`: it cannot be used.
        """
        return self.listing if catalog is None else await self._listings.at(catalog)

    # -- models ---------------------------------------------------------------------------------------------------

    async def register(self, body: RegisterBody, catalog: Path | None = None) -> tuple[Registration, list[str]]:
        """Register a model; durable when this returns.

        Args:
            catalog: As for `listing_of()`.

        Returns:
            The record, and warnings for the person.

        Raises:
            Refused: With a code and a sentence.
            StoreFailed: The database cannot be written.
        """
        try:
            supported = (await self.listing_of(catalog)).supported
            resolved = await self.resolver.resolve(body, supported)
            record = await self.registry.add(resolved.record, supported)
        except Taken as error:
            raise Refused("already_registered", "Model already registered", name=error.name) from error
        except BadRecord as error:
            raise Refused("unsupported", f"This model cannot be registered: {error}.") from error
        log.info("registered %s: %s, %d files, %d bytes", record.name, record.revision, len(record.files), record.size)
        return record, [*resolved.warnings, *self._room(record)]

    async def delete(self, name: str, *, cancel: bool = False, keep: bool = True) -> None:
        """Deregister a model; nodes then remove it.

        Args:
            cancel: Also while a transfer of it runs.
            keep: If it is whole somewhere, let it be had back for a while.

        Raises:
            Refused: `not_registered`, `transfer_running`.
        """
        try:
            gone = await self.registry.change(lambda draft: self._delete(draft, name, cancel, keep))
        except StoreFailed as error:
            if not error.full:
                raise
            # On a full disk people delete to make room: that goes before having it back.
            log.warning("%s cannot be kept in the trash: %s", name, error.reason)
            gone = await self.registry.change(lambda draft: self._delete(draft, name, cancel, False))
        log.info("deregistered %s", gone)
        self.fleet.forget_orphans(gone)
        # A node may have reported its removal while that was being written.
        await self._forget_removed()

    def _delete(self, draft: Draft, name: str, cancel: bool, keep: bool) -> str:
        """The part of `delete()` that nothing may come between; returns the registered name."""
        record = self.registry.records.get(name) or self.registry.records.get(name.lower())
        broken = self.registry.unreadable.get(name) or self.registry.unreadable.get(name.lower())
        if record is None and broken is not None:
            draft.drop_unreadable(broken)
            return broken.name
        if record is None or record.deleting:
            # Upstream answers 400 here, and clients know it.
            raise Refused("not_registered", "model not found", status=400)
        if not cancel and self.fleet.runs(record.name):
            what = "It is being downloaded; cancel that, or ask for both with ?cancel=true."
            raise Refused("transfer_running", what, name=record.name, status=409)
        keep = keep and bool(self.limits.trash_seconds) and bool(self.fleet.placements_of(record.name))
        if keep:
            self.trash.put(draft, replace(record, paused=False))
        elif record.name in self.registry.binned:
            self.trash.free(draft, self.registry.binned[record.name][0])
        draft.remove(record, keep=keep)
        if self.fleet.holds(record.name, online=True):
            draft.put(replace(record, deleting=True))
        else:
            draft.drop(record.name)
        return record.name

    async def restore(self, name: str) -> Registration:
        """Take a deletion back; the hub is not asked.

        Raises:
            Refused: `not_in_trash`, `already_registered`.
        """

        def work(draft: Draft) -> Registration:
            kept = self.trash.get(name)
            record = self.registry.enter(draft, kept.after(kept))
            draft.unbin(record.name)
            return record

        try:
            record = await self.registry.change(work)
        except Taken as error:
            raise Refused("already_registered", "Model already registered", name=error.name, status=409) from error
        log.info("restored %s", record.name)
        return record

    async def adopt(self, name: str, catalog: Path | None = None) -> Registration:
        """Register what a node found on its disk, as it is; the hub is not asked.

        Args:
            name: As listed to whoever goes by that catalog.
            catalog: As for `listing_of()`.

        Raises:
            Refused: `not_on_disk`, `already_registered`.
        """
        listing = await self.listing_of(catalog)

        def work(draft: Draft) -> Registration:
            found = listing.offer(name)
            if found is None:
                raise Refused("not_on_disk", f"No node has found {name} on its disk (any more).", status=404)
            return self.registry.enter(draft, replace(found, registered_at=self._clock()))

        try:
            record = await self.registry.change(work)
        except Taken as error:
            raise Refused("already_registered", "Model already registered", name=error.name) from error
        except BadRecord as error:
            raise Refused("unsupported", f"This model cannot be registered: {error}.") from error
        log.info("adopted %s", record.name)
        return record

    async def retry(self, name: str) -> None:
        """Make nodes start a failed transfer again.

        Raises:
            Refused: `not_registered`.
        """

        def work(draft: Draft) -> str:
            record = self._registered(name)
            draft.put(replace(record, attempt=record.attempt + 1))
            return record.name

        name = await self.registry.change(work)
        self.fleet.forget_orphans(name)
        self.fleet.retried(name)

    async def pause(self, name: str, paused: bool) -> None:
        """Hold a transfer, or let it go on; nodes keep what is on disk.

        Raises:
            Refused: `not_registered`, `nothing_to_do`.
        """

        def work(draft: Draft) -> None:
            record = self._unfinished(name)
            if record.paused != paused:
                draft.put(replace(record, paused=paused))

        await self.registry.change(work)

    async def move(self, name: str, to: Place) -> None:
        """Change a transfer's place in the queue.

        Raises:
            Refused: `not_registered`, `nothing_to_do`.
        """

        def work(draft: Draft) -> None:
            for each in moved(self._unfinished(name), to, self.listing.unfinished()):
                draft.put(each)

        await self.registry.change(work)

    async def set_limits(self, limits: Limits) -> None:
        """Change what transfers and trash may take; durable when this returns. Nodes hear of it with a heartbeat."""
        await self._limits.put(limits)
        self.limits = limits
        self.changes.touch()

    def _registered(self, name: str) -> Registration:
        record = self.registry.records.get(name) or self.registry.records.get(name.lower())
        if record is None or record.deleting:
            raise Refused("not_registered", f"No model {name} is registered.")
        return record

    def _unfinished(self, name: str) -> Registration:
        record = self._registered(name)
        if self.fleet.placements_of(record.name):
            raise Refused("nothing_to_do", f"{record.name} is whole already.", status=409)
        return record

    def _room(self, record: Registration) -> list[str]:
        """What a person should know before the nodes start: memory in upstream's words, and disk."""
        nodes = [node.as_domain() for node in self.fleet.nodes.values()]
        warnings = []
        need = record.required_memory
        if need and not any(node.gpu_memory_bytes or node.ram_bytes for node in nodes):
            warnings.append("No GPU memory info available from registered nodes")
        found = fit(need, nodes)
        if found.kind is FitKind.TOO_BIG:
            warnings.append(
                f"Model requires {human_size(need)} but the best node has {human_size(need - found.short_by_bytes)}"
            )
        free = max((node.disk_free_bytes for node in nodes if node.disk_free_bytes is not None), default=None)
        if free is not None and record.size > free:
            warnings.append(
                f"Model needs {human_size(record.size)} of disk but no node has more than {human_size(free)} free"
            )
        return warnings

    # -- nodes ----------------------------------------------------------------------------------------------------

    def register_node(self, body: NodeBody, *, trusted: bool, supervised: bool) -> tuple[LiveNode, str, bool]:
        """Take in a node; returns it, its new token, and whether it is new."""
        node, token, new = self.fleet.register(body, trusted=trusted, supervised=supervised)
        self._save_soon(node)
        log.info("node %s registered (%s)", node.name, node.status)
        return node, token, new

    def approve_node(self, node_id: str) -> LiveNode | None:
        """Let a node in; None if there is no such node."""
        node = self.fleet.approve(node_id)
        if node is not None:
            self._save_soon(node)
        return node

    async def remove_node(self, node_id: str) -> bool:
        """Forget a node; False if there is no such node."""
        if not self.fleet.remove(node_id):
            return False
        await self.store.apply([rows.drop_node(node_id)])
        await self._forget_removed()
        return True

    async def heartbeat(self, node: LiveNode, beat: Heartbeat) -> None:
        """Take in what a node says about itself."""
        if self.fleet.heartbeat(node, beat, self.registry.records):
            node.record = replace(node.record, placements=tuple(node.placements.items()))
            self._save_soon(node)
        forgotten = [each for each in beat.found or () if each.deleted_as is not None]
        if forgotten:
            with contextlib.suppress(StoreFailed):  # it is told again
                await self.registry.change(lambda draft: self._take_in(draft, forgotten))
        await self._forget_removed()

    def _take_in(self, draft: Draft, forgotten: list[FoundBody]) -> None:
        """Have in the trash again what only a node remembers: our database was lost, or is from before."""
        registry, names = self.registry, set[str]()
        for body in forgotten:
            name = body.deleted_as or ""
            ordered = body.registration in registry.removals or name in names
            if ordered or name in registry.records or name in registry.unreadable or name in self.trash:
                continue
            record = self.listing.deleted(body)
            with contextlib.suppress(BadRecord):  # what cannot be read again is not written
                if record is not None:
                    self.trash.put(draft, Registration.from_json(record.to_json()))
                    names.add(name)
                    log.info("%s is in the trash again, as a node remembers it", name)

    async def _forget_removed(self) -> None:
        """Drop the deleted models that no node holds any more; later, if the store cannot be written now."""
        try:
            await self._drop_removed()
        except StoreFailed as error:
            log.error("store: %s", error.reason)
            self._save.set()

    async def _drop_removed(self) -> None:
        if not any(self._removed_now()):
            return

        def work(draft: Draft) -> list[str]:
            names, orders = self._removed_now()
            for name in names:
                draft.drop(name)
            for registration in orders:
                draft.confirm(registration)
            return names

        for name in await self.registry.change(work):
            log.info("removed %s", name)

    def _removed_now(self) -> tuple[list[str], list[str]]:
        """Names of deleted models that no node we hear holds; registrations that every node has removed."""
        holds, confirmed = self.fleet.holds, self.fleet.confirmed
        gone = [each.name for each in self.registry.records.values() if each.deleting]
        return (
            [name for name in gone if not holds(name, online=True)],
            [each.registration for each in self.registry.removals.values() if confirmed(each.order)],
        )
