"""The fakes against the text that describes the real routers: nodes, heartbeats, endpoints, downloads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.routers import FakeG2, FakeG3, FakeG4, HuggingFace, Repo
from tests.routers.asking import PHI, PHI_FILE, Asking
from tests.routers.base import LoopbackServer, Request, Response, reply
from tests.routers.endpoints import Backend
from tests.routers.nodes import GPU

# -- nodes


BODY = {
    "machine_name": "gpu-01",
    "ip_address": "127.0.0.1",
    "runtime_version": "1.0.0",
    "gpu_available": True,
    "gpu_devices": [GPU],
}


@pytest.fixture
def node_port() -> Iterator[int]:
    """A node's API, on the port above the one it reports."""

    class NodeApi(LoopbackServer):
        def respond(self, request: Request) -> Response:
            return reply(
                {"object": "list", "data": [{"id": "here/already", "object": "model"}], "ready_models": [0, 1]}
            )

    with NodeApi() as api:
        yield api.port - 1


def test_a_node_registers_is_approved_and_comes_online(nodes: Asking, node_port: int) -> None:
    key, body = nodes.router.node_key, BODY | {"runtime_port": node_port}
    first = nodes("POST", "/v0/nodes", key, json=body)
    told = first.json()
    assert (first.status_code, told["status"], told["node_api_port"]) == (201, "registered", node_port + 1)
    path = f"/v0/nodes/{told['node_id']}"
    node = nodes("GET", "/v0/nodes").json()[0]
    assert (node["status"], node["loaded_models"], node["ready_models"]) == ("pending", ["here/already"], [0, 1])
    assert "online_since" not in node and "sync_state" not in node

    def beat(token: str = told["node_token"], **more: Any) -> httpx.Response:
        said = {"node_id": told["node_id"], "cpu_usage": 1.0, "memory_usage": 2.0, "active_requests": 0, **more}
        return nodes("POST", "/v0/health", key, json=said, headers={"X-Node-Token": token} if token else {})

    assert (beat().status_code, beat().json()) == (200, None)
    assert nodes("GET", "/v0/nodes").json()[0]["status"] == "pending"
    assert nodes("POST", f"{path}/approve").json()["status"] == "registering"
    again = nodes("POST", f"{path}/approve")
    assert (again.status_code, again.json()) == (400, {"error": "Request error"})
    beat(ready_models=[1, 1])
    assert nodes("GET", "/v0/nodes").json()[0]["status"] == "online"
    assert (beat("").text, beat("nt_wrong").text) == ("Missing X-Node-Token header", "Invalid node token")
    assert beat(node_id=str(uuid.uuid4())).json() == {"error": "Node not found"}
    assert beat(cpu_usage=None).status_code == 422
    second = nodes("POST", "/v0/nodes", key, json=body)
    assert (second.status_code, second.json()["status"]) == (200, "updated")
    assert beat().status_code == 401  # the old token died
    assert nodes("GET", "/v0/nodes").json()[0]["status"] == "pending"
    assert nodes("DELETE", path).status_code == 204
    assert nodes("DELETE", path).json() == {"error": "Node not found"}
    assert nodes("DELETE", "/v0/nodes/not-a-uuid").status_code == 400


def test_a_node_without_a_card_a_number_or_an_open_port_is_refused(nodes: Asking, node_port: int) -> None:
    def join(**more: Any) -> httpx.Response:
        return nodes("POST", "/v0/nodes", nodes.router.node_key, json=BODY | {"runtime_port": node_port} | more)

    assert [join(gpu_available=False).status_code, join(gpu_devices=[]).status_code] == [403, 403]
    assert join(ip_address="localhost").status_code == 422
    assert join(supported_runtimes=["abacus"]).status_code == 422
    closed = join(runtime_port=1)
    assert (closed.status_code, closed.json()) == (500, {"error": "Internal server error"})
    assert nodes("GET", "/v0/nodes").json() == []


def test_a_silent_node_goes_offline_and_comes_back_in_two_heartbeats(nodes: Asking) -> None:
    router = nodes.router
    node = router.add_node("gpu-01", status="pending")
    status = lambda: nodes("GET", "/v0/nodes").json()[0]["status"]  # noqa: E731
    router.clock.advance(60)
    assert status() == "pending"
    router.clock.advance(30)
    assert status() == "offline"
    router.heartbeat(node)
    assert status() == "registering"
    router.heartbeat(node)
    assert status() == "online"  # never approved


def test_heartbeats_cannot_empty_the_list_and_only_g2_tells_of_syncing(nodes: Asking) -> None:
    router = nodes.router
    node = router.add_node(loaded=["a/b"])
    router.heartbeat(node, loaded_models=[])
    router.progress(node, "a/c", 10, 100)
    told = nodes("GET", "/v0/nodes").json()[0]
    assert told["loaded_models"] == ["a/b"]
    if router.generation == "G1":
        assert not {"sync_state", "sync_progress", "sync_updated_at"} & told.keys()
        return
    assert told["sync_progress"]["downloaded_bytes"] == 10 and told["sync_state"] == "running"
    since = told["sync_updated_at"]
    router.clock.advance(5)
    router.heartbeat(node)
    assert nodes("GET", "/v0/nodes").json()[0]["sync_updated_at"] == since
    router.heartbeat(node, sync_state="success")
    told = nodes("GET", "/v0/nodes").json()[0]
    assert told["sync_state"] == "success" and "sync_progress" not in told and told["sync_updated_at"] != since
    router.restart()
    assert "sync_state" not in nodes("GET", "/v0/nodes").json()[0]


def test_the_dashboard_counts_nodes(nodes: Asking) -> None:
    nodes.router.add_node("a")
    nodes.router.add_node("b", status="pending")
    told = nodes("GET", "/v0/dashboard/overview").json()
    assert (told["stats"]["total_nodes"], told["stats"]["pending_nodes"], len(told["history"])) == (2, 1, 60)
    node = nodes("GET", "/v0/dashboard/nodes").json()[0]
    assert node["metrics_stale"] and node["cpu_usage"] is None and "tags" not in node


# -- endpoints


def test_endpoints_are_created_checked_and_listed_newest_first(endpoints: Asking) -> None:
    router, base = endpoints.router, f"{endpoints.router.prefix}/endpoints"
    router.add_node("old", "vllm", loaded=["a/b"])
    router.clock.advance(1)
    router.world["http://10.0.0.1:1"] = Backend("http://10.0.0.1:1", "ollama", ["gpt-oss:20b"])
    router.world["http://10.0.0.2:1"] = Backend("http://10.0.0.2:1", None)
    made = endpoints("POST", base, json={"name": "new", "base_url": "http://10.0.0.1:1/"})
    assert (made.status_code, made.json()["status"], made.json()["endpoint_type"]) == (201, "pending", "ollama")
    tries = [
        ({"name": "new", "base_url": "http://x"}, 400),
        ({"name": "b", "base_url": "http://10.0.0.1:1"}, 409),
        ({"name": "b", "base_url": "http://10.0.0.9:1"}, 502),
        ({"name": "b", "base_url": "http://10.0.0.2:1"}, 400),
        ({"name": "b"}, 422),
    ]
    assert [endpoints("POST", base, json=body).status_code for body, _ in tries] == [status for _, status in tries]
    listed = endpoints("GET", base).json()
    assert listed["total"] == 2 and [each["name"] for each in listed["endpoints"]] == ["new", "old"]
    assert endpoints("GET", f"{base}?type=vllm").json()["total"] == 1
    one = f"{base}/{made.json()['id']}"
    late = endpoints("GET", one).json()["status"]
    assert late == ("pending" if router.generation == "G3" else "online")  # G3 waits for a restart, or a test
    assert endpoints("POST", f"{one}/test").json()["success"]
    inventory = endpoints("GET", f"{one}/models").json()["models"]
    assert [each["model_id"] for each in inventory] == ["gpt-oss:20b"]
    assert inventory[0].get("canonical_name") == ("openai/gpt-oss-20b" if router.generation == "G4" else None)
    unknown = endpoints("GET", f"{base}/{uuid.uuid4()}")
    assert unknown.status_code == 404 and unknown.json()["error"] == "Endpoint not found"
    assert unknown.json().get("code") == ("NOT_FOUND" if router.generation == "G3" else None)
    assert endpoints("DELETE", one).status_code == 204


def test_one_failed_check_is_an_error_and_two_are_offline(endpoints: Asking) -> None:
    router = endpoints.router
    endpoint = router.add_node("x", "vllm", loaded=["a/b"])
    router.backend(endpoint).reachable = False
    seen = []
    for _ in range(2):
        router.clock.advance(30)
        seen.append(endpoints("GET", f"{router.prefix}/endpoints").json()["endpoints"][0]["status"])
    assert seen == ["error", "offline"]
    stale = router.generation == "G3"
    assert len(endpoints("GET", "/v1/models").json()["data"]) == stale  # its other registry has not noticed


def test_g3_takes_downloads_for_xllm_only_and_never_begins() -> None:
    with FakeG3() as router:
        ask = Asking(router)
        xllm, ollama = router.add_node("x", "xllm"), router.add_node("o", "ollama")
        refused = ask("POST", f"/v0/endpoints/{ollama.id}/download", json={"model": "a/b"})
        assert (refused.status_code, refused.json()["code"]) == (400, "DOWNLOAD_NOT_SUPPORTED")
        path = f"/v0/endpoints/{xllm.id}/download"
        told = ask("POST", path, json={"model": "a/b"})
        assert (told.status_code, told.json()["status"]) == (202, "pending")
        router.clock.advance(3600)
        tasks = ask("GET", f"{path}/progress").json()["tasks"]
        assert [(each["status"], each["progress"]) for each in tasks] == [("pending", 0.0)]


def test_g4_downloads_differ_by_software(g4: Asking) -> None:
    router = g4.router
    ends = {kind: router.add_node(kind, kind) for kind in ("ollama", "lm_studio", "xllm", "vllm", "llamacpp")}

    def order(kind: str, **more: Any) -> httpx.Response:
        return g4("POST", f"/api/endpoints/{ends[kind].id}/download", json={"model": "openai/gpt-oss-20b", **more})

    def seen(kind: str) -> list[tuple[str, float]]:
        told = g4("GET", f"/api/endpoints/{ends[kind].id}/download/progress").json()
        return [(each["status"], each["progress"]) for each in told["tasks"]]

    assert [order(kind).status_code for kind in ends] == [202, 202, 202, 400, 400]
    assert order("vllm").json() == {"error": "Model download is not supported for vllm endpoints"}
    assert (seen("ollama"), seen("lm_studio"), seen("xllm")) == (
        [("downloading", 0.0)],
        [("completed", 100.0)],
        [("pending", 0.0)],
    )
    for kind in ("ollama", "xllm"):
        router.run_task(router.tasks_of(ends[kind])[0])
    assert (seen("ollama"), seen("xllm")) == ([("completed", 100.0)], [("pending", 0.0)])
    models = f"/api/endpoints/{ends['ollama'].id}/models"
    assert g4("GET", models).json()["models"] == []  # until the next sync
    assert g4("POST", f"/api/endpoints/{ends['ollama'].id}/sync").json()["added"] == 1
    merged = g4("GET", "/v1/models").json()["data"]
    assert [(each["id"], each["canonical_name"], each["aliases"]) for each in merged] == [
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b", ["gpt-oss:20b"])
    ]
    gone = g4("POST", f"{models}/delete", json={"model": "gpt-oss:20b"})
    assert (gone.status_code, len(g4("GET", models).json()["models"])) == (204, 1)
    router.sync(ends["ollama"])
    assert g4("GET", models).json()["models"] == []
    assert g4("POST", f"{models}/delete", json={"model": "gpt-oss:20b"}).status_code == 400
    order("ollama")
    router.run_task(router.tasks_of(ends["ollama"])[0], error="pull failed")
    failed = g4("GET", f"/api/endpoints/{ends['ollama'].id}/download/progress").json()["tasks"][0]
    assert (failed["status"], failed["error_message"]) == ("failed", "pull failed")


def test_g4s_catalogue_answers_searches_or_fails_on_real_records(g4: Asking) -> None:
    token = g4.router.jwt(g4.router.viewer)
    found = g4("GET", "/api/catalog/search?q=phi", token).json()["models"]
    assert [each["repo_id"] for each in found] == [PHI]
    assert g4("GET", f"/api/catalog/{PHI}", token).json()["siblings"][0] == {"rfilename": PHI_FILE}
    assert g4("GET", f"/api/catalog/{quote(PHI, safe='')}", token).status_code == 200
    g4.router.add_node("o", "ollama", loaded=["gpt-oss:20b"])
    near = g4("GET", "/api/catalog/recommend-endpoints/openai/gpt-oss-20b", token).json()["endpoints"]
    assert [(each["can_download"], each["has_model"]) for each in near] == [(True, True)]
    assert g4("GET", "/api/catalog/search", token).status_code == 400
    with FakeG4(real_hf=True) as real:
        answer = Asking(real)("GET", "/api/catalog/search?q=phi", real.jwt())
        assert (answer.status_code, answer.json()) == (500, {"error": "Internal server error"})


def test_offline_endpoints_show_only_in_g4s_dashboard(g4: Asking) -> None:
    g4.router.add_node("o", "vllm", loaded=["a/b"], status="offline")
    assert g4("GET", "/v1/models").json()["data"] == []
    shown = g4("GET", "/api/dashboard/models", g4.router.jwt()).json()["data"]
    assert [(each["id"], each["ready"]) for each in shown] == [("a/b", False)]


def test_a_fake_comes_back_on_its_port_with_its_state() -> None:
    with FakeG2(huggingface=HuggingFace([Repo("own/repo", {"x.gguf": 1})])) as router:
        ask = Asking(router)
        assert ask.register("own/repo").status_code == 201
        router.down()
        with pytest.raises(httpx.TransportError):
            ask.models("GET")
        router.up()
        assert len(ask.models("GET").json()) == 1
        assert [each.status for each in router.asked("GET", "/v0/models")] == [200]
