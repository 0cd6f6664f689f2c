"""What a node knows from before, read at its start by a thread: the disk may be slow, and the database locked."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from pathlib import Path

from modelhub_tui.errors import ServiceFailed
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.claims import Owner
from modelhub_tui.service.node.record import Closed, Entry, Record, is_locked
from modelhub_tui.service.node.trash import Trash
from modelhub_tui.service.statefile import Lock
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

LIMITS = "limits"
_PREDECESSOR_S = 5.0
"""A node whose service was killed needs a moment to end."""
_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Memory:
    """The record, open, and what it said."""

    record: Record
    trash: Trash
    entries: tuple[Entry, ...]
    limits: str | None
    """What the router last said of limits, as `Record.set_setting(LIMITS, …)` has it."""
    lock: Lock | None = None
    """Held for as long as the node works with the record."""

    def close(self) -> None:
        """Let others have it."""
        self.record.close()
        if self.lock is not None:
            self.lock.close()


def recall(path: Path, cache: Cache, ending: threading.Event) -> Memory:
    """Open the record at `path` for this process alone. Blocks; waits for as long as another program has it locked.

    Args:
        ending: The node is to end: give up.

    Raises:
        ServiceFailed: Another node works with it.
        OSError: The folder cannot be used.
        sqlite3.Error: It cannot be opened.
        Closed: `ending` was set meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _alone(path.parent, ending)
    try:
        cache.claims.owner = Owner.of(path.parent)  # before the trash: its files bear our name
        record = _opened(path, ending)
        return Memory(record, Trash(cache, record), tuple(record.entries()), record.setting(LIMITS), lock)
    except BaseException:
        lock.close()
        raise


def _alone(folder: Path, ending: threading.Event) -> Lock:
    lock = Lock(folder / "node.lock")
    with contextlib.ExitStack() as undo:
        undo.callback(lock.close)
        until = time.monotonic() + _PREDECESSOR_S
        while not lock.acquire():
            if time.monotonic() > until:
                who = lock.holder()
                raise ServiceFailed(
                    f"Another node{f' (process {who})' if who else ''} works with {clean(folder, 300)}.",
                    "Stop that one first, or give this one a folder of its own with MODELHUB_STATE_DIR.",
                )
            if ending.wait(0.05):
                raise Closed
        undo.pop_all()
    return lock


def _opened(path: Path, ending: threading.Event) -> Record:
    told = False
    while True:
        try:
            return Record(path)
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
        if not told:
            log.warning("another program has locked %s; waiting until it lets go", path)
            told = True
        if ending.wait(_AGAIN_S):
            raise Closed
