"""Downloads and likes for the lists: refreshed behind them, and only while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub_tui.domain import HubStats
from modelhub_tui.hf_env import hub_token
from modelhub_tui.service.router.blocking import run_blocking

if TYPE_CHECKING:
    from modelhub_tui.hub_stats import HubStatsCache, HubStatsService

log = logging.getLogger(__name__)

LOOKED_S = 60.0
"""Somebody who listed models within this time is still looking."""
REFRESH_EVERY_S = 30.0
"""How often stale stats are looked for; each is asked for at most once in its ten minutes."""


class StatsFeed:
    """Hub stats by `lower(repo)`, from memory.

    Args:
        repos: The repos of interest now.
        changed: Called on the event loop when `known` has changed.
    """

    def __init__(
        self,
        directory: Path,
        endpoint: str,
        repos: Callable[[], Iterable[str]],
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.known: Mapping[str, HubStats] = {}
        self._directory, self._endpoint = directory, endpoint
        self._repos, self._changed, self._clock = repos, changed, clock
        self._looked_at = float("-inf")
        self._wake = asyncio.Event()
        self._cache: HubStatsCache | None = None
        self._service: HubStatsService | None = None

    def looked(self) -> None:
        """Somebody has just listed the models."""
        if self._clock() - self._looked_at > LOOKED_S:
            self._wake.set()
        self._looked_at = self._clock()

    async def run(self) -> None:
        """Refresh while somebody looks, until cancelled. Nothing that goes wrong here reaches a list."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._clock() - self._looked_at <= LOOKED_S:
                    try:
                        await self._refresh()
                    except Exception:
                        log.exception("hub stats could not be refreshed")
                    await asyncio.sleep(REFRESH_EVERY_S)
        finally:
            await self._close()

    async def _refresh(self) -> None:
        repos = sorted({*self._repos()})
        if self._service is None:
            await run_blocking(self._open, "stats")
        assert self._service is not None
        await self._reread(repos)
        task = asyncio.ensure_future(self._service.refresh(repos))
        try:
            while not task.done():
                # A hundred repos take a while: show what has come in so far.
                await asyncio.wait([task], timeout=1.0)
                await self._reread(repos)
            task.result()
        finally:
            task.cancel()

    async def _reread(self, repos: list[str]) -> None:
        cache = self._cache
        if cache is None:
            return
        known = await run_blocking(lambda: cache.get_many(repos), "stats")
        if known != self.known:
            self.known = known
            self._changed()

    def _open(self) -> None:
        # Imported here, in a thread: diskcache, httpx and the token reader cost the start nothing.
        from modelhub_tui.hub_stats import HubStatsCache, HubStatsService

        cache = HubStatsCache(self._directory)
        self._service = HubStatsService(cache, self._endpoint, hub_token)
        self._cache = cache

    async def _close(self) -> None:
        if self._service is not None and (close := getattr(self._service, "aclose", None)) is not None:
            await close()
        if self._cache is not None:
            await run_blocking(self._cache.close, "stats")
