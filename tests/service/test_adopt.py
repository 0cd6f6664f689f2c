"""Models that nodes found on their disks: how they are listed, and that adopting one needs no hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.domain import CatalogFile
from tests.service.conftest import CATALOG, FakeNode, Service, open_service

COMMIT = "a" * 40
TINY = "acme/tiny-gguf"


def file(path: str, size: int = 1000, sha: str = "5" * 64, **more: Any) -> dict[str, Any]:
    return {"path": path, "size": size, "sha256": sha, "blob_id": None, **more}


def group(repo: str, *files: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "repo": repo,
        "revision": COMMIT,
        "files": files,
        "paths": [f"/hub/{each['path']}" for each in files],
        **more,
    }


async def node_with(service: Service, *groups: dict[str, Any], **more: Any) -> FakeNode:
    node = FakeNode(service.node)
    await node.register()
    answer = await node.beat(transfers=[], placements=[], found=groups, trash=[], **more)
    assert answer.status_code == 200, answer.text
    return node


async def adopt(service: Service, name: str) -> Any:
    return await service.admin.post("/v0/models/adopt", json={"name": name})


async def test_what_is_found_is_counted_beside_what_is_registered(service: Service) -> None:
    async def counted() -> tuple[int, int, int]:
        [told] = (await service.admin.get("/v0/nodes")).json()
        return told["models_bytes"], told["found_bytes"], told["unfinished_bytes"]

    shared, own = file("Tiny-Q4_K_M.gguf"), group("acme/Mine", file("mine.gguf", 500, "7" * 64))
    part = group("acme/Parts", file("mmproj-x.gguf", 70, "8" * 64))
    vae = group("acme/Parts", file("vae.safetensors", 90, "9" * 64))  # no list shows it: it is no model by itself
    node = await node_with(service, group("acme/Tiny-GGUF", shared), own, vae, models_bytes=0, unfinished_bytes=9)
    listed = [each for each in (await service.models()).values() if each["found"]]
    rows = sum(place["disk_bytes"] for each in listed for place in each["placements"])
    assert await counted() == (0, 1500, 9) and rows == 1500
    assert (await adopt(service, TINY)).status_code == 201
    placed = [{"name": TINY, "path": "/hub/Tiny-Q4_K_M.gguf", "disk_bytes": 1000}]
    await node.beat(placements=placed, found=[own, part], models_bytes=1000, unfinished_bytes=0)
    found = sum(
        place["disk_bytes"]
        for each in (await service.models()).values()
        if each["found"]
        for place in each["placements"]
    )
    assert await counted() == (1000, found, 0) and found in (500, 570)
    # What a found model shares with a registered one is counted with that.
    await node.beat(found=[own, group("acme/Tiny-GGUF", shared, revision="b" * 40)])
    assert await counted() == (1000, 500, 0)


async def test_a_found_model_is_listed_with_its_paths_and_adopted_without_the_hub(service: Service) -> None:
    node = await node_with(service, group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf")))
    tiny = (await service.models())[TINY]
    assert (tiny["found"], tiny["registered"], tiny["status"]) == (True, False, "ready")
    assert (tiny["id"], tiny["title"], tiny["revision"]) == ("tiny", "Tiny", COMMIT)
    assert tiny["placements"] == [
        {
            "node_id": node.id,
            "node": "box",
            "path": "/hub/Tiny-Q4_K_M.gguf",
            "paths": ["/hub/Tiny-Q4_K_M.gguf"],
            "disk_bytes": 1000,
            "verified": None,  # its content is looked at when somebody adopts it
            "unverified": [],
            "shared_bytes": 0,
        }
    ]
    # Nobody uses it through the router yet, and no node is to fetch it.
    assert (await service.admin.get("/v1/models")).json()["data"] == []
    assert (await service.admin.get(f"/v1/models/{TINY}")).status_code == 404
    assert (await service.node.get("/v0/models")).json() == []
    hub = {each["id"]: each for each in (await service.admin.get("/v0/models/hub")).json()}
    assert hub["tiny"]["status"] == "available"

    answer = await adopt(service, TINY)
    assert answer.status_code == 201 and answer.json()["name"] == TINY and answer.json()["size_bytes"] == 1000
    manifest = (await service.node.get(f"/v0/models/registry/{TINY}/manifest.json")).json()
    assert [(each["path"], each["sha256"], each["revision"]) for each in manifest["files"]] == [
        ("Tiny-Q4_K_M.gguf", "5" * 64, COMMIT)
    ]
    tiny = (await service.models())[TINY]
    assert (tiny["found"], tiny["registered"], tiny["placements"]) == (False, True, [])
    assert [each["name"] for each in (await service.node.get("/v0/models")).json()] == [TINY]
    # The node holds it now and reports it as any other.
    await node.beat(transfers=[], placements=[{"name": TINY, "path": "/hub/Tiny-Q4_K_M.gguf"}], found=[], trash=[])
    assert (await service.models())[TINY]["status"] == "ready"
    again = await adopt(service, TINY)
    assert again.status_code == 404 and again.json()["code"] == "not_on_disk"


async def test_models_of_no_catalog_get_names_of_their_own_and_keep_them(service: Service) -> None:
    sha = [str(n) * 64 for n in range(5)]
    await node_with(
        service,
        group("acme/Mine-GGUF", file("mine.Q8_0.gguf", sha=sha[0])),
        group("acme/Mine-GGUF", file("mine.Q4_0.gguf", sha=sha[1])),
        group("acme/Tiny-GGUF", file("other.Q2_K.gguf", sha=sha[2])),
        group("acme/Tensors", file("config.json", sha=sha[3]), file("model.safetensors", sha=sha[4])),
        group("openai/whispers", file("ggml-base.bin", sha=sha[4])),
    )
    listed = {name: each for name, each in (await service.models()).items() if each["found"]}
    assert {name: (each["filename"], each["format"]) for name, each in listed.items()} == {
        "acme/mine-gguf": ("mine.Q4_0.gguf", "gguf"),
        "acme/mine-gguf:q8_0": ("mine.Q8_0.gguf", "gguf"),
        "acme/tensors": ("model.safetensors", "safetensors"),
        "acme/tiny-gguf:q2_k": ("other.Q2_K.gguf", "gguf"),
        "openai/whispers": ("ggml-base.bin", "ggml"),
    }
    assert not (await service.models())[TINY]["found"]  # the catalog's own file is not there
    assert (await adopt(service, "acme/mine-gguf:q8_0")).json()["name"] == "acme/mine-gguf:q8_0"
    after = await service.models()
    assert after["acme/mine-gguf:q8_0"]["registered"] and after["acme/mine-gguf"]["found"]
    assert after["acme/tensors"]["size"] == 2000


async def test_an_entry_with_companions_is_found_only_with_all_of_them(tmp_path: Path) -> None:
    companions = (
        CatalogFile("mmproj.gguf", 10, "6" * 64),
        CatalogFile("vae/x.safetensors", 20, "7" * 64, repo="acme/Parts"),
    )
    entry = replace(CATALOG[0], companions=companions)
    async with open_service(tmp_path, catalog=(entry,)) as service:
        own = group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf"))
        beside = group("acme/Tiny-GGUF", file("mmproj.gguf", 10, "6" * 64))
        node = await node_with(service, own, beside)
        assert [each["status"] for each in (await service.models()).values()] == ["available"]
        elsewhere = group("acme/Parts", file("vae/x.safetensors", 20, "7" * 64), revision="b" * 40)
        await node.beat(transfers=[], placements=[], found=[own, beside, elsewhere])
        tiny = (await service.models())[TINY]
        assert tiny["found"] and tiny["size"] == 1030 and len(tiny["placements"][0]["paths"]) == 3
        assert (await adopt(service, TINY)).status_code == 201
        files = (await service.node.get(f"/v0/models/registry/{TINY}/manifest.json")).json()["files"]
        assert [(each["repo"], each["path"], each["revision"]) for each in files] == [
            ("acme/Tiny-GGUF", "Tiny-Q4_K_M.gguf", COMMIT),
            ("acme/Tiny-GGUF", "mmproj.gguf", COMMIT),
            ("acme/Parts", "vae/x.safetensors", "b" * 40),
        ]


@pytest.mark.parametrize(
    "bad",
    [
        group("acme/Mine", file("../../etc/passwd")),
        group("../..", file("mine.gguf")),
        group("acme/Mine", file("mine.gguf"), file("mine.gguf")),
        group("acme/Mine", file("mmproj-mine.gguf")),
        group("acme/Mine", file("big-00001-of-00002.gguf")),
        group("acme/Mine", file("config.json")),
        group("acme/Mine", file("vae.safetensors")),
    ],
)
async def test_what_is_no_whole_model_is_not_offered(service: Service, bad: dict[str, Any]) -> None:
    await node_with(service, bad, group("acme/Good", file("good.gguf")))
    assert [name for name, each in (await service.models()).items() if each["found"]] == ["acme/good"]


async def test_a_catalog_file_of_the_wrong_length_is_not_offered(tmp_path: Path) -> None:
    entry = replace(CATALOG[0], files=(CatalogFile("Tiny-Q4_K_M.gguf", 1000, "5" * 64),))
    async with open_service(tmp_path, catalog=(entry,)) as service:
        node = await node_with(service, group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf", 999)))
        assert not (await service.models())[TINY]["found"]
        # Another checksum is another revision of the file, and as good.
        await node.beat(found=[group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf", 999, "6" * 64))])
        assert (await service.models())[TINY]["found"]


async def test_what_the_catalog_knows_of_the_same_commit_holds_for_what_is_found(tmp_path: Path) -> None:
    files = (CatalogFile("Tiny-Q4_K_M.gguf", 1000, "5" * 64),)
    entry = replace(CATALOG[0], files=files, revision=COMMIT)
    async with open_service(tmp_path, catalog=(entry,)) as service:
        node = await node_with(service, group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf", sha="6" * 64)))
        assert not (await service.models())[TINY]["found"]
        await node.beat(found=[group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf", 999, sha256=None))])
        assert not (await service.models())[TINY]["found"]
        # The cache tells no checksum, the catalog does: with that the node looks at it.
        await node.beat(found=[group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf", sha256=None))])
        assert (await adopt(service, TINY)).status_code == 201
        manifest = (await service.node.get(f"/v0/models/registry/{TINY}/manifest.json")).json()
        assert [each["sha256"] for each in manifest["files"]] == ["5" * 64]


async def test_what_a_mirror_gave_no_checksum_of_can_be_adopted_and_is_said_to_be_not_verifiable(
    service: Service,
) -> None:
    await node_with(service, group("acme/Mine", file("mine.gguf", sha256=None)))
    mine = (await service.models())["acme/mine"]
    (place,) = mine["placements"]
    assert mine["found"] and place["verified"] is False and place["unverified"] == place["paths"]
    assert (await adopt(service, "acme/mine")).status_code == 201
    manifest = (await service.node.get("/v0/models/registry/acme%2Fmine/manifest.json")).json()
    assert [(each["sha256"], each["blob_id"], each["size"]) for each in manifest["files"]] == [(None, None, 1000)]


async def test_two_nodes_with_the_same_files_hold_one_found_model(service: Service) -> None:
    await node_with(service, group("acme/Mine", file("mine.gguf")))
    other = FakeNode(service.admin, machine_name="far")
    await other.register()
    await other.beat(found=[group("acme/Mine", file("mine.gguf"))])
    mine = (await service.models())["acme/mine"]
    assert sorted(each["node"] for each in mine["placements"]) == ["box", "far"]


async def test_a_found_model_is_shown_at_once_and_an_equal_report_wakes_nobody(service: Service) -> None:
    found = [group("acme/Mine", file("mine.gguf"))]
    node = await node_with(service)
    first = await service.admin.get("/v0/models")
    await node.beat(found=found)
    second = await service.admin.get("/v0/models", headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    revision = service.router.changes.revision
    await node.beat(found=found)
    assert service.router.changes.revision == revision
    await node.beat()  # an older node, or one that has nothing new to say of it
    assert "acme/mine" in await service.models()
    await node.beat(found=[])
    assert "acme/mine" not in await service.models()


async def test_a_database_that_was_lost_is_rebuilt_from_what_the_node_found(tmp_path: Path) -> None:
    path = tmp_path / "modelhub.db"
    path.write_bytes(b"this is no database" * 300)
    async with open_service(tmp_path) as service:
        assert "damaged" in service.router.store.notice
        await node_with(
            service,
            group("acme/Tiny-GGUF", file("Tiny-Q4_K_M.gguf")),
            group("acme/Mine", file("mine.gguf", sha="6" * 64)),
        )
        names = [name for name, each in (await service.models()).items() if each["found"]]
        assert names == [TINY, "acme/mine"]
        for name in names:
            assert (await adopt(service, name)).status_code == 201
        assert (await service.admin.delete(f"/v0/models/{TINY}")).status_code == 204
    async with open_service(tmp_path) as service:
        assert (await service.models())["acme/mine"]["registered"]
