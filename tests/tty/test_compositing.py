"""Composing only what has changed gives what composing everything gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual._compositor import Compositor
from textual.widget import Widget

from modelhub_tui.domain import Fleet
from modelhub_tui.terminal import compositing
from modelhub_tui.terminal.compositing import QuickCompositor
from modelhub_tui.widgets.card_grid import CardGrid
from tests.tty.stage import Stage, staged
from tests.tui import fleets


def moving(stage: Stage, tick: int) -> Fleet:
    """Twelve models that get on, all of them on the screen."""
    fleet = stage.app.fleet
    moved = (fleets.downloading(each, tick / 100, eta_s=100.0 - tick) for each in fleet.models[:12])
    return replace(fleet, models=(*moved, *fleet.models[12:]))


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the widgets that are asked for lines from now on."""
    names: list[str] = []
    for kind in (Widget, CardGrid):

        def render_lines(self, crop, stock=kind.render_lines):  # type: ignore[no-untyped-def]
            names.append(type(self).__name__)
            return stock(self, crop)

        monkeypatch.setattr(kind, "render_lines", render_lines)
    return names


async def test_only_widgets_that_changed_are_asked_for_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(fleets.fleet(models=fleets.catalog()), size=(120, 40)) as stage:
        names = asked(monkeypatch)
        await stage.send("down")
        assert "ModelGrid" in names
        assert not {"TabBar", "SearchBar", "MainScreen", "Vertical"} & set(names)


async def test_cards_go_on_under_a_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(fleets.fleet(models=fleets.catalog()), size=(120, 40)) as stage:
        stage.app.notify("A sentence that covers some of the cards\nwith more than one line", timeout=600)
        await stage.settle()
        assert "A sentence that covers" in stage.text()
        names = asked(monkeypatch)
        for tick in range(1, 6):
            await stage.say(moving(stage, tick))
            assert stage.looks() == stage.stock_looks()
        assert "Toast" in names, "it covers what changed, so all of it was composed"


async def test_two_widgets_side_by_side_change_in_one_frame() -> None:
    async with staged(fleets.fleet(models=fleets.catalog()), size=(172, 30)) as stage:
        for tick in range(1, 4):
            await stage.say(moving(stage, tick))  # the card, the details beside it and the strip below
            assert stage.looks() == stage.stock_looks()
            await stage.send("down")
            assert stage.looks() == stage.stock_looks()


async def test_a_textual_that_is_not_known_composes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(fleets.fleet(models=fleets.catalog())) as stage:
        assert type(stage.app.main._compositor) is QuickCompositor
    monkeypatch.setattr(compositing, "is_supported", lambda: False)
    async with staged(fleets.fleet(models=fleets.catalog())) as stage:
        assert type(stage.app.main._compositor) is Compositor
