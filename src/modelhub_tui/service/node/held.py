"""What the node holds or is at: in memory, in the record, and on the loop it all lives on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import field, replace
from typing import Any

from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.job import Job, in_thread
from modelhub_tui.service.node.journal import Journal, Written
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.progress import History, Progress
from modelhub_tui.service.node.record import Entry, State
from modelhub_tui.service.node.totals import Totals
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

Order = tuple[float, int]


@dataclass(slots=True, eq=False)
class Held:
    """One model this node holds or is at. `entry` is what the record says, or is about to: see `written`."""

    entry: Entry
    progress: Progress
    seen: int
    """Counts up as models are first seen: the order among those to which the router gives no place."""
    nudge: asyncio.Event = field(default_factory=asyncio.Event)
    """There is a reason to try again now: a person's wish, or room on the disk."""
    job: Job | None = None
    task: asyncio.Task[None] | None = None
    written: Written | None = None
    """Done when the record says what `entry` does; None while nothing has changed since the start."""
    parked: bool = False
    """Nobody wants it any more, or not yet again: another router's, of whose models we delete nothing."""
    leaving: bool = False
    """Its removal is under way in this process."""
    halted: faults.Fault | None = None
    """Why its job was told to stop, where the job itself could not know."""

    placement: tuple[tuple[File, ...], dict[str, Any]] | None = None
    """What `reporting.py` made of the files that it was made of."""
    stuck: str = ""
    """Why it cannot be removed so far, in one sentence."""

    shared_bytes: int = 0
    """Bytes of it that another service on this machine needs, too: they stay when it is deleted here."""

    @property
    def order(self) -> Order:
        """Place in the queue; the smaller goes first."""
        return (math.inf if self.entry.queue is None else self.entry.queue, self.seen)

    @property
    def held_for_room(self) -> bool:
        """Whether it waits for room on the disk."""
        return self.progress.fault_code == "no_space"

    @property
    def unfinished(self) -> bool:
        """Whether bytes of it are still to come."""
        return self.entry.state in (State.WANTED, State.FAILED)


class Holdings:
    """All models of this node. Used on the event loop; `in_thread` in a name says what threads may call."""

    def __init__(self, journal: Journal, cache: Cache, tuning: Tuning, on_change: Callable[[], None]) -> None:
        """`on_change` is called on the loop when something is to be reported at once."""
        self.cache, self.on_change = cache, on_change
        self._journal, self._tuning = journal, tuning
        self._seen = itertools.count()
        self._by_name: dict[str, Held] = {}
        self._loop = asyncio.get_running_loop()
        self.totals = Totals()
        self.tasks: set[asyncio.Task[None]] = set()
        """Everything under way; to be cancelled at the end."""

    def __iter__(self) -> Iterator[Held]:
        """A copy, so that threads may walk through it and owners may change it meanwhile."""
        return iter([*self._by_name.values()])

    def get(self, name: str) -> Held | None:
        return self._by_name.get(name)

    def add(self, entry: Entry) -> Held:
        """Take in a model that is in the record."""
        progress = Progress(
            entry.name,
            max_attempts=int(self._tuning.max_attempts),
            history=entry.history,
            on_phase=lambda: self.call_soon(self.on_change),
            totals=self.totals,
        )
        held = self._by_name[entry.name] = Held(entry, progress, next(self._seen))
        progress.on_event = lambda history: self.call_soon(self._remember, held, history)
        return held

    def put(self, held: Held, entry: Entry) -> None:
        """Change a model. What must not begin before that is durable awaits `written()`."""
        held.entry = entry
        held.written = self._journal.put(entry)

    def create(self, entry: Entry) -> Held:
        """Take in a new model."""
        held = self.add(entry)
        self.put(held, entry)
        return held

    def drop(self, held: Held) -> None:
        """Forget a model of which nothing is left."""
        self._journal.drop(held.entry.name)
        self.cache.claims.forget(held.entry.name)
        self._by_name.pop(held.entry.name, None)

    async def written(self, held: Held) -> None:
        """Wait until what is known of a model is on disk, however long that takes.

        A disk that refuses it (a full one) holds nobody up: it is written later, and until then the disk itself says
        what there is.
        """
        if held.written is not None:
            with contextlib.suppress(sqlite3.Error):
                await asyncio.shield(asyncio.wrap_future(held.written))

    async def plan(self, held: Held) -> None:
        """Tell a model's progress what there is to fetch, and what of it is on disk."""
        files = held.entry.files
        if files:
            plan = await in_thread(lambda: [(each.path, each.size, self._bytes_here(each)) for each in files], "plan")
            if held.entry.files is files:
                held.progress.plan(plan)

    async def missing(self, files: Collection[File]) -> set[File]:
        """Those of some files that are not whole on disk."""
        return await in_thread(lambda: {each for each in files if not self.cache.is_whole(each)}, "look at files")

    def _bytes_here(self, file: File) -> int:
        if file.size and self.cache.is_whole(file):
            return file.size
        return min(self.cache.part_bytes(file), file.size or 0)

    def files_changed_in_thread(self, held: Held, job: Job, changes: Mapping[int, File]) -> Written:
        """A job has learnt something about some of its files, by index; done when that is durable."""
        written: Written = Future()
        self.call_soon(self._files_changed, held, job, changes, written)
        return written

    def _files_changed(self, held: Held, job: Job, changes: Mapping[int, File], written: Written) -> None:
        if self._by_name.get(held.entry.name) is not held or held.job is not job:
            written.cancel()
            return
        files = [*held.entry.files]
        for index, file in changes.items():
            if index < len(files) and _place(files[index]) == _place(file):  # else it has other files by now
                files[index] = file
        self.put(held, replace(held.entry, files=tuple(files)))
        assert held.written is not None
        held.written.add_done_callback(lambda done: _pass_on(done, written))

    def _remember(self, held: Held, history: History) -> None:
        if self._by_name.get(held.entry.name) is held and held.entry.history != history:
            self.put(held, replace(held.entry, history=history))
            self.on_change()

    def call_soon(self, call: Callable[..., None], *args: object) -> None:
        """Call something on the loop, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that is cancelled at the end and whose crash is logged."""
        task = self._loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(_log_crash)
        return task


def _place(file: File) -> tuple[str, str, str]:
    return file.repo, file.revision, file.path


def _pass_on(done: Written, to: Written) -> None:
    error = done.exception()
    if error is None:
        to.set_result(None)
    else:
        to.set_exception(error)


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a task ended unexpectedly", exc_info=task.exception())
