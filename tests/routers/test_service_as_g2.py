"""Our service seen by a client and a node written from the description of the second generation; our node on a G2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from modelhub_tui.domain import CatalogEntry, CatalogFile
from tests.hub import LoopbackHub
from tests.node.harness import NodeThread
from tests.routers import FakeG2, HuggingFace, Repo
from tests.routers.own import OwnService, PlainNode

NAME, REPO, FILE = "acme/tiny-gguf", "acme/Tiny-GGUF", "Tiny-Q4_K_M.gguf"
PATH = quote(NAME, safe="")
ENTRY = CatalogEntry(
    id="tiny",
    name="Tiny",
    description="A tiny model.",
    repo=REPO,
    files=(CatalogFile(FILE, 56288),),
    required_memory_bytes=5000,
    quantization="Q4_K_M",
    parameters="1M",
    tags=("chat",),
    capabilities=("text_generation",),
)


@pytest.fixture
def service(tmp_path: Path, hub: LoopbackHub) -> Iterator[OwnService]:
    with OwnService(tmp_path, hub.url, [ENTRY]) as running:
        yield running


@pytest.fixture
def dashboard(service: OwnService) -> Iterator[httpx.Client]:
    """A dashboard with an admin key."""
    with _client(service.url, service.admin_key) as client:
        yield client


def _client(url: str, key: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60)


def _hub_item(dashboard: httpx.Client) -> dict[str, Any]:
    return next(each for each in dashboard.get("/v0/models/hub").json() if each["repo"] == REPO)


def _register(dashboard: httpx.Client) -> httpx.Response:
    body = {"repo": REPO, "filename": FILE, "display_name": None, "chat_template": None}
    return dashboard.post("/v0/models/register", json=body)


def test_the_probes_tell_a_node_router(service: OwnService) -> None:
    with _client(service.url, None) as bare:
        for path in ("/api/auth/me", "/api/version", "/api/system", "/v0/auth/me", "/dashboard"):
            answer = bare.get(path)
            assert (answer.status_code, answer.content) == (404, b""), path
        for path in ("/v0/nodes", "/v0/models", "/v0/models/hub", "/v1/models"):
            answer = bare.get(path)
            assert answer.status_code == 401 and answer.headers["content-type"].startswith("text/plain"), path
            assert answer.text == "Missing X-API-Key header or Authorization header"
        login = bare.post("/v0/auth/login", json={"username": "admin", "password": "x"})
        assert (login.status_code, login.content) == (404, b"")  # not 401: no password is wrong, nobody logs in here


def test_either_header_carries_a_key_and_x_api_key_wins(service: OwnService) -> None:
    with _client(service.url, None) as bare:
        bearer = {"Authorization": f"Bearer {service.admin_key}"}
        assert bare.get("/v0/models", headers=bearer).status_code == 200
        assert bare.get("/v0/models", headers={"X-API-Key": service.admin_key}).status_code == 200
        wrong = bare.get("/v0/models", headers={**bearer, "X-API-Key": "sk_wrong"})
        assert (wrong.status_code, wrong.text) == (401, "Invalid API key")
        scheme = bare.get("/v0/models", headers={"Authorization": "Basic eDp5"})
        assert scheme.text == "Invalid Authorization header format. Expected 'Bearer <token>'"
        node = {"Authorization": f"Bearer {service.node_key}"}
        statuses = {
            path: bare.get(path, headers=node).status_code
            for path in ("/v0/models", "/v0/models/hub", "/v0/nodes", "/v1/models")
        }
        assert statuses == {"/v0/models": 200, "/v0/models/hub": 200, "/v0/nodes": 403, "/v1/models": 403}
        jwt = {"Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"}
        assert bare.get("/v0/models", headers=jwt).status_code == 401


def test_registering_and_deleting_answer_as_upstream(dashboard: httpx.Client) -> None:
    made = _register(dashboard)
    assert made.status_code == 201
    told = made.json()
    assert {key: told[key] for key in ("name", "status", "filename")} == {
        "name": NAME,
        "status": "registered",
        "filename": FILE,
    }
    assert all(type(told[key]) is int for key in ("size_bytes", "required_memory_bytes"))
    assert isinstance(told["warnings"], list)
    again = _register(dashboard)
    assert again.status_code == 400 and again.json()["error"].startswith("Validation error: ")
    for body, status in (({}, 422), ({"repo": 5}, 422), ({"repo": "no/such"}, 400), ({"repo": " "}, 400)):
        assert dashboard.post("/v0/models/register", json=body).status_code == status
    assert dashboard.post("/v0/models/register", content=b"{", headers=_JSON).status_code == 400
    assert dashboard.post("/v0/models/register", content=b"{}").status_code == 415
    gone = dashboard.delete(f"/v0/models/{PATH}")
    assert (gone.status_code, gone.content) == (204, b"")
    unknown = dashboard.delete("/v0/models/no%2Fsuch")
    assert (unknown.status_code, unknown.json()["error"]) == (400, "Validation error: model not found")
    assert _register(dashboard).status_code == 201
    assert dashboard.delete(f"/v0/models/{NAME}").status_code == 204  # a raw slash


_JSON = {"Content-Type": "application/json"}


def test_list_items_have_upstreams_members_and_types(dashboard: httpx.Client) -> None:
    _register(dashboard)
    item = next(each for each in dashboard.get("/v0/models").json() if each["name"] == NAME)
    assert all(isinstance(item[key], str) for key in ("name", "description", "source", "repo", "filename", "status"))
    assert all(type(item[key]) is int for key in ("size", "required_memory"))
    assert (item["source"], item["status"]) == ("hf_gguf", "registered")
    assert item["capabilities"] == ["text_generation"] and item["tags"] == ["chat"]
    hub = _hub_item(dashboard)
    assert (hub["id"], hub["name"], hub["repo"], hub["recommended_filename"]) == ("tiny", "Tiny", REPO, FILE)
    assert all(type(hub[key]) is int for key in ("size_bytes", "required_memory_bytes"))
    assert (hub["capabilities"], hub["quantization"], hub["parameter_count"]) == (["TextGeneration"], "Q4_K_M", "1M")
    # Absent where unknown, never null.
    assert not [key for key in ("lifecycle_status", "download_progress", "hf_info") if hub.get(key, 0) is None]


def test_the_manifest_is_what_a_stock_node_reads(
    service: OwnService, dashboard: httpx.Client, hub: LoopbackHub
) -> None:
    path = f"/v0/models/registry/{PATH}/manifest.json"
    assert dashboard.get(path).status_code == 404
    _register(dashboard)
    with _client(service.url, service.node_key) as node:
        (file,) = node.get(path).json()["files"]
    assert (file["name"], file["runtimes"]) == ("model.gguf", ["llama_cpp"])
    with _client(hub.url, None) as anyone:
        got = anyone.get(file["url"], follow_redirects=True)
    assert got.content == hub.repo(REPO)[FILE].read()


def test_a_stock_node_joins_syncs_and_reports(service: OwnService, dashboard: httpx.Client) -> None:
    _register(dashboard)
    assert _hub_item(dashboard)["status"] == "available" and dashboard.get("/v1/models").json()["data"] == []
    node = PlainNode(service.url, service.node_key)
    joined = node.register()
    assert joined.status_code == 201
    told = joined.json()
    assert (told["status"], told["node_api_port"], told["node_token"][:3]) == ("registered", 11435, "nt_")
    assert [each["name"] for each in node.http.get("/v0/models").json()] == [NAME]

    answer = node.progress(NAME, 250, 1000)
    assert (answer.status_code, answer.json()) == (200, None)
    (seen,) = dashboard.get("/v0/nodes").json()
    assert (seen["id"], seen["machine_name"], seen["status"]) == (node.id, "gpu-01", "online")
    assert (seen["sync_state"], seen["sync_progress"]["downloaded_bytes"]) == ("running", 250)
    assert seen["sync_updated_at"] and seen["gpu_devices"][0]["memory"] > 0
    item = _hub_item(dashboard)
    assert (item["status"], item["lifecycle_status"]) == ("downloading", "caching")
    assert (item["download_progress"]["percent"], item["download_progress"]["bytes_total"]) == (0.25, 1000)

    path = f"/home/u/.llm-router/models/{NAME}/model.gguf"  # a stock node names files, not models
    node.beat(sync_state="success", loaded_models=[path])
    assert _hub_item(dashboard)["status"] == "downloaded"
    (seen,) = dashboard.get("/v0/nodes").json()
    assert (seen["loaded_models"], seen["sync_state"]) == ([path], "success") and "sync_progress" not in seen
    (ready,) = dashboard.get("/v1/models").json()["data"]
    shown = {key: ready[key] for key in ("id", "object", "owned_by", "ready", "lifecycle_status", "download_progress")}
    assert shown == {
        "id": NAME,
        "object": "model",
        "owned_by": "router",
        "ready": True,
        "lifecycle_status": "registered",
        "download_progress": None,
    }
    one = dashboard.get(f"/v1/models/{PATH}").json()
    assert one["id"] == NAME and "download_progress" not in one
    missing = dashboard.get("/v1/models/no%2Fsuch")
    error = missing.json()["error"]
    assert (missing.status_code, error["type"], error["param"], error["code"]) == (
        404,
        "invalid_request_error",
        "model",
        "model_not_found",
    )


def test_a_nodes_token_is_checked_and_replaced(service: OwnService, dashboard: httpx.Client) -> None:
    node = PlainNode(service.url, service.node_key)
    node.register()
    first, node.token = node.token, "nt_wrong"
    assert (node.beat().status_code, node.beat().text) == (401, "Invalid node token")
    again = node.register()
    assert (again.status_code, again.json()["status"]) == (200, "updated")
    node.token, fresh = first, node.token
    assert node.beat().status_code == 401
    node.token = fresh
    assert node.beat(ready_models=[0, 1]).status_code == 200
    assert dashboard.get("/v0/nodes").json()[0]["status"] == "registering"
    assert node.http.post("/v0/health", json={"node_id": node.id}).text == "Missing X-Node-Token header"
    approved = dashboard.post(f"/v0/nodes/{node.id}/approve")
    assert (approved.status_code, approved.json()["error"]) == (400, "Request error")
    assert dashboard.delete(f"/v0/nodes/{node.id}").status_code == 204
    assert dashboard.delete(f"/v0/nodes/{node.id}").json() == {"error": "Node not found"}


# -- our node on a real router's second generation


def _until(check: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Look again and again: the node works on threads of its own."""
    ends = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


class _Handle:
    """What `NodeThread` wants to know of a router."""

    def __init__(self, url: str) -> None:
        self.url = url


def test_our_node_joins_an_upstream_router_syncs_and_reports(
    tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = hub.repo(REPO)[FILE].size
    listing = HuggingFace([Repo(REPO, {FILE: size})], url=hub.url)
    card = {"gpu_available": True, "gpu_devices": [dict(GPU)], "gpu_count": 1, "gpu_model": GPU["model"]}
    monkeypatch.setattr("modelhub_tui.service.node.hardware.Hardware.describe", lambda self: {**card, "ram_bytes": 1})
    with FakeG2(huggingface=listing) as router, _client(router.url, router.admin_key) as admin:
        monkeypatch.setattr("tests.node.harness.KEY", router.node_key)
        assert admin.post("/v0/models/register", json={"repo": REPO, "filename": FILE}).status_code == 201
        with NodeThread(_Handle(router.url), hub, tmp_path):  # type: ignore[arg-type]
            _until(lambda: any(each.sync_state == "success" for each in router.nodes.values()), "no sync was reported")
            (node,) = router.nodes.values()
            statuses = [each.status for each in router.asked("POST", "/v0/nodes")]
            assert statuses == [500, 201]  # the connection check failed until somebody listened
            assert node.status == "pending"
            approved = admin.post(f"/v0/nodes/{node.id}/approve")
            assert approved.json()["status"] == "online"
            _until(lambda: NAME in node.loaded_models, "the model was not reported")
            seen = admin.get("/v0/models/hub").json()
            assert len(seen) == 5  # a model from elsewhere is not in the hub ...
            ready = admin.get("/v1/models").json()["data"]
            assert [(each["id"], each["ready"]) for each in ready] == [(NAME, True)]  # ... but it is ready
        (whole,) = (each for each in tmp_path.rglob(FILE) if each.is_file())
        assert whole.read_bytes() == hub.repo(REPO)[FILE].read()
        beats = router.asked("POST", "/v0/health")
        assert {each.status for each in beats} == {200}
        reported = [each.json["sync_progress"] for each in beats if each.json.get("sync_progress")]
        assert all(set(each) == {"model_id", "file", "downloaded_bytes", "total_bytes"} for each in reported)


GPU = {"model": "NVIDIA RTX 4090", "count": 1, "memory": 25757220864}
