"""What the dashboard must not do, checked without a clock: heavy imports, extra frames, work that grows."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.containers import Container
from textual.message_pump import MessagePump
from textual.pilot import Pilot
from textual.reactive import Reactive
from textual.widget import Widget
from textual.widgets import Input

import modelhub_tui.screens
import modelhub_tui.widgets
from modelhub_tui.domain import Fleet
from modelhub_tui.screens.search import SearchInput
from modelhub_tui.widgets.card_grid import CardGrid
from tests.tui import fleets
from tests.tui.conftest import MakeApp

HEAVY = {"httpx", "httpx2", "pydantic", "huggingface_hub", "diskcache", "yaml", "fastapi", "uvicorn", "starlette"}

FIRST_PAINT = """
import asyncio, json, sys
from tests.tui import fleets
from modelhub_tui.app import ModelHubApp

async def never():
    await asyncio.Event().wait()

async def main():
    app = ModelHubApp(fleets.fleet(), never, theme="dark")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert app.main.grid.rendered_cards
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""


def test_nothing_heavy_is_imported_before_the_first_paint() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_PAINT], cwd=root, capture_output=True, text=True, timeout=100, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "textual" in loaded
    assert loaded & HEAVY == set()
    # The dialogs are imported when they are first opened.
    assert "modelhub_tui.screens.register" not in json.loads(done.stdout)


def _our_classes() -> list[type[MessagePump]]:
    names = ["modelhub_tui.app"]
    for package in (modelhub_tui.screens, modelhub_tui.widgets):
        names += [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    return [
        value
        for name in names
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and issubclass(value, MessagePump) and value.__module__ == name
    ]


MEANT = {
    "app": {"get_default_screen", "refresh_css", "action_quit", "action_command_palette"},
    "any": {
        "update_node_styles",
        "compose",
        "render",
        "render_lines",
        "check_action",
        "notify_style_update",
        "get_content_height",
    },
    # The same answer as Textual's, sooner.
    "grid": {"size"},
    # The same, without the layout pass that comes with it.
    "search": {"virtual_size"},
    # Handlers: Textual calls those of every class in the hierarchy, so none is lost.
    "handlers": ("on_", "_on_"),
}


@pytest.mark.parametrize("kind", _our_classes(), ids=lambda kind: kind.__name__)
def test_no_reactive_or_method_of_ours_shadows_one_of_textuals(kind: type[MessagePump]) -> None:
    bases = [base for base in kind.__mro__ if not base.__module__.startswith("modelhub_tui")]
    theirs = {name for base in bases for name in vars(base)} | set(vars(_instance(kind)))
    ours = {
        name
        for name, value in vars(kind).items()
        if isinstance(value, Reactive | property) or (inspect.isfunction(value) and not name.startswith("__"))
    }
    meant = MEANT["any"] | (MEANT["app"] if issubclass(kind, App) else set())
    meant |= MEANT["grid"] if issubclass(kind, CardGrid) else set()
    meant |= MEANT["search"] if issubclass(kind, SearchInput) else set()
    shadows = {name for name in ours & theirs - meant if not name.startswith(MEANT["handlers"])}
    assert not shadows


def _instance(kind: type[MessagePump]) -> Any:
    """A plain widget: the attributes that every widget sets in its `__init__`."""
    return App() if issubclass(kind, App) else Container() if issubclass(kind, Widget) else kind


@pytest.mark.parametrize("size", [(120, 40), (60, 18), (172, 50)])
@pytest.mark.parametrize("theme", ["dark", "light", "ansi"])
async def test_styles_applied_once_are_those_of_a_full_refresh(
    make_app: MakeApp, size: tuple[int, int], theme: str
) -> None:
    def looks() -> list[str]:
        every = [app, app.main, *app.main.walk_children(Widget)]
        return [f"{each} {each.styles.base.css} {sorted(each._component_styles)}" for each in every] + [
            f"{each} {name} {styles.base.css}" for each in every for name, styles in each._component_styles.items()
        ]

    app = make_app(fleets.fleet(), theme=theme)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        begun = looks()
        assert len(begun) > 40
        app.refresh_css(animate=False)
        app.main.update_node_styles()
        await pilot.pause()
        assert looks() == begun


class _Frames:
    """Counts what is sent to the terminal."""

    def __init__(self, app: App[Any]) -> None:
        self.count = 0
        display = app._display

        def counting(*args: Any, **options: Any) -> None:
            self.count += 1
            display(*args, **options)

        app._display = counting  # type: ignore[method-assign]

    async def stand_still(self, pilot: Pilot[None]) -> None:
        """Wait until everything that was going to be painted is."""
        before, quiet = -1, 0
        while quiet < 3:
            await pilot.pause()
            quiet = quiet + 1 if before == self.count and not pilot.app.screen._update_timer._active.is_set() else 0
            before = self.count


@pytest.mark.parametrize("count", [50, 5_000])
async def test_a_key_costs_at_most_two_frames_and_the_cards_on_screen(make_app: MakeApp, count: int) -> None:
    app = make_app(fleets.many(count))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        frames, grid = _Frames(app), app.main.grid
        on_screen = 18
        assert grid.rendered_cards <= 2 * on_screen
        for key in ("j", "pagedown", "slash", "c", "o", "d", "backspace"):
            await frames.stand_still(pilot)
            frames.count, grid.rendered_cards = 0, 0
            await pilot.press(key)
            await frames.stand_still(pilot)
            assert frames.count <= 2, key
            assert grid.rendered_cards <= 2 * on_screen, key


async def test_news_that_change_nothing_on_screen_paint_nothing(make_app: MakeApp) -> None:
    app = make_app(fleets.many(500))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        frames = _Frames(app)
        models = list(app.fleet.models)
        models[400] = fleets.queued(models[400])
        await frames.stand_still(pilot)
        frames.count = 0
        app.watcher.say(fleets.fleet(models=tuple(models)))
        await frames.stand_still(pilot)
        assert app.fleet.models[400].state.value == "queued"
        assert frames.count == 0


async def test_an_idle_dashboard_has_no_timers_and_no_blinking(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("slash")
        await pilot.pause()
        assert app.focused is app.main.query_one(SearchInput)
        while app.main._idle is not None:  # for the first search, once
            await pilot.pause(0.01)

        def ticking() -> list[object]:
            # An Input has a timer for its cursor; it must stand still.
            return [
                (node, timer)
                for node in [app, *app.screen.walk_children(with_self=True)]
                if not isinstance(node, Input)
                for timer in node._timers
                if timer._task is not None
                and not timer._task.done()
                and timer._active.is_set()
                and not (node is app.screen and timer is app.screen._update_timer)
            ]

        # What ticks once, for the start, comes to an end.
        until = time.monotonic() + 20
        while ticking() and time.monotonic() < until:
            await pilot.pause(0.05)
        assert ticking() == []
        assert not any(field.cursor_blink for field in app.screen.query(Input))
        assert app.animation_level == "none"


async def test_five_thousand_models_are_searched_sorted_and_walked(make_app: MakeApp) -> None:
    app = make_app(fleets.many(5_000))
    async with app.run_test(size=(200, 50)) as pilot:
        await pilot.press("slash", *"coder v4999")
        await pilot.pause()
        assert [model.title for model in app.main.grid.models] == []
        await pilot.press("escape", *"v4999", "enter")
        assert len(app.main.grid.models) == 1
        await pilot.press("escape", "G", "s", "2", "1")
        await pilot.pause()
        assert len(app.main.grid.models) == 5_000


@pytest.mark.parametrize("size", [(60, 20), (40, 10), (20, 5), (1, 1), (300, 100)])
async def test_every_size_works_and_can_change(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=size) as pilot:
        await pilot.press(
            "j", "2", "1", "s", "enter", "escape", "question_mark", "escape", "r", "escape", "f", "escape"
        )
        await pilot.resize_terminal(120, 36)
        await pilot.pause()
        await pilot.resize_terminal(*size)
        await pilot.pause()
        assert app.is_running
        assert app.main.grid.highlighted is not None


async def test_an_empty_fleet_says_so(make_app: MakeApp) -> None:
    app = make_app(Fleet())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("j", "G", "p", "d", "enter", "space", "y", "f", "escape", "s")
        assert "No models yet" in app.main.grid.empty.plain


async def test_the_look_follows_the_terminal(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_app(theme=None).theme == "dark"
    assert make_app(theme=None, env={"TERM": "linux"}).theme == "ansi"
    assert make_app(theme="textual-ansi").theme == "ansi"
    assert make_app(theme="nord").theme == "nord"
    assert make_app(env={"TERM": "linux"}).has_class("-ascii")
    monkeypatch.setenv("NO_COLOR", "1")
    assert make_app(theme=None).theme == "ansi"


async def test_an_unknown_theme_is_named_and_not_fatal(make_app: MakeApp) -> None:
    app = make_app(theme="[purple]")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.pause()
        assert app.theme == "dark"
        assert [each.title for each in app._notifications] == ["No theme is called [purple]"]


@pytest.mark.parametrize("keys", [(), ("f",), ("question_mark",), ("r",), ("2",), ("ctrl+p",)])
async def test_no_color_means_no_colour_anywhere(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(fleets.busy(), theme=None)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        coloured = {
            (segment.text, str(segment.style))
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None
            for color in (segment.style.color, segment.style.bgcolor)
            if color is not None and not color.is_default
        }
        assert not coloured
