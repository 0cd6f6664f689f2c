"""How queue, trash, limits and disk plan look, at 80x24. Look at the pictures before accepting new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from modelhub_tui.domain import Connection, Link
from tests.tui import fleets
from tests.tui.conftest import MakeApp
from tests.tui.test_app_keys import settle
from tests.tui.worlds_control import TRASHED, troubled

LOOKS: dict[str, tuple[int, tuple[str, ...]]] = {
    "troubles": (9, ()),
    "history": (0, ("enter", "pagedown")),
    "plan": (20, ("p",)),
    "trash": (0, ("t",)),
    "limits": (0, ("L", "down", "x")),
    "delete_for_good": (1, ("d",)),
    "found": (0, ("2", "G")),
}
"""Where the cursor is, and what is pressed then."""


def _prepare(at: int, press: tuple[str, ...]) -> Callable[[Pilot], Any]:
    async def run_before(pilot: Pilot) -> None:
        app: Any = pilot.app
        app.watcher.trashed = TRASHED
        await pilot.pause()
        app.main.grid.highlight(at)
        for key in press:
            await pilot.press(key)
            await settle(pilot)

    return run_before


@pytest.mark.snapshot
@pytest.mark.parametrize("name", LOOKS)
def test_look(snap_compare: Any, make_app: MakeApp, name: str) -> None:
    assert snap_compare(make_app(troubled()), terminal_size=(80, 24), run_before=_prepare(*LOOKS[name]))


@pytest.mark.snapshot
@pytest.mark.parametrize("name", ["plan", "trash"])
def test_look_on_a_console_of_60x20(snap_compare: Any, make_app: MakeApp, name: str) -> None:
    app = make_app(troubled(), env={"TERM": "linux"}, theme=None)
    assert snap_compare(app, terminal_size=(60, 20), run_before=_prepare(*LOOKS[name]))


@pytest.mark.snapshot
def test_look_without_colour(snap_compare: Any, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(troubled(), theme=None)
    assert snap_compare(app, terminal_size=(80, 24), run_before=_prepare(*LOOKS["delete_for_good"]))


@pytest.mark.snapshot
def test_look_of_coming_back(snap_compare: Any, make_app: MakeApp) -> None:
    models = list(fleets.busy().models)
    models[0] = fleets.downloaded(models[0])
    models[2] = fleets.failed(models[2], fleets.NO_SPACE)
    before = fleets.fleet(
        models=fleets.busy().models, connection=Connection(Link.CONNECTING, heard_at=fleets.NOW - 10_800)
    )

    async def come_back(pilot: Pilot) -> None:
        app: Any = pilot.app
        app.watcher.say(fleets.fleet(models=tuple(models)))
        await pilot.pause()
        await pilot.pause()

    assert snap_compare(make_app(before), terminal_size=(80, 24), run_before=come_back)
