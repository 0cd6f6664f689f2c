"""Every key of the main screen: what it asks for, and what shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from textual._callback import invoke
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from modelhub_tui.app import ModelHubApp
from modelhub_tui.commands import COMMANDS
from modelhub_tui.domain import ModelState
from modelhub_tui.filtering import SortKey
from modelhub_tui.palette import HubCommands
from modelhub_tui.screens.confirm import ConfirmScreen
from modelhub_tui.screens.delete import DeleteModelsScreen
from modelhub_tui.screens.filter import FilterScreen
from modelhub_tui.screens.help import HelpScreen
from modelhub_tui.screens.main import MainScreen
from modelhub_tui.screens.register import RegisterScreen
from modelhub_tui.screens.search import SearchBar, SearchInput
from modelhub_tui.widgets.details import usage
from modelhub_tui.widgets.footer import KeyFooter
from tests.tui import fleets
from tests.tui.conftest import MakeApp

SIZE = (100, 30)


def at(app: ModelHubApp, state: ModelState) -> int:
    """Position of the first model in a state."""
    return next(index for index, model in enumerate(app.main.grid.models) if model.state is state)


async def settle(pilot: Pilot) -> None:
    """Let workers that end by themselves end, and messages arrive."""
    app = pilot.app
    for _ in range(3):
        await pilot.pause()
        for worker in [each for each in app.workers if each.group in ("actions", "register", "key")]:
            await worker.wait()
    await pilot.pause()


async def test_the_first_frame_shows_the_given_fleet_with_the_focus_on_the_list(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        assert isinstance(app.screen, MainScreen)
        assert app.focused is app.main.grid
        assert app.main.grid.models == fleets.fleet().models
        await pilot.pause()
        assert app.main.grid.highlighted == fleets.catalog()[0]


async def test_news_from_the_watcher_reaches_the_list(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        app.watcher.say(fleets.busy())
        await pilot.pause()
        assert app.fleet == fleets.busy()
        assert app.main.grid.highlighted.state is ModelState.DOWNLOADING


async def test_the_local_list_is_built_when_first_needed_and_follows(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        assert not app.main.query("#local")
        await pilot.press("2")
        assert app.focused is app.main.grid
        assert app.main.grid.id == "local"
        assert [model.state for model in app.main.grid.models] == [
            ModelState.DOWNLOADED,
            ModelState.DELETING,
            ModelState.DOWNLOADED,
        ]
        await pilot.press("1")
        assert app.main.grid.id == "hub"
        await pilot.press("tab")
        assert app.main.grid.id == "local"
        app.watcher.say(fleets.fleet(models=fleets.catalog()))
        await pilot.pause()
        assert app.main.grid.models == ()
        assert "Nothing here yet" in app.main.grid.empty.plain


@pytest.mark.parametrize(("key", "index"), [("j", 1), ("down", 1), ("G", 37), ("end", 37)])
async def test_movement_keys_move(make_app: MakeApp, key: str, index: int) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(key)
        assert app.main.grid.cursor == index
        await pilot.press("g")
        assert app.main.grid.cursor == 0


@pytest.mark.parametrize(
    ("key", "state", "action"),
    [
        ("p", ModelState.AVAILABLE, "pull"),
        ("R", ModelState.FAILED, "retry"),
        ("P", ModelState.PAUSED, "resume"),
        ("P", ModelState.QUEUED, "pause"),
        ("P", ModelState.DOWNLOADING, "pause"),
        ("x", ModelState.QUEUED, "cancel"),
    ],
)
async def test_a_harmless_key_asks_the_watcher_at_once(
    make_app: MakeApp, key: str, state: ModelState, action: str
) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, state))
        title = app.main.grid.highlighted.title
        await pilot.press(key)
        await settle(pilot)
        assert app.watcher.asked == [(action, title)]


@pytest.mark.parametrize("state", list(ModelState))
async def test_keys_that_make_no_sense_for_a_state_do_nothing_and_do_not_show(
    make_app: MakeApp, state: ModelState
) -> None:
    sense = {
        ModelState.AVAILABLE: {"p"},
        ModelState.QUEUED: {"x", "P"},
        ModelState.DOWNLOADING: {"x", "P"},
        ModelState.PAUSED: {"x", "P"},
        ModelState.FAILED: {"x", "R"},
        ModelState.DOWNLOADED: {"d"},
        ModelState.DELETING: set(),
    }[state]
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, state))
        await pilot.pause()
        shown = {item.key for item in app.main.query_one(KeyFooter).items}
        assert shown & {"p", "x", "R", "d", "P"} == sense
        await pilot.press(*({"p", "x", "R", "d", "P"} - sense))
        await settle(pilot)
        assert app.watcher.asked == []
        assert isinstance(app.screen, MainScreen)


@pytest.mark.parametrize(("answer", "asked"), [("y", True), ("n", False), ("escape", False), ("enter", False)])
async def test_deleting_asks_first_and_only_yes_means_yes(make_app: MakeApp, answer: str, asked: bool) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        await pilot.press("d")
        assert isinstance(app.screen, DeleteModelsScreen)
        assert app.focused is app.screen.query_one("#no")
        assert app.watcher.asked == []
        await pilot.press(answer)
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)
        assert app.watcher.asked == ([("delete", "Gemma 2 9B IT")] if asked else [])


async def test_the_other_answer_is_an_arrow_away(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        await pilot.press("d", "right", "enter")
        await settle(pilot)
        assert app.watcher.asked == [("delete", "Gemma 2 9B IT")]


async def test_cancelling_asks_only_when_bytes_would_be_lost(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, ModelState.DOWNLOADING))
        await pilot.press("x")
        assert isinstance(app.screen, ConfirmScreen)
        await pilot.press("y")
        await settle(pilot)
        assert app.watcher.asked == [("cancel", "Qwen2.5 7B Instruct")]


async def test_a_download_that_finishes_under_the_question_is_not_cancelled(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("x")
        models = (fleets.downloaded(fleets.catalog()[0]), *fleets.busy().models[1:])
        app.watcher.say(fleets.fleet(models=models))
        await pilot.pause()
        await pilot.press("y")
        await settle(pilot)
        assert app.watcher.asked == []
        assert any("left alone" in each.message for each in app._notifications)


async def test_commands_act_on_all_selected_models(make_app: MakeApp) -> None:
    app = make_app(fleets.fleet())
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("space", "j", "space", "j", "space")
        assert len(app.main.grid.selected) == 3
        assert ("p", "Pull 2") in [(item.key, item.label) for item in app.main.query_one(KeyFooter).items]
        await pilot.press("p")
        await settle(pilot)
        # The second one is downloaded: pulling makes no sense for it.
        assert app.watcher.asked == [("pull", "Qwen2.5 7B Instruct"), ("pull", "Llama 3.1 8B Instruct")]
        assert app.main.grid.selected == frozenset()


async def test_search_narrows_while_typing_and_escape_goes_back_step_by_step(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("/", *"coder")
        assert app.main.searching
        titles = [model.title for model in app.main.grid.models]
        assert titles
        assert all("Coder" in title for title in titles)
        assert app.main.grid.cursor == 0
        assert app.main.query_one(SearchBar).count_text() == f"{len(titles)} of 38"
        await pilot.press("escape")
        assert app.main.query_one(SearchInput).value == ""
        assert app.main.searching
        assert len(app.main.grid.models) == 38
        await pilot.press("escape")
        assert app.focused is app.main.grid


@pytest.mark.parametrize("key", ["enter", "down", "tab"])
async def test_the_search_is_left_for_the_list_and_keeps_its_text(make_app: MakeApp, key: str) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("/", *"phi", key)
        assert app.focused is app.main.grid
        assert app.main.wanted.text == "phi"
        assert not app.main.details_open
        await pilot.press("escape")
        assert app.main.wanted.text == ""


async def test_sorting_cycles_through_all_orders(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        seen = [app.main.sort]
        for _ in SortKey:
            await pilot.press("s")
            seen.append(app.main.sort)
        assert seen[:-1] == list(SortKey)
        assert seen[-1] is SortKey.CATALOG


async def test_register_filter_and_help_open_their_dialogs(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for key, kind in (("r", RegisterScreen), ("f", FilterScreen), ("?", HelpScreen)):
            await pilot.press(key)
            assert isinstance(app.screen, kind)
            await pilot.press("escape")
            assert isinstance(app.screen, MainScreen)
            assert app.focused is app.main.grid


async def test_copying_gives_the_path_of_what_is_there_and_the_repo_of_what_is_not(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("y")
        await pilot.pause()
        assert app.clipboard == "bartowski/Qwen2.5-7B-Instruct-GGUF"
        await pilot.press("j", "y")
        await pilot.pause()
        assert app.clipboard.endswith(fleets.catalog()[1].file)
        assert app.clipboard.startswith("/srv/models/")


async def test_refresh_asks_the_watcher(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert app.watcher.refreshed == 1


@pytest.mark.parametrize("key", ["enter", "i"])
async def test_details_take_the_place_of_the_list_where_it_is_narrow(make_app: MakeApp, key: str) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(key)
        await pilot.pause()
        main = app.main
        assert main.details.display
        assert not main.query_one("#lists").display
        assert app.focused is main.details
        assert main.details.model == fleets.catalog()[0]
        await pilot.press("p")
        await settle(pilot)
        assert app.watcher.asked == [("pull", "Qwen2.5 7B Instruct")]
        await pilot.press("escape")
        await pilot.pause()
        assert app.focused is main.grid
        assert main.query_one("#lists").display


async def test_details_stand_beside_the_list_where_it_is_wide(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(180, 40)) as pilot:
        await pilot.pause()
        main = app.main
        assert main.details.display
        assert main.query_one("#lists").display
        await pilot.press("j")
        await pilot.pause()
        assert main.details.model == main.grid.models[main.grid.cursor]
        await pilot.press("enter")
        assert app.focused is main.details
        await pilot.press("escape")
        assert app.focused is main.grid
        await pilot.press("i")
        await pilot.pause()
        assert not main.details.display
        await pilot.press("i")
        await pilot.pause()
        assert main.details.display
        assert app.focused is main.grid


@pytest.mark.parametrize("key", ["q", "ctrl+q"])
async def test_quitting_with_downloads_says_that_they_go_on(make_app: MakeApp, key: str) -> None:
    left: list[object] = []
    app = make_app(fleets.busy(), on_leave=left.append)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.press(key)
        await pilot.pause()
        assert not app.is_running or app._exit
        assert any("4 downloads go on" in str(each) for each in app._exit_renderables)
    assert left == [fleets.busy()]
    assert app.watcher.closed


async def test_quitting_an_idle_fleet_says_nothing(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("q")
        await pilot.pause()
        assert app._exit_renderables == []


async def test_printable_keys_belong_to_the_search_while_it_has_the_focus(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        text = "pxdrRsfyqi12?/ jkgG"
        await pilot.press("/", *["space" if each == " " else each for each in text])
        await settle(pilot)
        assert app.main.query_one(SearchInput).value == text
        assert app.watcher.asked == []
        assert isinstance(app.screen, MainScreen)


@pytest.mark.parametrize("burst", ["/coder", "jj/phi", "2/gemma"])
async def test_a_burst_of_keys_lands_where_it_was_meant_to(make_app: MakeApp, burst: str) -> None:
    """A slow link delivers several keys in one read: all of them are posted before the first one is handled."""
    from textual import events

    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for char in burst:
            key = {"/": "slash"}.get(char, char)
            app.post_message(events.Key(key, char))
        await settle(pilot)
        assert app.main.query_one(SearchInput).value == burst.split("/")[1]
        assert app.main.searching


async def test_a_burst_into_the_register_dialog_lands_in_its_field(make_app: MakeApp) -> None:
    from textual import events

    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for char in "rowner/name":
            app.post_message(events.Key({"/": "slash"}.get(char, char), char))
        await settle(pilot)
        assert isinstance(app.screen, RegisterScreen)
        assert app.screen.query_one("#register-repo", Input).value == "owner/name"


async def test_moves_and_commands_of_a_burst_keep_their_order(make_app: MakeApp) -> None:
    from textual import events

    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for char in "jjp":
            app.post_message(events.Key(char, char))
        await settle(pilot)
        assert app.watcher.asked == [("pull", "Llama 3.1 8B Instruct")]


async def test_every_command_with_a_key_is_bound_and_every_footer_item_works(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        bound = {binding.id for _, binding in app.main._bindings}
        assert {command.id for command in COMMANDS if command.keys} <= bound
        for command in COMMANDS:
            owner = app if command.action.startswith("app.") else app.main
            assert hasattr(owner, f"action_{command.action_name}"), command.id


async def test_footer_items_are_mouse_targets(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        keys = app.main.query_one(KeyFooter)
        x = next(x for x in range(SIZE[0]) if (item := keys.item_at(x)) and item.id == "model.pull")
        await pilot.click(KeyFooter, offset=(x, 0))
        await settle(pilot)
        assert app.watcher.asked == [("pull", "Qwen2.5 7B Instruct")]


async def test_a_click_on_a_cards_action_acts_on_that_card(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        grid = app.main.grid
        spot = next(
            (x, y)
            for y in range(grid.size.height)
            for x in range(grid.size.width)
            if (hit := grid.hit(x, y)) and hit[0] == 2 and hit[1] == "pull"
        )
        await pilot.click("#hub", offset=spot)
        await settle(pilot)
        assert app.watcher.asked == [("pull", "Llama 3.1 8B Instruct")]


async def test_the_mouse_reaches_tabs_search_filter_and_order(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.click("TabBar", offset=(22, 0))
        await pilot.pause()
        assert app.main.tab == "local"
        await pilot.click("TabBar", offset=(3, 0))
        await pilot.pause()
        assert app.main.tab == "hub"
        await pilot.click("#search-icon")
        assert app.main.searching
        await pilot.press("escape")
        await pilot.click("#search-sort", offset=(20, 0))
        await pilot.pause()
        assert app.main.sort is SortKey.NAME
        await pilot.click("#search-count", offset=(20, 0))
        await pilot.pause()
        assert isinstance(app.screen, FilterScreen)


async def test_the_palette_opens_without_a_blinking_cursor_and_closes(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("ctrl+p")
        await pilot.pause()
        assert isinstance(app.screen, CommandPalette)
        assert not app.screen.query_one(Input).cursor_blink
        await pilot.press("escape")
        assert isinstance(app.screen, MainScreen)


async def test_the_palette_offers_what_applies_and_runs_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        provider = HubCommands(app.main)
        offered = {hit.text: hit.command async for hit in provider.discover()}
        assert "Pull (p)" in offered
        assert "Cancel (x)" not in offered
        await invoke(offered["Sort: by name"])
        assert app.main.sort is SortKey.NAME
        found = [hit async for hit in provider.search("theme light")]
        await invoke(found[0].command)
        assert app.theme == "light"
        await invoke(offered["Pull (p)"])
        await settle(pilot)
        assert app.watcher.asked == [("pull", app.main.grid.highlighted.title)]


async def test_shift_y_copies_the_commands_that_run_the_model_one_after_the_other(make_app: MakeApp) -> None:
    app = make_app(fleets.fleet())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        offered = [command for _, command in usage(app.main.grid.highlighted)]
        assert len(offered) > 1
        copied = []
        for _ in range(len(offered) + 1):
            await pilot.press("Y")
            await pilot.pause()
            copied.append(app.clipboard)
        assert copied == [*offered, offered[0]]


async def test_a_first_screen_covered_before_it_is_painted_connects_all_the_same(make_app, monkeypatch) -> None:
    # Textual keeps what is to be called after a refresh with the screen, and a covered one never calls it.
    monkeypatch.setattr(MainScreen, "call_after_refresh", lambda *_: True)
    app = make_app(fleets.fleet())
    async with app.run_test() as pilot, asyncio.timeout(20):
        app.watcher.say(replace(fleets.fleet(), notices=("Heard.",)))
        while app.fleet.notices != ("Heard.",):
            await pilot.pause(0.05)
