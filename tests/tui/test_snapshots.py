"""How each state looks, at three sizes. Look at the pictures before accepting new ones: `make snapshots`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from textual.pilot import Pilot

from modelhub_tui.domain import Fleet, ModelState
from modelhub_tui.errors import Rejected
from tests.tui import fleets
from tests.tui.conftest import MakeApp

SIZES = ((80, 24), (120, 36), (200, 50))


@dataclass(frozen=True)
class Look:
    """One state of the dashboard, and the way there."""

    fleet: Callable[[], Fleet] = fleets.busy
    press: tuple[str, ...] = ()
    highlight: ModelState | None = None
    problem: Exception | None = None
    options: tuple[tuple[str, Any], ...] = ()


async def _no_key(key: str, remember: bool) -> None:
    """Nobody uses the key."""


REPO = "bartowski/Qwen2.5-7B-Instruct-GGUF"
SEVERAL = Rejected(
    f"{REPO} has several GGUF files.",
    candidates=tuple(f"Qwen2.5-7B-Instruct-{each}.gguf" for each in ("Q4_K_M", "Q5_K_M", "Q8_0")),
)
LINUX = (("env", {"TERM": "linux"}), ("theme", None))
LOOKS = {
    "hub": Look(),
    "first_start": Look(fleets.first_start),
    "idle": Look(fleets.fleet),
    "local": Look(press=("2",)),
    "local_empty": Look(lambda: fleets.fleet(models=fleets.catalog()), ("2",)),
    "search": Look(press=("/", *"coder")),
    "no_hit": Look(fleets.fleet, ("/", *"xyzzy")),
    "no_hit_but_a_repo": Look(fleets.fleet, ("/", *"someone/new-model")),
    "filter": Look(press=("f", "down", "space")),
    "filtered": Look(press=("f", "down", "space", "escape")),
    "selected": Look(fleets.fleet, ("space", "j", "j", "space", "j")),
    "details": Look(press=("enter",)),
    "details_downloaded": Look(press=("enter",), highlight=ModelState.DOWNLOADED),
    "delete": Look(press=("d",), highlight=ModelState.DOWNLOADED),
    "cancel": Look(press=("x",)),
    "register": Look(press=("r", *REPO)),
    "register_bad": Look(press=("r", *"llama")),
    "register_candidates": Look(press=("r", *REPO, "enter"), problem=SEVERAL),
    "help": Look(press=("question_mark",)),
    "unreachable": Look(fleets.unreachable),
    "refused": Look(fleets.refused),
    "api_key": Look(fleets.refused, ("a",), options=(("use_key", _no_key),)),
    "no_node": Look(fleets.no_node),
    "disk_full": Look(highlight=ModelState.FAILED),
    "light": Look(options=(("theme", "light"),)),
    "ansi": Look(options=(("theme", "ansi"),)),
    "ascii": Look(options=LINUX),
    "ascii_dialog": Look(press=("d",), highlight=ModelState.DOWNLOADED, options=LINUX),
}


def _prepare(look: Look) -> Callable[[Pilot], Awaitable[None]]:
    async def run_before(pilot: Pilot) -> None:
        app: Any = pilot.app
        app.watcher.problem = look.problem
        await pilot.pause()
        if look.highlight is not None:
            grid = app.main.grid
            grid.highlight(next(at for at, each in enumerate(grid.models) if each.state is look.highlight))
        await pilot.press(*look.press)
        await pilot.pause()

    return run_before


def _also(name: str) -> tuple[tuple[int, int], ...]:
    """The main looks also at the smallest size that is designed for."""
    return ((60, 20),) if name in ("hub", "local", "details", "register", "delete", "help", "filter") else ()


CASES = [
    pytest.param(name, size, id=f"{name}-{size[0]}x{size[1]}") for name in LOOKS for size in (*SIZES, *_also(name))
]


@pytest.mark.snapshot
@pytest.mark.parametrize(("name", "size"), CASES)
def test_look(snap_compare: Any, make_app: MakeApp, name: str, size: tuple[int, int]) -> None:
    look = LOOKS[name]
    app = make_app(look.fleet(), **dict(look.options))
    assert snap_compare(app, terminal_size=size, run_before=_prepare(look))


@pytest.mark.snapshot
@pytest.mark.parametrize("name", ["hub", "delete", "filter", "search"])
def test_look_without_colour(snap_compare: Any, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(LOOKS[name].fleet(), theme=None)
    assert snap_compare(app, terminal_size=(80, 24), run_before=_prepare(LOOKS[name]))
