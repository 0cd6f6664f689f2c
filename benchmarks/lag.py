"""How long the dashboard's loop keeps a timer waiting: `python -m benchmarks.lag SECONDS`, with a router to look at.

The real dashboard in a process of its own, as people run it; only the terminal is Textual's headless one.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from modelhub_tui.config import load_settings

_EVERY_S = 0.01
_SETTLED_S = 3.0
"""The first frame, the connection and the first report are no part of it."""


def lags(seconds: float, env: Mapping[str, str]) -> list[float]:
    """Milliseconds that each of a hundred timers a second came late, from a process started for it."""
    argv = [sys.executable, "-m", "benchmarks.lag", str(seconds)]
    said = subprocess.run(
        argv, check=True, capture_output=True, cwd=Path(__file__).parents[1], env=dict(env), timeout=120
    )
    told = json.loads(said.stdout)
    if not told["moving"]:
        raise RuntimeError("the dashboard saw no transfer")
    return [float(each) for each in told["late_ms"]]


async def _look(seconds: float) -> dict[str, object]:
    from modelhub_tui.cli.tui import session_app
    from modelhub_tui.domain import Model

    app = session_app(load_settings())
    late_ms: list[float] = []
    async with app.run_test(size=(120, 40)):
        await asyncio.sleep(_SETTLED_S)
        until = time.monotonic() + seconds
        while (begin := time.monotonic()) < until:
            await asyncio.sleep(_EVERY_S)
            late_ms.append((time.monotonic() - begin - _EVERY_S) * 1000)
        moving = sum(map(Model.is_moving, app.fleet.models))
    return {"late_ms": late_ms, "moving": moving}


if __name__ == "__main__":
    json.dump(asyncio.run(_look(float(sys.argv[1]))), sys.stdout)
