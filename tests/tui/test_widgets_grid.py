"""The grid of cards: what it draws, how little it draws, and that cursor, selection and mouse hit what they should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import on
from textual.app import App, ComposeResult
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip

from modelhub_tui.domain import Gpu, HubStats, Model, ModelState, Node, NodeStatus, Phase, Placement, Transfer
from modelhub_tui.widgets.card_grid import CardGrid

SIZES = [(80, 24), (120, 36), (200, 50)]
NODES = (Node("1", "gpu-01", NodeStatus.ONLINE, gpus=(Gpu("RTX 4090", 24_000_000_000),), ram_bytes=64_000_000_000),)


def model(at: int, state: ModelState = ModelState.AVAILABLE, **more: Any) -> Model:
    """The model number `at`."""
    return Model(
        key=f"k{at}",
        name=f"owner/model-{at}",
        title=more.pop("title", f"Model {at}"),
        description="A model for tests with a description that is long enough to be cut somewhere along the line.",
        repo=f"owner/model-{at}",
        file="q4.gguf",
        state=state,
        size_bytes=4_000_000_000 + at,
        required_memory_bytes=(at % 40 + 1) * 1_000_000_000,
        quantization="Q4_K_M",
        tags=("chat",),
        stats=HubStats(at, at),
        **more,
    )


def moving(at: int, done: int) -> Model:
    """The model number `at` while it is fetched."""
    transfer = Transfer("gpu-01", Phase.FETCHING, done, 1_000_000_000, bytes_per_s=1e8, eta_s=9.0)
    return model(at, ModelState.DOWNLOADING, transfers=(transfer,))


MANY = tuple(model(at) for at in range(100_000))


class Probe(CardGrid, inherit_bindings=True):
    """Counts what it is asked to repaint and to lay out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.refreshed: list[tuple[Region, ...]] = []
        self.layouts = 0
        super().__init__(*args, **kwargs)

    def refresh(self, *regions: Region, **how: Any) -> Probe:
        self.refreshed.append(regions)
        self.layouts += bool(how.get("layout"))
        return super().refresh(*regions, **how)


class Shell(App[None]):
    """A grid and nothing else."""

    def __init__(self, models: tuple[Model, ...] = MANY[:50], **how: Any) -> None:
        super().__init__()
        self.grid = Probe(models, nodes=NODES, **how)
        self.told: list[Any] = []

    def compose(self) -> ComposeResult:
        yield self.grid

    @on(CardGrid.Highlighted)
    @on(CardGrid.Activated)
    @on(CardGrid.ActionRequested)
    @on(CardGrid.SelectionChanged)
    def _note(self, message: Any) -> None:
        assert message.control is self.grid
        self.told.append(message)

    def last(self, kind: type) -> Any:
        """The latest message of a kind."""
        return next(each for each in reversed(self.told) if type(each) is kind)


def screen_of(grid: CardGrid) -> list[Strip]:
    """What the grid draws now."""
    return grid.render_lines(Region(0, 0, *grid.size))


def look_of(strips: list[Strip]) -> list[list[tuple[str, Any]]]:
    """Characters with their styles, however they are cut into segments."""
    return [[(char, segment.style) for segment in strip for char in segment.text] for strip in strips]


@pytest.mark.parametrize("size", SIZES)
async def test_every_line_fills_the_widget(size):
    app = Shell()
    async with app.run_test(size=size):
        assert [strip.cell_length for strip in screen_of(app.grid)] == [size[0]] * size[1]
        assert "Model 0" in screen_of(app.grid)[0].text


@pytest.mark.parametrize(("width", "columns"), [(28, 1), (80, 1), (111, 1), (120, 2), (167, 2), (200, 3)])
async def test_columns_follow_the_width(width, columns):
    app = Shell()
    async with app.run_test(size=(width, 24)):
        assert app.grid.columns == columns
        assert app.grid.card_region(columns - 1).right < width
        assert columns == 1 or app.grid.card_width >= 54


@pytest.mark.parametrize("size", SIZES)
async def test_a_frame_draws_visible_cards_only_however_long_the_list(size):
    drawn = []
    for models in (MANY[:50], MANY):
        app = Shell(models)
        async with app.run_test(size=size) as pilot:
            counts = [app.grid.rendered_cards]
            for _ in range(3):
                before = app.grid.rendered_cards
                await pilot.press("pagedown")
                await pilot.pause()
                counts.append(app.grid.rendered_cards - before)
            drawn.append(counts[:2])
            visible = (-(-size[1] // app.grid.row_height) + 1) * app.grid.columns
            # The row that loses the cursor is drawn once more.
            assert max(counts) <= visible + app.grid.columns
    assert drawn[0] == drawn[1]


async def test_unchanged_cards_are_not_drawn_again():
    app = Shell()
    async with app.run_test(size=(120, 36)):
        screen_of(app.grid)
        before = app.grid.rendered_cards
        screen_of(app.grid)
        assert app.grid.rendered_cards == before


@pytest.mark.parametrize("models", [MANY[:50], tuple(replace(each) for each in MANY[:50])], ids=["same", "equal"])
async def test_nothing_is_repainted_when_nothing_shown_changed(models):
    app = Shell()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.grid.refreshed.clear()
        app.grid.show(models)
        app.grid.show((*models[:40], moving(40, 5), *models[41:]))
        app.grid.nodes = (replace(NODES[0], disk_free_bytes=5, last_seen=9.0),)
        await pilot.pause()
        assert app.grid.refreshed == []


async def test_progress_repaints_the_lines_that_move():
    start = (*MANY[:2], moving(2, 100_000_000), *MANY[3:50])
    app = Shell(start)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        top = app.grid.card_region(2).y
        app.grid.refreshed.clear()
        app.grid.show((*start[:2], moving(2, 500_000_000), *start[3:]))
        (regions,) = app.grid.refreshed
        assert {each.y for each in regions} == {top + 3, top + 4}  # the bar, and the figures below it
        assert "50%" in "".join(strip.text for strip in screen_of(app.grid))


async def test_what_a_row_shows_does_not_depend_on_what_it_showed_before():
    steps = [
        MANY[:8],
        (*MANY[:2], moving(2, 100_000_000), *MANY[3:8]),
        (*MANY[:2], moving(2, 500_000_000), moving(3, 1), *MANY[4:8]),
        (*MANY[:2], moving(2, 900_000_000), *MANY[3:8]),
        (*MANY[2:4], moving(2, 900_000_000), *MANY[5:9]),
        MANY[:3],
    ]
    kept = Shell(steps[0])
    async with kept.run_test(size=(120, 36)) as pilot:
        for models in steps:
            kept.grid.show(models)
            await pilot.pause()
            fresh = Shell(models)
            async with fresh.run_test(size=(120, 36)) as other:
                fresh.grid.highlight(kept.grid.cursor)
                await other.pause()
                assert screen_of(kept.grid) == screen_of(fresh.grid)


async def test_searching_lays_nothing_out():
    app = Shell(MANY)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        app.grid.layouts = 0
        for length in (1000, 30, 3, 0, 100_000):
            app.grid.show(MANY[:length])
            await pilot.pause()
        assert app.grid.layouts == 0
        assert app.grid.virtual_size.height == 50_000 * app.grid.row_height - 1
        await pilot.press("G")
        assert app.grid.highlighted is MANY[-1]
        assert app.grid.card_region(99_999).bottom == 36


async def test_idle_is_silent():
    app = Shell()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.grid.refreshed.clear()
        writes: list[str] = []
        driver = app._driver
        assert driver is not None
        driver.write = writes.append  # type: ignore[method-assign]
        await pilot.hover(app.grid, offset=(5, 2))
        await pilot.hover(app.grid, offset=(5, 9))
        await pilot.pause(0.2)
        assert app.grid.refreshed == []
        assert writes == []
        assert not list(app.grid._timers)


KEYS = ["down", "up", "j", "k", "l", "h", "pagedown", "pageup", "space", "G", "g"]
EVENTS = ["filter", "all", "reverse", "progress", "dim", "bright", "nodes", "wheel", "theme"]
CHANGES = st.lists(st.sampled_from([*KEYS, *EVENTS]), max_size=12)


@settings(max_examples=15, deadline=None)
@given(CHANGES, st.sampled_from(SIZES))
async def test_the_cache_shows_what_would_be_drawn_without_it(changes, size):
    app = Shell()
    async with app.run_test(size=size) as pilot:
        grid, done = app.grid, 0
        for change in changes:
            match change:
                case "filter":
                    grid.show(tuple(each for each in grid.models if hash(each.key) % 3))
                case "all":
                    grid.show(MANY[:50])
                case "reverse":
                    grid.show(grid.models[::-1])
                case "progress":
                    done += 50_000_000
                    grid.show(tuple(moving(7, done) if each.key == "k7" else each for each in grid.models))
                case "dim" | "bright":
                    grid.dimmed = change == "dim"
                case "nodes":
                    grid.nodes = () if grid.nodes else NODES
                case "wheel":
                    grid._scroll_rows(1)
                case "theme":
                    app.theme = "textual-light" if app.theme == "textual-dark" else "textual-dark"
                case key:
                    await pilot.press(key)
            await pilot.pause()
            cached = look_of(screen_of(grid))
            grid.forget()
            assert look_of(screen_of(grid)) == cached
            assert grid.highlighted is None or grid.models[grid.cursor] is grid.highlighted


async def test_painting_only_what_changed_leaves_the_right_screen():
    app = Shell((*MANY[:4], moving(4, 0), *MANY[5:50]))
    async with app.run_test(size=(120, 36)) as pilot:
        for step, key in enumerate(("j", "l", "space", "pagedown", "k", "G", "g", "h")):
            await pilot.press(key)
            app.grid.show(
                tuple(moving(4, step * 100_000_000) if each.key == "k4" else each for each in app.grid.models)
            )
            await pilot.pause()
            painted = [
                "".join(segment.text for segment in line) for line in app.screen._compositor.render_strips(app.size)
            ]
            assert painted == [strip.text for strip in screen_of(app.grid)]


async def test_cursor_and_selection_follow_their_models():
    app = Shell()
    async with app.run_test(size=(120, 36)) as pilot:
        grid = app.grid
        await pilot.press("j", "j", "l", "space")
        assert grid.highlighted is MANY[5]
        assert grid.selected == {"k5"}
        assert app.last(CardGrid.SelectionChanged).keys == {"k5"}
        grid.show(MANY[3:50])
        assert grid.highlighted is MANY[5]
        grid.show(MANY[49::-1])
        assert grid.highlighted is MANY[5]
        fetched = moving(5, 7)
        grid.show(tuple(fetched if each.key == "k5" else each for each in grid.models))
        await pilot.pause()
        assert grid.highlighted is fetched
        assert app.last(CardGrid.Highlighted).model.key == "k5"
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert grid.highlighted is fetched
        region = grid.card_region(grid.cursor)
        assert region.y >= 0 and region.bottom <= 24
        assert grid.selected_models == (fetched,)
        grid.show(MANY[6:9])
        assert grid.selected == {"k5"} and grid.selected_models == ()


async def test_an_update_leaves_the_view_where_the_wheel_brought_it():
    app = Shell()
    async with app.run_test(size=(80, 24)) as pilot:
        app.grid._scroll_rows(6)
        await pilot.pause()
        where = app.grid.scroll_offset
        app.grid.show((moving(60, 5), *MANY[:50]))
        await pilot.pause()
        assert (app.grid.highlighted, app.grid.scroll_offset) == (MANY[0], where)
        await pilot.press("k")
        assert app.grid.scroll_offset.y == 0


async def test_the_cursor_stays_near_a_model_that_vanished():
    app = Shell()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("j", "j", "j")
        app.grid.show(MANY[:3] + MANY[4:50])
        assert app.grid.highlighted is MANY[4]
        app.grid.show(MANY[:2])
        assert app.grid.highlighted is MANY[1]
        app.grid.show(())
        await pilot.pause()
        assert app.grid.highlighted is None
        assert app.last(CardGrid.Highlighted).model is None


@pytest.mark.parametrize("size", SIZES)
async def test_keys_reach_every_card_and_keep_it_in_view(size):
    app = Shell(MANY[:23])
    async with app.run_test(size=size) as pilot:
        grid, columns = app.grid, app.grid.columns
        await pilot.press("down")
        assert grid.cursor == columns
        await pilot.press("up", "up", "left")
        assert grid.cursor == 0
        await pilot.press("end", "down", "right")
        assert grid.cursor == 22
        assert grid.card_region(22).bottom <= size[1]
        await pilot.press("home")
        seen = set()
        for _ in range(23):
            region = grid.card_region(grid.cursor)
            assert region.y >= 0 and region.bottom <= size[1]
            seen.add(grid.cursor)
            await pilot.press("right")
        assert seen == set(range(23))
        await pilot.press("pageup", "pageup", "pageup", "pageup", "pageup", "pageup", "pageup")
        assert grid.cursor == 22 % columns
        await pilot.press("enter")
        assert app.last(CardGrid.Activated).model is grid.highlighted


@pytest.mark.parametrize("size", SIZES)
async def test_clicks_hit_what_is_drawn(size):
    states = [ModelState.AVAILABLE, ModelState.FAILED, ModelState.DOWNLOADED]
    app = Shell(tuple(model(at, states[at % 3]) for at in range(60)))
    wanted = {"Pull": "pull", "Retry": "retry", "Delete": "delete"}
    async with app.run_test(size=size) as pilot:
        grid = app.grid
        await pilot.press("pagedown")
        await pilot.pause()
        for word, action in wanted.items():
            # The list may scroll under a click on a card that is partly out of view, so look where things are now.
            x, y = next((x, y) for y, strip in enumerate(screen_of(grid)) if (x := strip.text.find(f"] {word}")) >= 0)
            found = grid.hit(x, y)
            await pilot.click(grid, offset=(x, y))
            await pilot.pause()
            asked = app.last(CardGrid.ActionRequested)
            assert found == (grid.cursor, action)
            assert asked.action == action
            assert asked.model is grid.highlighted


async def test_a_click_moves_the_cursor_and_a_second_opens():
    app = Shell()
    async with app.run_test(size=(120, 36)) as pilot:
        region = app.grid.card_region(3)
        await pilot.click(app.grid, offset=(region.x + 5, region.y + 1))
        assert app.grid.cursor == 3
        assert not [each for each in app.told if isinstance(each, CardGrid.Activated)]
        await pilot.click(app.grid, offset=(region.x + 5, region.y + 1))
        assert app.last(CardGrid.Activated).model is MANY[3]


async def test_nothing_is_hit_between_cards_or_below_them():
    app = Shell(MANY[:3])
    async with app.run_test(size=(120, 36)):
        grid = app.grid
        region = grid.card_region(0)
        assert grid.hit(region.x, region.y) == (0, None)
        assert grid.hit(region.right, region.y) is None
        assert grid.hit(region.x, region.bottom) is None
        assert grid.hit(grid.card_region(1).x, grid.card_region(2).y) is None
        assert grid.hit(119, 0) is None
        assert grid.hit(5, 35) is None
        assert grid.hit(-1, 0) is None


async def test_the_wheel_and_the_scroll_mark_move_the_view_not_the_cursor():
    app = Shell()
    async with app.run_test(size=(80, 24)) as pilot:
        grid = app.grid
        assert grid.glyphs.thumb in screen_of(grid)[0].text
        grid._scroll_rows(2)
        assert (grid.scroll_offset.y, grid.cursor) == (2 * grid.row_height, 0)
        await pilot.mouse_down(grid, offset=(79, 23))
        await pilot.mouse_up(grid, offset=(79, 23))
        await pilot.pause()
        assert grid.scroll_offset.y == grid.max_scroll_y - grid.max_scroll_y % grid.row_height or (
            grid.scroll_offset.y == grid.max_scroll_y
        )
        assert grid.glyphs.thumb in screen_of(grid)[-1].text
        grid.show(MANY[:3])
        assert grid.glyphs.thumb not in "".join(strip.text for strip in screen_of(grid))


async def test_an_empty_list_says_what_to_do():
    app = Shell(())
    async with app.run_test(size=(80, 24)) as pilot:
        app.grid.empty = Content("Nothing here yet\nPress 1, choose a model, press p")
        await pilot.pause()
        text = [strip.text for strip in screen_of(app.grid)]
        assert any("Nothing here yet" in line for line in text)
        assert {len(line) for line in text} == {80}
        await pilot.press("j", "G", "space", "enter", "pagedown")
        assert app.grid.hit(5, 5) is None


async def test_old_data_is_drawn_in_one_colour():
    app = Shell(tuple(model(at, ModelState.DOWNLOADED, placements=(Placement("n"),)) for at in range(9)))
    async with app.run_test(size=(80, 24)) as pilot:

        def colours() -> set[Any]:
            return {
                segment.style.color
                for line in screen_of(app.grid)[6:10]
                for segment in line
                if segment.text.strip() and segment.style and segment.text != app.grid.glyphs.thumb
            }

        assert len(colours()) > 2
        app.grid.dimmed = True
        await pilot.pause()
        assert len(colours()) == 1


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark", "ansi-light"])
async def test_the_highlighted_card_looks_different_in_every_theme(theme):
    app = Shell()
    app.theme = theme
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        first, second = look_of(screen_of(app.grid))[0], look_of(screen_of(app.grid))[5]
        assert first[0] != second[0]
        assert first[0][0] != second[0][0]
