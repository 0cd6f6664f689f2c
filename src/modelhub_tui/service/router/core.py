"""The router's parts put together, and what can be done with them. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from modelhub_tui import net
from modelhub_tui.domain import CatalogEntry, Limits, Phase, Place
from modelhub_tui.service.limits import read_limits
from modelhub_tui.service.router.bodies import Heartbeat, NodeBody, RegisterBody
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.errors import Refused
from modelhub_tui.service.router.fleet import Fleet, LiveNode
from modelhub_tui.service.router.hub import Hub
from modelhub_tui.service.router.listing import Listing
from modelhub_tui.service.router.records import BadRecord, Registration
from modelhub_tui.service.router.registry import Registry, Taken
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
_LIMITS = "limits"


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
        self.limits = _remembered(store, limits or Limits())
        self.changes = Changes()
        rows = store.load()
        for row in rows.unreadable:
            log.warning("%s of the database cannot be read, and is left out: %s", row.name, row.reason)
        self._clock = clock
        unreadable = [row for row in rows.unreadable if row.table == "models"]
        self.registry = Registry(store, catalog, self.changes, rows.models, unreadable)
        self.fleet = Fleet(self.changes, rows.nodes, clock=clock, monotonic=monotonic)
        self.trash = Trash(store, rows, self.fleet, self.changes, lambda: self.limits, clock, monotonic)
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
                await self.trash.tidy(self.registry.records.get)

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
                await self.store.put_node(node.record)
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
        record = self.registry.records.get(name) or self.registry.records.get(name.lower())
        broken = self.registry.unreadable.get(name) or self.registry.unreadable.get(name.lower())
        if record is None and broken is not None:
            await self.registry.drop_unreadable(broken)
            log.info("deregistered %s, whose record could not be read", broken.name)
            return
        if record is None or record.deleting:
            # Upstream answers 400 here, and clients know it.
            raise Refused("not_registered", "model not found", status=400)
        if not cancel and self.fleet.runs(record.name):
            what = "It is being downloaded; cancel that, or ask for both with ?cancel=true."
            raise Refused("transfer_running", what, name=record.name, status=409)
        if keep and self.limits.trash_seconds and self.fleet.placements_of(record.name):
            try:
                await self.trash.put(replace(record, paused=False))
            except StoreFailed as error:
                # On a full disk people delete to make room: that goes before having it back.
                log.warning("%s cannot be kept in the trash: %s", record.name, error.reason)
        else:
            await self.trash.drop(record.name)
        self.fleet.forget_orphans(record.name)
        if self.fleet.holds(record.name, online=True):
            await self.registry.update(replace(record, deleting=True))
            # A node may have reported its removal while that was being written.
            await self._forget_removed()
        else:
            await self.registry.drop(record.name)
        log.info("deregistered %s", record.name)

    async def restore(self, name: str) -> Registration:
        """Take a deletion back; the hub is not asked.

        Raises:
            Refused: `not_in_trash`, `already_registered`.
        """
        record = self.trash.get(name)
        try:
            record = await self.registry.add(record)
        except Taken as error:
            raise Refused("already_registered", "Model already registered", name=error.name, status=409) from error
        await self.trash.drop(record.name)
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
        found = (await self.listing_of(catalog)).offer(name)
        if found is None:
            raise Refused("not_on_disk", f"No node has found {name} on its disk (any more).", status=404)
        try:
            record = await self.registry.add(replace(found, registered_at=self._clock()))
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
        record = self._registered(name)
        await self.registry.retry(record.name)
        self.fleet.forget_orphans(record.name)
        self.fleet.retried(record.name)

    async def pause(self, name: str, paused: bool) -> None:
        """Hold a transfer, or let it go on; nodes keep what is on disk.

        Raises:
            Refused: `not_registered`, `nothing_to_do`.
        """
        record = self._unfinished(name)
        if record.paused != paused:
            await self.registry.update(replace(record, paused=paused))

    async def move(self, name: str, to: Place) -> None:
        """Change a transfer's place in the queue.

        Raises:
            Refused: `not_registered`, `nothing_to_do`.
        """
        await self.registry.move(self._unfinished(name), to, self.listing.unfinished())

    async def set_limits(self, limits: Limits) -> None:
        """Change what transfers and trash may take; durable when this returns. Nodes hear of it with a heartbeat."""
        await self.store.put_meta(_LIMITS, json.dumps(asdict(limits)))
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
        await self.store.drop_node(node_id)
        await self._forget_removed()
        return True

    async def heartbeat(self, node: LiveNode, beat: Heartbeat) -> None:
        """Take in what a node says about itself."""
        if self.fleet.heartbeat(node, beat, self.registry.records):
            node.record = replace(node.record, placements=tuple(node.placements.items()))
            self._save_soon(node)
        await self._forget_removed()

    async def _forget_removed(self) -> None:
        """Drop the deleted models that no node holds any more; later, if the store cannot be written now."""
        try:
            await self._drop_removed()
        except StoreFailed as error:
            log.error("store: %s", error.reason)
            self._save.set()

    async def _drop_removed(self) -> None:
        for name in [
            each.name
            for each in self.registry.records.values()
            if each.deleting and not self.fleet.holds(each.name, online=True)
        ]:
            await self.registry.drop_if_deleting(name)
            log.info("removed %s", name)


def _remembered(store: Store, configured: Limits) -> Limits:
    """The limits somebody set while the service ran; else the configured ones."""
    try:
        told = net.loads((store.get_meta(_LIMITS) or "{}").encode())
    except ValueError:
        return configured
    return read_limits(told, configured)
