"""What a report of many nodes costs the dashboard: the real client asks a simulated router on loopback."""

from __future__ import annotations

import asyncio
import time

from tests.routers import FakeG2
from tests.routers.nodes import FakeNode

from benchmarks.measure import Figures, Sandbox
from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.base import RouterClient
from modelhub_tui.client.detect import open_router
from modelhub_tui.domain import Node
from modelhub_tui.fleet_state import LAST_SEEN_STEP_S, steady_nodes

COUNTS = (10, 100, 1_000)


def nodes(figures: Figures, _sandbox: Sandbox, runs: int) -> None:
    """CPU of the client's thread; the router's threads are not in it."""
    for count in COUNTS:
        with FakeG2() as router:
            made = [router.add_node(f"gpu-{at:04}") for at in range(count)]
            asyncio.run(_session(figures, router, made, runs))


async def _session(figures: Figures, router: FakeG2, made: list[FakeNode], runs: int) -> None:
    size = f"{len(made):,} nodes"
    client = await open_router(router.url, Credentials(router.admin_key, None))
    try:
        shown: tuple[Node, ...] = ()
        for number in range(runs + 1):
            shown, _ = await _taken(figures if number else Figures(), f"report, nothing new, {size}", client, shown)
            router.clock.advance(LAST_SEEN_STEP_S + 1)
            for node in made:
                router.heartbeat(node)
            name = f"report, all have changed, {size}"
            shown, news = await _taken(figures if number else Figures(), name, client, shown)
            if news != len(made):
                raise RuntimeError(f"{news} of {len(made)} nodes have changed")
    finally:
        await client.aclose()


async def _taken(
    figures: Figures, name: str, client: RouterClient, old: tuple[Node, ...]
) -> tuple[tuple[Node, ...], int]:
    """The nodes of one report, and how many of them are not the same as before."""
    begin = time.thread_time()
    shown = steady_nodes(old, (await client.report()).nodes)
    figures.add(name, "ms", (time.thread_time() - begin) * 1000)
    return shown, len({id(each) for each in shown} - {id(each) for each in old})
