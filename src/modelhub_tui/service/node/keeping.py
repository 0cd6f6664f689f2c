"""What lies in the cache beside the models we hold: deleted ones that can be had back, and ones that nobody registered.

Runs on the node's event loop and does all its work in threads: folders may be large, and disks slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from modelhub_tui.domain import Limits
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.disk_use import used_by_each
from modelhub_tui.service.node.found import MAX_GROUPS, Finder, as_deleted
from modelhub_tui.service.node.job import in_thread
from modelhub_tui.service.node.manifest import File, Removal
from modelhub_tui.service.node.removal import sweep
from modelhub_tui.service.node.trash import Trash
from modelhub_tui.untrusted import clean

log = logging.getLogger(__name__)

_RECOVER_AGAIN_S = 1.0


class Keeping:
    """The trash, the finder and the true disk use of one node.

    Args:
        on_change: Called on the loop when there is something new to report.
        spawn: Starts what is to be done beside.
    """

    def __init__(
        self,
        trash: Trash,
        cache: Cache,
        on_change: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        *,
        every_s: float,
    ) -> None:
        self._spawn = spawn
        self._cache, self._on_change, self._every_s = cache, on_change, every_s
        self.trash = trash
        self.finder = Finder(cache)
        self._used: tuple[int, int] | None = None
        """(bytes of whole models, bytes of unfinished ones beside them); None before they were counted."""
        self._unknown: set[str] = set()
        """Deleted models of which the router knows nothing: its database was lost, or went back in time."""
        self._stamp = 0
        self._looked = False
        self.problem = ""
        """Why the cache cannot be looked at, in one sentence; empty while it can."""
        self._look_now = asyncio.Event()

    @property
    def stamp(self) -> tuple[object, ...]:
        """Changes when there is something new to report."""
        return (self._stamp, self.trash.heap, self.trash.trouble)

    async def run(self) -> None:
        """Finish what a killed process began, then keep an eye on trash and cache."""
        with contextlib.suppress(OSError):
            await self._recover()
        with contextlib.suppress(OSError):
            await in_thread(lambda: sweep(self._cache), "sweep")
        while True:
            self._look_now.clear()
            try:
                await in_thread(self._look, "look at cache")
                problem = ""
            except OSError as error:
                problem = f"The model folder cannot be read: {clean(error.strerror or error, 120)}."
                log.warning("%s", problem)
            if problem != self.problem:
                self.problem = problem
                self._stamp += 1
                self._on_change()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._look_now.wait()

    async def _recover(self) -> None:
        while True:
            try:
                await in_thread(self.trash.recover, "recover trash")
                return
            except BlockingIOError:  # another service is at work in the cache, and takes long
                await asyncio.sleep(_RECOVER_AGAIN_S)

    def _look(self) -> None:
        before = (self._looked, self.finder.groups, self.trash.heap)
        self.trash.maintain()
        self.finder.scan()
        self._looked = True
        if (True, self.finder.groups, self.trash.heap) != before:
            self._stamp += 1
            self._on_change()

    def limit(self, limits: Limits) -> None:
        """Follow what the router says; what is too old or too much goes at the next look, which is now."""
        self.trash.limits = limits
        self._look_now.set()

    def gone(self, files: Collection[File]) -> None:
        """A model was removed: nothing of its repos is offered before they have been looked at again."""
        self.finder.forget({file.repo for file in files})
        self._stamp += 1
        self._look_now.set()

    def obey(self, removals: Mapping[str, Removal], busy: Collection[str]) -> bool:
        """Free what the router orders to be freed; returns whether there is any.

        Args:
            removals: Its orders, by registration.
            busy: Names of models that are held, or wanted again.
        """
        freed = {each.registration for each in removals.values() if not each.keep} & self.trash.heap.registrations
        names = [name for name in self.trash.ordered(freed) if name not in busy]
        if names:
            self._spawn(self._free(names))
        return bool(names)

    async def _free(self, names: Collection[str]) -> None:
        await in_thread(lambda: self.trash.free(names), "empty trash")
        self._stamp += 1
        self._on_change()

    def heard(self, unknown: Collection[str]) -> None:
        """Take in of which deleted models, that it was told of, the router knows nothing: it can take them in again."""
        if {*unknown} != self._unknown:
            self._unknown = {*unknown}
            self._stamp += 1
            self._on_change()

    def measure(self, whole: Collection[File], unfinished: Collection[File], every: Collection[File]) -> None:
        """Count what the files of held models take on disk. Blocks.

        Args:
            whole: Files of the models that are told as placements.
            unfinished: Those of the other models that are told; what they share with a whole one is counted with that.
            every: Those of all models, another router's too, of which only what is partly fetched counts here.
        """
        models = [self._cache.path_of(file) for file in whole if file.commit]
        others = [self._cache.path_of(file) for file in unfinished if file.commit]
        others += [self._cache.part(file.repo, file.etag) for file in every if file.etag]
        in_models, in_others = used_by_each(models, others)
        self._used = in_models, in_others

    def report(self, removals: Mapping[str, Removal] | None, held: Collection[str | None]) -> dict[str, Any]:
        """Members of a heartbeat about the trash and the disk.

        Args:
            removals: The router's orders; None before its list was seen, or when it gives none.
            held: Registrations that we hold.
        """
        heap = self.trash.heap
        told: dict[str, Any] = {"trash_bytes": heap.bytes, "problem": self.problem or self.trash.trouble}
        # Of files of which nobody knows any more what they were, a model may consist: then what is missing is not told.
        if removals is not None and heap.whole:
            told["trash"] = [{"name": name, "bytes": size} for name, store, size in heap.names if store is not None]
        if removals is not None:
            here = {*held}
            told["removed"] = [
                each.order
                for each in removals.values()
                if each.registration not in here and (each.keep or each.registration not in heap.registrations)
            ]
        if self._used is not None:
            told["models_bytes"], told["unfinished_bytes"] = self._used
        return told

    def found(self, held: Collection[File]) -> list[dict[str, Any]] | None:
        """Member of a heartbeat about models that nobody registered; None before the first look."""
        if not self._looked:
            return None
        rows = self.trash.rows(self._unknown)
        deleted = [told for row in rows if (told := as_deleted(row.name, row.registration, row.files)) is not None]
        return [*self.finder.report(held), *deleted][:MAX_GROUPS]
