"""Pause, order and limits as people ask for them; what nodes are told of it; transfers whose node is gone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.domain import Limits
from tests.service.conftest import FakeNode, Service, open_service
from tests.service.test_nodes_api import registration

NAMES = [f"acme/m{number}" for number in range(4)]
FETCHING = {"name": NAMES[0], "phase": "fetching", "bytes_done": 10, "bytes_total": 100, "bytes_per_s": 5.0}


@pytest.fixture
async def queue(service: Service) -> Service:
    for name in NAMES:
        await service.router.registry.add(registration(name, name, "m.gguf"))
    return service


async def order(service: Service) -> list[str]:
    """Names of what is in the queue, by the positions that the list tells."""
    models = await service.models()
    placed = {each["queue_position"]: name for name, each in models.items() if each["queue_position"] is not None}
    assert sorted(placed) == list(range(1, len(placed) + 1))
    return [placed[place] for place in sorted(placed)]


async def for_nodes(service: Service) -> list[tuple[str, bool]]:
    """What nodes read, in the order in which they take models up: (name, paused)."""
    told = (await service.node.get("/v0/models")).json()
    return [(each["name"], each["paused"]) for each in sorted(told, key=lambda each: each["queue_position"])]


async def ask(service: Service, name: str, what: str, **body: Any) -> int:
    answer = await service.admin.post(f"/v0/transfers/{name}/{what}", json=body or None)
    return answer.status_code


async def test_places_change_as_asked_and_at_the_ends_nothing_happens(queue: Service) -> None:
    a, b, c, d = NAMES
    assert await order(queue) == [a, b, c, d]
    for name, to, expected in (
        (c, "first", [c, a, b, d]),
        (c, "earlier", [c, a, b, d]),
        (c, "later", [a, c, b, d]),
        (d, "earlier", [a, c, d, b]),
        (a, "last", [c, d, b, a]),
        (a, "later", [c, d, b, a]),
        (c, "last", [d, b, a, c]),
    ):
        assert await ask(queue, name, "move", to=to) == 204
        assert await order(queue) == expected, (name, to)
    assert [name for name, _ in await for_nodes(queue)] == [d, b, a, c]


async def test_any_number_of_moves_gives_what_a_list_would(queue: Service) -> None:
    expected, chance = [*NAMES], random.Random(5)
    for _ in range(150):  # more than a float has bits: places between two others run out on the way
        name, to = chance.choice(NAMES), chance.choice(["first", "earlier", "later", "last", "earlier", "later"])
        at = expected.index(name)
        expected.remove(name)
        expected.insert({"first": 0, "earlier": max(at - 1, 0), "later": at + 1, "last": len(expected)}[to], name)
        assert await ask(queue, name, "move", to=to) == 204
        assert await order(queue) == expected


async def test_pause_and_order_survive_a_restart(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        for name in NAMES[:3]:
            await service.router.registry.add(registration(name, name, "m.gguf"))
        assert await ask(service, NAMES[2], "move", to="first") == 204
        assert await ask(service, NAMES[0], "pause") == 204
    async with open_service(tmp_path) as service:
        assert await for_nodes(service) == [(NAMES[2], False), (NAMES[0], True), (NAMES[1], False)]
        model = (await service.models())[NAMES[0]]
        assert (model["paused"], model["status"]) == (True, "downloading")
        assert await ask(service, NAMES[0], "resume") == 204
        assert not (await service.models())[NAMES[0]]["paused"]


async def test_what_is_whole_or_unknown_has_no_place(queue: Service) -> None:
    node = FakeNode(queue.node)
    await node.register()
    before = await queue.node.get("/v0/models")
    await node.beat(transfers=[], placements=[{"name": NAMES[1]}])
    assert await order(queue) == [NAMES[0], NAMES[2], NAMES[3]]
    # Nodes know the same order as before, and are not woken by what one of them has finished.
    assert (await queue.node.get("/v0/models")).headers["etag"] == before.headers["etag"]
    for what, body in (("pause", {}), ("resume", {}), ("move", {"to": "first"})):
        answer = await queue.admin.post(f"/v0/transfers/{NAMES[1]}/{what}", json=body or None)
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_do")
        answer = await queue.admin.post(f"/v0/transfers/no/such/{what}", json=body or None)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_registered")
    for nowhere in ("sideways", ["first"], {"to": "first"}, None, 1):
        assert await ask(queue, NAMES[0], "move", to=nowhere) == 422, nowhere


async def test_nodes_may_not_change_the_queue(queue: Service) -> None:
    for path in (f"/v0/transfers/{NAMES[0]}/pause", f"/v0/transfers/{NAMES[0]}/resume", "/v0/trash"):
        assert (await queue.node.post(path)).status_code in (403, 404)
    assert (await queue.node.get("/v0/service/limits")).status_code == 403
    assert (await queue.node.patch("/v0/service/limits", json={})).status_code == 403


# -- limits


async def test_limits_are_changed_one_by_one_and_remembered(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        assert (await service.admin.get("/v0/service/limits")).json() == asdict(Limits())
        answer = await service.admin.patch("/v0/service/limits", json={"parallel_transfers": 5})
        assert (answer.status_code, answer.json()) == (200, asdict(Limits(parallel_transfers=5)))
        await service.admin.patch("/v0/service/limits", json={"bandwidth_bps": 1024, "disk_floor_bytes": 9})
        await service.admin.patch("/v0/service/limits", json={"disk_floor_bytes": None})
    async with open_service(tmp_path) as service:
        expected = asdict(Limits(parallel_transfers=5, bandwidth_bps=1024))
        assert (await service.admin.get("/v0/service/limits")).json() == expected


@pytest.mark.parametrize(
    "body",
    [
        {"parallel_transfers": 0},
        {"parallel_transfers": 17},
        {"parallel_transfers": None},
        {"bandwidth_bps": 1023},
        {"bandwidth_bps": -1},
        {"disk_floor_bytes": -1},
        {"trash_seconds": -1},
        {"trash_bytes": "1"},
    ],
)
async def test_a_limit_out_of_range_is_named_and_changes_nothing(service: Service, body: dict[str, Any]) -> None:
    answer = await service.admin.patch("/v0/service/limits", json={"trash_seconds": 1, **body})
    assert answer.status_code == 422 and next(iter(body)) in answer.text
    assert (await service.admin.get("/v0/service/limits")).json() == asdict(Limits())


async def test_limits_wake_a_node_and_come_with_its_next_heartbeat(queue: Service) -> None:
    node = FakeNode(queue.node)
    await node.register()
    listed = await queue.node.get("/v0/models")
    headers = {"If-None-Match": listed.headers["etag"], "Prefer": "wait=20"}
    waiting = asyncio.create_task(queue.node.get("/v0/models", headers=headers))
    async with asyncio.timeout(10):
        while not queue.router.changes.waiting:
            await asyncio.sleep(0)
        await queue.admin.patch("/v0/service/limits", json={"parallel_transfers": 7})
        woken = await waiting
    assert woken.status_code == 200 and woken.json() == listed.json()
    told = (await node.beat(transfers=[], placements=[])).json()
    assert told["limits"] == asdict(Limits(parallel_transfers=7)) and told["store"] == queue.router.store.id
    assert (await node.beat()).json() is None  # to an upstream node, which tells no transfers


# -- running and orphaned transfers


async def test_a_running_transfer_is_deleted_only_when_that_is_asked_for(queue: Service) -> None:
    node = FakeNode(queue.node)
    await node.register()
    for phase in ("fetching", "verifying", "retrying"):
        await node.beat(transfers=[{**FETCHING, "phase": phase}], placements=[])
        answer = await queue.admin.delete(f"/v0/models/{NAMES[0]}")
        assert (answer.status_code, answer.json()["code"]) == (409, "transfer_running"), phase
    assert (await queue.admin.delete(f"/v0/models/{NAMES[0]}?cancel=true")).status_code == 204
    assert (await queue.models())[NAMES[0]]["status"] == "deleting"
    for name, phase in zip(NAMES[1:], ("failed", "paused", "waiting"), strict=True):
        await node.beat(transfers=[{**FETCHING, "name": name, "phase": phase}], placements=[])
        assert (await queue.admin.delete(f"/v0/models/{name}")).status_code == 204, phase


async def test_a_transfer_whose_node_is_gone_is_said_so_and_can_be_restarted(queue: Service) -> None:
    node = FakeNode(queue.node, machine_name="gpu-01")
    await node.register()
    await node.beat(transfers=[{**FETCHING, "stalled_s": 4.0}], placements=[])
    queue.router.fleet.lose_supervised()
    # A node that is restarted is back within seconds: until then nothing is said.
    seen = (await queue.models())[NAMES[0]]
    assert (seen["transfers"][0]["orphaned"], seen["status"]) == (False, "downloading")
    queue.clock.now += 16
    queue.router.fleet.tick()
    seen = (await queue.models())[NAMES[0]]
    [transfer] = seen["transfers"]
    assert (seen["status"], seen["reason"]) == ("error", "gpu-01 is offline; nobody works on this download.")
    assert transfer["orphaned"] and transfer["bytes_done"] == 10
    assert (transfer["bytes_per_s"], transfer["stalled_s"]) == (None, None)
    assert await ask(queue, NAMES[0], "retry") == 204
    seen = (await queue.models())[NAMES[0]]
    assert (seen["status"], seen["transfers"], seen["attempt"]) == ("registered", [], 2)
    await node.beat(transfers=[FETCHING], placements=[])  # it comes back, and has never stopped
    seen = (await queue.models())[NAMES[0]]
    assert (seen["status"], seen["transfers"][0]["orphaned"]) == ("downloading", False)


async def test_forgetting_what_only_a_lost_node_fetched_needs_no_word_of_it(queue: Service) -> None:
    node = FakeNode(queue.node)
    await node.register()
    await node.beat(transfers=[FETCHING], placements=[])
    queue.router.fleet.lose_supervised()
    assert (await queue.admin.delete(f"/v0/models/{NAMES[0]}")).status_code == 204
    assert NAMES[0] not in await queue.models()
    # Back again, it is told to hold the model no more; what it says of it meanwhile brings nothing back.
    await node.beat(transfers=[FETCHING], placements=[])
    assert NAMES[0] not in await queue.models()
    assert NAMES[0] not in [name for name, _ in await for_nodes(queue)]
