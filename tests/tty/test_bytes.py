"""What things cost on the wire, at 120x40 in truecolor: the budgets of docs/performance.md, without a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelhub_tui.catalog import load_catalog
from modelhub_tui.domain import Fleet
from modelhub_tui.states import join_models
from tests.tty.stage import Stage, staged
from tests.tui import fleets

KIB = 1024


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Stage]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    catalog = load_catalog(None, tmp_path)
    async with staged(fleets.fleet(models=join_models(catalog, None))) as running:
        yield running


async def test_a_page_a_wheel_tick_and_a_search_stay_within_their_budgets(stage: Stage) -> None:
    assert stage.written <= 21 * KIB, "the first screen"
    pages = [await stage.send("pagedown") for _ in range(5)]
    assert 0 < max(pages) <= 4 * KIB, pages
    ticks = [await stage.send(key) for key in ("wheel_down", "wheel_down", "wheel_up", "wheel_down", "wheel_up")]
    # Half of it is the text of two new cards; the budget is 1 KB, give or take a digit.
    assert 0 < max(ticks) <= KIB + 76, ticks
    await stage.send("home")
    typed = [await stage.send(key) for key in "/coder"]
    assert 0 < max(typed) <= 4 * KIB, typed
    assert "Coder" in stage.app.main.grid.models[0].title, "the search worked"


async def test_sixteen_transfers_stay_within_their_budget(stage: Stage) -> None:
    def at(tick: int) -> Fleet:
        """Sixteen transfers that share a line of 1 Gbit/s, so many quarters of a second after they began."""
        models = list(stage.app.fleet.models)
        for number in range(16):
            size = (2 + 2 * number) * 10**9
            rate = 7.8e6 * (1 + 0.03 * ((tick // 4 + number) % 3))  # as often as nodes report one
            done = size // 10 + int(tick * 7.8e6 / 4)
            models[number] = fleets.downloading(
                replace(models[number], size_bytes=size), done / size, bytes_per_s=rate, eta_s=(size - done) / rate
            )
        return replace(stage.app.fleet, models=tuple(models))

    await stage.say(at(0))
    ticks = [await stage.say(at(tick)) for tick in range(1, 17)]
    assert any(ticks)
    assert sum(ticks) / 4 <= KIB, ticks


async def test_nothing_is_written_for_what_does_not_show(stage: Stage) -> None:
    models = list(stage.app.fleet.models)
    models[130] = fleets.queued(models[130])
    await stage.say(replace(stage.app.fleet, models=tuple(models)))
    models[130] = fleets.queued(models[130], "still waiting")
    assert await stage.say(replace(stage.app.fleet, models=tuple(models))) == 0
