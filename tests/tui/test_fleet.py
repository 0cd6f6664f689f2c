"""The fleet view, the choosers and the login: every key, and what is asked of the router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import Input

from modelhub_tui.actions import can, refusal
from modelhub_tui.domain import LOCAL_ABILITIES, Ability, ModelState, NodeStatus, Phase, Placement, Transfer
from modelhub_tui.errors import PasswordChangeNeeded, Unauthorised
from modelhub_tui.screens.confirm import ConfirmScreen
from modelhub_tui.screens.endpoint import DeleteScreen, EndpointScreen
from modelhub_tui.screens.fleet import FleetScreen, NodePane
from modelhub_tui.screens.login import LoginScreen, Secret
from modelhub_tui.screens.main import MainScreen
from modelhub_tui.widgets.cells import width_of
from modelhub_tui.widgets.fleet_cells import cell, counted, mark_on, marks_of
from modelhub_tui.widgets.fleet_grid import FleetGrid
from modelhub_tui.widgets.glyphs import ASCII, UNICODE
from tests.tui import fleets, worlds
from tests.tui.conftest import MakeApp
from tests.tui.test_app_keys import settle

SIZE = (100, 30)


def grid_of(app) -> FleetGrid:
    return app.screen.query_one(FleetGrid)


def toasts(app) -> list[str]:
    return [each.message for each in app._notifications]


async def test_n_opens_the_nodes_and_both_keys_go_back(make_app: MakeApp) -> None:
    app = make_app(worlds.spread(5))
    async with app.run_test(size=SIZE) as pilot:
        for back in ("n", "escape"):
            await pilot.press("n")
            assert isinstance(app.screen, FleetScreen)
            await pilot.press(back)
            assert isinstance(app.screen, MainScreen)


async def test_the_cursor_moves_by_cells_and_stops_at_the_edges(make_app: MakeApp) -> None:
    app = make_app(worlds.spread(200, 60))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n", "0", "g")
        grid = grid_of(app)
        assert (grid.row, grid.column) == (0, 0)
        await pilot.press("up", "left", "j", "l", "l")
        assert (grid.row, grid.column) == (1, 2)
        await pilot.press("G", "dollar_sign", "down", "right")
        assert (grid.row, grid.column) == (59, 199)
        assert grid.left + grid.columns_shown == 200
        await pilot.press("pageup")
        assert grid.row == 59 - (grid.rows_shown - 1)


async def test_enter_shows_the_model_in_the_hub(make_app: MakeApp) -> None:
    app = make_app(worlds.spread(3))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n", "j", "j", "enter")
        await pilot.pause()
        assert app.main.tab == "hub"
        assert app.main.grid.highlighted.title == fleets.catalog()[2].title
        assert app.main.details_open


async def until(pilot: Pilot, holds: Callable[[], bool]) -> None:
    """Let the app work until something holds; fails if it does not within half a minute."""
    async with asyncio.timeout(30):
        while not holds():
            await pilot.pause(0.01)


async def at_rest(pilot: Pilot, grid: FleetGrid) -> int:
    """Let the app work until it has stopped painting; return how often it has painted."""
    quiet, painted = 0, grid.painted
    while quiet < 5:
        await pilot.pause(0.02)
        quiet, painted = (quiet + 1, painted) if grid.painted == painted else (0, grid.painted)
    return painted


async def test_a_approves_a_waiting_node_after_asking(make_app: MakeApp) -> None:
    app = make_app(worlds.spread(5))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n")
        assert grid_of(app).node.status is NodeStatus.PENDING
        await pilot.press("a")
        for key, asking in (("n", False), ("a", True), ("y", False)):
            await until(pilot, lambda asking=not asking: isinstance(app.screen, ConfirmScreen) is asking)
            await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, ConfirmScreen))
        await settle(pilot)
        assert app.watcher.asked == [("approve", "gpu-004")]


@pytest.mark.parametrize(("router", "said"), [(worlds.G1, "does not wait"), (worlds.G4, "by itself")])
async def test_a_says_why_nothing_can_be_approved(make_app: MakeApp, router, said: str) -> None:
    app = make_app(worlds.spread(3, router=router))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("n", "a")
        assert len(toasts(app)) == 1
        assert said in toasts(app)[0]


async def test_news_reaches_the_open_view_and_sameness_paints_nothing(make_app: MakeApp) -> None:
    fleet = worlds.spread(5)
    app = make_app(fleet)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n")
        grid = grid_of(app)
        painted = await at_rest(pilot, grid)
        app.watcher.say(replace(fleet, models=tuple(replace(each) for each in fleet.models)))
        assert await at_rest(pilot, grid) == painted
        first = replace(fleet.models[0], title="Another title")
        app.watcher.say(replace(fleet, models=(first, *fleet.models[1:])))
        await until(pilot, lambda: grid.painted > painted)
        assert await at_rest(pilot, grid) == painted + 1
        assert grid.model.title == "Another title"


async def test_the_cursor_follows_model_and_node(make_app: MakeApp) -> None:
    fleet = worlds.spread(5)
    app = make_app(fleet)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n", "j", "j")
        grid = grid_of(app)
        model, node = grid.model.key, grid.node.id
        app.watcher.say(replace(fleet, models=fleet.models[1:], nodes=fleet.nodes[1:]))
        await pilot.pause()
        assert (grid.model.key, grid.node.id) == (model, node)


async def test_a_click_moves_and_a_second_one_opens(make_app: MakeApp) -> None:
    app = make_app(worlds.spread(5))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n")
        grid = grid_of(app)
        offset = (grid.name_width + 2, 6)
        await pilot.click(grid, offset=offset)
        assert (grid.row, grid.column) == (4, grid.left)
        await pilot.click(grid, offset=offset)
        await pilot.pause()
        assert isinstance(app.screen, MainScreen)


async def test_the_pane_tells_what_is_wrong_with_a_node(make_app: MakeApp) -> None:
    app = make_app(worlds.spread(6))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n", "right")
        text = "\n".join(each.plain for each in app.screen.query_one(NodePane).lines)
        assert "gpu-005  offline" in text
        assert "No heartbeat." in text


async def test_pull_asks_where_and_orders_the_download(make_app: MakeApp) -> None:
    app = make_app(worlds.endpoints())
    title = fleets.catalog()[0].title
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        assert isinstance(app.screen, EndpointScreen)
        assert app.screen.chosen.name == "ollama-1"
        assert app.screen.query_one("#endpoint-quantization").display is False
        await pilot.press("down")
        assert app.screen.query_one("#endpoint-quantization").display is True
        app.screen.query_one("#endpoint-quantization", Input).value = "Q8_0"
        await pilot.press("enter")
        await settle(pilot)
        assert app.watcher.asked == [("download", f"{title} on e-studio as Q8_0")]


async def test_pull_registers_first_what_is_not_registered(make_app: MakeApp) -> None:
    app = make_app(worlds.endpoints())
    title = fleets.catalog()[7].title
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(7)
        await pilot.press("p", "enter")
        await settle(pilot)
        assert app.watcher.asked == [("pull", title), ("download", f"{title} on e-ollama-1 as None")]


async def test_pull_says_when_no_endpoint_takes_downloads(make_app: MakeApp) -> None:
    app = make_app(worlds.endpoints(held=(worlds.ENDPOINTS[2],)))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        assert isinstance(app.screen, MainScreen)
        assert toasts(app) == ["No endpoint of llmlb 5.7.1 takes downloads."]


async def test_delete_asks_what_to_delete_from_where(make_app: MakeApp) -> None:
    app = make_app(worlds.endpoints())
    title = fleets.catalog()[0].title
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("d")
        assert isinstance(app.screen, DeleteScreen)
        await pilot.press("y")
        assert isinstance(app.screen, DeleteScreen)
        await pilot.press("space", "down", "space", "y")
        await settle(pilot)
        assert app.watcher.asked == [("delete_on", f"{title} on e-ollama-1"), ("delete", title)]


async def test_a_single_thing_to_delete_is_chosen_already(make_app: MakeApp) -> None:
    app = make_app(worlds.endpoints())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(2)
        await pilot.press("d", "y")
        await settle(pilot)
        assert app.watcher.asked == [("delete", fleets.catalog()[2].title)]


async def test_what_a_router_cannot_do_is_not_offered_and_says_why_once(make_app: MakeApp) -> None:
    app = make_app(worlds.endpoints(worlds.G3))
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(6)
        await pilot.pause()
        assert "model.pull" not in {each.id for each in app.main.query_one("KeyFooter").items}
        await pilot.press("p")
        assert toasts(app) == ["llmlb (endpoints) cannot start downloads: its endpoints fetch their own models."]
        assert app.watcher.asked == []


def test_abilities_decide_what_can_be_done() -> None:
    model = fleets.queued(fleets.catalog()[0])
    assert can("cancel", model, LOCAL_ABILITIES)
    assert not can("delete", model, LOCAL_ABILITIES)
    assert can("delete", model, worlds.G4.abilities)
    assert can("pull", model, worlds.G4.abilities)
    assert not can("cancel", model, worlds.G4.abilities)
    assert "cannot stop" in refusal("cancel", (model,), worlds.G4.abilities, "llmlb 5.7.1")
    assert refusal("retry", (model,), worlds.G4.abilities, "llmlb 5.7.1") == ""
    assert refusal("register", (), frozenset({Ability.DELETE}), "") == "This router cannot register models."


async def test_notices_are_shown_once(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for _ in range(2):
            app.watcher.say(fleets.fleet(notices=("The router has undone a delete.",)))
            await pilot.pause()
        assert toasts(app) == ["The router has undone a delete."]


class Logins:
    """Takes logins, and remembers them."""

    def __init__(self, *problems: Exception) -> None:
        self.problems = list(problems)
        self.given: list[tuple[str, str, bool]] = []
        self.passwords: list[str] = []

    async def login(self, user: str, password: Secret, remember: bool) -> None:
        self.given.append((user, password.get_secret_value(), remember))
        if self.problems:
            raise self.problems.pop(0)

    async def change(self, password: Secret) -> None:
        self.passwords.append(password.get_secret_value())


async def test_a_wrong_password_keeps_the_dialog_and_a_right_one_connects_again(make_app: MakeApp) -> None:
    logins = Logins(Unauthorised())
    app = make_app(fleets.refused(), login=logins.login)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("a", *"admin", "enter", *"wrong", "enter")
        await settle(pilot)
        assert isinstance(app.screen, LoginScreen)
        assert app.screen.query_one("#login-password", Input).value == ""
        await pilot.press(*"right", "enter")
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)
        assert logins.given == [("admin", "wrong", False), ("admin", "right", False)]
        assert app.watcher.refreshed == 1


async def test_a_router_that_wants_a_new_password_gets_one(make_app: MakeApp) -> None:
    logins = Logins(PasswordChangeNeeded())
    app = make_app(fleets.refused(), login=logins.login, change_password=logins.change)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("a", *"admin", "enter", *"first", "enter")
        await settle(pilot)
        assert app.screen.changing
        await pilot.press(*"secret1", "enter", *"secret2", "enter")
        assert logins.passwords == []
        app.screen.query_one("#login-password", Input).value = "secret1"
        await pilot.press("enter")
        await settle(pilot)
        assert logins.passwords == ["secret1"]
        assert isinstance(app.screen, MainScreen)


async def test_the_login_dialog_offers_the_api_key(make_app: MakeApp) -> None:
    keys: list[str] = []

    async def use_key(key: str, remember: bool) -> None:
        keys.append(key)

    app = make_app(fleets.refused(), login=Logins().login, use_key=use_key)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("a")
        await pilot.click("#login-key")
        await pilot.press(*"sk_1", "enter")
        await settle(pilot)
        assert keys == ["sk_1"]


def test_a_password_never_shows() -> None:
    assert "hunter2" not in f"{Secret('hunter2')} {Secret('hunter2')!r}"


TEXT = st.text(max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    title=TEXT,
    reason=TEXT,
    phase=st.sampled_from(Phase),
    done=st.integers(0, 10**13),
    total=st.none() | st.integers(0, 10**13),
    rate=st.none() | st.floats(0, 1e12),
    width=st.integers(3, 120),
    ascii_only=st.booleans(),
)
def test_a_cell_never_outgrows_its_column(title, reason, phase, done, total, rate, width, ascii_only) -> None:
    node = fleets.GPU_NODE
    moving = Transfer(node.name, phase, done, total, rate, 12.0, error=reason)
    model = replace(fleets.catalog()[0], title=title, reason=reason, state=ModelState.QUEUED, registered=True)
    glyphs = ASCII if ascii_only else UNICODE
    placed = (Placement(node.name, disk_bytes=done),)
    for shown in (model, replace(model, transfers=(moving,)), replace(model, placements=placed)):
        pieces = cell(mark_on(marks_of(shown), shown, node), shown, width, glyphs)
        assert sum(width_of(text) for text, _ in pieces) <= width


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (30, 10), (200, 50)])
@pytest.mark.parametrize("name", ["模型" * 30, "e\u0301\u200d" * 20, "[b]x[/b]" * 9, ""])
async def test_lines_are_exactly_as_wide_as_the_grid(make_app: MakeApp, size: tuple[int, int], name: str) -> None:
    fleet = worlds.spread(9)
    fleet = replace(
        fleet,
        models=tuple(replace(each, title=name) for each in fleet.models),
        nodes=tuple(replace(each, name=name, problem=name) for each in fleet.nodes),
    )
    app = make_app(fleet)
    async with app.run_test(size=size) as pilot:
        await pilot.press("n")
        await pilot.pause()
        grid = grid_of(app)
        assert {strip.cell_length for strip in grid._draw()} == {grid.size.width}


def test_nodes_are_counted_by_their_kind() -> None:
    assert counted(worlds.nodes(1)) == "1 node"
    assert counted(worlds.nodes(5)) == "3/5 nodes online"
    assert counted(worlds.ENDPOINTS[:3]) == "3 endpoints"
