"""What the node holds, and what it does about the router's list: fetch what is missing, remove what was taken back.

All of it runs on the node's event loop, except the transfers themselves (`job.py`) and removals, which block in threads
of their own and hand their results back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

from modelhub_tui.domain import Limits
from modelhub_tui.hub_reach import reach_of
from modelhub_tui.service.limits import read_limits
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.held import Held, Holdings
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.job import in_thread
from modelhub_tui.service.node.journal import Journal
from modelhub_tui.service.node.keeping import Keeping
from modelhub_tui.service.node.leaving import Leaving
from modelhub_tui.service.node.manifest import File, Listed, Wanted
from modelhub_tui.service.node.memory import LIMITS, Memory
from modelhub_tui.service.node.protocol import Answer
from modelhub_tui.service.node.pursuit import Pursuit
from modelhub_tui.service.node.record import Entry, State
from modelhub_tui.service.node.refs import Refs
from modelhub_tui.service.node.reporting import is_placed, report
from modelhub_tui.service.node.room import DiskSpace, Room
from modelhub_tui.service.node.slots import Slots
from modelhub_tui.service.node.throttle import Throttle
from modelhub_tui.service.node.transport import HttpTransport, Transport
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.units import human_size

log = logging.getLogger(__name__)

_FIRST_LOOK_S = 5.0
"""The longest that the first report waits for a look at what is on disk."""


class Sync:
    """Keeps the models on disk as the router lists them."""

    def __init__(
        self,
        *,
        memory: Memory,
        cache: Cache,
        hub: Hub,
        tuning: Tuning,
        fetch_manifest: Callable[[str], Awaitable[Any]],
        on_change: Callable[[], None],
        transport: Callable[[], Transport] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Create it on the loop.

        Args:
            memory: Closed by `stop()`.
            fetch_manifest: Raises Fault.
            on_change: Called on the loop when something is to be reported at once.
            limits: What holds until a router has said something else; what it last said is remembered.
        """
        self._memory, self._journal, self._tuning = memory, Journal(memory.record), tuning
        self._disk = DiskSpace(cache.usage)
        self._room = Room(self._disk.look)
        self._slots = Slots(1)
        self._throttle = Throttle()
        self._holdings = Holdings(self._journal, cache, tuning, on_change)
        self.totals = self._holdings.totals
        trash = memory.trash
        self._keeping = Keeping(trash, cache, self._changed_in_thread, self._holdings.spawn, every_s=tuning.recheck_s)
        self._room.reclaimable, self._room.make_room = (lambda: trash.heap.reclaimable), trash.make_room
        self._refs = Refs(cache, hub)
        self._leaving = Leaving(self._holdings, trash, self._gone)
        self._pursuit = Pursuit(
            self._holdings,
            hub=hub,
            tuning=tuning,
            room=self._room,
            slots=self._slots,
            throttle=self._throttle,
            transport=transport
            or (lambda: HttpTransport(reach_of(hub.endpoint), connect_s=tuning.connect_s, stall_s=tuning.stall_s)),
            fetch_manifest=fetch_manifest,
            refs=self._refs,
            trash=trash,
            on_whole=self._covered,
        )
        self._measuring: asyncio.Future[None] | None = None
        self._listed: Listed | None = None
        self._store: str | None = None
        remembered = read_limits(_parsed(memory.limits), limits or Limits())
        self.limits = remembered
        """What transfers may take now."""
        self._enforce(remembered)

    async def start(self) -> None:
        """Take up what the record says: whole models are looked at, the others go on where they were.

        A disk that does not answer is not waited for: what is on it is looked at when it does.
        """
        for entry in self._memory.entries:
            self._holdings.add(entry)
            self._holdings.cache.claims.remember(entry.name, entry.files)
        taking_up = self._holdings.spawn(self._take_up())
        self._holdings.spawn(self._keeping.run())
        await asyncio.wait([taking_up], timeout=_FIRST_LOOK_S)

    async def _take_up(self) -> None:
        # In the queue's order: the first to ask gets a place.
        models = sorted(self._holdings, key=lambda each: each.order)
        for held in models:
            await self._holdings.plan(held)
        for held in models:
            entry = held.entry
            if held.task is not None or held.parked or self._holdings.get(entry.name) is not held:
                continue  # the router was faster
            if entry.state is State.REMOVING:
                pass  # the list tells whether it is still to go: the record may be from before it was wanted again
            elif entry.state is not State.WHOLE:
                if entry.history and not entry.paused and entry.state is State.WANTED:
                    held.progress.note(f"Went on after a restart, from {human_size(held.progress.bytes_done)}.")
                # Damaged twice: the same bytes would arrive again; a person decides.
                damaged = entry.state is State.FAILED and entry.error_code == "checksum"
                self._pursuit.begin(held, wait_for_nudge=damaged and not held.nudge.is_set())
        self._holdings.spawn(self._pursuit.watch_room())
        await self.recheck()

    # -- what the router says -------------------------------------------------------------------------------------

    def reconcile(self, listed: Listed, store: str | None) -> bool:
        """Compare the router's list with what is here, and act on it.

        A model goes only when the router orders its removal, by the identity of the registration that we hold it for:
        what is listed no longer may be missing because a database was lost, or went back in time. Such a model is left
        alone, and told as found. A router that gives no orders must be seen to drop it, from one list to the next,
        while it still lists others. One that is listed in a way that cannot be read stays as it is.

        Returns:
            Whether there was anything to do.
        """
        before, same_router = self._listed, self._store == store
        self._listed, self._store = listed, store
        order = self._queue()
        acted = False
        for each in sorted(listed.wanted.values(), key=lambda each: math.inf if each.queue is None else each.queue):
            acted |= self._want(each, store)
        for held in self._holdings:
            entry = held.entry
            if listed.may_list(entry.name):
                continue
            if entry.state is State.REMOVING:
                if not held.leaving:
                    self._leaving.begin(held)
                    acted = True
                continue
            seen_to_go = same_router and before is not None and before.names(entry.name) and bool(listed.wanted)
            if self._is_ordered(entry) if listed.removals is not None else entry.store == store and seen_to_go:
                self._leaving.abandon(held)
                acted = True
            elif self._is_foreign(held):
                self._pursuit.park(held)
        acted |= self._obey()
        now = self._queue()
        known, still = set(order), set(now)
        if [name for name in now if name in known] != [name for name in order if name in still]:
            self._slots.rearrange()
            acted = True
        return acted

    def _is_ordered(self, entry: Entry) -> bool:
        """Whether the router orders the removal of a model."""
        removals = (self._listed and self._listed.removals) or {}
        if entry.registration is not None:
            return entry.registration in removals
        # Listed by a version that named no registrations.
        return entry.store == self._store and any(each.name == entry.name for each in removals.values())

    def _obey(self) -> bool:
        """Free what is in the trash and is not to stay there."""
        listed = self._listed
        if listed is None or listed.removals is None:
            return False
        busy = {held.entry.name for held in self._holdings} | listed.wanted.keys() | listed.unread
        return self._keeping.obey(listed.removals, busy)

    def heard(self, answer: Answer) -> None:
        """Take in what the router answers to a heartbeat."""
        self._keeping.heard(answer.unknown)
        if answer.limits is not None and answer.limits != self.limits:
            log.info("limits: %s", answer.limits)
            self.limits = answer.limits
            self._journal.set_setting(LIMITS, json.dumps(asdict(answer.limits)))
            self._enforce(answer.limits)
            self._holdings.on_change()

    def _enforce(self, limits: Limits) -> None:
        tuning = self._tuning
        self._keeping.limit(limits)
        self._throttle.set(limits.bandwidth_bps)
        floor = limits.disk_floor_bytes if tuning.margin_bytes is None else int(tuning.margin_bytes)
        roomier = floor != self._room.floor_bytes
        self._room.floor_bytes = floor
        if roomier:
            for held in self._holdings:
                if held.held_for_room:
                    held.nudge.set()
        self._slots.resize(limits.parallel_transfers if tuning.parallel_models is None else int(tuning.parallel_models))

    # -- what the router hears ------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Members of a heartbeat about models and disk. Waits for nothing."""
        ours = [held for held in self._holdings if not self._is_foreign(held)]
        removals = self._listed.removals if self._listed is not None else None
        return {
            **report(ours, self._holdings.cache),
            **self._keeping.report(removals, [held.entry.registration for held in self._holdings]),
            **self._disk.report(self._room.floor_of),
            "totals": self.totals.as_wire(),
        }

    def found(self) -> list[dict[str, Any]] | None:
        """Member of a heartbeat: what is whole on disk and belongs to nothing the router lists; None if not known."""
        return self._keeping.found(self._files())

    @property
    def stamp(self) -> tuple[object, ...]:
        """Changes when there is something to report that no state of a model tells."""
        return self._keeping.stamp

    def measure(self) -> asyncio.Future[None]:
        """Count again what the models take on disk, and what is free there; done, some time, when `report()` tells."""
        if self._measuring is None or self._measuring.done():
            whole, unfinished = self._files(whole=True), self._files(whole=False)
            every = [file for held in self._holdings for file in held.entry.files]

            def look() -> None:
                self._disk.look()
                self._keeping.measure(whole, unfinished, every)

            self._measuring = in_thread(look, "measure")
        return self._measuring

    def _files(self, *, whole: bool | None = None) -> list[File]:
        """Files of the models we hold or fetch: of all, or of those that are told as placements, or of the others."""
        ours = (held.entry for held in self._holdings if not self._is_foreign(held))
        return [file for entry in ours if whole is None or is_placed(entry) is whole for file in entry.files]

    def _is_foreign(self, held: Held) -> bool:
        """Whether the router knows nothing of a model: another one listed it, or its database of before.

        Its files stay, and are reported as found. Before the first list nothing is foreign.
        """
        entry, listed = held.entry, self._listed
        if listed is None or listed.may_list(entry.name) or entry.state is State.REMOVING:
            return False
        return entry.store != self._store if listed.removals is None else not self._is_ordered(entry)

    @property
    def moving(self) -> bool:
        """Whether anything changes without a change of state."""
        return any(held.job is not None or held.entry.state is State.REMOVING for held in self._holdings)

    # -- life -----------------------------------------------------------------------------------------------------

    async def recheck(self) -> None:
        """Look whether the files of whole models are still there; fetch again what somebody removed."""
        for held in self._holdings:
            if held.entry.state is State.WHOLE:
                await self._check(held)

    async def tend(self) -> None:
        """Renew what says that our models' files are used: to other services, and to the library."""
        whole = [held for held in self._holdings if held.entry.state is State.WHOLE]
        files = [held.entry.files for held in whole]
        claims = self._holdings.cache.claims

        def work() -> list[int]:
            with contextlib.suppress(BlockingIOError):
                claims.write()
            every = [file for each in files for file in each]
            self._refs.complete(every)
            self._refs.keep(every)
            return [claims.shared_bytes(each) for each in files]

        for held, shared_bytes in zip(whole, await in_thread(work, "tend"), strict=True):
            if held.shared_bytes != shared_bytes:
                held.shared_bytes = shared_bytes
                self._holdings.on_change()

    async def stop(self, timeout_s: float) -> None:
        """Finish the chunk and let go; what is on disk stays for the next start."""
        jobs = [held.job for held in self._holdings if held.job is not None]
        for job in jobs:
            job.cancel()
        tasks = [*self._holdings.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if jobs:
            until = time.monotonic() + timeout_s
            await in_thread(lambda: [job.ended.wait(max(until - time.monotonic(), 0)) for job in jobs], "let go")
        await in_thread(self._end, "close record")

    def _end(self) -> None:
        self._journal.close()
        self._memory.close()

    # -- one model ------------------------------------------------------------------------------------------------

    def _queue(self) -> list[str]:
        """The models that are not whole, in their order."""
        return [held.entry.name for held in sorted(self._holdings, key=lambda each: each.order) if held.unfinished]

    def _want(self, wanted: Wanted, store: str | None) -> bool:
        held = self._holdings.get(wanted.name)
        if held is None:
            entry = Entry(wanted.name, store, wanted.fingerprint, wanted.attempt)
            entry = replace(entry, paused=wanted.paused, queue=wanted.queue, registration=wanted.registration)
            self._pursuit.begin(self._holdings.create(entry))
            self._holdings.on_change()
            return True
        entry = held.entry
        if held.leaving:
            return False  # registered again meanwhile: taken up when the removal is done
        if entry.state is State.REMOVING:
            # What an earlier process was to remove is wanted: what is still there of it stays.
            self._holdings.put(held, replace(entry, state=State.WANTED, whole=False))
            entry = held.entry
            self._holdings.spawn(self._take_over(held))
        asked_again = wanted.attempt > entry.attempt or entry.registration not in (None, wanted.registration)
        other_files = wanted.fingerprint != entry.fingerprint
        now = replace(entry, store=store, fingerprint=wanted.fingerprint, attempt=wanted.attempt, queue=wanted.queue)
        now = replace(now, registration=wanted.registration)
        if now != entry:
            self._holdings.put(held, now)
        if wanted.paused != entry.paused:
            self._pursuit.pause(held, wanted.paused)
        if held.parked and not other_files:
            held.parked = False
            if held.unfinished:
                self._pursuit.begin(held)
        if other_files:
            self._restart_with_new_manifest(held)
        elif asked_again and entry.state is not State.WHOLE:
            held.nudge.set()
        return asked_again or other_files or wanted.paused != entry.paused

    def _restart_with_new_manifest(self, held: Held) -> None:
        """The name stands for other files now. What both have in common is found in the cache again."""
        held.parked = False
        held.progress.start_over()
        self._holdings.put(held, replace(held.entry, state=State.WANTED, whole=False, files=()))
        self._pursuit.interrupt(held)

    async def _take_over(self, held: Held) -> None:
        """Go on with a model of which a part may have been removed."""
        files = held.entry.files
        missing = await self._holdings.missing(files)
        if held.entry.files is not files or held.task is not None:
            return  # the router was faster
        files = tuple(replace(each, done=each.done and each not in missing) for each in files)
        self._holdings.put(held, replace(held.entry, files=files))
        await self._holdings.plan(held)
        if held.task is None and not held.leaving:
            self._pursuit.begin(held)

    async def _check(self, held: Held) -> None:
        entry = held.entry
        missing = await self._holdings.missing(entry.files)
        if (not missing and entry.files) or held.entry is not entry:
            return
        log.warning("%s: %d of its files are gone; fetching them again", held.entry.name, len(missing))
        files = tuple(replace(each, done=each.done and each not in missing) for each in held.entry.files)
        self._holdings.put(held, replace(held.entry, state=State.WANTED, whole=False, files=files))
        held.progress.start_over()
        await self._holdings.plan(held)
        if held.entry.state is not State.WANTED or (held.task is not None and not held.task.done()):
            return  # the router was faster
        held.progress.note("Its files were removed from the disk; fetching them again.")
        self._pursuit.begin(held)
        self._holdings.on_change()

    def _covered(self, held: Held) -> None:
        """A model is whole: another router's record of the same files says nothing any more, but would guard them."""
        now = {(file.repo, file.commit, file.path) for file in held.entry.files}
        for other in self._holdings:
            files = {(file.repo, file.commit, file.path) for file in other.entry.files}
            if other is not held and self._is_foreign(other) and files <= now:
                self._pursuit.park(other)
                self._holdings.drop(other)

    def _changed_in_thread(self) -> None:
        self._holdings.call_soon(self._holdings.on_change)

    def _gone(self, entry: Entry) -> None:
        """A removal is done: what was registered again meanwhile is taken up."""
        self._keeping.gone(entry.files)
        self._obey()
        again = self._listed.wanted.get(entry.name) if self._listed is not None else None
        if again is not None:
            self._want(again, self._store)


def _parsed(text: str | None) -> object:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
