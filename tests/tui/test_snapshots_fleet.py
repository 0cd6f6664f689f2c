"""How the fleet view, the choosers and the login look. Look at the pictures before accepting new ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from modelhub_tui.domain import Fleet
from tests.tui import fleets, worlds
from tests.tui.conftest import MakeApp

SIZES = ((80, 24), (120, 36), (200, 50))


async def _nobody(*_: object) -> None:
    """Nobody logs in."""


LOOKS: dict[str, tuple[Callable[[], Fleet], tuple[str, ...]]] = {
    "one": (worlds.local, ("n",)),
    "five": (lambda: worlds.spread(5), ("n",)),
    "two_hundred": (lambda: worlds.spread(200, 400), ("n",)),
    "endpoints": (worlds.endpoints, ("n",)),
    "empty": (fleets.first_start, ("n",)),
    "download": (worlds.endpoints, ("p", "down")),
    "delete_copies": (worlds.endpoints, ("d", "down", "space")),
    "login": (fleets.refused, ("a",)),
    "hub_of_endpoints": (lambda: worlds.endpoints(worlds.G3), ()),
}
CASES = [pytest.param(name, size, id=f"{name}-{size[0]}x{size[1]}") for name in LOOKS for size in SIZES]
CASES += [pytest.param(name, (60, 20), id=f"{name}-60x20") for name in ("one", "five", "download", "login")]


def _press(keys: tuple[str, ...]) -> Callable[[Pilot], Awaitable[None]]:
    async def run_before(pilot: Pilot) -> None:
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()

    return run_before


@pytest.mark.snapshot
@pytest.mark.parametrize(("name", "size"), CASES)
def test_look(snap_compare: Any, make_app: MakeApp, name: str, size: tuple[int, int]) -> None:
    fleet, keys = LOOKS[name]
    options = {"login": _nobody, "use_key": _nobody} if name == "login" else {}
    assert snap_compare(make_app(fleet(), **options), terminal_size=size, run_before=_press(keys))


@pytest.mark.snapshot
@pytest.mark.parametrize("look", ["no_colour", "ascii", "light", "ansi"])
def test_five_nodes_in_other_looks(
    snap_compare: Any, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    options: dict[str, Any] = {"theme": look}
    if look == "no_colour":
        monkeypatch.setenv("NO_COLOR", "1")
        options = {"theme": None}
    elif look == "ascii":
        options = {"env": {"TERM": "linux"}, "theme": None}
    app = make_app(worlds.spread(5), **options)
    assert snap_compare(app, terminal_size=(80, 24), run_before=_press(("n",)))
