"""Registering, listing and deleting models, against the loopback hub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from modelhub_tui.catalog import load_catalog
from modelhub_tui.domain import CatalogEntry, CatalogFile
from tests.hub import GOOD_TOKEN, STRANGER_TOKEN, HubRepo, LoopbackHub
from tests.service.conftest import CATALOG, TINY_BYTES, FakeNode, Service, open_service

TINY, TINY_FILE = "acme/Tiny-GGUF", "Tiny-Q4_K_M.gguf"


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_fresh_router_lists_the_catalog_as_available(service: Service) -> None:
    models = await service.models()
    assert [*models] == ["acme/tiny-gguf", "acme/one-gguf"]
    tiny = models["acme/tiny-gguf"]
    assert (tiny["id"], tiny["status"], tiny["registered"], tiny["attempt"]) == ("tiny", "available", False, 0)
    assert (tiny["size"], tiny["required_memory"], tiny["quantization"], tiny["context_length"]) == (
        TINY_BYTES,
        5000,
        "Q4_K_M",
        2048,
    )
    assert tiny["transfers"] == tiny["placements"] == []
    assert tiny["hf_info"] is None and tiny["download_progress"] is None
    assert (await service.admin.get("/v1/models")).json() == {"object": "list", "data": []}


async def test_registering_stores_the_hubs_commit_sizes_and_checksums(online: Service, hub: LoopbackHub) -> None:
    repo = hub.repo(TINY)
    answer = await online.register(TINY, filename=TINY_FILE)
    assert answer.status_code == 201
    size = repo[TINY_FILE].size
    assert answer.json() == {
        "name": "acme/tiny-gguf",
        "status": "registered",
        "filename": TINY_FILE,
        "size_bytes": size,
        "required_memory_bytes": 5000,
        "warnings": ["No GPU memory info available from registered nodes"],
    }
    tiny = (await online.models())["acme/tiny-gguf"]
    assert (tiny["registered"], tiny["status"], tiny["attempt"], tiny["revision"]) == (True, "registered", 1, repo.sha)
    assert tiny["reason"] == "no node online"
    manifest = (await online.node.get(f"/v0/models/registry/{quote('acme/tiny-gguf', safe='')}/manifest.json")).json()
    assert manifest == {
        "format": "gguf",
        "quantization": "Q4_K_M",
        "files": [
            {
                "name": "model.gguf",
                "path": TINY_FILE,
                "url": f"{hub.url}/{TINY}/resolve/{repo.sha}/{TINY_FILE}",
                "priority": 0,
                "runtimes": ["llama_cpp"],
                "size": size,
                "sha256": repo[TINY_FILE].sha256,
                "blob_id": None,
                "repo": TINY,
                "revision": repo.sha,
            }
        ],
    }
    assert (await online.admin.get("/v1/models")).json()["data"] == []


async def test_the_catalogs_file_is_meant_where_none_is_named(online: Service) -> None:
    assert (await online.register(TINY)).json()["filename"] == TINY_FILE


@pytest.mark.parametrize(
    "said",
    [
        "{url}/acme/Tiny-GGUF/blob/main/Tiny-Q8_0.gguf",
        "{url}/acme/Tiny-GGUF/resolve/main/Tiny-Q8_0.gguf?download=true",
        "https://huggingface.co/acme/Tiny-GGUF/blob/main/Tiny-Q8_0.gguf#x",
        "acme/Tiny-GGUF:Tiny-Q8_0.gguf",
    ],
)
async def test_any_form_of_url_names_a_file(online: Service, hub: LoopbackHub, said: str) -> None:
    answer = await online.register(said.format(url=hub.url))
    assert answer.json()["filename"] == "Tiny-Q8_0.gguf"
    assert [each["repo"] for each in (await online.models()).values() if each["registered"]] == [TINY]


async def test_a_second_file_of_a_repo_gets_a_name_of_its_own(online: Service) -> None:
    assert (await online.register(TINY)).json()["name"] == "acme/tiny-gguf"
    second = await online.register(TINY, filename="Tiny-Q8_0.gguf")
    assert second.json()["name"] == "acme/tiny-gguf:q8_0"
    models = await online.models()
    assert [*models] == ["acme/tiny-gguf", "acme/one-gguf", "acme/tiny-gguf:q8_0"]
    assert (models["acme/tiny-gguf:q8_0"]["filename"], models["acme/tiny-gguf:q8_0"]["license"]) == (
        "Tiny-Q8_0.gguf",
        "apache-2.0",
    )
    manifest = await online.node.get("/v0/models/registry/acme%2Ftiny-gguf%3Aq8_0/manifest.json")
    assert manifest.json()["files"][0]["path"] == "Tiny-Q8_0.gguf"


async def test_registering_twice_is_refused_with_the_name_and_without_asking_the_hub(
    online: Service, hub: LoopbackHub
) -> None:
    await online.register(TINY)
    hub.down()
    for body in ({"repo": TINY}, {"repo": "ACME/tiny-gguf", "filename": TINY_FILE}):
        answer = await online.admin.post("/v0/models/register", json=body)
        assert answer.status_code == 400
        assert answer.json() == {
            "error": "Validation error: Model already registered",
            "code": "already_registered",
            "name": "acme/tiny-gguf",
        }


async def test_several_ggufs_are_offered_most_useful_first(online: Service, hub: LoopbackHub) -> None:
    async with open_service_without_catalog(online, hub) as bare:
        answer = await bare.register(TINY)
    assert refusal(answer) == (400, "several_files")
    assert answer.json()["error"] == "Validation error: Multiple GGUF files found; specify filename"
    candidates = answer.json()["candidates"]
    assert candidates[0] == TINY_FILE
    assert sorted(candidates) == sorted(path for path in hub.repo(TINY).main.files if path.endswith(".gguf"))


def open_service_without_catalog(online: Service, hub: LoopbackHub) -> Any:
    folder = online.router.store.path.parent / "other"
    folder.mkdir(exist_ok=True)
    return open_service(folder, hub.url, catalog=())


async def test_one_gguf_needs_no_name_and_a_projector_is_no_choice(online: Service, hub: LoopbackHub) -> None:
    async with open_service_without_catalog(online, hub) as bare:
        assert (await bare.register("acme/One-GGUF")).json()["filename"] == "one.Q8_0.gguf"
        assert (await bare.register("acme/Vision-GGUF")).json()["filename"] == "Vision-Q4_K_M.gguf"


async def test_any_shard_stands_for_all(online: Service, hub: LoopbackHub) -> None:
    repo = hub.repo("acme/Sharded-GGUF")
    shards = sorted(path for path in repo.main.files if path.startswith("Q8_0/"))
    answer = await online.register("acme/Sharded-GGUF", filename=shards[1])
    assert answer.json()["filename"] == shards[0]
    assert answer.json()["size_bytes"] == sum(repo[path].size for path in shards)
    manifest = (await online.node.get("/v0/models/registry/acme%2Fsharded-gguf/manifest.json")).json()
    assert [(each["name"], each["path"]) for each in manifest["files"]] == [(path, path) for path in shards]


async def test_a_safetensors_repo_comes_with_what_loading_it_needs(online: Service, hub: LoopbackHub) -> None:
    repo = hub.repo("acme/Tiny-Safetensors")
    answer = await online.register("acme/Tiny-Safetensors")
    assert answer.status_code == 201
    assert answer.json()["filename"].endswith(".safetensors.index.json")
    manifest = (await online.node.get("/v0/models/registry/acme%2Ftiny-safetensors/manifest.json")).json()
    files = {each["path"]: each for each in manifest["files"]}
    assert {"config.json", "tokenizer.json"} <= {*files} <= {*repo.main.files}
    assert all(path in files for path in repo.main.files if path.endswith(".safetensors"))
    assert (files["config.json"]["sha256"], files["config.json"]["blob_id"]) == (None, repo["config.json"].oid)
    assert (files["config.json"]["priority"], answer.json()["size_bytes"]) == (
        10,
        sum(each["size"] for each in manifest["files"]),
    )
    assert (await online.models())["acme/tiny-safetensors"]["source"] == "hf_safetensors"


async def test_revisions_are_pinned(online: Service, hub: LoopbackHub) -> None:
    assert (await online.register(TINY, revision="v1")).json()["filename"] == TINY_FILE
    manifest = (await online.node.get("/v0/models/registry/acme%2Ftiny-gguf/manifest.json")).json()
    assert manifest["files"][0]["revision"] not in ("v1", hub.repo(TINY).sha)
    assert refusal(await online.register("acme/One-GGUF", revision="nope")) == (400, "no_such_revision")


async def test_a_catalog_entry_brings_its_companions_and_survives_a_lost_revision(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    entry = CatalogEntry(
        id="vision",
        name="Vision",
        description="",
        repo="acme/Vision-GGUF",
        files=(CatalogFile("Vision-Q4_K_M.gguf"),),
        companions=(
            CatalogFile("mmproj-Vision-F16.gguf"),
            CatalogFile("one.Q8_0.gguf", repo="acme/One-GGUF"),
            CatalogFile("gone.gguf"),
        ),
        revision="0123456789abcdef0123456789abcdef01234567",
    )
    async with open_service(tmp_path, hub.url, catalog=(entry,)) as service:
        answer = await service.register("acme/Vision-GGUF")
        assert answer.status_code == 201
        assert [each for each in answer.json()["warnings"] if "GPU" not in each] == [
            "The catalog's revision 0123456789ab of acme/Vision-GGUF is gone; the newest is used.",
            "acme/Vision-GGUF no longer has gone.gguf; the model is registered without it.",
        ]
        manifest = (await service.node.get("/v0/models/registry/acme%2Fvision-gguf/manifest.json")).json()
        assert [(each["repo"], each["path"]) for each in manifest["files"]] == [
            ("acme/Vision-GGUF", "Vision-Q4_K_M.gguf"),
            ("acme/Vision-GGUF", "mmproj-Vision-F16.gguf"),
            ("acme/One-GGUF", "one.Q8_0.gguf"),
        ]
        assert manifest["files"][2]["revision"] == hub.repo("acme/One-GGUF").sha


def _catalogued(hub: LoopbackHub, **more: Any) -> CatalogEntry:
    blob, entry = hub.repo(TINY)[TINY_FILE], CATALOG[0]
    told = {"size_bytes": blob.size, "sha256": blob.sha256, "revision": hub.repo(TINY).sha, **more}
    file = CatalogFile(TINY_FILE, told["size_bytes"], told["sha256"])
    return replace(entry, repo=TINY, files=(file,), revision=told["revision"])


@pytest.mark.parametrize(
    ("says", "both"),
    [
        ({"sha256": "5" * 64}, ("the catalog says sha256 5555", "the hub says ")),
        ({"size_bytes": 1000}, ("the catalog says 1000 bytes", "the hub says 56288")),
        ({"sha256": "5" * 64, "revision": None}, ("the catalog says sha256 5555", "the hub says ")),
        ({"sha256": "5" * 64, "revision": "e" * 40}, ("the catalog says sha256 5555", "the hub says ")),
    ],
    ids=["sha256", "size", "no revision", "the revision is gone"],
)
async def test_a_hub_that_contradicts_the_catalog_is_refused_with_both_words(
    tmp_path: Path, hub: LoopbackHub, says: dict[str, Any], both: tuple[str, str]
) -> None:
    async with open_service(tmp_path, hub.url, catalog=(_catalogued(hub, **says),)) as service:
        answer = await service.register(TINY)
        assert refusal(answer) == (400, "changed_upstream")
        assert all(each in answer.json()["error"] for each in both)
        assert not any(each["registered"] for each in (await service.models()).values())


async def test_a_companion_that_is_another_file_is_refused_too(tmp_path: Path, hub: LoopbackHub) -> None:
    companion = CatalogFile("one.Q8_0.gguf", sha256="5" * 64, repo="acme/One-GGUF")
    entry = replace(_catalogued(hub), companions=(companion,))
    async with open_service(tmp_path, hub.url, catalog=(entry,)) as service:
        assert refusal(await service.register(TINY)) == (400, "changed_upstream")


@pytest.mark.parametrize("who", ["catalog", "request"])
async def test_a_hub_that_answers_with_another_commit_is_refused(tmp_path: Path, hub: LoopbackHub, who: str) -> None:
    repo = hub.repo(TINY)
    asked = "d" * 40
    repo.branches[asked] = repo.main  # found by the name that was asked for, and answered with another
    entry = _catalogued(hub, revision=asked if who == "catalog" else None)
    async with open_service(tmp_path, hub.url, catalog=(entry,)) as service:
        answer = await service.register(TINY, **({} if who == "catalog" else {"revision": asked}))
        assert refusal(answer) == (400, "changed_upstream")
        assert f"the {who} says commit {asked}" in answer.json()["error"] and repo.sha in answer.json()["error"]


async def test_what_the_hub_does_not_tell_is_pinned_from_the_catalog(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.api.untold = lambda _repo, _path: True
    entry = _catalogued(hub, sha256="5" * 64)
    async with open_service(tmp_path, hub.url, catalog=(entry,)) as service:
        assert (await service.register(TINY)).status_code == 201
        manifest = (await service.node.get("/v0/models/registry/acme%2Ftiny-gguf/manifest.json")).json()
        assert [(each["sha256"], each["blob_id"]) for each in manifest["files"]] == [("5" * 64, None)]


async def test_a_renamed_repo_is_registered_under_its_present_name(online: Service, hub: LoopbackHub) -> None:
    hub.rename("acme/Vision-GGUF", "acme/Sight-GGUF")
    assert (await online.register("acme/Vision-GGUF")).json()["name"] == "acme/sight-gguf"
    hub.rename("acme/One-GGUF", "acme/Uno-GGUF")
    assert (await online.register("acme/One-GGUF")).json()["name"] == "acme/one-gguf"  # the catalog's name stays
    manifest = (await online.node.get("/v0/models/registry/acme%2Fone-gguf/manifest.json")).json()
    assert manifest["files"][0]["repo"] == "acme/Uno-GGUF"


@pytest.mark.parametrize(
    ("repo", "more", "code", "says"),
    [
        ("acme/Nothing-Here", {}, "no_such_repo", "acme/Nothing-Here"),
        ("acme/Private-GGUF", {}, "no_such_repo", "HF_TOKEN"),
        ("acme/Gated-GGUF", {}, "gated", "accept its terms"),
        ("acme/Gated-Auto", {}, "gated", "HF_TOKEN"),
        ("acme/Disabled-GGUF", {}, "disabled", "disabled"),
        ("acme/Empty", {}, "unsupported", "No supported model artifacts found"),
        ("acme/No-Weights", {}, "unsupported", "No supported model artifacts found"),
        (TINY, {"filename": "nope.gguf"}, "no_such_file", "not found in repository"),
        (TINY, {"filename": "README.md"}, "unsupported", ".gguf"),
        (TINY, {"filename": "../x.gguf"}, "bad_reference", "invalid path segment"),
        (TINY, {"filename": "/etc/passwd"}, "bad_reference", "relative path"),
        (TINY, {"filename": ""}, "bad_reference", "must not be empty"),
        ("  ", {}, "bad_reference", "repo is required"),
        ("nonsense", {}, "bad_reference", "owner/name"),
        ("http://evil.example/acme/Tiny-GGUF", {}, "bad_reference", "not the configured hub"),
        ("https://huggingface.co/datasets/acme/x", {}, "bad_reference", "datasets"),
    ],
)
async def test_what_the_caller_can_mend_is_400_with_a_code(
    online: Service, repo: str, more: dict[str, str], code: str, says: str
) -> None:
    answer = await online.register(repo, **more)
    assert refusal(answer) == (400, code)
    assert answer.json()["error"].startswith("Validation error: ")
    assert says in answer.json()["error"]
    assert not any(each["registered"] for each in (await online.models()).values())


async def test_a_missing_file_offers_the_others(online: Service) -> None:
    assert (await online.register(TINY, filename="nope.gguf")).json()["candidates"][0] == TINY_FILE


async def test_tokens_open_what_they_may(online: Service, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    refused = await online.register("acme/Gated-GGUF")
    assert refusal(refused) == (400, "gated") and "account of your HF token" in refused.json()["error"]
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsNoToken")
    bad = await online.register("acme/One-GGUF")
    assert refusal(bad) == (400, "bad_token") and "hf_this" not in bad.text
    for damaged in ("hf_pasted…", "hf_\x01"):  # nothing that HTTP could carry
        monkeypatch.setenv("HF_TOKEN", damaged)
        bad = await online.register("acme/One-GGUF")
        assert refusal(bad) == (400, "bad_token") and "HF_TOKEN" in bad.json()["error"]
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert (await online.register("acme/Gated-GGUF")).status_code == 201
    assert (await online.register("acme/Private-GGUF")).status_code == 201


async def test_a_hub_that_is_down_is_502_and_leaves_nothing(online: Service, hub: LoopbackHub) -> None:
    hub.down()
    answer = await online.register("acme/One-GGUF")
    assert refusal(answer) == (502, "hub_unreachable")
    assert answer.json()["error"].startswith("HTTP client error: The hub at http://127.0.0.1:")
    assert not any(each["registered"] for each in (await online.models()).values())
    hub.up()
    assert (await online.register("acme/One-GGUF")).status_code == 201


async def test_passing_failures_are_tried_again_and_others_not(online: Service, hub: LoopbackHub) -> None:
    fault = hub.fault(server="hub", path="*One-GGUF*", status=503, times=2)
    assert (await online.register("acme/One-GGUF")).status_code == 201
    assert len(hub.requests("*One-GGUF*")) == 3, fault
    hub.fault(server="hub", path="*Vision-GGUF*", status=503, times=None)
    assert refusal(await online.register("acme/Vision-GGUF")) == (502, "hub_failed")
    assert len(hub.requests("*Vision-GGUF*")) == 3


async def test_a_rate_limit_is_passed_on_with_its_time(online: Service, hub: LoopbackHub) -> None:
    hub.fault(server="hub", path="*One-GGUF*", status=429, times=None, headers={"Retry-After": "42"})
    answer = await online.register("acme/One-GGUF")
    assert refusal(answer) == (429, "rate_limited")
    assert answer.headers["retry-after"] == "42" and "42 s" in answer.json()["error"]
    assert len(hub.requests("*One-GGUF*")) == 1


async def test_hostile_file_names_are_never_registered(online: Service, hub: LoopbackHub) -> None:
    bad = {
        "../../evil.gguf": b"GGUF",
        "/abs.gguf": b"GGUF",
        "ok.gguf": b"GGUF",
        "a\\b.gguf": b"GGUF",
        "c\x1b[31m.gguf": b"GGUF",
    }
    hub.add(HubRepo("acme/Hostile", bad))
    assert (await online.register("acme/Hostile")).json()["filename"] == "ok.gguf"


async def test_deleting_what_no_node_holds_is_immediate(online: Service) -> None:
    await online.register(TINY)
    assert (await online.admin.delete("/v0/models/acme/tiny-gguf")).status_code == 204
    assert (await online.models())["acme/tiny-gguf"]["status"] == "available"
    again = await online.admin.delete(f"/v0/models/{quote('acme/tiny-gguf', safe='')}")
    assert (again.status_code, again.json()["error"]) == (400, "Validation error: model not found")


async def test_deleting_waits_for_the_nodes_and_survives_a_restart(tmp_path: Path, hub: LoopbackHub) -> None:
    async with open_service(tmp_path, hub.url) as service:
        await service.register(TINY)
        node = FakeNode(service.node)
        await node.register()
        told = {"path": "/m/x.gguf", "paths": ["/m/x.gguf"], "disk_bytes": 7, "verified": True, "unverified": []}
        told["shared_bytes"] = 0
        held = {"name": "acme/tiny-gguf", **told}
        await node.beat(transfers=[], placements=[held])
        ready = (await service.models())["acme/tiny-gguf"]
        assert ready["status"] == "ready"
        assert ready["placements"] == [{"node_id": node.id, "node": "box", **told}]
        assert (await service.admin.delete("/v0/models/acme%2Ftiny-gguf")).status_code == 204
        assert (await service.models())["acme/tiny-gguf"]["status"] == "deleting"
        assert (await service.node.get("/v0/models")).json() == []
        assert (await service.admin.get("/v1/models")).json()["data"] == []
        assert (await service.admin.get("/v0/models/registry/acme%2Ftiny-gguf/manifest.json")).status_code == 404
        assert (await service.admin.delete("/v0/models/acme%2Ftiny-gguf")).status_code == 400
        assert service.router.busy
    async with open_service(tmp_path, hub.url) as service:
        assert (await service.models())["acme/tiny-gguf"]["status"] == "deleting"
        node.client = service.node
        assert (await node.beat(transfers=[], placements=[])).json()["kept"] == []
        assert (await service.models())["acme/tiny-gguf"]["status"] == "available"
        assert not service.router.busy


async def test_what_waits_for_a_person_is_no_reason_to_stay(online: Service) -> None:
    router = online.router
    await online.register(TINY)
    name = "acme/tiny-gguf"
    assert router.busy, "queued, and no node has taken it up"
    node = FakeNode(online.node)
    await node.register()
    failed, full = (
        {"name": name, "phase": "failed", "error": "gone"},
        {"name": name, "phase": "paused", "error": "full"},
    )
    for phase, busy in [({"name": name, "phase": "fetching"}, True), (failed, False), (full, True)]:
        await node.beat(transfers=[phase], placements=[])
        assert router.busy is busy, phase
    assert (await online.admin.post(f"/v0/transfers/{name}/pause")).status_code == 204
    assert not router.busy, "paused by a person"
    assert (await online.admin.post(f"/v0/transfers/{name}/resume")).status_code == 204
    assert router.busy


async def test_registering_again_while_it_is_being_deleted_counts_as_a_new_wish(online: Service) -> None:
    await online.register(TINY)
    node = FakeNode(online.node)
    await node.register()
    await node.beat(transfers=[], placements=[{"name": "acme/tiny-gguf"}])
    await online.admin.delete("/v0/models/acme%2Ftiny-gguf")
    assert (await online.register(TINY)).json()["name"] == "acme/tiny-gguf"
    tiny = (await online.models())["acme/tiny-gguf"]
    assert (tiny["registered"], tiny["attempt"], tiny["status"]) == (True, 2, "ready")
    await node.beat(transfers=[], placements=[])
    assert (await online.models())["acme/tiny-gguf"]["registered"] is True


async def test_usable_models_in_openais_form(online: Service) -> None:
    await online.register(TINY)
    node = FakeNode(online.node)
    await node.register()
    await node.beat(
        transfers=[{"name": "acme/tiny-gguf", "phase": "fetching", "bytes_done": 1, "bytes_total": 2}], placements=[]
    )
    assert (await online.admin.get("/v1/models")).json()["data"] == []
    missing = await online.admin.get("/v1/models/acme%2Ftiny-gguf")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    await node.beat(transfers=[], placements=[{"name": "acme/tiny-gguf"}])
    [item] = (await online.admin.get("/v1/models")).json()["data"]
    assert (item["id"], item["ready"], item["lifecycle_status"], item["owned_by"]) == (
        "acme/tiny-gguf",
        True,
        "registered",
        "router",
    )
    assert item["capabilities"]["chat_completion"] is True and item["capabilities"]["embeddings"] is False
    detail = (await online.admin.get("/v1/models/acme%2Ftiny-gguf")).json()
    assert {**detail, "download_progress": None} == item


async def test_the_dashboards_form_fills_in_what_upstream_leaves_out(online: Service) -> None:
    async def item() -> dict[str, Any]:
        return (await online.admin.get("/v0/models/hub")).json()[0]

    first = await item()
    assert (first["id"], first["name"], first["status"], first["capabilities"]) == (
        "tiny",
        "Tiny",
        "available",
        ["TextGeneration"],
    )
    assert not {"lifecycle_status", "download_progress", "hf_info"} & {*first}
    await online.register(TINY)
    assert (await item())["lifecycle_status"] == "pending"
    node = FakeNode(online.node)
    await node.register()
    at = {"name": "acme/tiny-gguf", "phase": "fetching", "bytes_done": 25, "bytes_total": 100, "bytes_per_s": 5.0}
    await node.beat(transfers=[at], placements=[])
    moving = await item()
    assert (moving["status"], moving["lifecycle_status"]) == ("downloading", "caching")
    assert moving["download_progress"] == {"percent": 0.25, "bytes_downloaded": 25, "bytes_total": 100, "error": None}
    await node.beat(
        transfers=[{**at, "phase": "failed", "error": "disk full", "error_code": "no_space"}], placements=[]
    )
    failed = await item()
    assert (failed["status"], failed["lifecycle_status"], failed["download_progress"]["error"]) == (
        "available",
        "error",
        "disk full",
    )
    await node.beat(transfers=[], placements=[{"name": "acme/tiny-gguf"}])
    ready = await item()
    assert (ready["status"], ready["lifecycle_status"]) == ("downloaded", "registered")


async def test_retrying_counts_and_hides_the_old_failure(online: Service) -> None:
    await online.register(TINY)
    node = FakeNode(online.node)
    await node.register()
    failed = {
        "name": "acme/tiny-gguf",
        "phase": "failed",
        "bytes_done": 5,
        "error": "The disk is full.",
        "error_code": "no_space",
    }
    await node.beat(transfers=[failed], placements=[])
    tiny = (await online.models())["acme/tiny-gguf"]
    assert (tiny["status"], tiny["reason"], tiny["transfers"][0]["error_code"]) == (
        "error",
        "The disk is full.",
        "no_space",
    )
    assert (await online.admin.post("/v0/transfers/acme%2Ftiny-gguf/retry")).status_code == 204
    await node.beat(transfers=[failed], placements=[])  # sent before the node heard of it
    tiny = (await online.models())["acme/tiny-gguf"]
    assert (tiny["attempt"], tiny["status"], tiny["transfers"][0]["phase"]) == (2, "registered", "waiting")
    assert [each["attempt"] for each in (await online.node.get("/v0/models")).json()] == [2]
    await node.beat(transfers=[{**failed, "phase": "fetching", "error": None}], placements=[])
    await node.beat(transfers=[failed], placements=[])
    assert (await online.models())["acme/tiny-gguf"]["status"] == "error"
    gone = await online.admin.post("/v0/transfers/no/such/retry")
    assert refusal(gone) == (404, "not_registered")


async def test_a_retry_that_no_node_takes_up_shows_the_failure_again(online: Service) -> None:
    await online.register(TINY)
    node = FakeNode(online.node)
    await node.register()
    failed = {"name": "acme/tiny-gguf", "phase": "failed", "error": "no"}
    await node.beat(transfers=[failed], placements=[])
    await online.admin.post("/v0/transfers/acme/tiny-gguf/retry")
    assert (await online.models())["acme/tiny-gguf"]["status"] == "registered"
    online.clock.now += 20
    await node.beat(transfers=[failed], placements=[])
    online.router.fleet.tick()
    assert (await online.models())["acme/tiny-gguf"]["status"] == "error"


async def test_warnings_tell_about_memory_and_disk(online: Service) -> None:
    gpu = [{"model": "Card", "count": 1, "memory": 1000}]
    node = FakeNode(online.node, gpu_available=True, gpu_devices=gpu, disk_free_bytes=10, disk_total_bytes=100)
    await node.register()
    warnings = (await online.register(TINY)).json()["warnings"]
    assert warnings[0] == "Model requires 5 kB but the best node has 1 kB"
    assert warnings[1].endswith("but no node has more than 10 B free")


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "Failed to parse the request body as JSON"),
        (b"", "application/json", 400, "Failed to parse the request body as JSON"),
        (b"{}", "application/json", 422, "Failed to deserialize the JSON body into the target type: repo"),
        (b'{"repo": 3}', "application/json", 422, "repo"),
        (b'{"repo": "a/b", "filename": 3}', "application/json", 422, "filename"),
        (b"[]", "application/json", 422, "the target type: Input should be an object"),
        (b'{"repo": "a/b"}', "text/plain", 415, "application/json"),
        (b'{"repo": "' + b"x" * 9_000_000 + b'"}', "application/json", 413, "too large"),
    ],
)
async def test_unreadable_bodies_are_worded_as_upstream_does(
    service: Service, content: bytes, kind: str, status: int, says: str
) -> None:
    answer = await service.admin.post("/v0/models/register", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status and says in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


async def test_unknown_members_of_a_request_are_ignored(online: Service) -> None:
    assert (
        await online.register("acme/One-GGUF", nonsense={"a": 1}, chat_template="{{ x }}", display_name="Mine")
    ).status_code == 201
    assert (await online.models())["acme/one-gguf"]["chat_template"] == "{{ x }}"


async def test_another_file_of_a_supported_repo_may_take_the_bare_name_but_no_other(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    def entry(id: str, file: str, quantization: str) -> CatalogEntry:
        files = (CatalogFile(file),)
        return CatalogEntry(id=id, name=id, description="", repo=TINY, files=files, quantization=quantization)

    catalog = (entry("a", "Tiny-Q8_0.gguf", "Q8_0"), entry("b", "Tiny-Q4_K_M.gguf", "Q4_K_M"))
    async with open_service(tmp_path, hub.url, catalog=catalog) as service:
        assert [*await service.models()] == ["acme/tiny-gguf", "acme/tiny-gguf:q4_k_m"]
        assert (await service.register(TINY, filename="Tiny-Q5_K_M.gguf")).json()["name"] == "acme/tiny-gguf"
        models = await service.models()
        assert {name: each["filename"] for name, each in models.items()} == {
            "acme/tiny-gguf:q8_0": "Tiny-Q8_0.gguf",
            "acme/tiny-gguf:q4_k_m": "Tiny-Q4_K_M.gguf",
            "acme/tiny-gguf": "Tiny-Q5_K_M.gguf",
        }
        assert (await service.register(TINY, filename="Tiny-Q8_0.gguf")).json()["name"] == "acme/tiny-gguf:q8_0"


def _served(hub: LoopbackHub) -> tuple[CatalogEntry, ...]:
    """The built-in catalog, its repos served: a few bytes for each file, and what else such repos hold.

    Without its sizes and checksums, which are the real files'.
    """

    def bare(files: tuple[CatalogFile, ...]) -> tuple[CatalogFile, ...]:
        return tuple(replace(each, size_bytes=None, sha256=None) for each in files)

    catalog = tuple(replace(each, files=bare(each.files), companions=bare(each.companions)) for each in load_catalog())
    contents: dict[str, dict[str, str]] = {}
    commits: dict[str, str] = {}
    for entry in catalog:
        for file in (*entry.files, *entry.companions):
            repo = file.repo or entry.repo
            contents.setdefault(repo, {"README.md": "x", "config.json": "{}", "tokenizer.json": "{}"})[file.path] = (
                file.path
            )
        if entry.revision:
            commits[entry.repo] = entry.revision
    for repo, files in contents.items():
        hub.add(HubRepo(repo, files, commit_id=commits.get(repo)))
    return catalog


async def test_every_supported_model_can_be_registered(tmp_path: Path, hub: LoopbackHub) -> None:
    catalog = _served(hub)
    async with open_service(tmp_path, hub.url, catalog=catalog) as service:
        offered = await service.models()
        assert len(offered) == len(catalog), "names are unique"
        for entry in catalog:
            # As a pull asks for it, with the commit that was listed.
            answer = await service.register(entry.repo, filename=entry.file, revision=entry.revision)
            assert answer.status_code == 201, (entry.id, answer.text)
            name = answer.json()["name"]
            assert offered[name]["id"] == entry.id, "the name that was listed is the name that is given"
            record = service.router.registry.records[name]
            wanted = {(each.repo or entry.repo, each.path) for each in (*entry.files, *entry.companions)}
            extra = {(each.repo, each.path) for each in record.files} - wanted
            assert wanted <= {(each.repo, each.path) for each in record.files}, entry.id
            assert entry.format in ("safetensors", "onnx") or not extra, entry.id
            assert (record.filename, record.format, record.catalog_id) == (entry.file, entry.format, entry.id)
        models = await service.models()
        assert {each["status"] for each in models.values()} == {"registered"} and [*models] == [*offered]
        for name in models:
            assert (
                await service.node.get(f"/v0/models/registry/{quote(name, safe='')}/manifest.json")
            ).status_code == 200


async def test_a_repo_of_several_supported_models_asks_which(tmp_path: Path, hub: LoopbackHub) -> None:
    catalog = _served(hub)
    async with open_service(tmp_path, hub.url, catalog=catalog) as service:
        answer = await service.register("ggerganov/whisper.cpp")
        assert refusal(answer) == (400, "several_files") and answer.json()["candidates"][0] == "ggml-tiny.bin"
        chosen = await service.register("ggerganov/whisper.cpp", filename="ggml-base.bin")
        assert chosen.json()["name"] == "ggerganov/whisper.cpp:ggml-base"
        manifest = (
            await service.node.get("/v0/models/registry/ggerganov%2Fwhisper.cpp%3Aggml-base/manifest.json")
        ).json()
        assert (manifest["format"], manifest["files"][0]["runtimes"]) == ("ggml", ["whisper_cpp"])


def test_the_tests_catalog_is_in_the_standard_hub(hub: LoopbackHub) -> None:
    for entry in CATALOG:
        assert entry.file in hub.repo(entry.repo).main.files, json.dumps([entry.repo, entry.file])


@pytest.mark.parametrize("revision", ["", " ", ".", "..", "../..", "/", "a b", "a//b", "-x", "a?b", "x\x00", "\u202ea"])
async def test_what_can_be_no_revision_is_not_asked_for(service: Service, revision: str) -> None:
    # The hub of this service does not answer: who asks it gets a 502.
    assert refusal(await service.register("acme/One-GGUF", revision=revision)) == (400, "no_such_revision")


async def test_a_supported_model_with_every_checksum_is_registered_while_the_hub_is_away(tmp_path: Path) -> None:
    whole = CatalogEntry(
        id="whole",
        name="Whole",
        description="",
        repo="acme/Whole-GGUF",
        files=(CatalogFile("whole.gguf", 100, "5" * 64),),
        companions=(CatalogFile("mmproj.gguf", 10, "6" * 64, repo="acme/Other-GGUF", revision="d" * 40),),
        revision="c" * 40,
    )
    part = replace(whole, id="part", repo="acme/Part-GGUF", files=(CatalogFile("part.gguf", 100, None),))
    async with open_service(tmp_path, catalog=(whole, part)) as service:
        answer = await service.register("acme/Whole-GGUF")
        assert answer.status_code == 201
        said = answer.json()["warnings"][0]
        assert "cannot be reached" in said and "fetched when the hub answers" in said
        files = service.router.registry.records["acme/whole-gguf"].files
        assert [(each.repo, each.revision, each.path, each.size, each.sha256) for each in files] == [
            ("acme/Whole-GGUF", "c" * 40, "whole.gguf", 100, "5" * 64),
            ("acme/Other-GGUF", "d" * 40, "mmproj.gguf", 10, "6" * 64),
        ]
        assert refusal(await service.register("acme/Part-GGUF")) == (502, "hub_unreachable")
        assert refusal(await service.register("acme/Unknown-GGUF")) == (502, "hub_unreachable")
