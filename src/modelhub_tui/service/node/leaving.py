"""The end of a model on this node: its transfer stopped, its files removed, then forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from modelhub_tui.service.node import faults
from modelhub_tui.service.node.held import Held, Holdings
from modelhub_tui.service.node.job import in_thread
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.record import Entry, State
from modelhub_tui.service.node.removal import remove_files
from modelhub_tui.service.node.trash import Trash

log = logging.getLogger(__name__)

REMOVAL_RETRY_S = 10.0
LET_GO_S = 0.8
"""A job in the middle of a question to the hub ends seconds later; it writes nothing any more."""


class Leaving:
    """Removes models, however often it takes and over restarts."""

    def __init__(self, holdings: Holdings, trash: Trash, on_gone: Callable[[Entry], None]) -> None:
        """`on_gone` is told of each model that is gone."""
        self._holdings, self._trash, self._on_gone = holdings, trash, on_gone

    def abandon(self, held: Held) -> None:
        """Stop whatever is done for a model, and remove it."""
        log.info("%s was deleted; removing it", held.entry.name)
        self._holdings.put(held, replace(held.entry, state=State.REMOVING))
        if held.job is not None:
            held.job.cancel()
        if held.task is not None:
            held.task.cancel()
        self.begin(held)

    def begin(self, held: Held) -> None:
        """Go on with the removal of a model that the record calls `removing`."""
        held.leaving = True
        self._holdings.spawn(self._remove(held))

    async def _remove(self, held: Held) -> None:
        await let_go(held)
        await self._holdings.written(held)
        while True:
            entry = held.entry
            keep = [
                file
                for other in self._holdings
                if other is not held and other.entry.state is not State.REMOVING
                for file in other.entry.files
            ]
            try:
                await in_thread(lambda entry=entry, keep=keep: self._remove_files(entry, keep), "remove")  # type: ignore[misc]
                break
            except Exception as error:  # whatever it is: nobody else would try again, and somebody waits for it
                log.warning("%s cannot be removed yet: %r", entry.name, error)
                self._say(held, error)
                await asyncio.sleep(REMOVAL_RETRY_S)
        self._holdings.drop(held)
        self._holdings.on_change()
        self._on_gone(held.entry)

    def _say(self, held: Held, error: Exception) -> None:
        """Let the router know why a model is still here."""
        why = faults.not_removed(error).sentence
        if why != held.stuck:
            held.stuck = why
            self._holdings.on_change()

    def _remove_files(self, entry: Entry, keep: list[File]) -> None:
        # Before: a service that deletes the same meanwhile then leaves nothing for our sake, nor do we for its.
        self._holdings.cache.claims.release(entry.name)
        if entry.whole and entry.store is not None:
            self._trash.discard(entry.name, entry.store, entry.files, keep, entry.registration)
        elif entry.whole:
            # An upstream router has no way to ask for it back.
            remove_files(self._holdings.cache, entry.files, keep)
        else:
            # Cancelled before it was whole: what was in the cache before us stays.
            fetched = tuple(each for each in entry.files if each.fetched)
            remove_files(self._holdings.cache, fetched, keep)


async def let_go(held: Held) -> None:
    """Wait until a cancelled job has let go of its files; not for ever."""
    job = held.job
    if job is not None:
        await in_thread(lambda: job.ended.wait(LET_GO_S), "let go")
        held.job = None
