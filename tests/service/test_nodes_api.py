"""Nodes: registration, approval, heartbeats, silence; ETags and waiting for changes."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelhub_tui.domain import CatalogEntry, CatalogFile
from modelhub_tui.service.router.bodies import NodeBody
from modelhub_tui.service.router.changes import Changes
from modelhub_tui.service.router.records import ManifestFile, Registration
from tests.service.conftest import FakeNode, Service, open_service, until

NAME = "acme/tiny-gguf"
FETCHING = {"name": NAME, "phase": "fetching", "bytes_done": 10, "bytes_total": 100, "bytes_per_s": 5.0, "eta_s": 18.0}


def registration(name: str = NAME, repo: str = "acme/Tiny-GGUF", file: str = "Tiny-Q4_K_M.gguf") -> Registration:
    return Registration(
        name=name,
        repo=repo,
        filename=file,
        revision="c" * 40,
        files=(ManifestFile(file, repo, "c" * 40, 100, "5" * 64),),
        format="gguf",
        size=100,
    )


async def nodes(service: Service) -> list[dict[str, Any]]:
    return (await service.admin.get("/v0/nodes")).json()  # type: ignore[no-any-return]


async def test_a_node_with_the_services_key_is_online_at_once(service: Service) -> None:
    node = FakeNode(service.node, ram_bytes=8, disk_free_bytes=1 << 30, disk_total_bytes=1 << 40, models_dir="/m")
    answer = await node.register()
    assert answer.status_code == 201
    assert answer.json() == {
        "node_id": node.id,
        "status": "registered",
        "node_api_port": 30001,
        "node_token": node.token,
    }
    assert node.token.startswith("nt_")
    [item] = await nodes(service)
    assert (item["id"], item["machine_name"], item["status"], item["gpu_available"]) == (
        node.id,
        "box",
        "online",
        False,
    )
    assert (item["ram_bytes"], item["disk_free_bytes"], item["disk_total_bytes"], item["models_dir"]) == (
        8,
        1 << 30,
        1 << 40,
        "/m",
    )
    assert not {"gpu_devices", "gpu_count", "sync_state"} & {*item}


async def test_a_node_with_the_admin_key_is_online_at_once_too(service: Service) -> None:
    await FakeNode(service.admin, machine_name="far").register()
    assert [(each["machine_name"], each["status"]) for each in await nodes(service)] == [("far", "online")]


async def test_a_strange_node_waits_for_approval(service: Service) -> None:
    node = FakeNode(service.admin, machine_name="other")
    body = NodeBody.model_validate({**node.body})
    record, node.token, _ = service.router.register_node(body, trusted=False, supervised=False)
    node.id = record.id
    assert (await nodes(service))[0]["status"] == "pending"
    await node.beat()
    assert (await nodes(service))[0]["status"] == "pending"
    approved = await service.admin.post(f"/v0/nodes/{node.id}/approve")
    assert (approved.status_code, approved.json()["status"]) == (200, "online")
    again = await service.admin.post(f"/v0/nodes/{node.id}/approve")
    assert (again.status_code, again.json()["error"]) == (400, "Request error")
    for path in ("/v0/nodes/none/approve",):
        missing = await service.admin.post(path)
        assert (missing.status_code, missing.json()) == (404, {"error": "Node not found"})


async def test_registering_again_keeps_the_id_and_ends_the_old_token(service: Service) -> None:
    node = FakeNode(service.node)
    await node.register()
    old_id, old_token = node.id, node.token
    assert (await node.register()).status_code == 200
    assert (node.id, node.token != old_token) == (old_id, True)
    node.token = old_token
    stale = await node.beat()
    assert (stale.status_code, stale.text) == (401, "Invalid node token")


async def test_a_heartbeat_needs_the_nodes_token_and_its_own_id(service: Service) -> None:
    node = FakeNode(service.node)
    await node.register()
    missing = await service.node.post("/v0/health", json={})
    assert (missing.status_code, missing.text) == (401, "Missing X-Node-Token header")
    node.id = "00000000-0000-0000-0000-000000000000"
    foreign = await node.beat()
    assert (foreign.status_code, foreign.json()) == (404, {"error": "Node not found"})


@pytest.mark.parametrize(
    "bad",
    [
        {"cpu_usage": "high"},
        {"active_requests": -1},
        {"transfers": {"name": "x"}},
        {"transfers": [{"phase": "fetching"}]},
        {"transfers": [{**FETCHING, "phase": ["fetching"]}]},
        {"transfers": [{"name": "x", "bytes_done": -1}]},
        {"transfers": [{"name": "x", "bytes_done": 2**70}]},
        {"placements": [{"name": 3}]},
        {"sync_state": "sleeping"},
        {"sync_progress": {"model_id": "x"}},
    ],
)
async def test_nonsense_in_a_heartbeat_is_refused_whole(service: Service, bad: dict[str, Any]) -> None:
    node = FakeNode(service.node)
    await node.register()
    before = await nodes(service)
    assert (await node.beat(**bad)).status_code == 422
    assert await nodes(service) == before


async def test_numbers_that_json_does_not_have_are_refused(service: Service) -> None:
    node = FakeNode(service.node)
    await node.register()
    for word in ("NaN", "Infinity", "1e999"):
        raw = f'{{"node_id": "{node.id}", "cpu_usage": {word}, "memory_usage": 0, "active_requests": 0}}'
        headers = {"X-Node-Token": node.token, "Content-Type": "application/json"}
        assert (await service.node.post("/v0/health", content=raw, headers=headers)).status_code in (400, 422)


async def test_an_unknown_phase_is_a_newer_nodes_word(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node)
    await node.register()
    await node.beat(transfers=[{**FETCHING, "phase": "unpacking"}], placements=[])
    assert (await service.models())[NAME]["transfers"][0]["phase"] == "waiting"


async def test_outside_text_is_cleaned(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node, machine_name="b\x1b[31mox\u202e")
    await node.register()
    await node.beat(transfers=[{**FETCHING, "file": "a\nb\x07", "error": "x\x1b]0;t\x07"}], placements=[])
    text = (await service.admin.get("/v0/models")).text + (await service.admin.get("/v0/nodes")).text
    assert "b[31mox" in text
    assert not any(bad in text for bad in ("\\u001b", "\x1b", "\\u0007", "\\n", "\u202e"))


async def test_transfers_replace_what_was_known_and_carry_everything(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node)
    await node.register()
    told = {
        **FETCHING,
        "file": "x.gguf",
        "file_index": 1,
        "file_count": 2,
        "attempt": 1,
        "max_attempts": 6,
        "retry_in_s": 4.0,
        "stalled_s": 12.0,
        "refetched_bytes": 5,
        "error": "The line broke.",
        "error_code": "network",
    }
    await node.beat(transfers=[{**told, "history": [{"at": 1_795_381_451.0, "what": "It began."}]}], placements=[])
    model = (await service.models())[NAME]
    assert (model["status"], model["download_progress"]["percent"]) == ("downloading", 0.1)
    [transfer] = model["transfers"]
    history = [{"at": "2026-11-22T21:04:11.000Z", "what": "It began."}]
    expected = {**told, "history": history, "orphaned": False, "node_id": node.id, "node": "box"}
    del expected["name"]
    assert transfer == expected
    await node.beat()  # says nothing of transfers: upstream's way; they are then what `sync_progress` says
    assert (await service.models())[NAME]["transfers"] == []
    await node.beat(transfers=[], placements=[])
    assert (await service.models())[NAME]["status"] == "registered"


async def test_an_upstream_node_is_understood(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node, supported_runtimes=["llama_cpp"])
    await node.register()
    progress = {"model_id": NAME, "file": "model.gguf", "downloaded_bytes": 30, "total_bytes": 100}
    await node.beat(sync_state="running", sync_progress=progress)
    model = (await service.models())[NAME]
    assert (model["status"], model["transfers"][0]["bytes_done"]) == ("downloading", 30)
    assert (await nodes(service))[0]["sync_progress"] == progress
    await node.beat(sync_state="success", sync_progress=progress)
    assert (await service.models())[NAME]["status"] == "registered"
    await node.beat(loaded_models=[f"/home/u/.llm-router/models/{NAME}/model.gguf"])
    model = (await service.models())[NAME]
    assert (model["status"], model["placements"][0]["path"]) == (
        "ready",
        f"/home/u/.llm-router/models/{NAME}/model.gguf",
    )
    await node.beat(loaded_models=[])  # "no change"
    assert (await service.models())[NAME]["status"] == "ready"


async def test_a_silent_node_is_offline_and_its_transfers_stand_still(service: Service) -> None:
    await service.router.registry.add(registration())
    await service.router.registry.add(registration("acme/one-gguf", "acme/One-GGUF", "one.Q8_0.gguf"))
    ours, strange = FakeNode(service.node, heartbeat_s=10.0), FakeNode(service.admin, machine_name="far")
    await ours.register()
    await strange.register()
    await ours.beat(transfers=[FETCHING], placements=[{"name": "acme/one-gguf"}])
    service.clock.now += 31
    service.router.fleet.tick()
    assert {each["machine_name"]: each["status"] for each in await nodes(service)} == {
        "box": "offline",
        "far": "online",
    }
    models = await service.models()
    [transfer] = models[NAME]["transfers"]
    assert (transfer["bytes_done"], transfer["bytes_per_s"], transfer["eta_s"]) == (10, None, None)
    assert models["acme/one-gguf"]["placements"][0]["node"] == "box"
    service.clock.now += 30
    service.router.fleet.tick()
    assert {each["status"] for each in await nodes(service)} == {"offline"}
    await ours.beat(transfers=[FETCHING], placements=[])
    assert (await service.models())[NAME]["transfers"][0]["bytes_per_s"] == 5.0


@pytest.mark.parametrize(("every_s", "silent_s"), [(10.0, 30.0), (1.0, 3.0), (20, 60.0), (None, 60.0), (3600.0, 300.0)])
async def test_a_node_is_offline_once_it_has_missed_several_of_the_reports_it_announced(
    service: Service, every_s: float | None, silent_s: float
) -> None:
    node = FakeNode(service.node, **({} if every_s is None else {"heartbeat_s": every_s}))
    await node.register()
    await node.beat(transfers=[], placements=[])
    for seconds, status in ((silent_s, "online"), (0.001, "offline")):
        service.clock.now += seconds
        service.router.fleet.tick()
        assert [each["status"] for each in await nodes(service)] == [status]
    await node.beat(transfers=[], placements=[])
    assert [each["status"] for each in await nodes(service)] == ["online"]


@pytest.mark.parametrize("every_s", [0, -1, 1e9, "10", True])
async def test_an_interval_that_makes_no_sense_is_refused(service: Service, every_s: object) -> None:
    assert (await FakeNode(service.node, heartbeat_s=every_s).register()).status_code == 422


async def test_the_last_speed_of_a_node_that_fell_silent_is_not_shown_for_a_minute(service: Service) -> None:
    await service.router.registry.add(registration())
    far = FakeNode(service.admin, machine_name="far")
    await far.register()
    await far.beat(transfers=[FETCHING], placements=[])
    service.clock.now += 11
    service.router.fleet.tick()
    assert [each["status"] for each in await nodes(service)] == ["online"]
    [transfer] = (await service.models())[NAME]["transfers"]
    assert (transfer["bytes_done"], transfer["bytes_per_s"], transfer["eta_s"]) == (10, None, None)
    assert not transfer["orphaned"]
    await far.beat(transfers=[FETCHING], placements=[])
    assert (await service.models())[NAME]["transfers"][0]["bytes_per_s"] == 5.0


async def test_our_own_nodes_end_is_noticed_without_waiting(service: Service) -> None:
    node = FakeNode(service.node)
    await node.register()
    service.router.fleet.lose_supervised()
    assert (await nodes(service))[0]["status"] == "offline"


async def test_a_node_of_our_own_that_does_not_start_is_why_a_model_waits(service: Service) -> None:
    await service.router.registry.add(registration())
    service.router.fleet.lose_supervised("No permission for /s/node.")
    waiting = (await service.models())[NAME]
    assert (waiting["status"], waiting["reason"]) == (
        "registered",
        "The node of this machine does not start: No permission for /s/node.",
    )
    assert waiting["transfers"][0]["error"] == waiting["reason"]
    node = FakeNode(service.node)
    await node.register()
    assert (await service.models())[NAME]["reason"] == f"waiting for {(await nodes(service))[0]['machine_name']}"
    service.router.fleet.lose_supervised()
    assert (await service.models())[NAME]["reason"] == "no node online"


async def test_nodes_and_what_they_hold_survive_a_restart(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await service.router.registry.add(registration())
        node = FakeNode(service.node, gpu_available=True, gpu_devices=[{"model": "Card", "count": 2, "memory": 5}])
        await node.register()
        await node.beat(
            transfers=[], placements=[{"name": NAME, "path": "/m/a", "paths": ["/m/a", "/m/b"], "disk_bytes": 3}]
        )
        before = await service.models()
    async with open_service(tmp_path) as service:
        after = await service.models()
        assert after[NAME]["status"] == "ready"
        assert after[NAME]["placements"] == before[NAME]["placements"]
        [item] = await nodes(service)
        assert (item["status"], item["gpu_count"], item["gpu_model"]) == ("offline", 2, "Card")
        node.client = service.node
        assert (await node.beat(transfers=[], placements=[])).status_code == 200
        assert (await nodes(service))[0]["status"] == "online"


async def test_removing_a_node_forgets_what_it_held(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node)
    await node.register()
    await node.beat(transfers=[], placements=[{"name": NAME}])
    await service.admin.delete(f"/v0/models/{NAME}")
    assert (await service.models())[NAME]["status"] == "deleting"
    assert (await service.admin.delete(f"/v0/nodes/{node.id}")).status_code == 204
    assert (await service.models())[NAME]["status"] == "available"
    assert (await service.admin.delete(f"/v0/nodes/{node.id}")).status_code == 404


async def test_nodes_get_registered_models_only_and_the_stores_identity(service: Service) -> None:
    await service.router.registry.add(registration())
    answer = await service.node.get("/v0/models")
    assert [each["name"] for each in answer.json()] == [NAME]
    assert answer.headers["x-modelhub-store"] == service.router.store.id
    assert {*answer.json()[0]} == {*(await service.models())[NAME]}


async def test_a_nodes_own_progress_does_not_wake_it(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node)
    await node.register()
    before = (await service.node.get("/v0/models")).headers["etag"]
    await node.beat(transfers=[FETCHING], placements=[{"name": "acme/one-gguf"}])
    assert (await service.node.get("/v0/models")).headers["etag"] == before
    await service.router.retry(NAME)
    assert (await service.node.get("/v0/models")).headers["etag"] != before


@pytest.mark.parametrize("path", ["/v0/models", "/v0/models/hub", "/v1/models", "/v0/nodes"])
async def test_an_unchanged_list_costs_a_304(service: Service, path: str) -> None:
    first = await service.admin.get(path)
    tag = first.headers["etag"]
    for said in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await service.admin.get(path, headers={"If-None-Match": said})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert (await service.admin.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    assert (await service.admin.get(path)).content == first.content


async def test_the_etag_changes_exactly_when_the_body_does(service: Service) -> None:
    await service.router.registry.add(registration())
    node = FakeNode(service.node)
    await node.register()
    seen: dict[str, bytes] = {}
    for done in (1, 2, 2, 3, 3, 1):
        await node.beat(transfers=[{**FETCHING, "bytes_done": done}], placements=[])
        for path in ("/v0/models", "/v0/nodes"):
            answer = await service.admin.get(path)
            tag = path + answer.headers["etag"]
            assert seen.setdefault(tag, answer.content) == answer.content
    assert len(seen) == len({*seen.values()}) == 6


async def test_a_heartbeat_that_tells_nothing_new_changes_no_list(service: Service) -> None:
    node = FakeNode(service.node, disk_free_bytes=1 << 40)
    await node.register()
    revision = service.router.changes.revision
    service.clock.now = service.clock.now // 30 * 30
    await node.beat()
    settled = service.router.changes.revision
    for step in range(1, 5):
        service.clock.now += 2
        await node.beat(disk_free_bytes=(1 << 40) + step, cpu_usage=float(step))
    assert service.router.changes.revision == settled >= revision


async def test_waiting_readers_hear_of_a_change_at_once(service: Service) -> None:
    tag = (await service.admin.get("/v0/models")).headers["etag"]
    waiting = asyncio.create_task(service.admin.get("/v0/models", headers={"If-None-Match": tag, "Prefer": "wait=30"}))
    await until(lambda: service.router.changes.waiting == 1)
    begun = time.monotonic()
    await service.router.registry.add(registration())
    answer = await waiting
    assert answer.status_code == 200 and answer.headers["preference-applied"] == "wait=30"
    assert [each["registered"] for each in answer.json()] == [True, False]
    assert time.monotonic() - begun < 15
    assert service.router.changes.waiting == 0


async def test_waiting_ends_with_304_when_nothing_changes(service: Service) -> None:
    tag = (await service.admin.get("/v0/nodes")).headers["etag"]
    begun = time.monotonic()
    answer = await service.admin.get("/v0/nodes", headers={"If-None-Match": tag, "Prefer": "respond-async, wait=1"})
    assert answer.status_code == 304 and time.monotonic() - begun >= 0.9


async def test_waiting_without_an_etag_or_with_nonsense_answers_at_once(service: Service) -> None:
    assert (await service.admin.get("/v0/models", headers={"Prefer": "wait=30"})).status_code == 200
    tag = (await service.admin.get("/v0/models")).headers["etag"]
    for said in ("wait=", "wait=-1", "wait=soon", "await=9"):
        assert (
            await service.admin.get("/v0/models", headers={"If-None-Match": tag, "Prefer": said})
        ).status_code == 304


async def test_a_change_elsewhere_does_not_end_the_wait(service: Service) -> None:
    tag = (await service.admin.get("/v1/models")).headers["etag"]
    waiting = asyncio.create_task(service.admin.get("/v1/models", headers={"If-None-Match": tag, "Prefer": "wait=30"}))
    await until(lambda: service.router.changes.waiting == 1)
    await service.router.registry.add(registration())
    await until(lambda: not service.router.changes.pending and service.router.changes.waiting == 1)
    assert not waiting.done()
    node = FakeNode(service.node)
    await node.register()
    await node.beat(transfers=[], placements=[{"name": NAME}])
    assert [each["id"] for each in (await waiting).json()["data"]] == [NAME]


async def test_changes_are_announced_at_most_four_times_a_second() -> None:
    changes, loop = Changes(), asyncio.get_running_loop()
    heard: list[float] = []

    async def read() -> None:
        while await changes.wait(30):
            heard.append(loop.time())

    reader = asyncio.create_task(read())
    begun = loop.time()
    while loop.time() - begun < 1.1:
        changes.touch()
        await asyncio.sleep(0.01)
    changes.close()
    await reader
    assert 2 <= len(heard) <= 5
    assert all(later - earlier > 0.2 for earlier, later in pairwise(heard))


async def test_closing_sends_waiting_readers_home(service: Service) -> None:
    tag = (await service.admin.get("/v0/models")).headers["etag"]
    waiting = asyncio.create_task(service.admin.get("/v0/models", headers={"If-None-Match": tag, "Prefer": "wait=30"}))
    await until(lambda: service.router.changes.waiting == 1)
    service.router.changes.close()
    assert (await waiting).status_code == 304
    late = await service.admin.get("/v0/models", headers={"If-None-Match": tag, "Prefer": "wait=30"})
    assert late.status_code == 304


async def test_a_big_fleet_is_listed_without_encoding_it_again(tmp_path: Path) -> None:
    entries = tuple(
        CatalogEntry(
            id=f"m{n}", name=f"Model {n}", description="x" * 80, repo=f"org/M{n}", files=(CatalogFile("m.gguf", n),)
        )
        for n in range(2000)
    )
    async with open_service(tmp_path, catalog=entries) as service:
        first = service.router.listing.models()
        assert len(json.loads(first.body)) == 2000
        assert service.router.listing.models() is first  # the very bytes, while nothing changes
        await service.router.registry.add(registration("org/m7", "org/M7", "m.gguf"))
        kept = dict(service.router.listing._fragments)
        second = service.router.listing.models()
        assert second is not first
        changed = [key for key, (_, text) in service.router.listing._fragments.items() if kept[key][1] is not text]
        assert changed == [("models", "org/m7")]


async def test_the_list_needs_no_hub(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the list asked the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    answers: list[httpx.Response] = [
        await service.admin.get(path) for path in ("/v0/models", "/v0/models/hub", "/v1/models")
    ]
    assert [each.status_code for each in answers] == [200, 200, 200]
