"""What the node holds, and what it does about the router's list: fetch what is missing, remove what was taken back.

All of it runs on the node's event loop, except the transfers themselves (`job.py`) and removals, which block in threads
of their own and hand their results back.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache, Room
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.job import Job, in_thread
from modelhub_tui.service.node.manifest import File, Wanted, read_manifest
from modelhub_tui.service.node.progress import Progress
from modelhub_tui.service.node.record import Entry, Record, State
from modelhub_tui.service.node.removal import remove_files
from modelhub_tui.service.node.slots import Slots
from modelhub_tui.service.node.transport import HttpTransport, Transport
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.units import human_size

log = logging.getLogger(__name__)

_BUSY_RETRY_S = 1.0
_REMOVAL_RETRY_S = 10.0
_LET_GO_S = 0.8


@dataclass(slots=True, eq=False)
class _Held:
    """One model this node holds or is at. `entry` is always what the record says."""

    entry: Entry
    progress: Progress
    order: int
    """Place in the queue: as first seen."""
    nudge: asyncio.Event = field(default_factory=asyncio.Event)
    """A person asked for another try."""
    job: Job | None = None
    task: asyncio.Task[None] | None = None


class Sync:
    """Keeps the models on disk as the router lists them."""

    def __init__(
        self,
        *,
        record: Record,
        cache: Cache,
        hub: Hub,
        tuning: Tuning,
        fetch_manifest: Callable[[str], Awaitable[Any]],
        on_change: Callable[[], None],
        transport: Callable[[], Transport] | None = None,
    ) -> None:
        """`fetch_manifest` raises Fault; `on_change` is called on the loop when something is to be reported at once."""
        self._record, self._cache, self._hub, self._tuning = record, cache, hub, tuning
        self._fetch_manifest, self._on_change = fetch_manifest, on_change
        self._transport = transport or (lambda: HttpTransport(connect_s=tuning.connect_s, stall_s=tuning.stall_s))
        self._room = Room(cache.usage, tuning.margin_bytes)
        self._slots = Slots(int(tuning.parallel_models))
        self._orders = itertools.count()
        self._held: dict[str, _Held] = {}
        self._wanted: dict[str, Wanted] | None = None
        self._store: str | None = None
        self._loop = asyncio.get_running_loop()
        self._side_tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take up what the record says: whole models are looked at, the others go on where they were."""
        for entry in self._record.entries():
            held = self._add(entry)
            if entry.state is State.REMOVING:
                self._spawn(self._remove(held))
            elif entry.state is State.WHOLE:
                self._check(held)
            elif entry.state is State.FAILED and entry.error_code == "checksum":
                # The same bytes would arrive again; a person decides.
                self._pursue_from(held, wait_for_nudge=True)
            else:
                self._pursue_from(held)

    def reconcile(self, wanted: dict[str, Wanted], store: str | None) -> bool:
        """Compare the router's list with what is here, and act on it.

        A model goes only when the store that listed it does so no longer. A router without a store identity must be
        seen to drop it, from one list to the next, while it still lists others: a lost database lists nothing at all.

        Returns:
            Whether there was anything to do.
        """
        before, same_router = self._wanted, self._store == store
        self._wanted, self._store = wanted, store
        acted = False
        for each in wanted.values():
            acted |= self._want(each, store)
        for name, held in [*self._held.items()]:
            if name in wanted or held.entry.state is State.REMOVING:
                continue
            seen_to_go = same_router and before is not None and name in before and bool(wanted)
            if held.entry.store == store and (store is not None or seen_to_go):
                self._abandon(held)
                acted = True
        return acted

    def recheck(self) -> None:
        """Look whether the files of whole models are still there; fetch again what somebody removed."""
        for held in self._held.values():
            if held.entry.state is State.WHOLE:
                self._check(held)

    def report(self) -> dict[str, Any]:
        """Members of a heartbeat: transfers, placements, and the upstream's single progress."""
        transfers, placements, loaded = [], [], []
        failed = False
        for held in self._held.values():
            entry = held.entry
            if entry.whole and entry.state in (State.WHOLE, State.REMOVING):
                placements.append(self._placement(entry))
                loaded.append(entry.name)
            else:
                snapshot = held.progress.snapshot()
                failed |= snapshot.phase is Phase.FAILED
                transfers.append(snapshot)
        moving = [each for each in transfers if each.phase in (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)]
        told: dict[str, Any] = {
            "loaded_models": loaded,
            "sync_state": "running" if moving else "failed" if failed else "success",
            "transfers": [each.as_wire() for each in transfers],
            "placements": placements,
        }
        if moving:
            first = max(moving, key=lambda each: each.bytes_done)
            told["sync_progress"] = {
                "model_id": first.name,
                "file": first.file or "",
                "downloaded_bytes": first.bytes_done,
                "total_bytes": first.bytes_total or 0,
            }
        return told

    @property
    def moving(self) -> bool:
        """Whether anything changes without a change of state."""
        return any(held.job is not None or held.entry.state is State.REMOVING for held in self._held.values())

    async def stop(self, timeout_s: float) -> None:
        """Finish the chunk and let go; what is on disk stays for the next start."""
        jobs = [held.job for held in self._held.values() if held.job is not None]
        for job in jobs:
            job.cancel()
        tasks = [held.task for held in self._held.values() if held.task is not None] + [*self._side_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if jobs:
            until = time.monotonic() + timeout_s
            await in_thread(lambda: [job.ended.wait(max(until - time.monotonic(), 0)) for job in jobs], "let go")

    # -- one model ------------------------------------------------------------------------------------------------

    def _want(self, wanted: Wanted, store: str | None) -> bool:
        held = self._held.get(wanted.name)
        if held is None:
            entry = Entry(wanted.name, store, wanted.fingerprint, wanted.attempt)
            self._record.put(entry)
            self._pursue_from(self._add(entry))
            self._on_change()
            return True
        entry = held.entry
        if entry.state is State.REMOVING:
            return False  # registered again meanwhile: taken up when the removal is done
        asked_again = wanted.attempt > entry.attempt
        other_files = wanted.fingerprint != entry.fingerprint
        if not (asked_again or other_files or entry.store != store or wanted.attempt != entry.attempt):
            return False
        self._put(held, replace(entry, store=store, fingerprint=wanted.fingerprint, attempt=wanted.attempt))
        if other_files:
            self._restart_with_new_manifest(held)
        elif asked_again and entry.state is not State.WHOLE:
            held.nudge.set()
        return asked_again or other_files

    def _restart_with_new_manifest(self, held: _Held) -> None:
        """The name stands for other files now. What both have in common is found in the cache again."""
        if held.job is not None:
            held.job.cancel()
        if held.task is not None:
            held.task.cancel()
        self._put(held, replace(held.entry, state=State.WANTED, whole=False, files=()))
        self._pursue_from(held)

    def _add(self, entry: Entry) -> _Held:
        progress = Progress(entry.name, max_attempts=int(self._tuning.max_attempts), on_phase=self._changed_in_thread)
        held = self._held[entry.name] = _Held(entry, progress, next(self._orders))
        if entry.files:
            progress.plan([(each.path, each.size, self._bytes_here(each)) for each in entry.files])
        return held

    def _bytes_here(self, file: File) -> int:
        return (
            file.size if file.size and self._cache.is_whole(file) else min(self._cache.part_bytes(file), file.size or 0)
        )

    def _check(self, held: _Held) -> None:
        missing = [each for each in held.entry.files if not self._cache.is_whole(each)]
        if not missing and held.entry.files:
            return
        log.warning("%s: %d of its files are gone; fetching them again", held.entry.name, len(missing))
        files = tuple(replace(each, done=each.done and each not in missing) for each in held.entry.files)
        self._put(held, replace(held.entry, state=State.WANTED, whole=False, files=files))
        self._pursue_from(held)
        self._on_change()

    def _pursue_from(self, held: _Held, *, wait_for_nudge: bool = False) -> None:
        held.nudge.clear()
        held.task = self._spawn(self._pursue(held, wait_for_nudge))

    async def _pursue(self, held: _Held, wait_for_nudge: bool) -> None:
        """Try until the model is whole. Ends only then, or when cancelled."""
        restart_s = self._tuning.restart_base_s
        if wait_for_nudge:
            fault = faults.Fault(held.entry.error_code or "failed", held.entry.error or "It failed before; retry it.")
            held.progress.phase(Phase.FAILED, fault)
            await self._nudged(held, None)
        while True:
            fault_or_none = await self._attempt(held)
            if fault_or_none is None:
                return
            fault = fault_or_none
            if fault.code == "busy":
                held.progress.phase(Phase.WAITING, fault)
                await self._nudged(held, _BUSY_RETRY_S)
            elif fault.code == "no_space":
                held.progress.phase(Phase.PAUSED, fault)
                await self._nudged(held, self._tuning.space_check_s)
            elif fault.passing:
                log.warning("%s: gave up for now: %s", held.entry.name, fault)
                wait_s = max(restart_s, min(fault.retry_after_s or 0.0, self._tuning.retry_after_cap_s))
                held.progress.phase(Phase.FAILED, fault, attempt=int(self._tuning.max_attempts), retry_in_s=wait_s)
                asked = await self._nudged(held, wait_s)
                restart_s = self._tuning.restart_base_s if asked else min(restart_s * 2, self._tuning.restart_cap_s)
            else:
                log.warning("%s: failed: %s", held.entry.name, fault)
                self._put(held, replace(held.entry, state=State.FAILED, error=fault.sentence, error_code=fault.code))
                held.progress.phase(Phase.FAILED, fault)
                await self._nudged(held, None)
                restart_s = self._tuning.restart_base_s

    async def _attempt(self, held: _Held) -> faults.Fault | None:
        """One try at fetching the whole model. None: it is whole."""
        if held.entry.state is not State.WANTED:
            self._put(held, replace(held.entry, state=State.WANTED, error=None, error_code=None))
        try:
            if not held.entry.files:
                held.progress.phase(Phase.WAITING)
                files = read_manifest(await self._fetch_manifest(held.entry.name), self._hub.endpoint)
                self._put(held, replace(held.entry, files=files))
                held.progress.plan([(each.path, each.size, self._bytes_here(each)) for each in files])
            if held.progress.snapshot().phase is not Phase.PAUSED:
                held.progress.phase(Phase.WAITING)
            async with self._slots.hold(held.order):
                self._check_plan(held)
                held.job = Job(
                    held.entry.files,
                    hub=self._hub,
                    cache=self._cache,
                    transport=self._transport(),
                    tuning=self._tuning,
                    progress=held.progress,
                    check_room=lambda: self._check_plan(held),
                    on_file=lambda index, file: self._file_changed_in_thread(held, index, file),
                )
                try:
                    files = await in_thread(held.job.run, f"pull {held.entry.name}")
                finally:
                    if held.job.ended.is_set():
                        held.job = None
        except faults.Fault as fault:
            return fault
        except faults.Stopped:
            raise asyncio.CancelledError from None
        except Exception as error:
            log.exception("%s: unexpected", held.entry.name)
            return faults.Fault(
                "internal",
                f"Something unexpected went wrong ({type(error).__name__}); see the node's log.",
                passing=True,
            )
        self._put(held, replace(held.entry, state=State.WHOLE, whole=True, files=files, error=None, error_code=None))
        log.info(
            "%s is whole: %d files, %s", held.entry.name, len(files), human_size(sum(each.size or 0 for each in files))
        )
        self._on_change()
        return None

    def _check_plan(self, held: _Held) -> None:
        """Refuse when the disk has no room for what this transfer and the running ones still have to write."""
        needs = held.progress.missing_bytes()
        others = sum(
            each.progress.missing_bytes()
            for each in [*self._held.values()]
            if each.job is not None and each is not held
        )
        free = self._room.free()
        # A transfer that has begun is stopped only when there is no room for itself: two must not stop each other.
        if needs and needs + (others if held.job is None else 0) > free:
            raise faults.no_space(needs, free, others if held.job is None else 0)

    async def _nudged(self, held: _Held, timeout_s: float | None) -> bool:
        """Wait for a person's wish, or for the time; True if it was the wish."""
        try:
            async with asyncio.timeout(timeout_s):
                await held.nudge.wait()
        except TimeoutError:
            return False
        held.nudge.clear()
        return True

    # -- removal --------------------------------------------------------------------------------------------------

    def _abandon(self, held: _Held) -> None:
        log.info("%s was taken back; removing it", held.entry.name)
        self._put(held, replace(held.entry, state=State.REMOVING))
        if held.job is not None:
            held.job.cancel()
        if held.task is not None:
            held.task.cancel()
        self._spawn(self._remove(held))

    async def _remove(self, held: _Held) -> None:
        """Remove a model's files, however often it takes; then forget it."""
        if held.job is not None:
            job = held.job
            # A job in the middle of a question to the hub ends seconds later; it writes nothing any more.
            await in_thread(lambda: job.ended.wait(_LET_GO_S), "let go")
            held.job = None
        while True:
            entry = held.entry
            # Cancelled before it was whole: what was in the cache before us stays.
            files = entry.files if entry.whole else tuple(each for each in entry.files if each.fetched)
            keep = [
                file
                for other in self._held.values()
                if other is not held and other.entry.state is not State.REMOVING
                for file in other.entry.files
            ]
            try:
                await in_thread(lambda files=files, keep=keep: remove_files(self._cache, files, keep), "remove")  # type: ignore[misc]
                break
            except OSError as error:
                log.warning("%s cannot be removed yet: %s", entry.name, error)
                await asyncio.sleep(_REMOVAL_RETRY_S)
        self._record.drop(entry.name)
        self._held.pop(entry.name, None)
        self._on_change()
        again = (self._wanted or {}).get(entry.name)
        if again is not None:
            self._want(again, self._store)

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def _placement(self, entry: Entry) -> dict[str, Any]:
        paths = [str(self._cache.path_of(each)) for each in entry.files]
        blobs = {(each.repo, each.etag): each.size or 0 for each in entry.files}
        return {
            "name": entry.name,
            "path": paths[0] if paths else None,
            "paths": paths,
            "disk_bytes": sum(blobs.values()),
        }

    def _put(self, held: _Held, entry: Entry) -> None:
        self._record.put(entry)
        held.entry = entry

    def _file_changed_in_thread(self, held: _Held, index: int, file: File) -> None:
        self._call_soon(self._file_changed, held, index, file)

    def _file_changed(self, held: _Held, index: int, file: File) -> None:
        if self._held.get(held.entry.name) is not held:
            return
        files = [*held.entry.files]
        if index < len(files) and (files[index].repo, files[index].path) == (file.repo, file.path):
            files[index] = file
            self._put(held, replace(held.entry, files=tuple(files)))

    def _changed_in_thread(self) -> None:
        self._call_soon(self._on_change)

    def _call_soon(self, call: Callable[..., None], *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)
        task.add_done_callback(_log_crash)
        return task


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a task ended unexpectedly", exc_info=task.exception())
