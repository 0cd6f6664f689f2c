"""Hub statistics: exact freshness, nothing but JSON on disk, and silence when the hub is down."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from modelhub_tui.domain import HubStats
from modelhub_tui.hub_stats import HubStatsCache, HubStatsService
from tests.hub import HubRepo, LoopbackHub

HUB = "https://hub.example"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Hub:
    """A hub of one handler that notes what it was asked."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.answer = answer or (lambda _: httpx.Response(200, json={"id": "x", "downloads": 5, "likes": 2}))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> Iterator[HubStatsCache]:
    cache = HubStatsCache(tmp_path / "stats", clock=clock)
    yield cache
    cache.close()


def service(
    cache: HubStatsCache, hub: Hub, token: str | None = None, endpoint: str = HUB, monotonic: Clock | None = None
) -> HubStatsService:
    """A service whose pauses pass as the cache's clock does, unless told otherwise."""
    transport = httpx.MockTransport(hub)
    return HubStatsService(cache, endpoint, lambda: token, transport=transport, monotonic=monotonic or cache.clock)


def test_a_row_is_fresh_for_exactly_ten_minutes(cache: HubStatsCache, clock: Clock) -> None:
    cache.put("Owner/Name", downloads=7, likes=0)
    clock.now += 599.9
    assert cache.stale(["Owner/Name"]) == []
    assert cache.get_many(["owner/NAME"]) == {"owner/name": HubStats(7, 0)}
    clock.now = 1_800_000_000.0 + 600
    assert cache.stale(["Owner/Name", "owner/name"]) == ["Owner/Name"]
    assert cache.get_many(["Owner/Name"]) == {"owner/name": HubStats(7, 0, stale=True)}


def test_a_row_is_shown_for_thirty_days(cache: HubStatsCache, clock: Clock) -> None:
    cache.put("a/b", downloads=1, likes=1)
    clock.now += 30 * 86_400 - 1
    assert cache.get_many(["a/b"]) == {"a/b": HubStats(1, 1, stale=True)}
    clock.now += 1
    assert cache.get_many(["a/b"]) == {}


def test_rows_outlive_the_process(cache: HubStatsCache, clock: Clock, tmp_path: Path) -> None:
    cache.put("a/b", downloads=1, likes=None)
    again = HubStatsCache(tmp_path / "stats", clock=clock)
    assert again.get_many(["a/b", "c/d"]) == {"a/b": HubStats(1, None)}
    again.close()


def test_another_process_refreshing_counts(cache: HubStatsCache, clock: Clock, tmp_path: Path) -> None:
    other = HubStatsCache(tmp_path / "stats", clock=clock)
    assert cache.stale(["a/b"]) == ["a/b"]
    other.put("a/b", downloads=9, likes=9)
    assert cache.stale(["a/b"]) == []
    assert cache.get_many(["a/b"]) == {"a/b": HubStats(9, 9)}
    other.close()


def test_a_clock_set_back_makes_rows_stale(cache: HubStatsCache, clock: Clock) -> None:
    cache.put("a/b", downloads=1, likes=1)
    clock.now -= 1000
    assert cache.stale(["a/b"]) == ["a/b"]


def test_only_json_is_on_disk_and_only_for_us(cache: HubStatsCache, tmp_path: Path) -> None:
    cache.put("a/b", downloads=1, likes=2)
    cache.put_failure("c/d", 404)
    cache.close()
    folder = tmp_path / "stats"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with sqlite3.connect(folder / "cache.db") as db:
        rows = db.execute("SELECT key, raw, mode, filename, value FROM Cache").fetchall()
    assert len(rows) == 2
    told = {}
    for key, raw, mode, filename, value in rows:
        assert raw == 1 and mode != 4 and filename is None  # 4 is diskcache's MODE_PICKLE
        told[json.loads(zlib.decompress(key)).rsplit("|", 1)[-1]] = json.loads(zlib.decompress(value))
    assert told["a/b"] == {"ok": 1, "at": 1_800_000_000.0, "downloads": 1, "likes": 2}
    assert told["c/d"] == {"ok": 0, "at": 1_800_000_000.0, "code": 404}


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/modelhub-test-pickle-ran"),))


def test_a_poisoned_row_is_refused_and_replaced(cache: HubStatsCache, clock: Clock, tmp_path: Path) -> None:
    ran = Path("/tmp/modelhub-test-pickle-ran")
    ran.unlink(missing_ok=True)
    cache.put("a/b", downloads=1, likes=2)
    cache.close()
    with sqlite3.connect(tmp_path / "stats" / "cache.db") as db:
        db.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb()),))
    db.close()
    assert cache.get_many(["a/b"]) == {}
    assert cache.stale(["a/b"]) == ["a/b"]
    assert not ran.exists()
    cache.put("a/b", downloads=3, likes=4)
    cache.close()
    assert cache.get_many(["a/b"]) == {"a/b": HubStats(3, 4)}


@pytest.mark.parametrize(
    "row",
    [
        [],
        "text",
        {"ok": 1},
        {"ok": 2, "at": 1.0},
        {"ok": 1, "at": "now"},
        {"ok": 1, "at": True},
        {"ok": 1, "at": 10**400},
        {"ok": 1, "at": -5},
    ],
)
def test_a_row_of_another_shape_counts_as_none(cache: HubStatsCache, tmp_path: Path, row: object) -> None:
    cache.put("a/b", downloads=1, likes=2)
    cache.close()
    with sqlite3.connect(tmp_path / "stats" / "cache.db") as db:
        db.execute("UPDATE Cache SET value = ?", (zlib.compress(json.dumps(row).encode()),))
    db.close()
    assert cache.get_many(["a/b"]) == {}
    assert cache.stale(["a/b"]) == ["a/b"]


@pytest.mark.parametrize("content", [b"this is no database" * 500, b""])
def test_a_corrupt_file_is_set_aside_and_made_anew(
    cache: HubStatsCache, clock: Clock, tmp_path: Path, content: bytes
) -> None:
    cache.put("a/b", downloads=1, likes=2)
    cache.close()
    for each in (tmp_path / "stats").iterdir():
        each.write_bytes(content)
    assert cache.get_many(["a/b"]) == {}
    cache.put("a/b", downloads=3, likes=4)
    cache.close()
    assert cache.get_many(["a/b"]) == {"a/b": HubStats(3, 4)}
    assert (tmp_path / "stats.corrupt").exists() == bool(content)


def test_a_folder_that_cannot_be_made_leaves_a_cache_in_memory(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = HubStatsCache(tmp_path / "file" / "stats", clock=clock)
    cache.put("a/b", downloads=3, likes=4)
    assert cache.get_many(["a/b"]) == {"a/b": HubStats(3, 4)}


async def test_refresh_asks_once_and_then_not_for_ten_minutes(cache: HubStatsCache, clock: Clock) -> None:
    hub = Hub()
    stats = service(cache, hub)
    assert await stats.refresh(["Owner/Name", "owner/name"])
    assert await stats.load(["owner/name"]) == {"owner/name": HubStats(5, 2)}
    assert [str(each.url) for each in hub.requests] == [
        f"{HUB}/api/models/Owner/Name?expand%5B%5D=downloads&expand%5B%5D=likes"
    ]
    clock.now += 599.9
    assert not await stats.refresh(["Owner/Name"])
    assert len(hub.requests) == 1
    clock.now += 0.1
    assert await stats.refresh(["Owner/Name"])  # the numbers are the same, but no longer stale
    assert len(hub.requests) == 2
    await stats.aclose()


async def test_at_most_eight_at_once_and_one_for_each_repo(cache: HubStatsCache) -> None:
    running, peak, seen, all_slots_used = 0, 0, [], asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        seen.append(request.url.path)
        if running == 8:
            all_slots_used.set()
        # However slowly the others come: none is answered before the eighth is here.
        await all_slots_used.wait()
        for _ in range(5):  # room for a ninth, if there were one
            await asyncio.sleep(0)
        running -= 1
        return httpx.Response(200, json={"downloads": 1})

    stats = HubStatsService(cache, HUB, transport=httpx.MockTransport(answer))
    repos = [f"owner/repo{number}" for number in range(30)]
    changed = await asyncio.gather(stats.refresh(repos), stats.refresh(repos))
    assert sorted(changed) == [False, True]
    assert peak == 8
    assert len(seen) == len(set(seen)) == 30
    await stats.aclose()


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_a_refusal_is_remembered_for_ten_minutes(cache: HubStatsCache, clock: Clock, code: int) -> None:
    hub = Hub(lambda _: httpx.Response(code, text="no"))
    stats = service(cache, hub)
    assert not await stats.refresh(["a/b"])
    clock.now += 599.9
    await stats.refresh(["a/b"])
    assert len(hub.requests) == 1
    clock.now += 0.1
    await stats.refresh(["a/b"])
    assert len(hub.requests) == 2
    await stats.aclose()


async def test_failures_overwrite_nothing(cache: HubStatsCache, clock: Clock) -> None:
    cache.bind(HUB, lambda: None)
    cache.put("a/b", downloads=1, likes=2)
    clock.now += 700
    for answer in (
        httpx.Response(500, text="oops"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, content=b" " * 300_000),
        httpx.Response(302, headers={"Location": "https://elsewhere.example/api/models/a/b"}),
    ):
        stats = service(cache, Hub(lambda _, answer=answer: answer))
        assert not await stats.refresh(["a/b"])
        assert await stats.load(["a/b"]) == {"a/b": HubStats(1, 2, stale=True)}
        await stats.aclose()


async def test_a_dead_hub_is_not_hammered_and_nobody_hears_of_it(
    cache: HubStatsCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    hub = Hub(refuse)
    stats = service(cache, hub)
    repos = [f"owner/repo{number}" for number in range(100)]
    with caplog.at_level(logging.INFO):
        assert not await stats.refresh(repos)
        first = len(hub.requests)
        for _ in range(50):
            await stats.refresh(repos)
    assert first <= 10 and len(hub.requests) == first
    assert [each for each in caplog.records if each.name.startswith("modelhub")] == []
    clock.now += 600
    hub.answer = lambda _: httpx.Response(200, json={"downloads": 1, "likes": 1})
    assert await stats.refresh(repos)
    assert len(hub.requests) == first + 100
    await stats.aclose()


@pytest.mark.parametrize("trouble", [httpx.Response(429), httpx.Response(500)])
async def test_a_clock_set_back_by_hours_prolongs_no_pause(
    cache: HubStatsCache, clock: Clock, trouble: httpx.Response
) -> None:
    hub, passed = Hub(lambda _: trouble), Clock()
    stats = service(cache, hub, monotonic=passed)
    assert not await stats.refresh(["owner/one", "owner/two", "owner/three"])
    clock.now -= 5 * 3600
    passed.now += 61
    hub.answer = lambda _: httpx.Response(200, json={"downloads": 1, "likes": 1})
    assert await stats.refresh(["owner/one"])
    # What was fetched before the jump is from the future now: old, not fresh for hours.
    clock.now -= 5 * 3600
    hub.answer = lambda _: httpx.Response(200, json={"downloads": 2, "likes": 2})
    assert await stats.refresh(["owner/one"])
    assert await stats.load(["owner/one"]) == {"owner/one": HubStats(2, 2)}
    await stats.aclose()


async def test_a_429_pauses_everything_until_the_reset(cache: HubStatsCache, clock: Clock) -> None:
    limited = httpx.Response(429, headers={"RateLimit": '"api";r=0;t=55'})
    hub = Hub(lambda _: limited)
    stats = service(cache, hub)
    assert not await stats.refresh([f"owner/repo{number}" for number in range(50)])
    assert len(hub.requests) <= 8
    before = len(hub.requests)
    clock.now += 54.9
    hub.answer = lambda _: httpx.Response(200, json={"downloads": 1})
    assert not await stats.refresh(["owner/other"])
    assert len(hub.requests) == before
    clock.now += 0.1
    assert await stats.refresh(["owner/other"])
    await stats.aclose()


async def test_the_token_goes_to_the_hub_only_and_tells_accounts_apart(cache: HubStatsCache) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/models/old/name":
            return httpx.Response(307, headers={"Location": "/api/models/new/name"})
        if request.url.path == "/api/models/evil/name":
            return httpx.Response(302, headers={"Location": "https://elsewhere.example/steal"})
        return httpx.Response(200, json={"downloads": 8, "likes": 1}, headers={"Set-Cookie": "a=b"})

    hub = Hub(answer)
    stats = service(cache, hub, token="hf_secret")
    assert await stats.refresh(["old/name", "evil/name"])
    assert await stats.load(["old/name", "evil/name"]) == {"old/name": HubStats(8, 1)}
    assert {each.url.host for each in hub.requests} == {"hub.example"}
    assert all(each.headers["Authorization"] == "Bearer hf_secret" for each in hub.requests)
    assert all("Cookie" not in each.headers for each in hub.requests)
    cache.bind(HUB, lambda: None)
    assert cache.get_many(["old/name"]) == {}
    cache.bind("https://other.example", lambda: "hf_secret")
    assert cache.get_many(["old/name"]) == {}
    await stats.aclose()
    assert b"hf_secret" not in b"".join(each.read_bytes() for each in cache._directory.iterdir())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"downloads": NaN, "likes": "many"}', HubStats(None, None)),
        (b'{"downloads": 1e9, "likes": true}', HubStats(None, None)),
        (b'{"downloads": 0, "likes": -3}', HubStats(0, None)),
        (b'{"downloads": ' + b"9" * 40 + b', "likes": 3}', HubStats(None, 3)),
        (b"{}", HubStats(None, None)),
    ],
)
async def test_hostile_numbers_count_as_unknown(cache: HubStatsCache, body: bytes, expected: HubStats) -> None:
    stats = service(cache, Hub(lambda _: httpx.Response(200, content=body)))
    await stats.refresh(["a/b"])
    assert await stats.load(["a/b"]) == {"a/b": expected}
    await stats.aclose()


async def test_only_repos_are_put_into_urls(cache: HubStatsCache) -> None:
    hub = Hub()
    stats = service(cache, hub)
    assert not await stats.refresh(["../../etc", "a/b?x=1", "plain", "a/b/../c", "https://hub.example/a/b"])
    assert hub.requests == []
    await stats.aclose()


def test_nothing_is_imported_on_the_loop(tmp_path: Path) -> None:
    """The router answers its clients on this loop: importing httpx there held all of them up for 60 ms."""
    script = """
import asyncio, sys, threading
from pathlib import Path
from modelhub_tui.hub_stats import HubStatsCache, HubStatsService

late = []

def note(event, arguments):
    if event == "import" and threading.current_thread() is threading.main_thread():
        late.append(arguments[0])

async def main():
    service = HubStatsService(HubStatsCache(Path(sys.argv[1])), sys.argv[2])
    sys.addaudithook(note)
    news = await service.refresh([sys.argv[3]])
    print(news, [each for each in late if each.partition(".")[0] in ("httpx", "anyio", "ssl")])
    await service.aclose()

asyncio.run(main())
"""
    with LoopbackHub([HubRepo("acme/tiny", {"README.md": "# Tiny"})]) as hub:
        argv = [sys.executable, "-c", script, str(tmp_path), hub.url, "acme/tiny"]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == "True []\n"
