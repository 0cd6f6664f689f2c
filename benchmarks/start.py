"""From exec to the first content, and the commands that are no dashboard."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.tty.terminal import installed

from benchmarks.measure import Figures, Sandbox, process_ms, until_ms

ROOT = Path(__file__).parents[1]
# The real command; only its router is replaced by one that is there at once and never changes.
DASHBOARD = [sys.executable, "-m", "tests.tty.dashboard"]
LIVE = b"still router"
TITLE = b"Model Hub"
PYTHON, SPOKEN, BARE = "python -c pass", "one word from Python, in a terminal", "bare Textual app"


def start(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """The dashboard's first picture, first live frame and first live data, each variant once per round."""
    env, cold = sandbox.env(), sandbox.env(MODELHUB_CACHE_DIR=str(sandbox.folder / "cold"))
    bare_app = [sys.executable, "-m", "benchmarks.bare_app"]
    for each in (env, cold):  # reads the catalog, and leaves the states and a picture of them behind
        until_ms(DASHBOARD, LIVE, each, ROOT, leave="q")
    for _ in range(runs):
        for picture in (sandbox.folder / "cold").glob("screen-*"):
            picture.unlink()
        figures.add(SPOKEN, "ms", until_ms([sys.executable, "-c", "print('here')"], b"here", env, ROOT))
        figures.add(BARE, "ms", until_ms(bare_app, b"bare-app-marker", env, ROOT))
        figures.add("instant frame", "ms", until_ms([installed()], TITLE, env, ROOT), budget="<= 1.5x", beside=SPOKEN)
        # Without a kept picture: what is seen first is what Textual has painted.
        live_ms = until_ms([installed()], TITLE, cold, ROOT)
        figures.add("first live frame", "ms", live_ms, budget="<= 1.25x", beside=BARE)
        data_ms = until_ms(DASHBOARD, LIVE, cold, ROOT)
        figures.add("live data", "ms", data_ms, budget="<= 1.7x", beside=BARE)


def commands(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """`--version` beside an empty Python, `list` beside `hf cache ls`."""
    env = sandbox.env(HF_HUB_OFFLINE="1")
    (sandbox.folder / "hf" / "hub").mkdir(parents=True)
    process_ms([installed(), "list"], env)  # starts the service and reads the catalog
    try:
        for _ in range(runs):
            python_ms = process_ms([sys.executable, "-c", "pass"], env)
            figures.add(PYTHON, "ms", python_ms)
            version_ms = process_ms([installed(), "--version"], env)
            figures.add("modelhub --version, more than that", "ms", version_ms - python_ms, budget="<= 60")
            figures.add("hf cache ls", "ms", process_ms([installed("hf"), "cache", "ls"], env))
            list_ms = process_ms([installed(), "list"], env)
            figures.add("modelhub list", "ms", list_ms, budget="<= 0.4x", beside="hf cache ls")
    finally:
        process_ms([installed(), "stop"], env)
