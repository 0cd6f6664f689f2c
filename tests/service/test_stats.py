"""Downloads and likes in the lists: filled in behind them, only while somebody looks, and never waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from modelhub_tui.service.router import stats
from modelhub_tui.service.router.stats import StatsFeed
from tests.hub import LoopbackHub
from tests.service.conftest import Service, open_service, until


async def _filled(service: Service) -> dict[str, Any]:
    """The first model's `hf_info`, as a client that waits for changes comes to see it."""
    tag = ""
    async with asyncio.timeout(60):
        while True:
            answer = await service.admin.get("/v0/models", headers={"If-None-Match": tag, "Prefer": "wait=5"})
            if answer.status_code == 200:
                tag = answer.headers["etag"]
                info = answer.json()[0]["hf_info"]
                if info is not None:
                    return info  # type: ignore[no-any-return]


async def test_the_list_is_filled_in_and_readers_hear_of_it(tmp_path: Path, hub: LoopbackHub) -> None:
    async with open_service(tmp_path, hub.url, stats_dir=tmp_path / "stats") as service:
        assert (await service.admin.get("/v0/models")).json()[0]["hf_info"] is None, "the first answer waits for nobody"
        assert await _filled(service) == {"downloads": 1_234_567, "likes": 345, "stale": False}
        assert (await service.admin.get("/v0/models/hub")).json()[0]["hf_info"] == {
            "downloads": 1_234_567,
            "likes": 345,
        }
        assert (await service.node.get("/v0/models")).json() == []


async def test_what_was_known_is_shown_while_the_hub_is_down(tmp_path: Path, hub: LoopbackHub) -> None:
    async with open_service(tmp_path, hub.url, stats_dir=tmp_path / "stats") as service:
        await _filled(service)
    hub.down()
    async with open_service(tmp_path, hub.url, stats_dir=tmp_path / "stats") as service:
        assert (await _filled(service))["downloads"] == 1_234_567


async def test_nobody_looking_means_nobody_asked(tmp_path: Path, hub: LoopbackHub) -> None:
    async with open_service(tmp_path, hub.url, stats_dir=tmp_path / "stats") as service:
        for path in ("/v0/nodes", "/v1/models", "/health"):
            await service.admin.get(path)
        await service.node.get("/v0/models")
        await service.node.get("/v0/models/hub")
        assert service.router.stats is not None and service.router.stats._service is None
        assert hub.requests() == []
        await service.admin.get("/v0/models")
        await until(lambda: bool(hub.requests()), timeout_s=60)


async def test_a_refresh_that_fails_is_logged_and_tried_again(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(stats, "REFRESH_EVERY_S", 0.01)
    calls = []

    class Broken(StatsFeed):
        async def _refresh(self) -> None:
            calls.append(1)
            raise ValueError("no")

    feed = Broken(tmp_path, "http://127.0.0.1:9", lambda: ["a/b"], lambda: None)
    task = asyncio.create_task(feed.run())
    feed.looked()
    await until(lambda: len(calls) > 2)
    assert "hub stats could not be refreshed" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
