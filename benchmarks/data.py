"""What a poll and the first key of a search cost the dashboard, and how that grows with the number of models."""

from __future__ import annotations

import gc

from benchmarks.datapath import Polls, cpu_ms
from benchmarks.measure import Figures, Sandbox
from modelhub_tui.filtering import ModelView


def data(figures: Figures, _sandbox: Sandbox, runs: int) -> None:
    """CPU of one thread; the drawing of what shows is not in it."""
    for count in (1_000, 10_000, 100_000):
        polls = Polls(count)
        polls.take(polls.move())
        gc.freeze()  # as the dashboard does after its first frame
        for _ in range(runs):
            _measure(figures, polls, f"{count:,} models", count == 10_000)
        gc.unfreeze()


def _measure(figures: Figures, polls: Polls, size: str, limited: bool) -> None:
    body, other = polls.body(), polls.body()
    took_ms = cpu_ms(lambda: body == other)
    figures.add(f"unchanged poll without ETag, {size}", "ms", took_ms, budget="<= 1" if limited else "")
    moved = polls.move()
    took_ms = cpu_ms(lambda: polls.take(moved))
    figures.add(f"poll with 16 changes, {size}", "ms", took_ms, budget="<= 5" if limited else "")
    view = polls.searched()
    figures.add(f"first key of a search, {size}", "ms", cpu_ms(lambda: polls.first_key(view)))
    figures.add(f"the same, not prepared, {size}", "ms", cpu_ms(lambda: polls.first_key(ModelView())))
