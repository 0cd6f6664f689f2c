"""Deletions that are taken back, as clients and nodes see them; and the database of the version before."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelhub_tui.service.router.records import ManifestFile, Registration
from tests.service.conftest import Clock, FakeNode, Service, open_service

NAME = "acme/tiny-gguf"
RECORD = Registration(
    name=NAME,
    repo="acme/Tiny-GGUF",
    filename="Tiny-Q4_K_M.gguf",
    revision="c" * 40,
    files=(ManifestFile("Tiny-Q4_K_M.gguf", "acme/Tiny-GGUF", "c" * 40, 100, "5" * 64),),
    format="gguf",
    title="Tiny",
    size=100,
)
WHOLE = [{"name": NAME, "path": "/m/Tiny-Q4_K_M.gguf", "disk_bytes": 100}]
BINNED = [{"name": NAME, "bytes": 4096}]


async def whole(service: Service) -> FakeNode:
    """A node that holds the model."""
    await service.router.registry.add(RECORD)
    node = FakeNode(service.node)
    await node.register()
    await node.beat(transfers=[], placements=WHOLE, trash=[], found=[])
    return node


async def trash(service: Service) -> list[dict[str, Any]]:
    return (await service.admin.get("/v0/trash")).json()  # type: ignore[no-any-return]


async def restore(service: Service, name: str = NAME) -> Any:
    return await service.admin.post(f"/v0/models/{name}/restore")


async def test_a_deletion_is_taken_back_without_the_hub(service: Service) -> None:
    node = await whole(service)
    assert (await service.admin.delete(f"/v0/models/{NAME}")).status_code == 204
    assert (await service.models())[NAME]["status"] == "deleting"
    await node.beat(transfers=[], placements=[], trash=BINNED)
    [item] = await trash(service)
    assert item == {
        "name": NAME,
        "title": "Tiny",
        "repo": "acme/Tiny-GGUF",
        "filename": "Tiny-Q4_K_M.gguf",
        "bytes": 4096,
        "deleted_at": "2027-01-15T08:00:00.000Z",
        "expires_at": "2027-01-15T09:00:00.000Z",
        "nodes": ["box"],
    }
    assert (await service.models())[NAME]["status"] == "available"
    answer = await restore(service)
    assert answer.status_code == 201 and answer.json()["name"] == NAME
    assert await trash(service) == []
    assert service.router.registry.records[NAME].files == RECORD.files
    assert [each["name"] for each in (await service.node.get("/v0/models")).json()] == [NAME]
    again = await restore(service)
    assert (again.status_code, again.json()["code"]) == (404, "not_in_trash")


async def test_restored_while_a_node_still_removes_it(service: Service) -> None:
    node = await whole(service)
    await service.admin.delete(f"/v0/models/{NAME}")
    attempt = service.router.registry.records[NAME].attempt
    assert (await restore(service)).status_code == 201
    record = service.router.registry.records[NAME]
    assert not record.deleting and record.attempt == attempt + 1
    await node.beat(transfers=[], placements=[], trash=BINNED)
    assert NAME in service.router.registry.records


async def test_restored_under_its_own_name_or_not_at_all(service: Service) -> None:
    node = await whole(service)
    second = replace(RECORD, name=f"{NAME}:q8_0", filename="Tiny-Q8_0.gguf", quantization="Q8_0")
    second = replace(second, files=(replace(RECORD.files[0], path="Tiny-Q8_0.gguf", sha256="6" * 64),))
    await service.router.registry.add(second)
    await node.beat(placements=[*WHOLE, {"name": second.name}], transfers=[], trash=[])
    for name in (NAME, second.name):
        await service.admin.delete(f"/v0/models/{name}")
    await node.beat(placements=[], transfers=[], trash=[*BINNED, {"name": second.name, "bytes": 1}])
    assert {each["name"] for each in await trash(service)} == {NAME, second.name}
    assert (await restore(service, second.name)).json()["name"] == second.name  # the bare name is free, but not its own
    await service.router.registry.add(replace(RECORD, revision="d" * 40))
    refused = await restore(service)
    assert (refused.status_code, refused.json()["code"], refused.json()["name"]) == (409, "already_registered", NAME)


async def test_nodes_are_told_what_to_keep(service: Service) -> None:
    node = await whole(service)
    await service.admin.delete(f"/v0/models/{NAME}")
    answer = (await node.beat(transfers=[], placements=[], trash=BINNED)).json()
    assert answer["kept"] == [NAME] and answer["store"] == service.router.store.id
    assert answer["limits"]["trash_seconds"] == 3600
    assert (await service.admin.delete("/v0/trash")).status_code == 204
    assert (await node.beat(transfers=[], placements=[], trash=BINNED)).json()["kept"] == []
    assert (await service.admin.delete(f"/v0/trash/{NAME}")).status_code == 404


async def test_an_empty_name_is_no_name_and_not_the_whole_trash(service: Service) -> None:
    await whole(service)
    await service.admin.delete(f"/v0/models/{NAME}")
    answer = await service.admin.delete("/v0/trash/")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_in_trash")
    assert [each["name"] for each in await trash(service)] == [NAME]


async def test_deleted_for_good_when_asked_or_when_nothing_was_whole(service: Service) -> None:
    node = await whole(service)
    await service.admin.delete(f"/v0/models/{NAME}", params={"keep": "false"})
    assert await trash(service) == []
    assert (await node.beat(transfers=[], placements=[], trash=BINNED)).json()["kept"] == []
    await service.router.registry.add(RECORD)
    waiting = [{"name": NAME, "phase": "waiting"}]
    await node.beat(transfers=waiting, placements=[], trash=[])
    await service.admin.delete(f"/v0/models/{NAME}")
    assert await trash(service) == []


async def test_the_trash_forgets_what_is_too_old_or_gone_from_every_node(service: Service) -> None:
    node = await whole(service)
    router = service.router
    await service.admin.delete(f"/v0/models/{NAME}")

    async def tidy() -> None:
        await router.trash.tidy()

    await tidy()  # the node has not heard of it yet
    assert len(await trash(service)) == 1
    await node.beat(transfers=[], placements=[], trash=BINNED)
    await tidy()
    assert len(await trash(service)) == 1
    await node.beat(transfers=[], placements=[], trash=[])  # it needed the room
    await tidy()
    assert await trash(service) == []

    await router.registry.add(RECORD)
    await node.beat(transfers=[], placements=WHOLE, trash=[])
    await service.admin.delete(f"/v0/models/{NAME}")
    await node.beat(transfers=[], placements=[], trash=BINNED)
    service.clock.now += 3601
    await node.beat(transfers=[], placements=[], trash=BINNED)
    await tidy()
    assert await trash(service) == []


async def test_the_trash_survives_a_restart_of_the_router(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await whole(service)
        await service.admin.delete(f"/v0/models/{NAME}")
    async with open_service(tmp_path) as service:
        await service.router.trash.tidy()  # no node was heard yet: nobody can say that it is gone
        assert [each["name"] for each in await trash(service)] == [NAME]
        assert (await restore(service)).status_code == 201
        assert service.router.registry.records[NAME].files == RECORD.files


async def test_a_node_that_comes_back_is_not_taken_for_one_without_trash(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        node = await whole(service)
        await service.admin.delete(f"/v0/models/{NAME}")
        await node.beat(transfers=[], placements=[], trash=BINNED)
    async with open_service(tmp_path) as service:
        node = FakeNode(service.node)
        await node.register()
        await service.router.trash.tidy()
        await node.beat(transfers=[], placements=[])  # it has not seen the list yet, and says nothing of its trash
        await service.router.trash.tidy()
        assert [each["name"] for each in await trash(service)] == [NAME]
        await node.beat(transfers=[], placements=[], trash=[])
        await service.router.trash.tidy()
        assert await trash(service) == []


async def test_a_model_on_a_node_that_is_away_is_deleted_at_once_and_can_be_had_back(service: Service) -> None:
    node = await whole(service)
    service.clock.now += 100
    service.router.fleet.tick()
    await service.admin.delete(f"/v0/models/{NAME}")
    assert NAME not in service.router.registry.records
    assert [each["name"] for each in await trash(service)] == [NAME]
    await node.beat(transfers=[], placements=WHOLE, trash=[])  # back, and about to see the list
    await service.router.trash.tidy()
    assert [each["name"] for each in await trash(service)] == [NAME]
    assert (await service.models())[NAME]["placements"] == []
    await node.beat(transfers=[], placements=[], trash=BINNED)
    assert (await restore(service)).status_code == 201


async def test_registered_again_it_is_in_the_trash_no_longer(service: Service) -> None:
    node = await whole(service)
    await service.admin.delete(f"/v0/models/{NAME}")
    await node.beat(transfers=[], placements=[], trash=BINNED)
    await service.router.registry.add(replace(RECORD, name=""))
    await service.router.trash.tidy()
    assert await trash(service) == []
    assert (await node.beat(transfers=[], placements=[], trash=BINNED)).json()["kept"] == [NAME]


async def test_a_wall_clock_that_jumps_empties_no_trash(tmp_path: Path) -> None:
    from modelhub_tui.service.router.trash import Trash

    async with open_service(tmp_path) as service:
        await whole(service)
        await service.admin.delete(f"/v0/models/{NAME}")
        router = service.router
        wall, monotonic = Clock(service.clock.now), Clock(0.0)
        kept = Trash(router.registry, router.fleet, lambda: router.limits, wall, monotonic)
        wall.now += 7200
        await kept.tidy()
        assert NAME in kept
        monotonic.now += 3601
        await kept.tidy()
        assert NAME not in kept


async def test_a_database_of_the_first_schema_opens_and_keeps_its_models(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "modelhub.db") as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")
        db.execute(
            "CREATE TABLE models (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL)"
            " STRICT"
        )
        db.execute("CREATE TABLE nodes (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT")
        db.execute("INSERT INTO meta VALUES ('store_id', 'the-old-one')")
        body = {key: value for key, value in RECORD.to_json().items() if key not in ("paused", "queue")}
        db.execute("INSERT INTO models (name, body) VALUES (?, ?)", (NAME, json.dumps(body)))
        db.execute("PRAGMA user_version = 1")
    db.close()
    async with open_service(tmp_path) as service:
        assert service.router.store.id == "the-old-one" and service.router.store.notice == ""
        assert (await service.models())[NAME]["registered"]
        node = FakeNode(service.node)
        await node.register()
        await node.beat(transfers=[], placements=WHOLE, trash=[])
        await service.admin.delete(f"/v0/models/{NAME}")
        assert [each["name"] for each in await trash(service)] == [NAME]
