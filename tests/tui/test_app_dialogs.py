"""Dialogs: register, filter, confirm, key, help; with hostile and failing routers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from textual.widgets import Input, OptionList, Static

from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.domain import Fleet, Link, ModelState
from modelhub_tui.errors import AlreadyRegistered, Rejected, Unauthorised, Unreachable
from modelhub_tui.filtering import Filter
from modelhub_tui.screens.api_key import ApiKeyScreen
from modelhub_tui.screens.delete import DeleteModelsScreen
from modelhub_tui.screens.filter import FilterScreen
from modelhub_tui.screens.help import HelpScreen, keys_by_group
from modelhub_tui.screens.main import MainScreen
from modelhub_tui.screens.register import RegisterScreen
from modelhub_tui.screens.wording import cancel_question, delete_question
from tests.tui import fleets
from tests.tui.conftest import FakeWatcher, MakeApp
from tests.tui.test_app_keys import SIZE, settle


def said(screen: RegisterScreen) -> str:
    return str(screen.query_one("#register-verdict", Static).content)


async def test_registering_judges_while_typing_and_sends_what_was_parsed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("r", *"foo")
        screen = app.screen
        assert isinstance(screen, RegisterScreen)
        assert "no owner" in said(screen)
        await pilot.press("enter")
        await settle(pilot)
        assert app.watcher.asked == []
        await pilot.press("ctrl+u")
        field = screen.query_one("#register-repo", Input)
        field.value = "https://huggingface.co/Owner/Name-GGUF/blob/main/name-Q4.gguf"
        await pilot.pause()
        assert "Registers Owner/Name-GGUF, file name-Q4.gguf" in said(screen)
        await pilot.press("enter")
        await settle(pilot)
        assert app.watcher.registered == [RegisterRequest("Owner/Name-GGUF", "name-Q4.gguf")]
        assert isinstance(app.screen, MainScreen)
        assert any(each.title == "Registered owner/name" for each in app._notifications)


async def test_a_registered_model_is_highlighted_as_soon_as_it_is_listed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("/", *"phi", "enter", "r", *"owner/name", "enter")
        await settle(pilot)
        assert app.main.wanted == Filter()
        new = fleets.queued(replace(fleets.catalog()[3], key="owner/name::", name="owner/name", title="Name"))
        app.watcher.say(fleets.fleet(models=(*fleets.catalog(), new)))
        await pilot.pause()
        assert app.main.grid.highlighted == new


async def test_the_routers_candidates_can_be_chosen_from(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        app.watcher.problem = Rejected("It has several files.", candidates=("a-Q4.gguf", "[b]-Q8.gguf"))
        await pilot.press("r", *"owner/name", "enter")
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, RegisterScreen)
        assert said(screen) == "It has several files. Choose one:"
        offered = screen.query_one(OptionList)
        assert app.focused is offered
        assert [str(each.prompt) for each in offered.options] == ["a-Q4.gguf", "[b]-Q8.gguf"]
        app.watcher.problem = None
        await pilot.press("down", "enter")
        await settle(pilot)
        assert app.watcher.registered[-1] == RegisterRequest("owner/name", "[b]-Q8.gguf")
        assert isinstance(app.screen, MainScreen)


async def test_a_rejection_stays_in_the_dialog_and_the_text_can_be_mended(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        app.watcher.problem = Rejected("There is no repo owner/nme.")
        await pilot.press("r", *"owner/nme", "enter")
        await settle(pilot)
        assert said(app.screen) == "There is no repo owner/nme."
        assert app.focused is app.screen.query_one("#register-repo")
        app.watcher.problem = None
        await pilot.press("left", "left", "a", "enter")
        await settle(pilot)
        assert app.watcher.registered[-1].repo == "owner/name"


async def test_while_sending_it_says_so_and_sends_only_once(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        app.watcher.gate = asyncio.Event()
        await pilot.press("r", *"owner/name", "enter", "enter")
        await pilot.pause()
        assert "Asking the router" in said(app.screen)
        assert len(app.watcher.registered) == 1
        app.watcher.gate.set()
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)


async def test_closing_the_dialog_while_sending_reports_the_outcome_anyway(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.gate = asyncio.Event()
        app.watcher.problem = Rejected("There is no such repo.")
        await pilot.press("r", *"owner/name", "enter", "escape")
        app.watcher.gate.set()
        await settle(pilot)
        assert [(each.title, each.message) for each in app._notifications] == [
            ("Could not register owner/name", "There is no such repo.")
        ]


async def test_what_was_registered_before_is_found_not_refused(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.problem = AlreadyRegistered("owner/name")
        await pilot.press("r", *"owner/name", "enter")
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)
        assert any("registered before" in each.message for each in app._notifications)


async def test_a_search_that_names_a_repo_starts_the_register_dialog(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("/", *"someone/new-model", "enter")
        assert app.main.grid.models == ()
        assert "r to register it" in app.main.grid.empty.plain
        await pilot.press("r")
        await pilot.pause()
        assert app.screen.query_one("#register-repo", Input).value == "someone/new-model"


async def test_warnings_of_the_router_are_passed_on(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.answer = Registered("owner/name", warnings=("It needs 90 GB of memory.",))
        await pilot.press("r", *"owner/name", "enter")
        await settle(pilot)
        assert any("90 GB" in each.message for each in app._notifications)


async def test_filter_switches_act_at_once_and_can_be_cleared(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("f")
        screen = app.screen
        assert isinstance(screen, FilterScreen)
        await pilot.press("down", "space")
        await pilot.pause()
        assert {model.state for model in app.main.grid.models} == {
            ModelState.QUEUED,
            ModelState.DOWNLOADING,
            ModelState.PAUSED,
        }
        await pilot.press("down", "enter")
        await pilot.pause()
        assert ModelState.FAILED in {model.state for model in app.main.grid.models}
        await pilot.press("escape")
        assert app.main.wanted.choices == 1
        await pilot.press("escape")
        assert app.main.wanted == Filter()
        await pilot.press("f", "space", "c")
        await pilot.pause()
        assert app.main.wanted == Filter()
        await pilot.press("f")
        assert isinstance(app.screen, MainScreen)


async def test_the_filter_keeps_the_search_text(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("/", *"qwen", "enter", "f", "space", "c", "escape")
        assert app.main.wanted == Filter(text="qwen")


async def test_the_help_lists_every_command_with_a_key(make_app: MakeApp) -> None:
    from modelhub_tui.commands import COMMANDS

    listed = {text for rows in keys_by_group().values() for _, text in rows}
    assert {each.help for each in COMMANDS if each.keys and each.id != "find.leave"} <= listed
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("?")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("?")
        assert isinstance(app.screen, MainScreen)


def test_questions_name_models_bytes_and_nodes() -> None:
    one = fleets.downloaded(fleets.catalog()[1], "gpu-01", "gpu-02")
    question, lines = delete_question((one,))
    assert question == "Delete Gemma 2 9B IT?"
    assert lines[0] == "11.5 GB will be freed on gpu-01, gpu-02."
    question, lines = delete_question((one, fleets.downloaded(fleets.catalog()[0])))
    assert question == "Delete 2 models?"
    assert [line.strip() for line in lines[:2]] == ["Gemma 2 9B IT", "Qwen2.5 7B Instruct"]
    question, lines = cancel_question((fleets.downloading(fleets.catalog()[0], 0.5),))
    assert question == "Stop downloading Qwen2.5 7B Instruct?"
    assert lines[0].startswith("2.3 GB fetched so far")


async def test_a_refusal_asks_for_a_key_once_and_uses_it(make_app: MakeApp) -> None:
    used: list[tuple[str, bool]] = []

    async def use_key(key: str, remember: bool) -> None:
        used.append((key, remember))

    app = make_app(fleets.refused(), use_key=use_key)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        app.watcher.say(fleets.refused())
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, ApiKeyScreen)
        assert screen.query_one("#api-key", Input).password
        await pilot.press(*"sk-1")
        await pilot.press("tab", "tab", "tab", "enter")
        await settle(pilot)
        assert used == [("sk-1", True)]
        assert app.watcher.refreshed == 1
        assert "sk-1" not in repr([each.description for each in app.workers])


async def test_a_key_can_be_declined_and_given_later(make_app: MakeApp) -> None:
    async def use_key(key: str, remember: bool) -> None:
        raise AssertionError("nobody gave a key")

    app = make_app(fleets.refused(), use_key=use_key)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        app.watcher.say(fleets.refused())
        await pilot.pause()
        await pilot.press("escape")
        app.watcher.say(replace(fleets.refused(), models=fleets.catalog()[:5]))
        await pilot.pause()
        assert isinstance(app.screen, MainScreen)
        await pilot.press("a")
        await pilot.pause()
        assert isinstance(app.screen, ApiKeyScreen)


async def test_errors_become_one_sentence_and_the_app_lives_on(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.problem = Unreachable("http://10.0.0.7")
        await pilot.press("p")
        await settle(pilot)
        [told] = app._notifications
        assert told.title == "Could not pull Qwen2.5 7B Instruct"
        assert "No router answers at http://10.0.0.7" in told.message
        app.watcher.problem = ValueError("a bug")  # type: ignore[assignment]
        await pilot.press("j", "j", "p")
        await pilot.pause()
        await pilot.pause()
        assert any("unexpected" in each.message for each in app._notifications)
        assert app.is_running


async def test_a_watcher_that_does_not_open_is_tried_again(make_app: MakeApp) -> None:
    fake, attempts = FakeWatcher(fleets.busy()), []

    async def open_watcher() -> FakeWatcher:
        attempts.append(1)
        if len(attempts) == 1:
            raise Unreachable("http://10.0.0.7")
        return fake

    app = make_app(fleets.first_start(), watcher=fake, open_watcher=open_watcher)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert app.fleet.connection.link is Link.LOST
        assert app.fleet.connection.retry_at == fleets.NOW + 1
        assert app.main.grid.dimmed
        assert app.fleet.models == fleets.catalog()
        await pilot.press("ctrl+r")
        await pilot.pause()
        await pilot.pause()
        assert app.fleet == fleets.busy()
        assert len(attempts) == 2


class Breaking(FakeWatcher):
    """One whose stream ends in a bug, after what it has to say."""

    async def fleets(self) -> AsyncIterator[Fleet]:
        while not self._queue.empty():
            yield self._queue.get_nowait()
        raise KeyError("a bug")


@pytest.mark.parametrize(
    "first",
    [
        Breaking,
        lambda: Breaking(fleets.busy()),
        lambda: FakeWatcher(replace(fleets.busy(), notices=None)),  # type: ignore[arg-type]
        lambda: 1 / 0,  # type: ignore[list-item]
    ],
    ids=["at once", "after news", "while it is shown", "when it opens"],
)
async def test_a_bug_in_following_the_fleet_is_said_and_followed_anew(
    make_app: MakeApp, first: Callable[[], FakeWatcher]
) -> None:
    sound, opened = FakeWatcher(fleets.busy()), []

    async def open_watcher() -> FakeWatcher:
        opened.append(1)
        return first() if len(opened) == 1 else sound

    app = make_app(fleets.first_start(), open_watcher=open_watcher)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        connection = app.fleet.connection
        assert (connection.link, connection.problem) == (Link.LOST, "Something unexpected went wrong.")
        assert connection.retry_at == fleets.NOW + 1
        await pilot.press("ctrl+r")
        await settle(pilot)
        assert app.fleet == fleets.busy()
        assert len(opened) == 2
        await pilot.press("ctrl+r")  # goes to the watcher that works, not to the broken one
        await settle(pilot)
        assert sound.refreshed == 1 and len(opened) == 2


async def test_a_bug_that_stays_is_met_with_growing_pauses(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.app.RETRY_S", (0.0, 0.0, 0.0, 600.0))
    opened = []

    async def open_watcher() -> FakeWatcher:
        opened.append(1)
        return Breaking(fleets.busy())

    app = make_app(fleets.first_start(), open_watcher=open_watcher)
    async with app.run_test(size=SIZE) as pilot:
        async with asyncio.timeout(30):
            while app.fleet.connection.retry_at != fleets.NOW + 600:
                await pilot.pause()
        assert len(opened) == 4


async def test_a_pull_before_the_router_is_there_waits_for_it(make_app: MakeApp) -> None:
    fake, ready = FakeWatcher(), asyncio.Event()

    async def open_watcher() -> FakeWatcher:
        await ready.wait()
        return fake

    app = make_app(fleets.first_start(), watcher=fake, open_watcher=open_watcher)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        await pilot.pause()
        assert fake.asked == []
        ready.set()
        await settle(pilot)
        assert fake.asked == [("pull", "Qwen2.5 7B Instruct")]


@pytest.mark.parametrize("error", [Unauthorised(), Unreachable("http://10.0.0.7")])
async def test_requests_fail_plainly_while_there_is_no_watcher(make_app: MakeApp, error: Exception) -> None:
    async def open_watcher() -> FakeWatcher:
        raise error

    app = make_app(fleets.first_start(), open_watcher=open_watcher)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.pause()
        await pilot.press("p")
        await settle(pilot)
        assert [each.title for each in app._notifications] == ["Could not pull Qwen2.5 7B Instruct"]


async def test_hostile_names_are_drawn_as_they_are(make_app: MakeApp) -> None:
    evil = "[red]x[/red] [@click=app.quit]go[/] [/"
    model = replace(
        fleets.downloaded(fleets.catalog()[0]),
        title=evil,
        description=evil,
        repo=f"{evil}/x",
        tags=(evil,),
        reason=evil,
    )
    app = make_app(fleets.fleet(models=(model,)))
    async with app.run_test(size=(170, 40), notifications=True) as pilot:
        await pilot.pause()
        assert evil in app.main.details.page().plain
        await pilot.press("d")
        assert isinstance(app.screen, DeleteModelsScreen)
        assert evil in str(app.screen.query_one(".dialog")._border_title)
        await pilot.press("escape", "f", "escape", "/", *"zzz", "enter", "escape", "y", "x")
        app.watcher.problem = Rejected(evil)
        await pilot.press("d", "y")
        await settle(pilot)
        assert any(each.message == evil and not each.markup for each in app._notifications)
        assert app.is_running
