"""What depends on the size of the screen, and how long a list takes to appear."""

from __future__ import annotations

import asyncio
import os
import time

from tests.tty import Terminal
from tests.tty.stage import staged
from tests.tui import fleets
from textual.app import App

from benchmarks.measure import Figures, Sandbox, paint_ms, until_ms
from benchmarks.screen import cpu_s
from benchmarks.start import DASHBOARD, LIVE, ROOT
from modelhub_tui.widgets.card_grid import CardGrid

SIZES = ((80, 24), (120, 40), (200, 50))


def screens(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """Bytes, time and processor of a page, a wheel tick and a search key on three screens."""
    os.environ["TERM"] = "xterm-256color"
    os.environ.pop("NO_COLOR", None)
    until_ms(DASHBOARD, LIVE, sandbox.env(), ROOT, leave="q")
    for size in SIZES:
        cells = f"{size[0] * size[1]:,} cells"
        for key, count in asyncio.run(_bytes(size)).items():
            figures.add(f"{key}: bytes, {cells}", "B", count)
        env = sandbox.env(TEST_MODELS="1000", MODELHUB_THEME="dark", MODELHUB_WIRE="")
        with Terminal(DASHBOARD, size=size, env=env, cwd=ROOT, emulate=False) as terminal:
            terminal.wait_for_bytes(LIVE, 60)
            terminal.settle(1.0)
            for key in ("pagedown", "wheel_down"):
                for _ in range(runs):
                    before_s = cpu_s(terminal.pid)
                    paint_ms(terminal, lambda key=key: terminal.send(key), 0.12)
                    figures.add(f"{key}, processor, {cells}", "ms", (cpu_s(terminal.pid) - before_s) * 1000)
            terminal.send("ctrl+q")
            terminal.wait(60)


async def _bytes(size: tuple[int, int]) -> dict[str, int]:
    async with staged(fleets.many(1_000), size=size) as stage:
        counts = {"first screen": stage.written}
        for key in ("pagedown", "pagedown", "wheel_down", "wheel_down", "/", "c"):
            counts[key] = await stage.send(key)
        return counts


def mounted(figures: Figures, _sandbox: Sandbox, runs: int) -> None:
    """A list put on the screen of a running app: until its lines are painted."""
    for count in (100, 1_000, 10_000, 100_000):
        models = fleets.many(count).models
        for _ in range(runs):
            figures.add(f"mount of a list, {count:,} models", "ms", asyncio.run(_mount_ms(models)), budget="<= 100")


async def _mount_ms(models: tuple[fleets.Model, ...]) -> float:
    app: App[None] = App()
    painted = asyncio.Event()

    class Grid(CardGrid, inherit_bindings=True):
        def render_lines(self, crop):  # type: ignore[no-untyped-def]
            strips = super().render_lines(crop)
            if self.size.area:
                painted.set()
            return strips

    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        begin = time.perf_counter()
        await app.mount(Grid(models))
        await painted.wait()
        return (time.perf_counter() - begin) * 1000
