"""Brings the files of one model onto the disk: ranged requests into a part file, resumed, retried, verified, published.

Everything here blocks, and runs in the worker thread of one transfer. `stop` is looked at before each write, so nothing
is written after a cancellation, even when a call to the hub answers late.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import resource
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from modelhub_tui.domain import Phase
from modelhub_tui.hub_reach import reach_of
from modelhub_tui.identifiers import is_sha256
from modelhub_tui.service.node import contents, faults
from modelhub_tui.service.node.asking import Expired, WriteFailed, bytes_to_skip, first_bytes, lost, open_range
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.hasher import Hasher, Verdict, look_at
from modelhub_tui.service.node.hub import Found, Hub
from modelhub_tui.service.node.manifest import File, unverifiable_name
from modelhub_tui.service.node.part import Part
from modelhub_tui.service.node.progress import Progress
from modelhub_tui.service.node.ranges import Lines, RangeIgnored, Ranges
from modelhub_tui.service.node.throttle import Throttle
from modelhub_tui.service.node.transport import BadHTTP, Body, Transport
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.service.node.xet import XetFile, XetTransport, is_available

log = logging.getLogger(__name__)

BUFFER_BYTES = 1024 * 1024
_ROOM_CHECK_BYTES = 64 * 1024 * 1024


class Budget:
    """Failures in a row. New bytes start the count anew."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self.failures = 0
        self._doubts = 0
        """Faults in a row that would be final, were they believed at once."""

    def progressed(self) -> None:
        self.failures = self._doubts = 0

    def spend(self, fault: faults.Fault) -> float:
        """Count a failure and return how long to wait, in seconds; raises the fault when there were too many."""
        self.failures += 1
        self._doubts = 0 if fault.passing else self._doubts + 1
        if self._doubts >= fault.tries or (fault.passing and self.failures >= self._tuning.max_attempts):
            raise fault
        wait = min(self._tuning.backoff_base_s * 2.0 ** (self.failures - 1), self._tuning.backoff_cap_s)
        wait *= 0.5 + random.random() / 2  # noqa: S311 - spreads retries, hides nothing
        return max(wait, min(fault.retry_after_s or 0.0, self._tuning.retry_after_cap_s))


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
        note: Callable[[Mapping[int, File]], None],
        tell: Callable[[Mapping[int, File]], object],
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.monotonic,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """`check_room` raises Fault `no_space` when the disk is nearly full.

        `note` and `tell` are given what to remember of files, by index: `note` returns once that is on disk.
        """
        self._hub, self._cache, self._transport, self._tuning = hub, cache, transport, tuning
        self._progress, self._stop, self._check_room, self._clock = progress, stop, check_room, clock
        self._note, self._tell, self._throttle = note, tell, throttle or Throttle()
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._lines = Lines(int(tuning.connections), tuning.fast_bps)
        self._no_ranges: set[str] = set()
        """Hosts that send whole files only."""
        self._no_xet = False
        self._silent = False
        """The hub did not answer about a file that is here already."""
        self._xet: XetTransport | None = None

    def abort(self) -> None:
        """Let go of a connection that is not the transport's own. From any thread, after `stop` is set."""
        xet = self._xet
        if xet is not None:
            xet.abort()

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

    def look_up_unknown(self, file: File) -> File:
        """What the registration left out, from the hub.

        A file that is whole in the cache needs no hub, unless that tells a checksum to look at it with: asked once.
        """
        if not (file.commit and file.size is not None and self._cache.is_whole(file)):
            return self.look_up(file)[0]
        if not self._silent:
            try:
                return self._pin(file, self._find(file))[0]
            except faults.Fault as fault:
                log.info("%s of %s is here, and the hub tells no checksum: %s", file.path, file.repo, fault)
                self._silent = fault.passing
        return replace(file, etag=self._cache.linked_name(file) or unverifiable_name(file.commit, file.path))

    def bring(self, index: int, file: File) -> File:
        """Get one file whole and published; from the cache if it is there already.

        Returns:
            The file with everything known about it, `done`: its content is what `digest` says, where there is one.
        """
        if self._is_here(index, file):
            return replace(file, done=True)
        file, found = self.look_up(file)
        if self._adopt(index, file):
            return replace(file, done=True)
        file = replace(file, fetched=True)
        self._note({index: file})  # before there is a byte: whatever is found on disk after a crash is ours to remove
        return self._fetch(index, file, found)

    def bring_group(self, files: Mapping[int, File]) -> None:
        """Get some small files of which all is known, with one note of them before and one after.

        The hub is not asked about them: the bytes are what their checksums say, or they are not taken.
        """
        missing = {at: replace(file, fetched=True) for at, file in files.items() if not self._is_here(at, file)}
        done = {at: replace(file, done=True) for at, file in files.items() if at not in missing and not file.done}
        if missing:
            self._note(missing)
        try:
            for at, file in missing.items():
                assert file.commit and file.digest and file.size is not None
                found = self._hub.assume(file.repo, file.commit, file.path, digest=file.digest, size=file.size)
                done[at] = self._fetch(at, file, found, sync=False)
        finally:
            if done:
                self._cache.sync_names(done.values())
                self._tell(done)

    def _fetch(self, index: int, file: File, found: Found, *, sync: bool = True) -> File:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if most != resource.RLIM_INFINITY and found.size > most:
            raise faults.disk_trouble(OSError(errno.EFBIG, "too large", file.path))  # now, and not at that byte
        budget = Budget(self._tuning)
        with Part(self._cache, file, found.size) as part:
            for damaged in (False, True):
                self._progress.begin_file(index, found.size, part.have)
                verdict = self._fill_and_verify(index, part, file, found, budget)
                why = None if verdict is Verdict.DAMAGED else contents.trouble_in(file.path, part.fd)
                if why is not None and (damaged or verdict is not Verdict.UNKNOWN):
                    # Its checksum is right, or it came twice: this is what the repo holds.
                    part.remove()
                    raise faults.not_weights(file.path, why)
                if verdict is not Verdict.DAMAGED and why is None:
                    self._cache.publish(file, part.fd, sync=sync)
                    return replace(file, done=True)
                what = why or "arrived with a wrong checksum"
                log.warning("%s of %s %s; %s", file.path, file.repo, what, "giving up" if damaged else "again")
                part.restart()
                self._progress.dropped_file(index)
            part.remove()
        if file.by_etag and file.etag:
            raise faults.etag_mismatch(file.path, self._hub.host, file.etag)
        raise faults.checksum(file.path)

    def _find(self, file: File) -> Found:
        revision = file.commit or file.revision
        found = self._hub.find(file.repo, revision, file.path, commit=file.commit, size=file.size)
        self._raise_if_stopped()
        return found

    def _pin(self, file: File, found: Found) -> tuple[File, Found]:
        """The file with what the hub adds to what is known of it; refused when the two contradict each other.

        An ETag never takes the place of a checksum that is known. Nor does it contradict one: it may be another hash of
        the same bytes, so these decide. Only the hub's own word of another sha256 saves us fetching them.
        """
        if file.commit and file.commit != found.commit:
            raise faults.changed_upstream(file.repo, file.path, f"commit {found.commit[:12]}, not {file.commit[:12]}")
        if file.size is not None and file.size != found.size:
            if found.size < contents.MOST_POINTER_BYTES and self._is_pointer(found):
                raise faults.pointer_sent(self._hub.host, file.path)
            raise faults.changed_upstream(file.repo, file.path, f"{found.size} bytes, not {file.size}")
        if found.linked and is_sha256(file.digest) and found.digest not in (None, file.digest):
            raise faults.changed_upstream(file.repo, file.path, "another sha256")
        known = replace(file, commit=found.commit, size=found.size)
        if file.etag is None:
            name = self._cache.linked_name(known) or unverifiable_name(found.commit, file.path)
            known = replace(known, etag=found.digest or name, by_etag=found.digest is not None)
        return known, found

    def _is_pointer(self, found: Found) -> bool:
        """Whether the hub has a git-lfs pointer where a larger file should be: its first bytes tell."""
        try:
            with contextlib.closing(open_range(self._transport, self._hub, found.url, 0, found.size)) as body:
                return body.status in (200, 206) and contents.is_pointer(first_bytes(body), found.size)
        except (faults.Fault, OSError, BadHTTP):
            self._raise_if_stopped()
            return False

    def _is_here(self, index: int, file: File) -> bool:
        return bool(file.commit and file.etag and file.size is not None) and self._adopt(index, file)

    def _adopt(self, index: int, file: File) -> bool:
        """Use what the cache holds already. Its content is read once and compared with the checksum, if there is one:
        the library only compares lengths."""
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
        here = str(self._cache.path_of(file) if linked else blob)
        takes_time = file.size > BUFFER_BYTES
        if takes_time:
            self._progress.phase(Phase.VERIFYING)
        verdict = look_at(here, file.digest, file.size, self._stop)
        self._raise_if_stopped()
        if takes_time:
            self._progress.phase(Phase.FETCHING)
        why = None if verdict is Verdict.DAMAGED else contents.trouble_at(file.path, here)
        if why is not None and verdict is not Verdict.UNKNOWN:
            raise faults.not_weights(file.path, why)
        good = verdict is not Verdict.DAMAGED and why is None
        if good and not linked:
            self._cache.make_link(file)
        elif not good:
            log.warning("%s of %s is in the cache, but damaged; fetching it again", file.path, file.repo)
            self._progress.dropped_file(index)
        return good

    def _fill_and_verify(self, index: int, part: Part, file: File, found: Found, budget: Budget) -> Verdict:
        """Append until the part is whole; say whether its content is right.

        Raises:
            Fault: Among others `changed_upstream`: it is not what was registered, but just what the hub now says it is.
        """
        hasher = Hasher(part.fd, file.digest, found.size)
        try:
            hasher.written(part.prefix)
            while part.have < found.size:
                try:
                    self._fill(index, part, found, hasher, budget)
                except Expired:
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
            verdict = hasher.verdict()
            if verdict is Verdict.GOOD:
                self._progress.verified(index)
            if verdict is Verdict.DAMAGED and not found.asked:
                _, found = self.look_up(file)
            # It is just what the hub told before it came. Before that condemns the model, the hub has to say so again.
            if verdict is Verdict.DAMAGED and hasher.read(found.digest) and self._still(file, found):
                part.remove()
                raise faults.changed_upstream(file.repo, file.path, "another checksum")
            return verdict
        finally:
            hasher.close()

    def _still(self, file: File, found: Found) -> bool:
        """Whether the hub tells the same checksum for a file as before."""
        return self.look_up(file)[1].digest == found.digest

    def _fill(self, index: int, part: Part, found: Found, hasher: Hasher, budget: Budget) -> None:
        """One try at what is missing: from Xet storage when the file is very large, else over several connections when
        it is large, else over one."""
        host = urlsplit(found.url).netloc
        if found.xet and found.size >= self._tuning.xet_bytes and part.map is None and not self._no_xet:
            if is_available() and self._pull_xet(index, part, found, found.xet, hasher, budget):
                return
            self._no_xet = True
        large = found.size >= self._tuning.parallel_bytes and self._tuning.connections > 1
        if (part.map is not None or large) and host not in self._no_ranges:
            try:
                self._pull_ranges(index, part, found, hasher, budget)
            except RangeIgnored:
                log.info("%s sends whole files only; one connection", host)
                self._no_ranges.add(host)
            else:
                return
        if part.map is not None and part.join():
            self._progress.begin_file(index, found.size, part.have)
        self._pull(index, part, found, hasher, budget, self._transport, found.url)

    def _pull_xet(self, index: int, part: Part, found: Found, xet: XetFile, hasher: Hasher, budget: Budget) -> bool:
        """Whether the file came whole from Xet storage; if not, plain HTTP goes on where this ended."""
        while True:
            had_bytes = part.have
            self._xet = transport = XetTransport(
                xet.hash,
                found.size,
                reach_of(self._hub.endpoint),
                connect_s=self._tuning.connect_s,
                stall_s=4 * self._tuning.stall_s,
            )
            try:
                self._raise_if_stopped()
                self._pull(index, part, found, hasher, budget, transport, xet.route)
                return True
            except faults.Fault as fault:
                if not fault.passing or fault.code in ("no_space", "disk"):
                    raise
                # Access to the storage is given for a while only: what brought something is worth another try.
                if part.have == had_bytes:
                    log.warning("%s: Xet storage fails: %s Going on with plain HTTP.", self._progress.name, fault)
                    return False
            finally:
                transport.abort()
                self._xet = None

    def _pull_ranges(self, index: int, part: Part, found: Found, hasher: Hasher, budget: Budget) -> None:
        def arrived(count: int) -> None:
            self._progress.advanced(index, count)
            hasher.written(part.whole_upto())
            budget.progressed()

        Ranges(
            part,
            found.url,
            hub=self._hub,
            transport=self._transport,
            lines=self._lines,
            throttle=self._throttle,
            tuning=self._tuning,
            stop=self._stop,
            on_bytes=arrived,
            check=lambda: self._check_disk(part),
        ).run()

    def _check_disk(self, part: Part) -> None:
        self._check_room()
        if os.fstat(part.fd).st_nlink == 0:
            raise faults.vanished(part.path)

    def _pull(
        self, index: int, part: Part, found: Found, hasher: Hasher, budget: Budget, transport: Transport, url: str
    ) -> None:
        """One request: append what it brings. Returns when the file is whole, raises Fault or Expired otherwise."""
        host = urlsplit(url).netloc
        body: Body | None = None
        try:
            body = open_range(transport, self._hub, url, part.have, found.size)
            skip = bytes_to_skip(body, part.have, found.size, host, part.name)
            came, checked_at = 0, part.have
            window_at, window_came = self._clock(), came
            while part.have < found.size:
                count = body.read_into(self._buffer[: self._throttle.block(len(self._buffer))])
                self._raise_if_stopped()
                if not count:
                    raise faults.connection_lost(host, f"it ended {found.size - part.have} bytes too early")
                came += count
                data = self._buffer[min(skip, count) : min(count, skip + found.size - part.have)]
                skip -= min(skip, count)
                if data:
                    self._append(index, part, data)
                    hasher.written(part.have)
                    budget.progressed()
                self._throttle.spend(count, self._stop)
                self._raise_if_stopped()
                now = self._clock()
                if now - window_at > 4 * self._tuning.stall_s:
                    if came - window_came < self._tuning.slow_bytes and not self._throttle.bytes_per_s:
                        raise faults.stalled(host, now - window_at)
                    window_at, window_came = now, came
                if part.have - checked_at >= _ROOM_CHECK_BYTES:
                    checked_at = part.have
                    self._check_disk(part)
        except TimeoutError as error:
            self._raise_if_stopped()
            raise faults.stalled(host, self._tuning.stall_s) from error
        except WriteFailed as error:
            raise error.error from error
        except (OSError, BadHTTP) as error:
            self._raise_if_stopped()
            raise lost(host, error) from error
        finally:
            if body is not None:
                body.close()

    def _append(self, index: int, part: Part, data: memoryview) -> None:
        before = part.have
        try:
            part.append(data)
        except OSError as error:
            raise WriteFailed(error) from error
        finally:
            self._progress.advanced(index, part.have - before)

    def _wait(self, budget: Budget, fault: faults.Fault) -> None:
        """Sit out a fault that is passing or not yet to be believed, visibly; raise it if it is final."""
        if fault.code in ("no_space", "busy"):
            raise fault
        delay_s = budget.spend(fault)
        log.info("%s: %s Again in %.1f s.", self._progress.name, fault, delay_s)
        self._progress.phase(Phase.RETRYING, fault.doubted(), attempt=budget.failures, retry_in_s=delay_s)
        if self._stop.wait(delay_s):
            raise faults.Stopped
        self._progress.phase(Phase.FETCHING)

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise faults.Stopped
