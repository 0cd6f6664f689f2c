"""A search through a long list: the first screenful at once, the rest as soon as nothing else is on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual import events
from textual.geometry import Region
from textual.pilot import Pilot

from modelhub_tui.app import ModelHubApp
from modelhub_tui.filtering import Filter, apply
from modelhub_tui.screens.search import SearchBar, SearchInput
from modelhub_tui.search_texts import PAGE
from tests.tui import fleets
from tests.tui.conftest import MakeApp

SIZE = (100, 30)
LONG = fleets.many(24 * PAGE)
FOUND = apply(LONG.models, Filter("v"))


@asynccontextmanager
async def searching(
    make_app: MakeApp, marked: frozenset[str] = frozenset()
) -> AsyncIterator[tuple[ModelHubApp, Pilot]]:
    """The dashboard with a long list, ready to be searched, and the focus in the search."""
    app = make_app(LONG)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        app.main._view.prepare(24)
        app.main.grid.selected = marked
        app.main.action_search()
        yield app, pilot


async def test_the_first_screenful_is_listed_at_once_and_the_rest_without_another_key(make_app: MakeApp) -> None:
    async with searching(make_app) as (app, pilot):
        main = app.main
        main.query_one(SearchInput).value = "v"
        first, bar = main.grid.models, main.query_one(SearchBar)
        assert 0 < len(first) < len(FOUND)
        assert first == FOUND[: len(first)]
        assert bar.shown_count == len(LONG.models), "a part is not counted"
        while main._idle is not None:
            await pilot.pause(0.01)
        assert main.grid.models == FOUND
        assert bar.shown_count == len(FOUND)
        assert main.grid.cursor == 0
        main.query_one(SearchInput).value = ""
        assert main.grid.models == LONG.models


@pytest.mark.parametrize(
    ("key", "cursor"), [("end", len(FOUND) - 1), ("down", 1), ("pagedown", None), ("up", 0), ("home", 0)]
)
async def test_whoever_goes_on_at_once_goes_on_in_the_whole_list(make_app: MakeApp, key: str, cursor: int) -> None:
    async with searching(make_app) as (app, _pilot):
        main = app.main
        main.query_one(SearchInput).value = "v"
        main.set_focus(main.grid)
        assert len(main.grid.models) < len(FOUND)
        await app.on_event(events.Key(key, None))
        assert main.grid.models == FOUND
        if cursor is not None:
            assert main.grid.cursor == cursor


async def test_the_scroll_mark_is_that_of_a_long_list_until_the_end_is_known(make_app: MakeApp) -> None:
    async with searching(make_app) as (app, pilot):
        main, marks = app.main, []
        for text in ("v", "v23999"):
            main.query_one(SearchInput).value = text
            marks.append(len(main.grid._thumb()))
        assert marks == [1, 0]
        await pilot.pause()
        grid = main.grid
        painted = [strip.text for strip in grid.render_lines(Region(0, 0, *grid.size))]
        assert not any(line.endswith(grid.glyphs.thumb) for line in painted)


async def test_a_fleet_that_changes_meanwhile_is_listed_whole(make_app: MakeApp) -> None:
    async with searching(make_app) as (app, _pilot):
        main = app.main
        main.query_one(SearchInput).value = "v"
        assert len(main.grid.models) < len(FOUND)
        moving = fleets.downloading(LONG.models[0], 0.5)
        main.fleet = fleets.fleet(models=(moving, *LONG.models[1:]))
        assert len(main.grid.models) == len(FOUND)
        assert moving in main.grid.models


async def test_what_is_marked_stays_in_the_list_for_a_command_to_find(make_app: MakeApp) -> None:
    marked = FOUND[-1]
    async with searching(make_app, frozenset({marked.key})) as (app, _pilot):
        main = app.main
        main.query_one(SearchInput).value = "v"
        assert main.targets() == (marked,)
