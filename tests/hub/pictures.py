"""`make pictures`: draw the README's pictures from the demo, with the real service behind the real dashboard.

They change with every run (speeds, positions), so no test compares them; the tests' own pictures are in `tests/tui`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cairosvg

from modelhub_tui.catalog import load_catalog
from modelhub_tui.config import load_settings
from modelhub_tui.domain import ModelState
from tests.hub.demo import MB, environment, stop_service
from tests.hub.demo_content import build, choose
from tests.hub.server import LoopbackHub

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from modelhub_tui.app import ModelHubApp

FOLDER = Path(__file__).parents[2] / "docs" / "img"
SIZE = (120, 36)


def main() -> int:
    """Draw both pictures; 0 when they are there."""
    demo = build(choose(load_catalog(), 0))
    with tempfile.TemporaryDirectory(prefix="modelhub-pictures-") as folder, LoopbackHub(demo.repos) as hub:
        hub.throttle_bps = 20 * MB
        env = environment(hub, demo, Path(folder))
        os.environ.update(env)
        try:
            asyncio.run(_draw())
        finally:
            stop_service(env)
    return 0


async def _draw() -> None:
    from modelhub_tui.cli.tui import session_app

    app = session_app(load_settings())
    async with app.run_test(size=SIZE) as pilot:
        await _until(pilot, lambda: all(model.stats for model in app.fleet.models[:12]))
        for _ in range(2):
            await pilot.press("p", "right", "right")
        await _until(pilot, lambda: len(app.fleet.local) == 2)
        await pilot.press("p", "right", "p", "right", "p", "left")
        await _until(pilot, lambda: _share(app) > 0.45)
        await _keep(app, pilot, "hub")
        await _until(pilot, lambda: len(app.fleet.local) == 5)
        await pilot.press("2")
        await pilot.pause()
        await _keep(app, pilot, "local")
        await pilot.press("q")


def _share(app: ModelHubApp) -> float:
    """How far the furthest running download is, 0..1."""
    running = (model.transfer for model in app.fleet.models if model.state is ModelState.DOWNLOADING)
    return max((each.fraction or 0.0 for each in running if each), default=0.0)


async def _until(pilot: Pilot[None], holds: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("the demo did not get there")
        await pilot.pause(0.05)


async def _keep(app: ModelHubApp, pilot: Pilot[None], name: str) -> None:
    await pilot.pause()
    FOLDER.mkdir(parents=True, exist_ok=True)
    # The converter takes the first family only, and few machines have it.
    svg = re.sub(r"font-family: [^;]+;", "font-family: monospace;", app.export_screenshot(title="modelhub"))
    cairosvg.svg2png(bytestring=svg.encode(), write_to=str(FOLDER / f"{name}.png"), output_width=1400)


if __name__ == "__main__":
    sys.exit(main())
