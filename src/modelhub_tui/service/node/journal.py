"""What is to be written to the record, by a thread of its own: nobody on the event loop waits for a disk or a lock.

Changes are written in the order in which they were asked for, many of them in one transaction. What must not begin
before its row is on disk waits for it: `await asyncio.wrap_future(journal.put(entry))`, or `result()` in a thread.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from modelhub_tui.service.node.record import Closed, Entry, Record

log = logging.getLogger(__name__)

Written = Future[None]
"""Done when the change is on disk. Raises sqlite3.Error when the disk refuses it; it is tried again all the same."""

_MOST = 500
"""Changes in one transaction."""
_AGAIN_S = 1.0
_END_S = 1.0
"""The longest that the end of the process waits for what is not yet written."""


class Journal:
    """The writer of one record. From any thread; no call waits."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._ahead: deque[tuple[Callable[[], None], Written]] = deque()
        self._more = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> Written:
        """Write a model."""
        return self._later(lambda: self._record.put(entry))

    def drop(self, name: str) -> Written:
        """Forget a model."""
        return self._later(lambda: self._record.drop(name))

    def set_setting(self, key: str, value: str) -> Written:
        """Remember a value over restarts."""
        return self._later(lambda: self._record.set_setting(key, value))

    def close(self) -> None:
        """Write what is still to be written, if that can be done soon, and end. Blocks. Then close the record."""
        with self._more:
            self._closing = True
            self._more.notify()
        self._thread.join(_END_S)

    def _later(self, change: Callable[[], None]) -> Written:
        written: Written = Future()
        with self._more:
            self._ahead.append((change, written))
            self._more.notify()
        return written

    def _run(self) -> None:
        most = _MOST
        while True:
            with self._more:
                while not self._ahead and not self._closing:
                    self._more.wait()
                batch = [self._ahead[at] for at in range(min(most, len(self._ahead)))]
            if not batch:
                return
            try:
                with self._record.batch():
                    for change, _ in batch:
                        change()
            except Closed:
                return
            except sqlite3.Error as error:
                # A full disk may have room for a few of them, and will have more when somebody has removed something.
                most = max(most // 2, 1)
                log.warning("the record cannot be written: %s", error)
                with self._more:
                    for _, written in self._ahead:
                        if not written.done():
                            written.set_exception(error)
                    if self._closing:
                        return
                    self._more.wait(_AGAIN_S)
                continue
            except Exception as error:
                # Nothing that another try would mend: the one that it is about is left out, for the sake of the others.
                if len(batch) > 1:
                    most = 1
                    continue
                log.exception("a change cannot be written down")
                batch[0][1].set_exception(error)
            most = min(2 * most, _MOST)
            for _, written in batch:
                if not written.done():
                    written.set_result(None)
            with self._more:
                for _ in batch:
                    self._ahead.popleft()
