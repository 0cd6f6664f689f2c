"""The node as a whole: follows the router's list, sends heartbeats, and stops when told to."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelhub_tui import __version__
from modelhub_tui.config import Settings
from modelhub_tui.net import own_transport
from modelhub_tui.service.node.cache import Cache, without_links
from modelhub_tui.service.node.hardware import Hardware
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.job import in_thread
from modelhub_tui.service.node.memory import recall
from modelhub_tui.service.node.probe import Probe
from modelhub_tui.service.node.protocol import RouterLink, RouterTrouble, manifest_fault
from modelhub_tui.service.node.sync import Sync
from modelhub_tui.service.node.transport import Transport
from modelhub_tui.service.node.tuning import Tuning
from modelhub_tui.untrusted import clean

log = logging.getLogger(__name__)

_MEASURE_S = 2.0
_URGENT_S = 0.05
"""Two changes of state closer together than this travel in one heartbeat."""


class Agent:
    """One node, speaking to one router."""

    def __init__(
        self,
        settings: Settings,
        *,
        router_url: str,
        key: str,
        name: str | None = None,
        door: Path | None = None,
        tuning: Tuning | None = None,
        hardware: Hardware | None = None,
        transport: Callable[[], Transport] | None = None,
    ) -> None:
        self._settings, self._router_url, self._key, self._door = settings, router_url, key, door
        self.name = clean(name or socket.gethostname(), 100) or "node"
        self._tuning = tuning or Tuning()
        self._hardware = hardware or Hardware()
        self._transport = transport
        self._cache = Cache(settings.hub_cache, links=not without_links(os.environ))
        self._changed = asyncio.Event()
        self._to_ask = False
        """A heartbeat is due for the sake of its answer."""
        self._trouble: str | None = None
        self._probe = Probe(list)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the chunk and return within about two seconds."""
        ending = threading.Event()
        recalling = in_thread(
            lambda: recall(self._settings.state_dir / "node" / "node.db", self._cache, ending), "recall"
        )
        stopping = asyncio.create_task(stop.wait())
        waited: list[asyncio.Future[Any]] = [stopping, recalling]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not recalling.done():
            ending.set()
            return
        memory = recalling.result()
        # The service's own node comes through the service's own socket: the port may be somebody else's any moment.
        through = own_transport(self._door) if self._door is not None else None
        link = RouterLink(self._router_url, self._key, timeout_s=self._tuning.router_timeout_s, transport=through)
        sync = Sync(
            memory=memory,
            cache=self._cache,
            hub=Hub(self._settings.hf_endpoint, timeout_s=self._tuning.metadata_s),
            tuning=self._tuning,
            fetch_manifest=lambda name: self._manifest(link, name),
            on_change=self._changed.set,
            transport=self._transport,
            limits=getattr(self._settings, "limits", None),
        )
        await sync.start()
        self._probe = Probe(lambda: sync.report()["loaded_models"])
        loops = [
            asyncio.create_task(self._follow_list(link, sync)),
            asyncio.create_task(self._report(link, sync)),
            asyncio.create_task(self._recheck(sync)),
        ]
        try:
            done, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a loop never ends by itself: let its error out
        finally:
            for task in (stopping, *loops):
                task.cancel()
            await asyncio.gather(stopping, *loops, return_exceptions=True)
            await sync.stop(timeout_s=1.5)
            self._probe.close()
            await link.aclose()

    async def _follow_list(self, link: RouterLink, sync: Sync) -> None:
        """Look at the list again and again: held back by the router where it can, every few seconds where not."""
        etag: str | None = None
        failures = 0
        clock = asyncio.get_running_loop().time
        while True:
            asked_at = clock()
            try:
                listing = await link.models(etag, self._tuning.wait_s if etag else 0)
            except RouterTrouble as trouble:
                etag = None
                failures += 1
                self._note_trouble(str(trouble))
                await asyncio.sleep(self._router_backoff_s(failures, trouble))
                continue
            failures = 0
            self._note_trouble(None)
            if listing is None:
                # 304 at once: this router does not hold answers back.
                if clock() - asked_at < min(1.0, self._tuning.wait_s / 2):
                    await asyncio.sleep(self._tuning.poll_s)
                continue
            acted = sync.reconcile(listing.listed, listing.store)
            # The list's ETag also changes with what only a heartbeat's answer tells: limits, and what trash is kept.
            self._ask_soon()
            if listing.etag is None:
                await asyncio.sleep(self._tuning.poll_s)
            elif not acted:
                await asyncio.sleep(self._tuning.settle_s)
            etag = listing.etag

    def _ask_soon(self) -> None:
        self._to_ask = True
        self._changed.set()

    async def _report(self, link: RouterLink, sync: Sync) -> None:
        """Heartbeats: at once when a state changes, four a second while bytes move, else one every ten seconds."""
        failures = 0
        last: tuple[Any, ...] = ()
        measured_at, measured_s = float("-inf"), 0.0
        last_found: list[dict[str, Any]] | None = None
        found_at = float("-inf")
        placed: list[dict[str, Any]] = []
        clock = asyncio.get_running_loop().time
        sent_at = float("-inf")
        while True:
            self._changed.clear()
            try:
                if not link.registered:
                    await self._register(link)
                    log.info("registered with %s as %s", self._router_url, link.node_id)
                    last, last_found = (), None
                told = sync.report()
                states = ("transfers", "placements", "sync_state", "disk_floor_bytes")
                moved = (*(told[each] for each in states), sync.stamp)
                if moved != last or self._to_ask or clock() - sent_at >= self._tuning.heartbeat_s:
                    # The more there is to count, the more seldom.
                    if clock() - measured_at > max(2.0, 20 * measured_s) or told["placements"] != placed:
                        placed, began = told["placements"], clock()
                        # A disk that does not answer keeps nobody from hearing of us.
                        await asyncio.wait([sync.measure()], timeout=_MEASURE_S)
                        measured_at, measured_s = clock(), clock() - began
                        told = sync.report()
                    self._to_ask = False
                    found = sync.found()
                    # Again now and then: a router that was restarted has forgotten it.
                    again = found != last_found or clock() - found_at >= self._tuning.heartbeat_s
                    if found is not None and again:
                        told["found"], last_found, found_at = found, found, clock()
                    answer = await link.heartbeat(
                        {
                            **self._hardware.load(),
                            **told,
                            "models_dir": str(self._settings.hub_cache),
                        },
                        sync.limits,
                    )
                    sync.heard(answer)
                    last, sent_at = moved, clock()
                failures = 0
            except RouterTrouble as trouble:
                failures += 1
                self._note_trouble(str(trouble))
                if trouble.status in (401, 404) and failures == 1:
                    continue  # it does not know us any more: introduce ourselves right away
                await asyncio.sleep(self._router_backoff_s(failures, trouble))
                continue
            pause_s = (
                self._tuning.moving_heartbeat_s
                if sync.moving
                else max(sent_at + self._tuning.heartbeat_s - clock(), 0.0)
            )
            due = clock() + pause_s
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
                await asyncio.sleep(_URGENT_S)
            except TimeoutError:
                sync.totals.paused(clock() - due)

    async def _register(self, link: RouterLink) -> None:
        """Introduce this node. An upstream router asks back first, and says 500 when nobody answers it."""
        description = await self._describe()
        try:
            await link.register(description)
        except RouterTrouble as trouble:
            if trouble.status == 403 and not description["gpu_available"]:
                raise RouterTrouble("it takes no nodes without a graphics card", 403) from trouble
            port = description["runtime_port"] + 1
            if trouble.status != 500 or not await self._probe.open(description["ip_address"], port):
                raise
            await link.register(description)

    async def _recheck(self, sync: Sync) -> None:
        while True:
            await sync.tend()
            await asyncio.sleep(self._tuning.recheck_s)
            await sync.recheck()

    async def _manifest(self, link: RouterLink, name: str) -> Any:
        """A model's manifest. A router that is away is waited for: there is nothing else to do for this model."""
        failures = 0
        while True:
            try:
                return await link.manifest(name)
            except RouterTrouble as trouble:
                failures += 1
                fault = manifest_fault(trouble)
                if not fault.passing or failures >= self._tuning.max_attempts:
                    raise fault from trouble
                await asyncio.sleep(self._router_backoff_s(failures, trouble))

    async def _describe(self) -> dict[str, Any]:
        """Members of a registration."""
        return {
            "machine_name": self.name,
            "ip_address": await in_thread(lambda: _own_address(self._router_url), "own address"),
            "runtime_version": __version__,
            # Half of a node's identity upstream: one number for each state folder, for good.
            "runtime_port": 20_000 + zlib.crc32(str(self._settings.state_dir).encode()) % 20_000,
            "supported_runtimes": ["llama_cpp"],
            # At least a second: what is allowed for is time on the way, too.
            "heartbeat_s": max(self._tuning.heartbeat_s, 1.0),
            "models_dir": str(self._settings.hub_cache),
            **await in_thread(self._hardware.describe, "describe"),
        }

    def _router_backoff_s(self, failures: int, trouble: RouterTrouble) -> float:
        wait_s = min(self._tuning.router_retry_base_s * 2.0 ** min(failures - 1, 10), self._tuning.router_retry_cap_s)
        spread = 0.5 + random.random() / 2  # noqa: S311 - spreads retries, hides nothing
        return max(wait_s * spread, min(trouble.retry_after_s or 0.0, 60.0))

    def _note_trouble(self, what: str | None) -> None:
        """Log a router's trouble once, and its end once."""
        if what == self._trouble:
            return
        if what is not None:
            log.warning("the router at %s: %s; going on, trying again", self._router_url, what)
        elif self._trouble is not None:
            log.info("the router at %s answers again", self._router_url)
        self._trouble = what


def _own_address(router_url: str) -> str:
    """The address by which this machine reaches the router. Sends nothing: a UDP connect only looks up the route."""
    at = urlsplit(router_url)
    try:
        family, kind, _, _, address = socket.getaddrinfo(at.hostname, at.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
