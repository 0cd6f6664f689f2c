"""One model's way from being wanted to being whole: its turn in the queue, its attempts, its pauses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.held import Held, Holdings
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.job import Job, claim, in_thread
from modelhub_tui.service.node.leaving import let_go
from modelhub_tui.service.node.manifest import File, read_manifest
from modelhub_tui.service.node.record import State
from modelhub_tui.service.node.refs import Refs
from modelhub_tui.service.node.room import Room
from modelhub_tui.service.node.slots import Slots
from modelhub_tui.service.node.throttle import Throttle
from modelhub_tui.service.node.transport import Transport
from modelhub_tui.service.node.trash import Trash
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.units import human_size
from modelhub_tui.untrusted import clean

log = logging.getLogger(__name__)

_BUSY_RETRY_S = 1.0


class Pursuit:
    """Brings models until they are whole. All of them share the queue, the disk and the bandwidth."""

    def __init__(
        self,
        holdings: Holdings,
        *,
        hub: Hub,
        tuning: Tuning,
        room: Room,
        slots: Slots,
        throttle: Throttle,
        transport: Callable[[], Transport],
        fetch_manifest: Callable[[str], Awaitable[Any]],
        refs: Refs,
        trash: Trash,
        on_whole: Callable[[Held], None],
    ) -> None:
        """`fetch_manifest` raises Fault; `on_whole` is told of each model that is whole now."""
        self._holdings, self._hub, self._tuning = holdings, hub, tuning
        self._refs, self._trash, self._on_whole = refs, trash, on_whole
        self._room, self._slots, self._throttle = room, slots, throttle
        self._transport, self._fetch_manifest = transport, fetch_manifest

    def begin(self, held: Held, *, wait_for_nudge: bool = False) -> None:
        """Take a model up.

        Args:
            wait_for_nudge: It has failed before, and only a person can say that it is worth another try.
        """
        held.nudge.clear()
        held.task = self._holdings.spawn(self._pursue(held, wait_for_nudge))

    def interrupt(self, held: Held) -> None:
        """Stop what is done for a model, keeping every byte, and take it up again as its entry now says."""
        if held.job is not None:
            held.job.cancel()
        if held.task is not None:
            held.task.cancel()
        self.begin(held)

    def park(self, held: Held) -> None:
        """Stop what is done for a model, keeping every byte, until somebody wants it again."""
        held.parked = True
        if held.job is not None:
            held.job.cancel()
        if held.task is not None:
            held.task.cancel()

    def pause(self, held: Held, paused: bool) -> None:
        """Do what a person wants: hold a transfer, or let it go on."""
        self._holdings.put(held, replace(held.entry, paused=paused))
        if not held.unfinished:
            return
        held.progress.note(f"Paused at {human_size(held.progress.bytes_done)}." if paused else "Resumed.")
        held.progress.phase(Phase.PAUSED if paused else Phase.WAITING, faults.held() if paused else None)
        self.interrupt(held)

    async def watch_room(self) -> None:
        """Look again and again whether what runs may go on: somebody else may fill the disk."""
        while True:
            await asyncio.sleep(self._tuning.space_check_s)
            for held in self._holdings:
                if held.job is not None and not held.job.ended.is_set() and held.halted is None:
                    fault = await self._refusal(held)
                    if fault is not None and held.job is not None:
                        held.halted = fault
                        held.job.cancel()

    async def _pursue(self, held: Held, wait_for_nudge: bool) -> None:
        """Try until the model is whole. Ends only then, when a person holds it, or when cancelled."""
        if held.entry.paused:
            await let_go(held)
            held.progress.phase(Phase.PAUSED, faults.held())
            return
        restart_s, look_s = self._tuning.restart_base_s, self._tuning.space_check_s
        if wait_for_nudge:
            fault = faults.Fault(held.entry.error_code or "failed", held.entry.error or "It failed before; retry it.")
            held.progress.phase(Phase.FAILED, fault)
            await _nudged(held, None)
        while True:
            had = held.progress.bytes_done
            fault_or_none = await self._attempt(held)
            if fault_or_none is None:
                return
            fault = fault_or_none
            if fault.code == "busy":
                held.progress.phase(Phase.WAITING, fault)
                await _nudged(held, _BUSY_RETRY_S)
            elif fault.code == "no_space":
                # What failed at the same byte as before may fail for long: each try costs what it asks the hub for.
                grew = held.progress.bytes_done > had
                look_s = self._tuning.space_check_s if grew else min(look_s * 2, self._tuning.restart_cap_s)
                await self._until_room(held, fault, look_s)
            elif fault.passing:
                log.warning("%s: gave up for now: %s", held.entry.name, fault)
                wait_s = max(restart_s, min(fault.retry_after_s or 0.0, self._tuning.retry_after_cap_s))
                # An outage is nobody's failure, and ends without anybody's help.
                phase = Phase.WAITING if fault.code in faults.OUTAGES else Phase.FAILED
                held.progress.phase(phase, fault, attempt=int(self._tuning.max_attempts), retry_in_s=wait_s)
                asked = await _nudged(held, wait_s)
                restart_s = self._tuning.restart_base_s if asked else min(restart_s * 2, self._tuning.restart_cap_s)
            else:
                log.warning("%s: failed: %s", held.entry.name, fault)
                entry = replace(held.entry, state=State.FAILED, error=fault.sentence, error_code=fault.code)
                self._holdings.put(held, entry)
                held.progress.phase(Phase.FAILED, fault)
                await _nudged(held, None)
                restart_s = self._tuning.restart_base_s

    async def _until_room(self, held: Held, fault: faults.Fault, look_s: float) -> None:
        """Hold a transfer until there is room for it, so far as can be seen; its sentence follows what happens on the
        disk. `look_s` lie between two looks."""
        held.progress.note(f"Paused at {human_size(held.progress.bytes_done)}: {fault.sentence}")
        told: faults.Fault | None = fault
        while told is not None:
            held.progress.phase(Phase.PAUSED, told)
            await _nudged(held, look_s)
            now = await self._refusal(held)
            # The same words are the same fault: nobody is to be woken for it.
            told = told if now is not None and now.sentence == told.sentence else now
        held.progress.note("There is room again; went on.")

    async def _attempt(self, held: Held) -> faults.Fault | None:
        """One try at fetching the whole model. None: it is whole."""
        holdings, name = self._holdings, held.entry.name
        if held.entry.state is not State.WANTED:
            holdings.put(held, replace(held.entry, state=State.WANTED, error=None, error_code=None))
        held.progress.phase(Phase.WAITING)
        try:
            new = not held.entry.files
            if new:
                files = read_manifest(await self._fetch_manifest(name), self._hub.endpoint)
                holdings.put(held, replace(held.entry, files=files))
                await holdings.plan(held)
            await in_thread(lambda: claim(holdings.cache, name, held.entry.files), "claim")
            if self._trash.holds_any and await self._bring_back(held):
                self._now_whole(held, held.entry.files, "Put back from the trash.")
                return None
            # Manifests come in any order: one that comes late must not cost a model its place in the queue.
            async with self._slots.hold(lambda: held.order, lambda: self._make_way(held), push=new):
                await let_go(held)  # of an earlier job; not before, so that nobody behind in the queue slips past
                fault = await self._refusal(held)
                if fault is not None:
                    return fault
                with self._job(held) as job:
                    files = await in_thread(job.run, f"pull {name}")
        except faults.Fault as fault:
            return fault
        except faults.Stopped:
            if held.halted is None:
                raise asyncio.CancelledError from None
            halted, held.halted = held.halted, None
            return halted
        except Exception as error:
            log.exception("%s: unexpected", name)
            return faults.Fault(
                "internal",
                f"Something unexpected went wrong ({type(error).__name__}); see the node's log.",
                passing=True,
            )
        self._now_whole(held, files, _how_whole(files))
        return None

    def _now_whole(self, held: Held, files: tuple[File, ...], note: str) -> None:
        held.progress.note(note)
        whole = replace(held.entry, state=State.WHOLE, whole=True, files=files, error=None, error_code=None)
        self._holdings.put(held, replace(whole, history=held.progress.history))
        size = human_size(sum(each.size or 0 for each in files))
        log.info("%s is whole: %d files, %s", held.entry.name, len(files), size)
        self._on_whole(held)
        self._holdings.on_change()

    async def _bring_back(self, held: Held) -> bool:
        """Take what the trash has of a model; True if it is whole with that, as it was when it was deleted."""
        try:
            files = await in_thread(lambda: self._trash.bring_back(held.entry.files), "bring back")
            if files != held.entry.files:
                self._holdings.put(held, replace(held.entry, files=files))
                await self._holdings.plan(held)
            await self._holdings.written(held)
            await in_thread(lambda: self._trash.settle(held.entry.name), "settle trash")
        except OSError as error:
            raise faults.disk_trouble(error) from error
        return all(file.done for file in files) and not await self._holdings.missing(files)

    @contextmanager
    def _job(self, held: Held) -> Iterator[Job]:
        """A transfer for a model, known by it until it has let go of everything."""
        if not held.progress.history:
            held.progress.note("Started.")
        held.halted = None
        job = held.job = Job(
            held.entry.files,
            hub=self._hub,
            cache=self._holdings.cache,
            refs=self._refs,
            transport=self._transport(),
            tuning=self._tuning,
            progress=held.progress,
            throttle=self._throttle,
            check_room=lambda: self._check_in_thread(held),
            on_files=lambda changes: self._holdings.files_changed_in_thread(held, job, changes),
        )
        try:
            yield job
        finally:
            if job.ended.is_set() and held.job is job:
                held.job = None

    def _make_way(self, held: Held) -> None:
        """Somebody else is to go first: back into the queue, with every byte."""
        if held.progress.bytes_done:
            held.progress.note(f"Made way for another download at {human_size(held.progress.bytes_done)}.")
        held.progress.phase(Phase.WAITING)
        self.interrupt(held)

    async def _refusal(self, held: Held) -> faults.Fault | None:
        return await in_thread(lambda: self._room.refusal(held, self._holdings), "disk plan")

    def _check_in_thread(self, held: Held) -> None:
        fault = self._room.refusal(held, self._holdings)
        if fault is not None:
            raise fault


def _how_whole(files: tuple[File, ...]) -> str:
    unverifiable = [clean(each.path, 120) for each in files if each.digest is None]
    if not unverifiable:
        return "Verified: every byte is there."
    more = f" and {len(unverifiable) - 1} more" if len(unverifiable) > 1 else ""
    return f"All bytes are there, but not verifiable: the hub gives no checksum of {unverifiable[0]}{more}."


async def _nudged(held: Held, timeout_s: float | None) -> bool:
    """Wait for a reason to try again, or for the time; True if there was one."""
    try:
        async with asyncio.timeout(timeout_s):
            await held.nudge.wait()
    except TimeoutError:
        return False
    held.nudge.clear()
    return True
