"""Downloads and likes of hub repos: cached for exactly ten minutes, shown stale meanwhile, silent when the hub is down.

The local router reports these numbers with its list; with any other router the dashboard asks for what is missing.
Rows are plain JSON on disk, never a pickle: whoever can write the cache folder must not be able to run code here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from modelhub_tui.config import DEFAULT_ENDPOINT
from modelhub_tui.domain import HubStats

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

FRESH_S = 600.0
"""How long a row, also one that says "not found", is good for."""
KEPT_S = 30 * 86_400.0
"""How long a row may still be shown, marked stale, while a newer one is fetched."""
CONCURRENCY = 8
"""Measured optimum of httpx against one host; 32 is slower than 8."""
BODY_LIMIT = 256 * 1024
_NEGATIVE = frozenset({401, 403, 404})
_COUNT_LIMIT = 2**53
_HOLD_S = 60.0
"""A repo that the hub fails on is left alone for this long."""
_FAILURES_UNTIL_DOWN = 3

Row = dict[str, Any]
T = TypeVar("T")


class HubStatsCache:
    """What the hub last said about each repo, on disk and mirrored in memory.

    Methods block for about 100 microseconds per repo the first time it is asked for, and for one afterwards: ask for
    many repos off the event loop first. Safe to use from several threads and processes. A folder that cannot be used
    leaves a cache in memory only; a corrupt file is moved aside and made anew.

    Args:
        directory: Folder of the cache; created with mode 0700.
        clock: Seconds since the epoch.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._directory = directory
        self._endpoint = DEFAULT_ENDPOINT
        self._token: Callable[[], str | None] = lambda: None
        self._rows: dict[str, Row | None] = {}
        self._lock = threading.RLock()
        self._disk: Any = None
        self._usable = True

    def bind(self, endpoint: str, token: Callable[[], str | None]) -> None:
        """Keep apart what different hubs, and the same hub to different accounts, say about a repo."""
        self._endpoint, self._token = endpoint.rstrip("/"), token

    def get_many(self, repos: Iterable[str]) -> dict[str, HubStats]:
        """Return what is known, by lower-case repo; rows older than ten minutes are marked stale."""
        now, prefix = self.clock(), self._prefix()
        found: dict[str, HubStats] = {}
        for repo in repos:
            row = self._row(prefix, repo.lower())
            if row is not None and row["ok"] and _age(row, now) < KEPT_S:
                found[repo.lower()] = HubStats(row["downloads"], row["likes"], stale=not _is_fresh(row, now))
        return found

    def stale(self, repos: Iterable[str]) -> list[str]:
        """Return the repos that have no row younger than ten minutes, in the order given and without repetition.

        Another process may have refreshed a row, so old ones are read from disk again.
        """
        now, prefix = self.clock(), self._prefix()
        wanted: dict[str, str] = {}
        for repo in repos:
            row = self._row(prefix, repo.lower())
            if not _is_fresh(row, now) and not _is_fresh(self._reread(prefix + repo.lower()), now):
                wanted.setdefault(repo.lower(), repo)
        return list(wanted.values())

    def put(self, repo: str, *, downloads: int | None, likes: int | None) -> None:
        """Remember what the hub said just now."""
        self._write(repo, {"ok": 1, "at": self.clock(), "downloads": downloads, "likes": likes})

    def put_failure(self, repo: str, code: int) -> None:
        """Remember that the hub refuses to say (401, 403, 404), so that it is not asked again for ten minutes."""
        self._write(repo, {"ok": 0, "at": self.clock(), "code": code})

    def close(self) -> None:
        """Close the file. The cache can be used again; it then opens anew."""
        with self._lock:
            if self._disk is not None:
                self._disk.close()
            self._disk = None
            self._rows.clear()

    def _prefix(self) -> str:
        token = self._token()
        account = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()[:16] if token else ""
        return f"{self._endpoint}|{account}|"

    def _row(self, prefix: str, repo: str) -> Row | None:
        key = prefix + repo
        try:
            return self._rows[key]
        except KeyError:
            return self._reread(key)

    def _reread(self, key: str) -> Row | None:
        with self._lock:
            row, held = _valid(self._guarded(lambda disk: disk.get(key))), self._rows.get(key)
            if row is None or (held is not None and held["at"] > row["at"]):
                row = held  # a disk that fails must not lose what memory holds
            self._rows[key] = row
            return row

    def _write(self, repo: str, row: Row) -> None:
        key = self._prefix() + repo.lower()
        with self._lock:
            self._rows[key] = row
            self._guarded(lambda disk: disk.set(key, row, expire=KEPT_S))

    def _guarded(self, work: Callable[[Any], T]) -> T | None:
        """Do one thing with the disk; None when it cannot be done. Statistics are never worth an error."""
        for _attempt in (1, 2):
            try:
                disk = self._open()
                return None if disk is None else work(disk)
            except sqlite3.OperationalError as error:
                if not self._is_endless(error):
                    log.debug("hub statistics: the cache is busy or not writable: %s", error)
                    return None
                log.debug("hub statistics: the cache works without end, starting anew: %s", error)
                self._set_aside()
            except (sqlite3.DatabaseError, TypeError, AttributeError) as error:
                # "not a database", or nothing that we wrote: somebody else's file, or a damaged one.
                log.debug("hub statistics: the cache is damaged, starting anew: %s", error)
                self._set_aside()
            except (ValueError, OSError, EOFError) as error:
                log.debug("hub statistics: an unusable row: %s", error)
                return None
            except Exception as error:
                # zlib.error and diskcache.Timeout derive from Exception only.
                log.debug("hub statistics: %r", error)
                return None
        return None

    @staticmethod
    def _is_endless(error: BaseException) -> bool:
        from modelhub_tui import hub_stats_disk

        return hub_stats_disk.is_endless(error)

    def _open(self) -> Any:
        if self._disk is None and self._usable:
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._directory.is_symlink() or self._directory.stat().st_uid != os.geteuid():
                    raise PermissionError("the folder belongs to somebody else")
                self._directory.chmod(0o700)
            except OSError as error:
                log.debug("hub statistics: kept in memory only: %s", error)
                self._usable = False
                return None
            from modelhub_tui import hub_stats_disk

            try:
                self._disk = hub_stats_disk.open_disk(self._directory)
            except hub_stats_disk.NotOurs as error:
                raise sqlite3.DatabaseError(str(error)) from error
            except (OSError, sqlite3.OperationalError) as error:
                log.debug("hub statistics: kept in memory only: %s", error)
                self._usable = False
        return self._disk

    def _set_aside(self) -> None:
        if self._disk is not None:
            with contextlib.suppress(Exception):
                self._disk.close()
            self._disk = None
        aside = self._directory.with_name(self._directory.name + ".corrupt")
        try:
            import shutil

            if aside.is_symlink() or aside.is_file():
                aside.unlink()
            shutil.rmtree(aside, ignore_errors=True)
            self._directory.rename(aside)
        except OSError as error:
            log.debug("hub statistics: kept in memory only: %s", error)
            self._usable = False


def _valid(row: Any) -> Row | None:
    """A row as we would have written it, or None: the file may be anybody's."""
    if not isinstance(row, dict) or row.get("ok") not in (0, 1):
        return None
    at = row.get("at")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e12:  # also refuses NaN
        return None
    downloads, likes = _count(row.get("downloads")), _count(row.get("likes"))
    return {"ok": row["ok"], "at": float(at), "downloads": downloads, "likes": likes}


def _count(value: Any) -> int | None:
    """A number of downloads or likes, or None for anything that is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNT_LIMIT else None


def _age(row: Row, now: float) -> float:
    """Seconds since the row was written; one from the future, before a clock was set back, is due to be fetched."""
    age = now - float(row["at"])
    return age if age >= 0 else FRESH_S


def _is_fresh(row: Row | None, now: float) -> bool:
    return row is not None and _age(row, now) < FRESH_S


class HubStatsService:
    """Keeps a cache fresh from a hub, without ever making anybody wait or reporting an error.

    Args:
        cache: What to fill. All its disk work happens in one worker thread of this service.
        endpoint: The hub, such as `https://huggingface.co`.
        token: The current hub token, or None; sent to the endpoint's own host only.
        transport: Replaces the network, in tests.
        monotonic: Clock for pauses: one that is set back would make them last for hours.
    """

    def __init__(
        self,
        cache: HubStatsCache,
        endpoint: str,
        token: Callable[[], str | None] = lambda: None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache, self._endpoint, self._token, self._transport = cache, endpoint.rstrip("/"), token, transport
        self._monotonic = monotonic
        cache.bind(self._endpoint, token)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub-stats")
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._busy: set[str] = set()
        self._held: dict[str, float] = {}
        self._quiet_until = float("-inf")
        self._failures = 0
        self._http: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def load(self, repos: Iterable[str]) -> dict[str, HubStats]:
        """Return what the cache knows, by lower-case repo, without asking the hub."""
        return await self._in_worker(self._cache.get_many, tuple(repos))

    async def refresh(self, repos: Iterable[str]) -> bool:
        """Ask the hub about the repos whose numbers are missing or older than ten minutes.

        Returns at once while the hub is down or has asked for a pause. A repo that another call is asking about is left
        to it.

        Returns:
            True if `load()` now answers differently for any of them.
        """
        asked = tuple(repos)
        if self._is_quiet():
            return False
        now = self._monotonic()
        due = [
            repo
            for repo in await self._in_worker(self._cache.stale, asked)
            if repo.lower() not in self._busy and self._held.get(repo.lower(), now) <= now and _is_repo(repo)
        ]
        if not due:
            return False
        self._busy.update(repo.lower() for repo in due)
        try:
            before = await self.load(due)
            await asyncio.gather(*(self._fetch(repo) for repo in due))
            return await self.load(due) != before
        finally:
            self._busy.difference_update(repo.lower() for repo in due)

    async def aclose(self) -> None:
        """Close the connections and the cache."""
        if self._http is not None:
            await self._http.aclose()
        with contextlib.suppress(RuntimeError):  # closed before
            await self._in_worker(self._cache.close)
        self._worker.shutdown(wait=False)

    async def _in_worker(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)

    def _is_quiet(self) -> bool:
        return self._monotonic() < self._quiet_until

    async def _fetch(self, repo: str) -> None:
        async with self._slots:
            if self._is_quiet():
                return
            try:
                async with asyncio.timeout(30):
                    status, headers, body = await self._get(repo)
            except _failures() as error:
                self._failed(repo, repr(error))
                return
            await self._take(repo, status, headers, body)

    async def _take(self, repo: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        from modelhub_tui import net

        if status == 429:
            wait_s = net.retry_after_s(headers, self._cache.clock())
            self._quiet_until = max(self._quiet_until, self._monotonic() + (60.0 if wait_s is None else wait_s))
            log.debug("hub statistics: the hub asks to wait %s s", wait_s)
            return
        if status in _NEGATIVE:
            self._failures = 0
            await self._in_worker(self._cache.put_failure, repo, status)
            return
        try:
            told = net.loads(body) if status == 200 else None
        except ValueError as error:
            self._failed(repo, f"no JSON: {error}")
            return
        if not isinstance(told, dict):
            self._failed(repo, f"status {status}")
            return
        self._failures = 0
        self._held.pop(repo.lower(), None)
        downloads, likes = _count(told.get("downloads")), _count(told.get("likes"))
        await self._in_worker(lambda: self._cache.put(repo, downloads=downloads, likes=likes))

    def _failed(self, repo: str, why: str) -> None:
        """Note a failure of the network or the hub: it overwrites nothing, and a dead hub is not hammered."""
        log.debug("hub statistics of %s: %s", repo, why)
        now = self._monotonic()
        self._held[repo.lower()] = now + _HOLD_S
        if self._is_quiet():
            return  # one of several that were under way when the first failed: one outage, counted once
        self._failures += 1
        if self._failures >= _FAILURES_UNTIL_DOWN:
            doubled_s = 15.0 * 2 ** min(self._failures - _FAILURES_UNTIL_DOWN, 6)
            self._quiet_until = now + min(doubled_s * random.uniform(0.8, 1.2), FRESH_S)  # noqa: S311

    async def _get(self, repo: str) -> tuple[int, Mapping[str, str], bytes]:
        """GET a repo's numbers. A renamed repo redirects within the hub; any other host is not followed."""
        from modelhub_tui import net

        http = await self._client()
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self._endpoint}/api/models/{quote(repo)}?expand%5B%5D=downloads&expand%5B%5D=likes"
        for _hop in range(3):
            async with http.stream("GET", url, headers=headers) as response:
                if not response.has_redirect_location:
                    try:
                        return response.status_code, response.headers, await net.read_capped(response, BODY_LIMIT)
                    except net.TooLargeError as error:
                        raise ValueError("answer too large") from error
                target = urljoin(url, response.headers["Location"])
            if urlsplit(target)[:2] != urlsplit(self._endpoint)[:2]:
                raise ValueError("redirected to another host")
            url = target
        raise ValueError("redirected too often")

    async def _client(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._http is None:
                # Reading the CA bundle takes up to 150 ms: not on the loop.
                self._http = await asyncio.to_thread(self._new_client)
            return self._http

    def _new_client(self) -> httpx.AsyncClient:
        from modelhub_tui import net
        from modelhub_tui.hub_reach import reach_of

        return net.new_client(
            self._endpoint,
            connect_s=5.0,
            max_connections=CONCURRENCY,
            transport=self._transport,
            reach=reach_of(self._endpoint),
        )


def _failures() -> tuple[type[Exception], ...]:
    """What a request may raise; asked for once one has failed: importing httpx earlier would hold up the loop."""
    import httpx

    return httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError


def _is_repo(repo: str) -> bool:
    """True for `owner/name`: nothing else is put into a URL."""
    from modelhub_tui.errors import BadReference
    from modelhub_tui.hub_refs import parse_hub_ref

    try:
        return parse_hub_ref(repo).repo == repo
    except BadReference:
        return False
