"""Keys typed from the moment of the start on: none may be lost, whatever the program is doing at that time."""

from __future__ import annotations

import random
import time

from tests.tty import Terminal

from benchmarks.measure import Figures, Sandbox, until_ms
from benchmarks.start import DASHBOARD, LIVE, ROOT

TYPED = "/abcdefgh"
STARTS_PER_RUN = 4
_LATEST_S = 1.0
"""Keys are spread over so many seconds at most: until after the first frame."""


def typed(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """`--only typed --runs 250` is a thousand starts."""
    chance = random.Random(2026)
    env = sandbox.env(MODELHUB_THEME="dark")
    until_ms(DASHBOARD, LIVE, env, ROOT, leave="q")
    for _ in range(runs * STARTS_PER_RUN):
        gap_s = chance.uniform(0, _LATEST_S / len(TYPED))
        with Terminal(DASHBOARD, env=env, cwd=ROOT) as terminal:
            for key in TYPED:
                terminal.send(key)
                time.sleep(gap_s)
            terminal.wait_for_bytes(LIVE, 60)
            try:
                terminal.wait_for(lambda text: TYPED[1:] in text.splitlines()[1], 10)
                lost = 0
            except AssertionError:
                shown = terminal.text().splitlines()[1]
                lost = sum(key not in shown for key in TYPED)
            figures.add("keys lost, of nine typed during a start", "", lost, budget="p100 <= 0")
