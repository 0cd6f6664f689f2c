"""The watcher: order of answers, what is shown before it is confirmed, loss and return of the router, identity."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.domain import Fleet, HubStats, Link, ModelState, Phase, Placement, RouterInfo, RouterReport, Transfer
from modelhub_tui.errors import (
    AlreadyRegistered,
    NotARouter,
    NotSupported,
    Rejected,
    ServiceFailed,
    Unauthorised,
    Unreachable,
)
from modelhub_tui.watch import FleetWatcher
from tests.client.fakes import ENTRY, NODE, OTHER, FakeClient, FakeClock, told


class Screen:
    """What a user interface does with a watcher: it keeps every snapshot it was given."""

    def __init__(self, watcher: FleetWatcher) -> None:
        self.watcher = watcher
        self.fleets: list[Fleet] = []
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        async for fleet in self.watcher.fleets():
            self.fleets.append(fleet)
            self._arrived.set()

    @property
    def fleet(self) -> Fleet:
        return self.fleets[-1]

    def state(self, index: int = 0) -> ModelState:
        return self.fleet.models[index].state

    async def until(self, wanted: Callable[[Fleet], bool]) -> Fleet:
        """Wait for a snapshot; those that already came count if they are the latest."""
        async with asyncio.timeout(20):
            while not self.fleets or not wanted(self.fleet):
                self._arrived.clear()
                await self._arrived.wait()
        return self.fleet


async def settle() -> None:
    """Let everything that can run without time passing run."""
    for _ in range(60):
        await asyncio.sleep(0)


@asynccontextmanager
async def watching(
    connect: Callable[[], Awaitable[FakeClient]] | FakeClient, clock: FakeClock | None = None, **options: object
) -> AsyncGenerator[Screen, None]:
    clock = clock or FakeClock()
    if isinstance(connect, FakeClient):
        client = connect

        async def connect() -> FakeClient:
            return client

    watcher = FleetWatcher(connect, (ENTRY, OTHER), clock=clock, monotonic=clock, sleep=clock.sleep, **options)  # type: ignore[arg-type]
    screen = Screen(watcher)
    task = asyncio.create_task(screen.run())
    try:
        yield screen
    finally:
        await watcher.aclose()
        await task


def live(fleet: Fleet) -> bool:
    return fleet.connection.link is Link.LIVE


async def test_the_catalog_is_shown_before_anybody_answers() -> None:
    never = asyncio.Event()

    async def connect() -> FakeClient:
        await never.wait()
        raise AssertionError

    async with watching(connect) as screen:
        fleet = await screen.until(lambda _: True)
        assert fleet.connection.link is Link.CONNECTING
        assert [each.title for each in fleet.models] == ["Tiny Instruct", "Other"]
        assert {each.state for each in fleet.models} == {ModelState.AVAILABLE}
        await settle()
        assert len(screen.fleets) == 1


async def test_what_was_known_last_is_shown_until_the_router_answers() -> None:
    client = FakeClient()
    async with watching(client) as screen:
        seen = await screen.until(live)
    last = replace(seen, models=tuple(replace(each, state=ModelState.DOWNLOADED) for each in seen.models), unlisted=7)
    answers = asyncio.Event()

    async def connect() -> FakeClient:
        if not answers.is_set():
            raise Unreachable("http://router")
        return client

    async with watching(connect, kept=last) as screen:
        await screen.until(lambda fleet: fleet.connection.link is Link.LOST)
        for each in screen.fleets:
            assert (each.models, each.nodes, each.router, each.unlisted) == (last.models, last.nodes, last.router, 7)
            assert each.connection.heard_at == last.connection.heard_at
        answers.set()
        screen.watcher.refresh()
        fleet = await screen.until(live)
        assert (fleet.models, fleet.unlisted) == (seen.models, 0)


async def test_an_idle_fleet_costs_nothing() -> None:
    client = FakeClient()
    async with watching(client) as screen:
        await screen.until(live)
        await settle()
        assert client.calls == [("info",), ("report", 0.0), ("report", 25.0)]
        assert len(screen.fleets) == 2
        assert screen.fleet.nodes == (NODE,)
        assert screen.fleet.router.label == "this machine"


async def test_a_router_that_does_not_hold_answers_is_polled_at_a_pace() -> None:
    client, clock = FakeClient(), FakeClock()
    client.holds = False
    async with watching(client, clock) as screen:
        await screen.until(live)
        await settle()
        polls, passed = len(client.calls), sum(each for each in clock.slept if each >= 1.0)
        assert polls > 3
        assert passed >= polls - 4
        assert len(screen.fleets) == 2


async def test_only_what_changed_is_a_new_object() -> None:
    client = FakeClient(RouterReport((told(),), (NODE,)))
    async with watching(client) as screen:
        before = await screen.until(live)
        fetching = told(transfers=(Transfer("gpu-01", Phase.FETCHING, 10, 1000),))
        client.say(fetching)
        after = await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)
        assert after.models[1] is before.models[1]
        assert after.nodes is before.nodes
        client.say(
            told(transfers=(Transfer("gpu-01", Phase.FETCHING, 10, 1000),)), nodes=(replace(NODE, last_seen=110),)
        )
        await settle()
        assert screen.fleet is after  # another sign of life is no news
        client.say(
            told(transfers=(Transfer("gpu-01", Phase.FETCHING, 10, 1000),)), nodes=(replace(NODE, last_seen=140),)
        )
        assert (await screen.until(lambda fleet: fleet is not after)).models is after.models


async def test_at_most_four_snapshots_a_second() -> None:
    client, clock = FakeClient(), FakeClock()
    async with watching(client, clock) as screen:
        await screen.until(live)
        began, seen = clock.now, len(screen.fleets)
        for done in range(1, 200):
            client.say(told(transfers=(Transfer("gpu-01", Phase.FETCHING, done, 1000),)))
            await asyncio.sleep(0)
        await screen.until(
            lambda fleet: fleet.models[0].transfers != () and fleet.models[0].transfers[0].bytes_done == 199
        )
        assert len(screen.fleets) - seen <= (clock.now - began) * 4 + 2


async def test_a_pull_is_shown_at_once_and_sends_file_and_revision() -> None:
    client = FakeClient()
    answer: asyncio.Future[Registered] = asyncio.get_running_loop().create_future()
    client.on_register = lambda _: asyncio.shield(answer)
    async with watching(client) as screen:
        fleet = await screen.until(live)
        pull = asyncio.create_task(screen.watcher.pull(fleet.models[0]))
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.QUEUED)
        assert fleet.models[0].reason == "registering…"
        client.say(told(name="acme/other-gguf", repo="Acme/Other-GGUF", file="other.gguf"))
        await screen.until(lambda fleet: fleet.models[1].state is ModelState.QUEUED)
        assert screen.state() is ModelState.QUEUED  # a report meanwhile does not take it back
        client.say(told())
        answer.set_result(Registered("acme/tiny-gguf"))
        await pull
        fleet = await screen.until(lambda fleet: fleet.models[0].reason == "waiting for gpu-01")
        sent = RegisterRequest("Acme/Tiny-GGUF", "tiny-Q4.gguf", "abc", "Tiny Instruct")
        assert [call for call in client.calls if call[0] == "register"] == [("register", sent)]
        states = [each.models[0].state for each in screen.fleets]
        assert states[states.index(ModelState.QUEUED) :].count(ModelState.AVAILABLE) == 0


async def test_a_refused_pull_looks_as_before() -> None:
    client = FakeClient()

    async def refuse(_: RegisterRequest) -> Registered:
        raise Rejected("This repo is gated.")

    client.on_register = refuse
    async with watching(client) as screen:
        fleet = await screen.until(live)
        before = fleet.models[0]
        with pytest.raises(Rejected):
            await screen.watcher.pull(before)
        await settle()
        assert screen.fleet.models[0] is before


async def test_registered_already_is_success() -> None:
    client = FakeClient()

    async def known(request: RegisterRequest) -> Registered:
        raise AlreadyRegistered(request.repo.lower())

    client.on_register = known
    async with watching(client) as screen:
        fleet = await screen.until(live)
        client.current = RouterReport((told(),), (NODE,))
        await screen.watcher.pull(fleet.models[0])
        await screen.until(lambda fleet: fleet.models[0].registered)


async def test_an_answer_from_before_the_deletion_does_not_bring_the_model_back() -> None:
    present = told(placements=(Placement("gpu-01", "/m", ("/m",), 1000),))
    client = FakeClient(RouterReport((present,), (NODE,)))
    release = asyncio.Event()

    async def slow(_: str) -> None:
        await release.wait()
        client.current = RouterReport((), (NODE,))

    client.on_delete = slow
    async with watching(client) as screen:
        fleet = await screen.until(live)
        delete = asyncio.create_task(screen.watcher.delete(fleet.models[0]))
        await screen.until(lambda fleet: fleet.models[0].state is ModelState.DELETING)
        # The router still says it is there, in a new report: the other half of a crossing.
        client.say(replace(present, size_bytes=5))
        await settle()
        assert screen.state() is ModelState.DELETING
        release.set()
        await delete
        await screen.until(lambda fleet: fleet.models[0].state is ModelState.AVAILABLE)
        states = [each.models[0].state for each in screen.fleets if live(each)]
        assert [state for state, before in zip(states, [None, *states], strict=False) if state is not before] == [
            ModelState.DOWNLOADED,
            ModelState.DELETING,
            ModelState.AVAILABLE,
        ]


async def test_news_requested_before_an_action_does_not_confirm_it() -> None:
    """A held request begun before the router agreed may be answered late, with the state from before."""
    client = FakeClient()
    async with watching(client) as screen:
        fleet = await screen.until(live)
        await settle()
        await screen.watcher.pull(fleet.models[0])  # the held request is given up, a new one sent
        assert screen.watcher._intents._by_key  # nothing has confirmed it yet
        client.current = RouterReport((told(),), (NODE,))
        await screen.until(lambda fleet: fleet.models[0].registered)
        assert [call for call in client.calls if call[0] == "report"][:3] == [
            ("report", 0.0),
            ("report", 25.0),
            ("report", 0.0),
        ]


async def test_requests_about_one_model_keep_their_order() -> None:
    client = FakeClient()
    release = asyncio.Event()

    async def slow(request: RegisterRequest) -> Registered:
        await release.wait()
        return Registered("acme/tiny-gguf:q4")

    client.on_register = slow
    async with watching(client) as screen:
        fleet = await screen.until(live)
        pull = asyncio.create_task(screen.watcher.pull(fleet.models[0]))
        queued = await screen.until(lambda fleet: fleet.models[0].state is ModelState.QUEUED)
        cancel = asyncio.create_task(screen.watcher.cancel(queued.models[0]))
        await settle()
        assert [call[0] for call in client.calls].count("delete") == 0
        release.set()
        await asyncio.gather(pull, cancel)
        actions = [call for call in client.calls if call[0] in ("register", "delete")]
        assert [call[0] for call in actions] == ["register", "delete"]
        assert actions[1] == ("delete", "acme/tiny-gguf:q4")  # the name the router gave, not our guess


async def test_a_failed_model_is_tried_again_by_pull_and_retry() -> None:
    failed = told(transfers=(Transfer("gpu-01", Phase.FAILED, error="Disk full."),))
    client = FakeClient(RouterReport((failed,), (NODE,)))
    async with watching(client) as screen:
        fleet = await screen.until(live)
        assert fleet.models[0].state is ModelState.FAILED
        await screen.watcher.retry(fleet.models[0])
        await screen.watcher.pull(fleet.models[0])
        assert [call for call in client.calls if call[0] in ("retry", "register")] == [
            ("retry", "acme/tiny-gguf"),
            ("retry", "acme/tiny-gguf"),
        ]

        async def cannot(_: str) -> None:
            raise NotSupported("retry")

        client.retry = cannot  # type: ignore[method-assign]
        with pytest.raises(NotSupported):
            await screen.watcher.retry(fleet.models[0])
        await screen.watcher.pull(fleet.models[0])
        assert "register" in [call[0] for call in client.calls]


async def test_loss_keeps_the_last_models_and_return_is_noticed() -> None:
    first = FakeClient(RouterReport((told(),), (NODE,)))
    second = FakeClient(RouterReport((told(),), (NODE,)))
    clients = iter([first, Unreachable("http://r"), Unreachable("http://r"), second])
    clock = FakeClock()

    async def connect() -> FakeClient:
        found = next(clients)
        if isinstance(found, Unreachable):
            raise found
        return found

    async with watching(connect, clock) as screen:
        before = await screen.until(live)
        heard = clock.now
        first.fail(Unreachable("http://r"))
        lost = await screen.until(lambda fleet: fleet.connection.link is Link.LOST)
        assert lost.models is before.models and lost.nodes is before.nodes
        assert lost.connection.problem == "No router answers at http://r."
        assert "--router" in lost.connection.advice
        assert lost.connection.heard_at is not None and lost.connection.heard_at <= heard
        assert lost.connection.retry_at is not None and 0.3 <= lost.connection.retry_at - clock.now + 0.6 <= 1.5
        back = await screen.until(live)
        assert back.models[0] is before.models[0]
        assert first.closed and not second.closed
    assert second.closed


async def test_a_bug_in_following_ends_the_stream_instead_of_freezing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    async def connect() -> FakeClient:
        raise Unreachable("http://10.0.0.7")

    monkeypatch.setattr("modelhub_tui.watch.explain", broken)
    clock = FakeClock()
    watcher = FleetWatcher(connect, (ENTRY,), clock=clock, monotonic=clock, sleep=clock.sleep)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(20):
            async for _ in watcher.fleets():
                pass


async def test_backoff_grows_to_fifteen_seconds_and_a_refresh_ends_it() -> None:
    clock = FakeClock()
    attempts = 0
    blocked = asyncio.Event()

    async def connect() -> FakeClient:
        nonlocal attempts
        attempts += 1
        if attempts > 12:
            return FakeClient()
        raise ServiceFailed("The service did not start.", "See its log.")

    async with watching(connect, clock) as screen:
        await screen.until(live)
    waits = [each for each in clock.slept if each != 0.25]
    assert len(waits) == 12
    assert 0.4 <= waits[0] <= 0.6
    assert all(1.2 < later / earlier < 3.1 for earlier, later in itertools.pairwise(waits[:5]))
    assert max(waits) <= 15.0 and waits[-1] > 11.9

    async def stuck(seconds: float) -> None:
        if seconds != 0.25:
            await blocked.wait()

    attempts = 11
    watcher = FleetWatcher(connect, (ENTRY,), clock=clock, monotonic=clock, sleep=stuck)
    screen = Screen(watcher)
    task = asyncio.create_task(screen.run())
    await screen.until(lambda fleet: fleet.connection.link is Link.LOST)
    watcher.refresh()
    await screen.until(live)
    await watcher.aclose()
    await task


async def test_a_wrong_key_is_not_tried_again_until_asked() -> None:
    attempts = 0

    async def connect() -> FakeClient:
        nonlocal attempts
        attempts += 1
        client = FakeClient()
        if attempts == 1:
            client.failure = Unauthorised()
        return client

    async with watching(connect) as screen:
        refused = await screen.until(lambda fleet: fleet.connection.link is Link.REFUSED)
        assert "--api-key" in refused.connection.advice
        assert refused.connection.retry_at is None
        await settle()
        assert attempts == 1
        with pytest.raises(Unauthorised):
            await screen.watcher.pull(refused.models[0])
        await screen.until(live)  # the attempt woke it


async def test_a_restarted_service_has_a_new_key_and_is_found() -> None:
    first, second = FakeClient(), FakeClient()
    clients = iter([first, second])

    async def connect() -> FakeClient:
        return next(clients)

    async with watching(connect) as screen:
        await screen.until(live)
        first.fail(Unauthorised())
        await settle()
        await screen.until(live)
        assert first.closed
        assert all(each.connection.link is not Link.REFUSED for each in screen.fleets)


async def test_an_action_waits_for_the_first_connection_and_fails_without_one() -> None:
    gate = asyncio.Event()
    client = FakeClient()

    async def connect() -> FakeClient:
        await gate.wait()
        return client

    async with watching(connect) as screen:
        fleet = await screen.until(lambda _: True)
        pull = asyncio.create_task(screen.watcher.pull(fleet.models[0]))
        await screen.until(lambda fleet: fleet.models[0].state is ModelState.QUEUED)
        gate.set()
        await pull
        assert "register" in [call[0] for call in client.calls]
        client.fail(NotARouter("http://r", "a web page"))
        await screen.until(lambda fleet: fleet.connection.link is Link.LOST)
    with pytest.raises(Unreachable):
        await screen.watcher.pull(fleet.models[0])


async def test_an_unexpected_error_is_shown_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clients = iter([ValueError("a bug"), FakeClient()])

    async def connect() -> FakeClient:
        found = next(clients)
        if isinstance(found, ValueError):
            raise found
        return found

    async with watching(connect) as screen:
        await screen.until(live)
        lost = [each for each in screen.fleets if each.connection.link is Link.LOST]
        # Not "the router failed": it is a bug of ours.
        assert lost[0].connection.problem == "Something unexpected went wrong."
    assert "a bug" in caplog.text


async def test_registering_returns_the_routers_answer() -> None:
    client = FakeClient()
    async with watching(client) as screen:
        await screen.until(live)
        told_back = await screen.watcher.register(RegisterRequest("New/Repo", "a.gguf"))
        assert told_back == Registered("new/repo", "a.gguf")


class Stats:
    def __init__(self) -> None:
        self.known: dict[str, HubStats] = {}
        self.asked: list[tuple[str, ...]] = []

    async def load(self, repos: Iterable[str]) -> dict[str, HubStats]:
        return {repo.lower(): self.known[repo.lower()] for repo in repos if repo.lower() in self.known}

    async def refresh(self, repos: Iterable[str]) -> bool:
        self.asked.append(tuple(repos))
        changed = self.known != {"acme/tiny-gguf": HubStats(5, 6)}
        self.known = {"acme/tiny-gguf": HubStats(5, 6)}
        return changed


async def test_stats_are_asked_for_only_if_the_router_does_not_tell() -> None:
    stats = Stats()
    quiet = FakeClient(info=RouterInfo(label="llm-router", generation="G1"))
    async with watching(quiet, stats=stats) as screen:
        fleet = await screen.until(lambda fleet: fleet.models[0].stats is not None)
        assert fleet.models[0].stats == HubStats(5, 6)
        assert fleet.models[1].stats is None
        assert stats.asked[0] == ("Acme/Tiny-GGUF", "Acme/Other-GGUF")
    stats = Stats()
    async with watching(FakeClient(), stats=stats) as screen:
        await screen.until(live)
        await settle()
        assert stats.asked == []


def test_importing_the_watcher_loads_nothing_heavy() -> None:
    heavy = ["textual", "rich", "httpx", "pydantic", "huggingface_hub", "diskcache", "yaml", "fastapi"]
    code = f"import sys, modelhub_tui.watch, modelhub_tui.hub_stats; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_delete_that_the_router_undoes_is_said_once() -> None:
    clock, client = FakeClock(), FakeClient(info=RouterInfo(label="llm-router (nodes)", generation="G1"))
    client.say(told())

    async def gone(name: str) -> None:
        client.say()

    async def connect() -> FakeClient:
        return client

    client.on_delete = gone
    watcher = FleetWatcher(connect, (ENTRY,), clock=clock, monotonic=clock, sleep=clock.sleep)
    async with aclosing(watcher.fleets()) as fleets:
        async for fleet in fleets:
            if fleet.connection.link is Link.LIVE:
                break
        await watcher.delete(fleet.models[0])
        async for fleet in fleets:
            if not fleet.models[0].registered:
                break
        assert not fleet.notices
        client.say(told())
        async for fleet in fleets:
            if fleet.models[0].registered:
                break
    (notice,) = fleet.notices
    assert notice.startswith("The router brought acme/tiny-gguf back (its own consistency task does that)")


FETCHING = told(transfers=(Transfer("gpu-01", Phase.FETCHING, 400, 1000, 50.0, 12.0, node_id="n1"),), queue_position=1)


async def test_a_paused_model_is_shown_so_at_once_and_stays_so_until_its_node_has_stopped() -> None:
    client, clock = FakeClient(), FakeClock()
    client.say(FETCHING)
    async with watching(client, clock) as screen:
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)
        first = len(screen.fleets)
        await screen.watcher.pause(fleet.models[0])
        assert ("pause", "acme/tiny-gguf") in client.calls
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.PAUSED)
        assert fleet.models[0].paused and fleet.bytes_per_s == 0
        assert fleet.models[0].transfers == (Transfer("gpu-01", Phase.PAUSED, 400, 1000, node_id="n1"),)
        # The router knows; the node has not said yet that it stopped.
        client.say(replace(FETCHING, paused=True))
        await settle()
        client.say(replace(FETCHING, paused=True, transfers=(Transfer("gpu-01", Phase.PAUSED, 410, 1000),)))
        await screen.until(lambda fleet: fleet.models[0].transfers[0].bytes_done == 410)
        states = [fleet.models[0].state for fleet in screen.fleets[first:]]
        assert states and set(states) == {ModelState.PAUSED}


async def test_a_resumed_model_keeps_its_figures() -> None:
    held = replace(FETCHING, paused=True, transfers=(Transfer("gpu-01", Phase.PAUSED, 400, 1000, node_id="n1"),))
    client = FakeClient()
    client.say(held)
    async with watching(client) as screen:
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.PAUSED)
        await screen.watcher.resume(fleet.models[0])
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.QUEUED)
        assert fleet.models[0].transfers == (Transfer("gpu-01", Phase.WAITING, 400, 1000, node_id="n1"),)
        assert not fleet.models[0].paused
        client.say(replace(held, paused=False))  # the node is still about to begin
        await settle()
        assert screen.state() is ModelState.QUEUED
        client.say(FETCHING)
        await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)


async def test_a_node_that_does_not_follow_is_told_of_in_the_end() -> None:
    client, clock = FakeClient(), FakeClock()
    client.say(FETCHING)
    async with watching(client, clock) as screen:
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)
        await screen.watcher.pause(fleet.models[0])
        await screen.until(lambda fleet: fleet.models[0].state is ModelState.PAUSED)
        clock.now += 60
        client.say(replace(FETCHING, paused=True, size_bytes=1001))
        await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)


async def test_a_refused_pause_looks_as_before() -> None:
    class Whole(FakeClient):
        async def pause(self, name: str) -> None:
            raise Rejected("It is whole already.", code="nothing_to_do")

    client = Whole()
    client.say(FETCHING)
    async with watching(client) as screen:
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)
        with pytest.raises(Rejected):
            await screen.watcher.pause(fleet.models[0])
        assert screen.watcher.fleet.models[0].state is ModelState.DOWNLOADING
        assert not screen.watcher.fleet.models[0].paused


async def test_what_a_cancel_and_a_delete_say_to_the_router() -> None:
    client = FakeClient()
    client.say(FETCHING)
    async with watching(client) as screen:
        fleet = await screen.until(lambda fleet: fleet.models[0].state is ModelState.DOWNLOADING)
        await screen.watcher.cancel(fleet.models[0])
        await screen.watcher.delete(fleet.models[0])
        await screen.watcher.delete(fleet.models[0], keep=False)
        assert client.said == [
            {"cancel": True, "keep": True},
            {"cancel": False, "keep": True},
            {"cancel": False, "keep": False},
        ]
