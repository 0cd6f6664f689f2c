"""Bytes, keys, silence and memory of the dashboard, at 120x40 in truecolor."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.tty import Terminal
from tests.tty.stage import staged
from tests.tty.terminal import Link
from tests.tui import fleets

from benchmarks.measure import YARDSTICK, Figures, Sandbox, frames_ms, paint_ms, until_ms, yardstick_ms
from benchmarks.start import DASHBOARD, LIVE, ROOT
from modelhub_tui.catalog import load_catalog
from modelhub_tui.states import join_models

KEYS = (
    "pagedown",
    "pagedown",
    "wheel_down",
    "wheel_down",
    "down",
    "/",
    "c",
    "o",
    "d",
    "e",
    "r",
    "escape",
    "?",
    "escape",
)
SEARCHED = ("co", "ll", "qw", "mi", "ge", "de", "sm", "vi", "ph", "in", "gr", "ya")
"""Beginnings of words, another one each time: what was looked for before costs less."""
BUDGETS = {"pagedown": 4_096, "wheel_down": 1_024, "c": 4_096, "o": 4_096, "d": 4_096, "e": 4_096, "r": 4_096}


def bytes_of_actions(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """In process, so that a busy machine changes nothing: a frame is what it is."""
    os.environ["TERM"] = "xterm-256color"
    os.environ.pop("NO_COLOR", None)
    models = join_models(load_catalog(None, sandbox.folder), None)

    async def session(wire: str) -> None:
        async with staged(fleets.fleet(models=models)) as stage:
            name = "bytes" if wire == "delta" else "bytes, stock painting"
            stock = "bytes, stock painting" if wire == "delta" else ""

            def note(what: str, count: int, budget: int | None) -> None:
                limit = f"p100 <= {budget:,}" if budget and wire == "delta" else ""
                figures.add(f"{what}: {name}", "B", count, budget=limit, beside=f"{what}: {stock}" if stock else "")

            if wire == "plain":
                stage.app.wire_plain = True
                before = stage.written
                await stage.send("ctrl+l")
                note("first screen", stage.written - before, None)
            else:
                note("first screen", stage.written, 21 * 1024)
            for key in KEYS:
                note(f"key {key}", await stage.send(key), BUDGETS.get(key))

    for _ in range(min(runs, 2)):
        asyncio.run(session("plain"))
        asyncio.run(session("delta"))


def sizes(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """Key to last painted byte, mount, memory: the same at any number of models."""
    until_ms(DASHBOARD, LIVE, sandbox.env(), ROOT, leave="q")  # reads the catalog, which takes memory of its own
    for count in (100, 1_000, 10_000, 100_000):
        env = sandbox.env(TEST_MODELS=str(count), MODELHUB_THEME="dark", MODELHUB_WIRE="")
        with Terminal(DASHBOARD, env=env, cwd=ROOT, emulate=False) as terminal:
            terminal.wait_for_bytes(LIVE, 60)
            terminal.settle(2.5)  # the search is being prepared
            figures.add(f"memory, {count:,} models", "MiB", resident_mib(terminal.pid), budget=_memory_budget(count))
            budget = {1_000: "p95 <= 25", 100_000: "p95 <= 35"}.get(count, "")
            terminal.send("/")
            terminal.settle(0.2)
            for word in SEARCHED[: runs * 2]:
                for key in (*word, "backspace", "backspace"):
                    first_ms, last_ms = frames_ms(terminal, lambda key=key: terminal.send(key), 0.12)
                    figures.add(f"search key to paint, {count:,} models", "ms", first_ms, budget=budget)
                    figures.add(f"search key to count of all, {count:,} models", "ms", last_ms)
            terminal.send("escape")
            terminal.settle(0.3)
            # How fast the machine is at that moment: it varies by half from minute to minute.
            pace = f"{YARDSTICK}, between keys, {count:,} models"
            for key in ("down", "pagedown", "wheel_down"):
                for _ in range(runs):
                    figures.add(pace, "ms", yardstick_ms())
                    before_s = cpu_s(terminal.pid)
                    took_ms, _ = paint_ms(terminal, lambda key=key: terminal.send(key), 0.12)
                    figures.add(f"{key} to paint, {count:,} models", "ms", took_ms)
                    used_ms = (cpu_s(terminal.pid) - before_s) * 1000
                    limit = "<= 8" if key in ("pagedown", "wheel_down") else ""
                    figures.add(f"{key}, processor, {count:,} models", "ms", used_ms, budget=limit, beside=pace)
            terminal.send("ctrl+q")
            terminal.wait(60)


def _memory_budget(count: int) -> str:
    return {100: "<= 50", 1_000: "<= 45", 100_000: "<= 110"}.get(count, "")


def quiet(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """Idle, and with one and sixteen transfers: bytes and processor per second."""
    seconds = max(2.0, min(runs, 8))
    for moving, budget, cpu_budget in ((0, "0", "<= 0.2"), (1, "", ""), (16, "<= 1,024", "<= 3")):
        env = sandbox.env(TEST_MODELS="200", TEST_MOVING=str(moving), MODELHUB_THEME="dark")
        with Terminal(DASHBOARD, env=env, cwd=ROOT, emulate=False) as terminal:
            terminal.wait_for_bytes(LIVE, 60)
            if not moving:
                terminal.send("/")  # silence with the search focused
            time.sleep(2.0)
            name = {0: "idle, search focused", 1: "1 transfer"}.get(moving, f"{moving} transfers")
            for _ in range(min(runs, 3)):
                before, used_s = terminal.bytes_written, cpu_s(terminal.pid)
                time.sleep(seconds)
                rate = (terminal.bytes_written - before) / seconds
                figures.add(f"{name}: bytes a second", "B/s", rate, budget=budget)
                share = (cpu_s(terminal.pid) - used_s) / seconds * 100
                figures.add(f"{name}: of a core", "%", share, budget=cpu_budget)


def slow_link(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """50 kbit/s and 200 ms there and back: echo, list, transfers, and what queues up."""
    env = sandbox.env(MODELHUB_THEME="dark")
    for number in range(min(runs, 3)):
        link = Link(6_250, 0.1)
        with Terminal(DASHBOARD, env=replace_env(env, number), cwd=ROOT, link=link) as terminal:
            figures.add("50 kbit/s: live data", "s", terminal.wait_for_bytes(LIVE, 60) - terminal.started_at)
            terminal.settle(1.5, 60)
            terminal.send("/")
            terminal.settle(1.0, 60)
            begin = time.monotonic()
            terminal.send("c")
            terminal.wait_for(lambda text: text.splitlines()[1].lstrip(" /").startswith("c"), 30)
            figures.add("50 kbit/s: echo of a search key", "s", time.monotonic() - begin, budget="<= 0.3")
            terminal.settle(1.0, 60)
            figures.add("50 kbit/s: its list", "s", terminal.reads[-1][0] - begin, budget="<= 1")
            link.most_waiting = 0
            terminal.send("escape", "escape")
            terminal.settle(1.0, 60)
            for _ in range(10):
                terminal.send("pagedown")
                time.sleep(0.08)
            terminal.settle(1.5, 60)
            figures.add("50 kbit/s: most on its way, ten pages", "B", link.most_waiting, budget="<= 5,120")
    link = Link(6_250, 0.1)
    with Terminal(DASHBOARD, env={**env, "TEST_MOVING": "16"}, cwd=ROOT, link=link) as terminal:
        terminal.wait_for_bytes(LIVE, 60)
        time.sleep(8.0)
        before = terminal.bytes_written
        time.sleep(8.0)
        figures.add("50 kbit/s: 16 transfers", "B/s", (terminal.bytes_written - before) / 8.0, budget="<= 300")


def replace_env(env: dict[str, str], number: int) -> dict[str, str]:
    """An environment of its own for each run, so that none finds the other's picture."""
    return {**env, "MODELHUB_CACHE_DIR": f"{env['MODELHUB_CACHE_DIR']}-{number}"}


def cpu_s(pid: int) -> float:
    """Processor seconds of a running process so far, to the tenth of a millisecond."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident_mib(pid: int) -> float:
    """Memory a process has in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
