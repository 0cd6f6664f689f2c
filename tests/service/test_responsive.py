"""The router's event loop waits for nothing: no lock, no disk, no name server, no file that somebody names."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.domain import Limits
from modelhub_tui.service.router import limits_file, store, supported
from tests.pulse import HELD_S, PAUSE_S, HeldUp, Pulse
from tests.service.conftest import FakeNode, Service, open_service
from tests.service.test_nodes_api import registration


async def answers(service: Service, node: FakeNode) -> None:
    """What people and nodes ask all the time is answered, once for each report of the node."""
    for _ in range(5):
        assert (await service.bare.get("/health")).status_code == 200
        assert "acme/a" in await service.models()
        assert (await service.admin.get("/metrics")).status_code == 200
        told = await node.beat(placements=[{"name": "acme/a", "path": "/m/a", "paths": ["/m/a"], "disk_bytes": 7}])
        assert told.status_code == 200, told.text
        await asyncio.sleep(HELD_S / 5)


async def with_a_model(service: Service) -> FakeNode:
    await service.router.registry.add(registration("acme/a", "acme/a", "m.gguf"))
    node = FakeNode(service.node)
    assert (await node.register()).status_code < 300
    return node


async def test_a_locked_database_holds_no_answer_up(tmp_path: Path) -> None:
    """An order waits for whoever holds it, and is carried out then; nothing else waits."""
    async with open_service(tmp_path) as service:
        node = await with_a_model(service)
        other = sqlite3.connect(tmp_path / "modelhub.db", isolation_level=None, check_same_thread=False)
        await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
        async with Pulse() as pulse:
            order = asyncio.create_task(service.router.pause("acme/a", True))
            await answers(service, node)
            assert not order.done(), "it is written when it can be"
            await asyncio.to_thread(other.execute, "ROLLBACK")
            await order
        other.close()
        assert service.router.registry.records["acme/a"].paused
        assert max(pulse.longest_s, service.router.longest_pause_s) < PAUSE_S


@pytest.mark.parametrize("slow", ["write", "look", "limits", "names", "catalog"])
async def test_what_does_not_answer_holds_no_answer_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """A write that the disk takes seconds for, a look at the file, a name server, a catalog on a dead share."""
    async with open_service(tmp_path, "http://hub.invalid") as service:
        node = await with_a_model(service)
        owner, name = {
            "write": (store, "_transaction"),
            "look": (store, "_stamp"),
            "limits": (limits_file, "write_private"),
            "names": (socket, "getaddrinfo"),
            "catalog": (supported, "catalog_version"),
        }[slow]
        held = HeldUp(getattr(owner, name))
        monkeypatch.setattr(owner, name, held)

        def order() -> Any:
            if slow == "limits":
                return service.router.set_limits(Limits(trash_seconds=60))
            if slow == "names":
                return service.register("acme/Tiny-GGUF")
            if slow == "catalog":
                return service.router.listing_of(tmp_path / "catalog.yaml")
            return service.router.pause("acme/a", True)

        async with Pulse() as pulse:
            task = asyncio.create_task(order())
            await held.asked()
            await answers(service, node)
            assert not task.done()
            held.let_go()
            await asyncio.gather(task, return_exceptions=True)
        assert not held.on_a_loop
        assert max(pulse.longest_s, service.router.longest_pause_s) < PAUSE_S
