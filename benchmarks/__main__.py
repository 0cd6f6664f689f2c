"""`make bench`: start, keys, bytes and silence of the dashboard, beside an empty Python and a bare Textual app.

Runs are interleaved, so that a busy machine disturbs all of them alike; trust the ratios. Nothing outside this machine
is asked, and everything happens in a temporary folder. `make bench ARGS="--runs 15 --json figures.json"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import rich
import textual
from tests.tty import Terminal
from tests.tty.terminal import installed

from benchmarks.measure import Figures, Sandbox, paint_ms, process_ms, until_ms
from modelhub_tui import __version__

ROOT = Path(__file__).parents[1]
# The real command; only its router is replaced by one that is there at once and never changes.
DASHBOARD = [sys.executable, "-m", "tests.tty.dashboard"]
LIVE = "still router"
TITLE = b"Model Hub"
KEYS = ("pagedown", "wheel_down", "down", "/", "c", "o", "d", "e", "r")


def main() -> int:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure start-up, keys and bytes.")
    parser.add_argument("--runs", type=int, default=7, help="how often each thing is measured; 7 if unset")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="modelhub-bench-") as folder:
        sandbox = Sandbox(Path(folder))
        start(figures, sandbox, options.runs)
        keys(figures, sandbox, options.runs)
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {platform.machine()}, {platform.system()} {platform.release()}",
        "load": [round(each, 2) for each in os.getloadavg()],
        "python": platform.python_version(),
        "modelhub": __version__,
        "textual": textual.__version__,
        "rich": getattr(rich, "__version__", "15"),
        "terminal": "120x40, truecolor",
    }
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print(figures.table())
    if options.json:
        options.json.write_text(json.dumps({"about": about, "figures": figures.as_json()}, indent=2) + "\n")
    return 0


def start(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """From exec to the first content, each variant once per round."""
    env, cold = sandbox.env(), sandbox.env(MODELHUB_CACHE_DIR=str(sandbox.folder / "cold"))
    python, spoken, bare = "python -c pass", "one word from Python, in a terminal", "bare Textual app"
    bare_app = [sys.executable, "-m", "benchmarks.bare_app"]
    for each in (env, cold):  # reads the catalog, and leaves the states and a picture of them behind
        until_ms(DASHBOARD, LIVE.encode(), each, ROOT, leave="q")
    for _ in range(runs):
        for picture in (sandbox.folder / "cold").glob("screen-*"):
            picture.unlink()
        figures.add(python, "ms", process_ms([sys.executable, "-c", "pass"], env))
        figures.add(spoken, "ms", until_ms([sys.executable, "-c", "print('here')"], b"here", env, ROOT))
        version_ms = process_ms([installed(), "--version"], env)
        figures.add("modelhub --version", "ms", version_ms, budget="pass + 60 ms", beside=python)
        figures.add(bare, "ms", until_ms(bare_app, b"bare-app-marker", env, ROOT))
        figures.add("instant frame", "ms", until_ms([installed()], TITLE, env, ROOT), budget="<= 1.5x", beside=spoken)
        # Without a kept picture: what is seen first is what Textual has painted.
        live_ms = until_ms([installed()], TITLE, cold, ROOT)
        figures.add("first live frame", "ms", live_ms, budget="<= 1.25x", beside=bare)


def keys(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """Key to last painted byte, bytes for each, and silence."""
    budgets = {"pagedown": 4_000, "wheel_down": 1_000, "c": 4_000, "o": 4_000, "d": 4_000, "e": 4_000, "r": 4_000}
    for wire in ("delta", "plain"):
        with Terminal(DASHBOARD, env=sandbox.env(MODELHUB_WIRE=wire, MODELHUB_THEME="dark"), cwd=ROOT) as terminal:
            terminal.wait_for(LIVE, 60)
            terminal.settle(0.5)
            for _ in range(runs):
                for key in KEYS:
                    took_ms, sent = paint_ms(terminal, lambda key=key: terminal.send(key))
                    if wire == "delta":
                        figures.add(f"key {key}: to the last byte", "ms", took_ms)
                    budget = f"<= {budgets[key]:,}" if wire == "delta" and key in budgets else ""
                    stock = f"key {key}: bytes, stock painting"
                    name = f"key {key}: bytes" if wire == "delta" else stock
                    figures.add(name, "B", sent, budget=budget, beside=stock if wire == "delta" else "")
                terminal.send("escape")
                terminal.settle(0.3)
                terminal.send("escape", "home")
                terminal.settle(0.3)
            terminal.send("/")
            before = terminal.settle(0.5)
            figures.add(f"idle for 3 s with the search focused, {wire}", "B", terminal.settle(3.0) - before, budget="0")
            terminal.send("ctrl+q")
            terminal.wait(60)


if __name__ == "__main__":
    sys.exit(main())
