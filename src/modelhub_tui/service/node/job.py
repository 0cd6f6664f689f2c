"""One model's transfer, from its list of files to all of them whole in the cache. Runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, TypeVar

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.crowd import BUFFER_BYTES as CROWD_BUFFER_BYTES
from modelhub_tui.service.node.crowd import bring_crowd, stretches
from modelhub_tui.service.node.fetch import BUFFER_BYTES, Fetcher
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.journal import Written
from modelhub_tui.service.node.manifest import File, fetch_order
from modelhub_tui.service.node.progress import Progress
from modelhub_tui.service.node.refs import Refs
from modelhub_tui.service.node.throttle import Throttle
from modelhub_tui.service.node.transport import Transport
from modelhub_tui.service.node.tuning import Tuning

log = logging.getLogger(__name__)
T = TypeVar("T")
_LOOK_S = 0.2
"""How often a thread that waits for the record looks whether it is to stop."""


class Job:
    """A transfer that runs. `run()` blocks; `cancel()` ends it within milliseconds, from any thread."""

    def __init__(
        self,
        files: tuple[File, ...],
        *,
        hub: Hub,
        cache: Cache,
        refs: Refs,
        transport: Transport,
        tuning: Tuning,
        progress: Progress,
        check_room: Callable[[], None],
        on_files: Callable[[Mapping[int, File]], Written],
        throttle: Throttle | None = None,
    ) -> None:
        """`check_room` raises Fault `no_space`; `on_files` gets each change of what is known of files, by their index.

        `throttle` is the node's bandwidth cap; None for none.
        """
        self.files = list(files)
        self.ended = threading.Event()
        """Set when `run()` has let go of every file and connection."""
        self._stop = threading.Event()
        self._order: list[int] = []
        """Indexes of `files` in the order of fetching; the progress and the fetchers count by position in it."""
        self._refs, self._cache, self._transport, self._progress = refs, cache, transport, progress
        self._check_room, self._on_files = check_room, on_files
        self._crowd_stop = threading.Event()
        """As `_stop`, for the workers of a crowd; also set when one of them has failed."""

        def fetcher(transport: Transport, stop: threading.Event, buffer_bytes: int = BUFFER_BYTES) -> Fetcher:
            return Fetcher(
                hub=hub,
                cache=cache,
                transport=transport,
                tuning=tuning,
                progress=progress,
                stop=stop,
                check_room=check_room,
                note=lambda changes: self._await(self._tell(changes)),
                tell=self._tell,
                throttle=throttle,
                buffer_bytes=buffer_bytes,
            )

        self._make_fetcher = fetcher
        self._fetcher = fetcher(transport, self._stop)

    def cancel(self) -> None:
        """Stop at the next byte. What is on disk stays there."""
        self._stop.set()
        self._crowd_stop.set()
        self._transport.abort()
        self._fetcher.abort()

    def run(self) -> tuple[File, ...]:
        """Fetch what is missing.

        Returns:
            All files, whole, in the manifest's order: verified, those that have a checksum.

        Raises:
            Fault: Why it cannot be finished now.
            Stopped: After `cancel()`.
        """
        try:
            self._progress.phase(Phase.FETCHING)
            self._plan()
            if self._look_up_unknown():
                self._plan()
            claim(self._cache, self._progress.name, self.files)
            self._check_room()
            for positions in stretches([self.files[index] for index in self._order]):
                if self._stop.is_set():
                    raise faults.Stopped
                if len(positions) > 1:
                    bring_crowd(positions, self._file_at, self._crowd_worker, self._crowd_stop)
                else:
                    at = positions[0]
                    self._tell({at: self._fetcher.bring(at, self._file_at(at))})
            if self._stop.is_set():
                raise faults.Stopped
            self._write_refs()
            return tuple(self.files)
        except OSError as error:
            if self._stop.is_set():
                raise faults.Stopped from error
            raise (self.full() if error.errno == errno.ENOSPC else faults.disk_trouble(error)) from error
        finally:
            self._transport.close()
            self.ended.set()

    def full(self) -> faults.Fault:
        """The disk filled up under us: with bytes, with files, or for a reason that its figures do not show."""
        free, _ = self._cache.usage()
        needs = self._progress.missing_bytes()
        if needs > free:
            return faults.no_space(needs, free)
        return faults.no_names() if self._cache.free_names() == 0 else faults.called_full(free)

    def _file_at(self, position: int) -> File:
        return self.files[self._order[position]]

    def _crowd_worker(self) -> tuple[Fetcher, Transport]:
        transport = self._transport.another()
        return self._make_fetcher(transport, self._crowd_stop, CROWD_BUFFER_BYTES), transport

    def _tell(self, changes: Mapping[int, File]) -> Written:
        """Remember what is known of files, by position."""
        by_index = {self._order[position]: file for position, file in changes.items()}
        for index, file in by_index.items():
            self.files[index] = file
        return self._on_files(by_index)

    def _await(self, written: Written) -> None:
        """Wait until something is on disk, as long as that takes; a disk that refuses it will refuse the bytes, too."""
        while not self._stop.is_set():
            try:
                written.result(_LOOK_S)
            except TimeoutError:
                continue
            except sqlite3.Error as error:
                log.warning("%s: going on without a note: %s", self._progress.name, error)
            except CancelledError:
                break
            return
        raise faults.Stopped

    def _plan(self) -> None:
        """Tell the progress what there is to do, in the order in which it will be done."""
        plan = []
        self._order = fetch_order(tuple(self.files))
        for index in self._order:
            file = self.files[index]
            here = file.size if file.size is not None and self._cache.is_whole(file) else None
            plan.append(
                (file.path, file.size, min(self._cache.part_bytes(file), file.size or 0) if here is None else here)
            )
        self._progress.plan(plan)

    def _look_up_unknown(self) -> bool:
        """Learn the sizes an upstream router's manifest leaves out, and pin its branch to one commit for all files.

        Returns:
            Whether anything was not known.
        """
        pinned: dict[tuple[str, str], str] = {}
        learnt = False
        for index, file in enumerate(self.files):
            known = replace(file, commit=file.commit or pinned.get((file.repo, file.revision)))
            if known.size is None or known.etag is None or known.commit is None:
                known = self._fetcher.look_up_unknown(known)
                assert known.commit
                pinned.setdefault((known.repo, known.revision), known.commit)
            if known != file:
                self.files[index] = known
                self._on_files({index: known})
                learnt = True
        return learnt

    def _write_refs(self) -> None:
        """Let the library find the files offline, and keep them when it prunes."""
        self._refs.complete(self.files, self._stop.is_set)
        if not self._stop.is_set():
            self._refs.keep(self.files)


def claim(cache: Cache, name: str, files: Iterable[File]) -> None:
    """Let other services know what a model needs, before anything of it is touched.

    Raises:
        Fault: `busy`: one of them is removing files just now, and takes long.
    """
    try:
        cache.claims.hold(name, files)
    except BlockingIOError as error:
        raise faults.cache_busy() from error


def in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run blocking work in a daemon thread.

    Not `asyncio.to_thread`: its pool is joined when the process ends, so a hub that does not answer would hold it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
