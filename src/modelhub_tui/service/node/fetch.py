"""Brings the files of one model onto the disk: ranged requests into a part file, resumed, retried, verified, published.

Everything here blocks, and runs in the worker thread of one transfer. `stop` is looked at before each write, so nothing
is written after a cancellation, even when a call to the hub answers late.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from urllib.parse import urljoin, urlsplit

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.hasher import Hasher, file_matches
from modelhub_tui.service.node.hub import Found, Hub, retry_after_s, safe_hop
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.progress import Progress
from modelhub_tui.service.node.throttle import Throttle
from modelhub_tui.service.node.transport import BadHTTP, Body, Transport
from modelhub_tui.service.node.tuning import Tuning

log = logging.getLogger(__name__)

BUFFER_BYTES = 1024 * 1024
_ROOM_CHECK_BYTES = 64 * 1024 * 1024
_MAX_REDIRECTS = 5
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")


class _Expired(Exception):
    """The address of the bytes is good no longer; the hub has to be asked again."""


class Budget:
    """Failures in a row. New bytes start the count anew."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self.failures = 0

    def progressed(self) -> None:
        self.failures = 0

    def spend(self, fault: faults.Fault) -> float:
        """Count a failure and return how long to wait, in seconds; raises the fault when there were too many."""
        self.failures += 1
        if self.failures >= self._tuning.max_attempts:
            raise fault
        wait = min(self._tuning.backoff_base_s * 2.0 ** (self.failures - 1), self._tuning.backoff_cap_s)
        wait *= 0.5 + random.random() / 2  # noqa: S311 - spreads retries, hides nothing
        return max(wait, min(fault.retry_after_s or 0.0, self._tuning.retry_after_cap_s))


class Part:
    """An unfinished file, open and ours alone: `flock` keeps a second process (or transfer) off the same bytes."""

    def __init__(self, cache: Cache, file: File, size: int) -> None:
        """Raises Fault `busy` when somebody else is at it, OSError when the disk says no."""
        assert file.etag and file.commit
        cache.prepare(file.repo, file.commit)
        self.path = cache.part(file.repo, file.etag)
        self.size = size
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Published or removed between open and lock: then this is no longer the file at that path.
                same = os.path.samestat(os.fstat(self.fd), self.path.stat())
            except (BlockingIOError, FileNotFoundError):
                same = False
            if not same:
                raise faults.elsewhere()
            self.have = os.fstat(self.fd).st_size
            if self.have > size:
                self.restart()
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def append(self, data: memoryview) -> None:
        """Write all of `data` after what is there. A full disk may take a part of it: what is there then counts."""
        while data:
            count = os.pwrite(self.fd, data, self.have)
            self.have += count
            data = data[count:]

    def restart(self) -> None:
        os.ftruncate(self.fd, 0)
        self.have = 0


class Fetcher:
    """Brings files, one after the other. One for each transfer's thread."""

    def __init__(
        self,
        *,
        hub: Hub,
        cache: Cache,
        transport: Transport,
        tuning: Tuning,
        progress: Progress,
        stop: threading.Event,
        check_room: Callable[[], None],
        on_file: Callable[[int, File], None],
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check_room` raises Fault `no_space` when the disk is nearly full; `on_file` is told what to remember."""
        self._hub, self._cache, self._transport, self._tuning = hub, cache, transport, tuning
        self._progress, self._stop, self._check_room, self._clock = progress, stop, check_room, clock
        self._on_file, self._throttle = on_file, throttle or Throttle()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def look_up(self, file: File) -> tuple[File, Found]:
        """Ask the hub about a file, patiently, and pin what was not known.

        Raises:
            Fault: No such file for us, or another one than was registered, or no answer in the end.
        """
        budget = Budget(self._tuning)
        while True:
            try:
                return self._pin(file, self._find(file))
            except faults.Fault as fault:
                self._wait(budget, fault)

    def bring(self, index: int, file: File) -> File:
        """Get one file whole, verified and published; from the cache if it is there already.

        Returns:
            The file with everything known about it, `done`.
        """
        if file.commit and file.etag and file.size is not None and self._adopt(index, file):
            return replace(file, done=True)
        file, found = self.look_up(file)
        if self._adopt(index, file):
            return replace(file, done=True)
        budget = Budget(self._tuning)
        file = replace(file, fetched=True)
        self._on_file(index, file)  # before there is a byte: whatever is found on disk after a crash is ours to remove
        with Part(self._cache, file, found.size) as part:
            for damaged in (False, True):
                self._progress.begin_file(index, found.size, part.have)
                if self._fill_and_verify(part, file, found, budget):
                    self._cache.publish(file, part.fd)
                    return replace(file, done=True)
                log.warning(
                    "%s of %s arrived with a wrong checksum; %s",
                    file.path,
                    file.repo,
                    "giving up" if damaged else "again",
                )
                part.restart()
                self._progress.dropped_file()
            part.path.unlink(missing_ok=True)
        raise faults.checksum(file.path)

    def _find(self, file: File) -> Found:
        found = self._hub.find(file.repo, file.commit or file.revision, file.path)
        self._raise_if_stopped()
        return found

    def _pin(self, file: File, found: Found) -> tuple[File, Found]:
        """The file with the hub's facts; refused when they contradict what was registered."""
        same_kind = file.etag is None or len(file.etag) == len(found.etag)
        if (
            (file.commit and file.commit != found.commit)
            or (file.size is not None and file.size != found.size)
            or (same_kind and file.etag and file.etag != found.etag)
        ):
            raise faults.changed_upstream(file.repo, file.path)
        return replace(file, commit=found.commit, size=found.size, etag=found.etag), found

    def _adopt(self, index: int, file: File) -> bool:
        """Use what the cache holds already. Its content is read once and checked: the library only compares lengths."""
        assert file.etag and file.size is not None
        blob = self._cache.blob(file.repo, file.etag)
        linked = self._cache.is_whole(file)
        if linked and file.done:
            return True
        try:
            if not linked and blob.stat().st_size != file.size:
                return False
        except OSError:
            return False
        self._progress.begin_file(index, file.size, file.size)
        self._progress.phase(Phase.VERIFYING)
        good = file_matches(str(self._cache.path_of(file) if linked else blob), file.etag, file.size, self._stop)
        self._raise_if_stopped()
        self._progress.phase(Phase.FETCHING)
        if good and not linked:
            self._cache.make_link(file)
        elif not good:
            log.warning("%s of %s is in the cache, but damaged; fetching it again", file.path, file.repo)
            self._progress.dropped_file()
        return good

    def _fill_and_verify(self, part: Part, file: File, found: Found, budget: Budget) -> bool:
        """Append until the part is whole; say whether its content is right."""
        assert file.etag
        hasher = Hasher(part.fd, file.etag, found.size)
        try:
            hasher.written(part.have)
            while part.have < found.size:
                try:
                    self._pull(part, found, hasher, budget)
                except _Expired:
                    refused = faults.bad_answer(urlsplit(found.url).netloc, "it refuses the address the hub gave us")
                    # The hub knows the reason if there is one; an address that is merely old costs no waiting.
                    _, found = self.look_up(file)
                    if budget.failures:
                        self._wait(budget, refused)
                    else:
                        budget.spend(refused)
                except faults.Fault as fault:
                    self._wait(budget, fault)
                    if budget.failures >= 2:
                        _, found = self.look_up(file)
            if not hasher.finished(0.3):
                self._progress.phase(Phase.VERIFYING)
                while not hasher.finished(0.2):
                    self._raise_if_stopped()
                self._progress.phase(Phase.FETCHING)
            self._raise_if_stopped()
            return hasher.matches()
        finally:
            hasher.close()

    def _pull(self, part: Part, found: Found, hasher: Hasher, budget: Budget) -> None:
        """One request: append what it brings. Returns when the file is whole, raises Fault or _Expired otherwise."""
        host = urlsplit(found.url).netloc
        body: Body | None = None
        try:
            body = self._open(found.url, part.have, found.size)
            skip = _skip_or_raise(body, part.have, found.size, host)
            window_at, window_have, checked_at = self._clock(), part.have, part.have
            while part.have < found.size:
                count = body.read_into(self._buffer[: self._throttle.block(BUFFER_BYTES)])
                self._raise_if_stopped()
                if not count:
                    raise faults.connection_lost(host, f"it ended {found.size - part.have} bytes too early")
                data = self._buffer[min(skip, count) : min(count, skip + found.size - part.have)]
                skip -= min(skip, count)
                if data:
                    self._append(part, data)
                    hasher.written(part.have)
                    budget.progressed()
                self._throttle.spend(count, self._stop)
                self._raise_if_stopped()
                now = self._clock()
                if now - window_at > 4 * self._tuning.stall_s:
                    if part.have - window_have < self._tuning.slow_bytes and not skip:
                        raise faults.stalled(host, now - window_at)
                    window_at, window_have = now, part.have
                if part.have - checked_at >= _ROOM_CHECK_BYTES:
                    checked_at = part.have
                    self._check_room()
                    if os.fstat(part.fd).st_nlink == 0:
                        raise faults.vanished(part.path)
        except TimeoutError as error:
            self._raise_if_stopped()
            raise faults.stalled(host, self._tuning.stall_s) from error
        except _WriteFailed as error:
            raise error.error from error
        except (OSError, BadHTTP) as error:
            self._raise_if_stopped()
            raise faults.connection_lost(
                host, getattr(error, "strerror", None) or str(error) or type(error).__name__
            ) from error
        finally:
            if body is not None:
                body.close()

    def _append(self, part: Part, data: memoryview) -> None:
        before = part.have
        try:
            part.append(data)
        except OSError as error:
            raise _WriteFailed(error) from error
        finally:
            self._progress.advanced(part.have - before)

    def _open(self, url: str, start: int, size: int) -> Body:
        """Ask for the rest of the file, following redirects; each hop gets only the headers its host may see."""
        for _ in range(_MAX_REDIRECTS):
            body = self._transport.open(url, {**self._hub.headers_for(url), "Range": f"bytes={start}-{size - 1}"})
            if body.status not in (301, 302, 303, 307, 308):
                return body
            target = urljoin(url, body.headers.get("location", ""))
            body.close()
            if not safe_hop(url, target):
                raise faults.bad_answer(urlsplit(url).netloc, "it redirects to an unsafe address")
            url = target
        raise faults.bad_answer(urlsplit(url).netloc, "it redirects without end")

    def _wait(self, budget: Budget, fault: faults.Fault) -> None:
        """Sit out a passing fault, visibly; raise it if it is not, or has lasted too long."""
        if not fault.passing or fault.code in ("no_space", "busy"):
            raise fault
        delay_s = budget.spend(fault)
        log.info("%s: %s Again in %.1f s.", self._progress.name, fault, delay_s)
        self._progress.phase(Phase.RETRYING, fault, attempt=budget.failures, retry_in_s=delay_s)
        if self._stop.wait(delay_s):
            raise faults.Stopped
        self._progress.phase(Phase.FETCHING)

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise faults.Stopped


class _WriteFailed(Exception):
    """Keeps a disk's OSError apart from a socket's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _skip_or_raise(body: Body, have: int, size: int, host: str) -> int:
    """Check an answer's head; return how many bytes of its body are on disk already."""
    if body.headers.get("content-encoding", "identity") not in ("", "identity"):
        raise faults.bad_answer(host, "it compresses the file")
    if body.status == 206:
        told = _CONTENT_RANGE.match(body.headers.get("content-range", ""))
        if told is None or int(told[1]) != have or told[3] not in ("*", str(size)):
            raise faults.bad_answer(host, "another range than the one asked for")
        return 0
    if body.status == 200:
        length = body.headers.get("content-length", "")
        if length.isdigit() and int(length) != size:
            raise faults.bad_answer(host, "a file of another length")
        # Range ignored. What is on disk stays there: the total must not go backwards, and the checksum decides anyway.
        return have
    if body.status in (401, 403, 404, 410, 416):
        raise _Expired
    if body.status == 429:
        raise faults.rate_limited(retry_after_s(body.headers))
    raise faults.hub_failed(host, body.status, retry_after_s(body.headers))
