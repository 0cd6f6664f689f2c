"""Queue, trash, limits, disk plan, adoption: what each key asks for, and what is said about it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from textual.widgets import Input, Static

from modelhub_tui.actions import can
from modelhub_tui.app import ModelHubApp
from modelhub_tui.domain import Connection, Fleet, Limits, Link, ModelState, Phase
from modelhub_tui.errors import Rejected, Unreachable
from modelhub_tui.filtering import SortKey
from modelhub_tui.palette import HubCommands
from modelhub_tui.screens.confirm import ConfirmScreen
from modelhub_tui.screens.delete import DeleteModelsScreen
from modelhub_tui.screens.limits import LimitsScreen
from modelhub_tui.screens.main import LOCAL, MainScreen
from modelhub_tui.screens.plan import PlanScreen
from modelhub_tui.screens.trash import TrashScreen
from modelhub_tui.screens.wording import on_disk
from modelhub_tui.widgets.footer import KeyFooter
from tests.tui import fleets, worlds
from tests.tui.conftest import MakeApp
from tests.tui.test_app_keys import SIZE, at, settle
from tests.tui.worlds_control import TRASHED, troubled, waiting


def said(app: ModelHubApp) -> list[str]:
    return [each.message for each in app._notifications]


def labels(app: ModelHubApp) -> dict[str, str]:
    return {item.key: item.label for item in app.main.query_one(KeyFooter).items}


def text_of(app: ModelHubApp, query: str) -> str:
    return str(app.screen.query_one(query, Static).content)


# The queue


async def test_p_holds_what_moves_and_lets_go_what_a_person_holds(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("P")
        app.main.grid.highlight(6)
        await pilot.pause()
        assert labels(app)["P"] == "Resume"
        await pilot.press("P")
        app.main.grid.highlight(10)  # held by its disk: a person may hold it as well
        await pilot.pause()
        assert labels(app)["P"] == "Pause"
        await settle(pilot)
        titles = [model.title for model in troubled().models]
        assert app.watcher.asked == [("pause", titles[0]), ("resume", titles[6])]


async def test_p_is_about_the_whole_selection(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.selected = frozenset(app.main.grid.models[at].key for at in (0, 2, 6))
        await pilot.pause()
        assert labels(app)["P"] == "Pause 2"
        await pilot.press("P")
        await settle(pilot)
        assert {action for action, _ in app.watcher.asked} == {"pause"}
        assert len(app.watcher.asked) == 2


@pytest.mark.parametrize(
    ("key", "positions", "asked"),
    [
        ("less_than_sign", (4, 3), [("move earlier", 1), ("move earlier", 0)]),
        ("greater_than_sign", (1, 2), [("move later", 1), ("move later", 0)]),
        ("left_curly_bracket", (3, 4), [("move first", 1), ("move first", 0)]),
        ("right_curly_bracket", (1, 2), [("move last", 0), ("move last", 1)]),
    ],
)
async def test_several_models_keep_their_order_when_they_move_in_the_queue(
    make_app: MakeApp, key: str, positions: tuple[int, int], asked: list[tuple[str, int]]
) -> None:
    rest = [each for each in (1, 2, 3, 4) if each not in positions]
    app = make_app(waiting(*positions, *rest))
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.selected = frozenset(each.key for each in app.main.grid.models[:2])
        await pilot.press(key)
        await settle(pilot)
        assert app.watcher.asked == [(action, fleets.catalog()[at].title) for action, at in asked]
        assert len(app.main.grid.selected) == 2  # for the next press


async def test_what_is_first_already_is_left_there_and_says_so(make_app: MakeApp) -> None:
    app = make_app(waiting(1, 2, 3))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.main.grid.selected = frozenset(each.key for each in app.main.grid.models[:2])
        await pilot.press("less_than_sign")
        await settle(pilot)
        assert app.watcher.asked == []
        assert said(app) == ["2 models: first in the queue already."]


async def test_a_router_without_a_queue_says_so_and_offers_none(make_app: MakeApp) -> None:
    fleet = replace(fleets.busy(), router=worlds.G1)
    app = make_app(fleet)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.pause()
        assert "P" not in labels(app)
        await pilot.press("P", "less_than_sign", "L", "t", "u")
        await settle(pilot)
        assert app.watcher.asked == []
        assert isinstance(app.screen, MainScreen)
        assert [each.split("llm-router (nodes) ")[1] for each in said(app)] == [
            "cannot pause a download.",
            "has no order of downloads to change.",
            "has no limits that could be changed.",
            "has no trash: what it deletes is gone.",
            "has no trash: what it deletes is gone.",
        ]


async def test_a_key_of_the_queue_says_why_it_does_nothing(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        by_state = {model.state: at for at, model in enumerate(app.main.grid.models)}
        for state, why in (
            (ModelState.AVAILABLE, "is not being downloaded."),
            (ModelState.DOWNLOADED, "is downloaded already: nothing is on its way."),
        ):
            app.main.grid.highlight(by_state[state])
            await pilot.pause()
            assert not {"P", "x"} & labels(app).keys()
            await pilot.press("P", "x", "less_than_sign", "right_curly_bracket")
            await settle(pilot)
            title = app.main.grid.models[by_state[state]].title
            assert said(app) == [f"{title} {why}"] * 4
            app.clear_notifications()
        assert app.watcher.asked == []


async def test_a_transfer_without_a_worker_can_be_restarted_or_forgotten(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(11)
        await pilot.pause()
        assert {labels(app)["R"], labels(app)["x"]} == {"Restart", "Forget"}
        await pilot.press("R", "x", "y")
        await settle(pilot)
        title = troubled().models[11].title
        assert app.watcher.asked == [("retry", title), ("cancel", title)]


# Deleting and undoing


async def test_the_question_says_what_is_freed_where_and_for_how_long_it_can_be_undone(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.in_force = Limits(trash_seconds=7_200)
        await pilot.pause()
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        await pilot.press("d")
        await settle(pilot)
        text = text_of(app, "#delete-text")
        assert "11.5 GB will be freed on gpu-01, gpu-02." in text
        assert "u brings it back for 2 hours" in text
        await pilot.press("y")
        await settle(pilot)
        assert app.watcher.asked == [("delete", "Gemma 2 9B IT")]
        assert said(app) == ["Deleted Gemma 2 9B IT. u brings it back for 2 hours."]


async def test_its_space_can_be_freed_at_once(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        await pilot.press("d", "f")
        await settle(pilot)
        assert app.watcher.asked == [("delete for good", "Gemma 2 9B IT")]
        assert said(app) == []


@pytest.mark.parametrize(
    ("limits", "why"), [(Limits(trash_seconds=0), "switched off"), (Limits(trash_bytes=1_000), "larger than the trash")]
)
async def test_without_a_trash_that_takes_it_nothing_is_promised(make_app: MakeApp, limits: Limits, why: str) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.in_force = limits
        await pilot.pause()
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        await pilot.press("d")
        await settle(pilot)
        text = text_of(app, "#delete-text")
        assert "There is no undo" in text and why in text
        await pilot.press("f")
        assert isinstance(app.screen, DeleteModelsScreen)  # there is only one way to delete
        await pilot.press("y")
        await settle(pilot)
        assert said(app) == ["Deleted Gemma 2 9B IT."]


async def test_what_another_node_still_fetches_is_stopped_only_after_saying_so(make_app: MakeApp) -> None:
    models = list(fleets.busy().models)
    moving = fleets.downloading(models[1], 0.5, node="gpu-03").transfers
    models[1] = replace(models[1], transfers=moving)
    app = make_app(fleets.fleet(models=tuple(models)))
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(1)
        await pilot.press("d")
        await settle(pilot)
        assert "gpu-03 is still fetching it: that is stopped as well." in text_of(app, "#delete-text")
        await pilot.press("y")
        await settle(pilot)
        assert app.watcher.asked == [("cancel", "Gemma 2 9B IT")]


async def test_a_transfer_that_began_under_the_question_is_asked_about_again(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        app.watcher.problem = Rejected("A transfer of it runs.", code="transfer_running")
        await pilot.press("d", "y")
        await settle(pilot)
        assert isinstance(app.screen, ConfirmScreen)
        app.watcher.problem = None
        await pilot.press("y")
        await settle(pilot)
        assert app.watcher.asked == [("delete", "Gemma 2 9B IT"), ("cancel", "Gemma 2 9B IT")]


async def test_u_brings_back_the_last_one_and_then_the_one_before(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.trashed = TRASHED
        await pilot.press("u", "u", "u")
        await settle(pilot)
        assert app.watcher.asked == [("restore", "qwen"), ("restore", "nemo")]
        assert said(app) == [
            "Qwen2.5 7B Instruct is back.",
            "Mistral Nemo is back.",
            "The trash is empty: there is nothing to bring back.",
        ]


async def test_u_waits_for_a_deletion_that_is_on_its_way(make_app: MakeApp) -> None:
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        app.watcher.gate = asyncio.Event()
        await pilot.press("d", "y", "u")
        await pilot.pause()
        assert app.watcher.asked == [("delete", "Gemma 2 9B IT")]
        app.watcher.trashed = TRASHED
        app.watcher.gate.set()
        await settle(pilot)
        assert app.watcher.asked[1:] == [("restore", "qwen")]


async def test_the_trash_lists_restores_frees_after_asking_and_is_emptied(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        app.watcher.trashed = TRASHED[::-1]
        await pilot.press("t")
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, TrashScreen)
        assert screen.items == TRASHED  # the newest first
        await pilot.press("j", "d")
        assert isinstance(app.screen, ConfirmScreen)
        await pilot.press("y")
        await settle(pilot)
        assert app.watcher.asked == [("empty_trash", "nemo")]
        await pilot.press("enter")
        await settle(pilot)
        assert app.watcher.asked[1:] == [("restore", "qwen")]
        assert screen.items == ()
        assert "empty" in text_of(app, "#trash-said")
        await pilot.press("e", "d", "u", "escape")
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)
        app.watcher.trashed = TRASHED
        await pilot.press("t")
        await settle(pilot)
        await pilot.press("e", "y")
        await settle(pilot)
        assert app.watcher.asked[2:] == [("empty_trash", "all")]


# Limits


async def test_limits_show_what_is_in_force_and_change_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        app.watcher.in_force = Limits(3, 20_000_000, 10_000_000_000, 5_400, 1_000_000_000)
        await pilot.press("L")
        await settle(pilot)
        shown = [field.value for field in app.screen.query(Input)]
        assert shown == ["3", "20 MB/s", "10 GB", "90m", "1 GB"]
        await pilot.press("ctrl+u", "4", "down", "ctrl+u", "0", "down", "ctrl+u", *"auto", "down", "down", "enter")
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)
        assert app.watcher.in_force == Limits(4, 0, None, 5_400, 1_000_000_000)


@pytest.mark.parametrize(
    ("field", "typed", "sentence"),
    [
        ("parallel_transfers", "0", "a number from 1 to 16"),
        ("parallel_transfers", "many", "a number from 1 to 16"),
        ("bandwidth_bps", "12", "at least 1.1 kB/s"),
        ("bandwidth_bps", "fast", "is no size"),
        ("disk_floor_bytes", "-1", "is no size"),
        ("trash_seconds", "soon", "is no duration"),
        ("trash_bytes", "", "is no size"),
    ],
)
async def test_limits_that_cannot_be_are_refused_while_they_are_typed(
    make_app: MakeApp, field: str, typed: str, sentence: str
) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("L")
        await settle(pilot)
        app.screen.query_one(f"#{field}", Input).value = typed
        await pilot.pause()
        assert sentence in text_of(app, "#limits-problem")
        await pilot.press("enter")
        await settle(pilot)
        assert app.watcher.asked == []
        assert isinstance(app.screen, LimitsScreen)


async def test_limits_the_router_refuses_can_be_mended(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("L")
        await settle(pilot)
        app.watcher.problem = Unreachable("http://127.0.0.1:1")
        await pilot.press("enter")
        await settle(pilot)
        assert "No router answers" in text_of(app, "#limits-problem")
        app.watcher.problem = None
        await pilot.press("enter")
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)


# The disk plan


async def test_a_pull_without_room_shows_the_plan_and_waits_for_an_answer(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, ModelState.AVAILABLE))
        title = app.main.grid.highlighted.title
        await pilot.press("p")
        await settle(pilot)
        assert isinstance(app.screen, PlanScreen)
        text = text_of(app, ".dialog-text")
        assert "short by" in text and "Gemma 2 9B IT" in text and "13.0 GB" in text
        assert app.watcher.asked == []
        await pilot.press("enter")  # the focus is on no
        await settle(pilot)
        assert app.watcher.asked == []
        await pilot.press("p", "p")
        await settle(pilot)
        assert app.watcher.asked == [("pull", title)]


async def test_room_is_one_key_away(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=SIZE) as pilot:
        app.main.grid.highlight(at(app, ModelState.AVAILABLE))
        await pilot.press("p", "e", "enter")  # it asks, and the focus is on no
        await settle(pilot)
        assert app.watcher.asked == []
        await pilot.press("p", "e", "y")
        await settle(pilot)
        assert app.watcher.asked == [("empty_trash", "all")]
        await pilot.press("p", "l")
        await settle(pilot)
        assert (app.main.tab, app.main.sort) == (LOCAL, SortKey.LARGEST)
        sizes = [model.disk_bytes for model in app.main.grid.models]
        assert sizes == sorted(sizes, reverse=True)


async def test_a_pull_with_room_asks_nothing(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        await settle(pilot)
        assert isinstance(app.screen, MainScreen)
        assert len(app.watcher.asked) == 1


# Adoption


async def test_what_was_found_is_adopted_one_by_one_or_all_at_once(make_app: MakeApp) -> None:
    models = list(troubled().models)
    models[13] = replace(fleets.downloaded(models[13]), registered=False, found=True)
    app = make_app(replace(troubled(), models=tuple(models)))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.main.grid.highlight(12)
        await pilot.pause()
        assert labels(app)["p"] == "Adopt"
        assert "d" not in labels(app)
        await pilot.press("d")
        await pilot.pause()
        assert said(app) == ["It was found on disk and is not registered: adopt it first, with p."]
        await pilot.press("p")
        await settle(pilot)
        assert app.watcher.asked == [("adopt", models[12].title)]
        offered = {hit.text: hit.command async for hit in HubCommands(app.main).discover()}
        await offered["Adopt all"]()
        await settle(pilot)
        assert sorted(app.watcher.asked[1:]) == sorted(("adopt", models[at].title) for at in (12, 13))


async def test_local_says_what_all_of_it_takes_on_disk(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2")
        await pilot.pause()
        line = app.main.query_one("TabBar").render().plain
        assert line.endswith("122 GB on disk · trash 13.0 GB")
        here, other = app.fleet.nodes
        here = replace(here, found_bytes=95_000_000_000, unfinished_bytes=2_000_000_000)
        app.fleet = replace(app.fleet, nodes=(here, other))
        await pilot.pause()
        line = app.main.query_one("TabBar").render().plain
        assert line.endswith("217 GB on disk · unfinished 2.0 GB · trash 13.0 GB")
        assert on_disk([here], app.main._glyphs)[1:] == (
            "156 GB on disk · unfinished 2.0 GB",
            "156 GB on disk",
            "156 GB",
        )
        await pilot.press("1")
        await pilot.pause()
        assert "on disk" not in app.main.query_one("TabBar").render().plain


def test_a_copy_is_offered_for_deletion_only_where_its_node_deletes() -> None:
    held = worlds.endpoints()
    able = frozenset({"e-ollama-1"})
    model = next(each for each in held.models if any(place.node_id == "e-vllm-a100" for place in each.placements))
    stuck = replace(model, registered=False, placements=model.placements[:1])
    stuck = replace(stuck, placements=(replace(stuck.placements[0], node="vllm-a100", node_id="e-vllm-a100"),))
    assert not can("delete", stuck, worlds.G4.abilities, able)
    assert can("delete", stuck, worlds.G4.abilities, able | {"e-vllm-a100"})


# Coming back


def away(fleet: Fleet, seconds: float) -> Fleet:
    """The fleet as an earlier session left it."""
    return replace(fleet, connection=Connection(Link.CONNECTING, heard_at=fleets.NOW - seconds))


async def test_the_first_word_of_the_router_is_compared_with_the_last_session(make_app: MakeApp) -> None:
    before, now = list(fleets.busy().models), list(fleets.busy().models)
    now[0] = fleets.downloaded(before[0])
    now[2] = fleets.failed(before[2], fleets.NO_SPACE)
    app = make_app(away(fleets.busy(), 3 * 3600))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.say(replace(fleets.busy(), connection=Connection(Link.CONNECTING)))
        app.watcher.say(replace(fleets.busy(), models=tuple(now)))
        app.watcher.say(replace(fleets.busy(), models=tuple(now[:-1])))
        async with asyncio.timeout(20):
            while len(app.fleet.models) == len(now):
                await pilot.pause(0.02)
        await settle(pilot)
        assert said(app) == ["While you were away (3 h): 1 downloaded, 1 failed, 2 still running."]


async def test_nothing_is_said_when_nothing_happened(make_app: MakeApp) -> None:
    app = make_app(away(fleets.busy(), 60))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.say(replace(fleets.busy(), notices=("Heard.",)))
        async with asyncio.timeout(20):
            while app.fleet.notices != ("Heard.",):
                await pilot.pause(0.02)
        await settle(pilot)
        assert said(app) == ["Heard."]


async def test_a_link_that_comes_back_says_what_was_missed(make_app: MakeApp) -> None:
    lost = Connection(Link.LOST, "No answer.", heard_at=fleets.NOW - 120)
    models = list(fleets.busy().models)
    models[9] = fleets.downloaded(models[9])
    app = make_app(fleets.busy())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.watcher.say(replace(fleets.busy(), connection=lost))
        app.watcher.say(replace(fleets.busy(), models=tuple(models)))
        async with asyncio.timeout(20):
            while app.fleet.models[9].state is not ModelState.DOWNLOADED:
                await pilot.pause(0.02)
        await settle(pilot)
        assert said(app) == ["While you were away (2 min): 1 downloaded, 3 still running."]


async def test_what_is_kept_on_leaving_is_dated_now(make_app: MakeApp) -> None:
    kept: list[Fleet] = []
    old = replace(fleets.fleet(), connection=Connection(Link.LIVE, heard_at=fleets.NOW - 9_000))
    app = make_app(old, on_leave=kept.append)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("q")
    assert kept[0].connection.heard_at == fleets.NOW


# Progress in words


def test_a_download_held_by_hand_says_so_once() -> None:
    from modelhub_tui.cli.progress import happening

    model = troubled().models[5]
    each = replace(model.transfers[0], phase=Phase.PAUSED, stalled_s=None, error="Paused.", error_code="paused")
    held = replace(model, state=ModelState.PAUSED, paused=True, reason="Paused.", transfers=(each,))
    assert happening(held) == "paused by hand"
    assert happening(replace(held, reason="The hub is away.")) == "paused by hand: The hub is away"


def test_the_strip_says_why_nothing_moves(make_app: MakeApp) -> None:
    from modelhub_tui.widgets.progress import doing, in_short

    transfer = troubled().models[5].transfers[0]
    assert doing(transfer) == "stalled 12 s, retrying (2/6) in 4 s"
    assert doing(replace(transfer, phase=Phase.FETCHING, stalled_s=None)) == ""
    assert doing(replace(transfer, phase=Phase.VERIFYING)) == "verifying"
    gone = replace(transfer, orphaned=True)
    alone = replace(troubled().models[5], transfers=(gone,))
    assert doing(gone, alone) == f"{gone.node} is gone: R restarts, x forgets"
    beside = replace(alone, transfers=(gone, replace(transfer, node="other")))
    assert doing(gone, beside) == f"{gone.node} is gone", "x would drop what the other node has"
    for phase in Phase:
        for orphaned in (False, True):
            each = replace(transfer, phase=phase, orphaned=orphaned, retry_in_s=120.0, stalled_s=99_999.0)
            assert len(in_short(each)) <= 17


async def test_the_details_tell_history_refetched_bytes_and_the_plan(make_app: MakeApp) -> None:
    app = make_app(troubled())
    async with app.run_test(size=(170, 40)) as pilot:
        await pilot.pause()
        page = app.main.details.page().plain
        assert "1.2 GB fetched again" in page
        assert "(2 of 5)" in page
        assert "in the queue" not in page, "it runs: its place says nothing"
        assert "Disk: needs 2.9 GB, free 13.5 GB" in page
        told = page[page.index("History") :].split("\n\n")[0].split("\n")
        assert [line.split("  ", 1)[1] for line in told[1:]] == [
            "started",
            "stalled at 1.2 GB, retried",
            "gpu-01 was restarted; went on from 1.7 GB",
        ]
        app.main.grid.highlight(at(app, ModelState.DOWNLOADED))
        await pilot.pause()
        assert "Disk:" not in app.main.details.page().plain


async def test_the_details_tell_the_place_of_what_waits(make_app: MakeApp) -> None:
    app = make_app(waiting(1, 2, 3))
    async with app.run_test(size=(170, 40)) as pilot:
        await pilot.pause()
        assert "1st in the queue" in app.main.details.page().plain
