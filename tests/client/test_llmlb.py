"""G3 and G4: inventories, download tasks, and orders to one endpoint."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.base import DownloadRequest
from modelhub_tui.client.llmlb import NO_PROGRESS, NOT_SEEN, LlmlbClient
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.domain import Ability, NodeStatus, Phase, RouterModel
from modelhub_tui.errors import Forbidden, NotSupported, Unauthorised

URL = "http://router:32768"
NAME, REPO = "openai/gpt-oss-20b", "openai/gpt-oss-20b"


class Router:
    """Endpoints with inventories and tasks that a test decides."""

    def __init__(self, prefix: str = "/api") -> None:
        self.prefix = prefix
        self.models: list[Any] = [{"name": NAME, "repo": REPO, "size": 1000}]
        self.endpoints: list[Any] = []
        self.held: dict[str, list[Any]] = {}
        self.tasks: dict[str, list[Any]] = {}
        self.status: dict[str, int] = {}
        self.requests: list[httpx.Request] = []

    def add(self, node_id: str, software: str, **more: Any) -> None:
        """An endpoint."""
        told = {"id": node_id, "name": f"{software}-1", "status": "online", "endpoint_type": software}
        self.endpoints.append({**told, "latency_ms": 12, "last_error": None, **more})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path.removeprefix(self.prefix)
        if path in self.status:
            return httpx.Response(self.status[path], text="Admin access required")
        if request.method == "POST":
            return httpx.Response(204 if path.endswith("delete") else 202, json={"task_id": "t9"})
        if path == "/models":
            return httpx.Response(200, json=self.models)
        if path == "/endpoints":
            return httpx.Response(200, json={"endpoints": self.endpoints, "total": len(self.endpoints)})
        parts = path.split("/")
        if path.endswith("/download/progress"):
            return httpx.Response(200, json={"endpoint_id": parts[2], "tasks": self.tasks.get(parts[2], [])})
        if path.startswith("/endpoints/"):
            return httpx.Response(200, json={"endpoint_id": parts[2], "models": self.held.get(parts[2], [])})
        return httpx.Response(404)

    def asked(self, end: str) -> int:
        """How often paths with this end were asked for."""
        return sum(each.url.path.endswith(end) for each in self.requests)


def make(router: Router, generation: str = "G4", credentials: Credentials | None = None, **more: Any) -> LlmlbClient:
    http = RouterHttp(URL, None, transport=httpx.MockTransport(router))
    return LlmlbClient(http, credentials or Credentials("sk_1"), generation, "5.7.1", **more)


async def only(client: LlmlbClient) -> RouterModel:
    """The one model."""
    (model,) = (await client.report()).models
    return model


def task(status: str, percent: float = 0.0, task_id: str = "t1", **more: Any) -> dict[str, Any]:
    """A download task as the router tells it."""
    return {"task_id": task_id, "model": NAME, "status": status, "progress": percent, **more}


async def test_endpoints_become_nodes_with_what_their_software_can() -> None:
    router = Router()
    router.add("e1", "ollama", device_info={"gpu_devices": [{"name": "RTX", "total_memory_bytes": 24}]})
    router.add("e2", "vllm", status="error", last_error="refused")
    router.add("e3", "lm_studio", status="pending")
    first, second, third = (await make(router).report()).nodes
    assert (first.kind, first.software, first.takes_downloads, first.deletes) == ("endpoint", "ollama", True, True)
    assert (first.latency_ms, first.gpu_memory_bytes) == (12.0, 24)
    assert (second.status, second.problem, second.takes_downloads) == (NodeStatus.OFFLINE, "refused", False)
    assert (third.status, third.takes_downloads, third.deletes) == (NodeStatus.PENDING, True, False)


async def test_an_inventory_places_a_model_by_its_canonical_name_and_lists_what_nobody_registered() -> None:
    router = Router()
    router.add("e1", "ollama")
    router.held["e1"] = [{"model_id": "gpt-oss:20b", "canonical_name": NAME}, {"model_id": "mine:7b"}]
    known, other = (await make(router).report()).models
    assert (known.name, [each.node_id for each in known.placements]) == (NAME, ["e1"])
    assert (other.name, other.registered, len(other.placements)) == ("mine:7b", False, 1)


@pytest.mark.parametrize(
    ("software", "told", "phase", "done", "error"),
    [
        ("ollama", task("downloading", 25.0), Phase.FETCHING, 250, None),
        ("ollama", task("failed", error_message="no such model"), Phase.FAILED, 0, "no such model"),
        ("ollama", task("pending"), Phase.WAITING, 0, None),
        ("xllm", task("pending"), Phase.WAITING, 0, NO_PROGRESS),
    ],
)
async def test_tasks_become_transfers(software: str, told: Any, phase: Phase, done: int, error: str | None) -> None:
    router = Router()
    router.add("e1", software)
    router.tasks["e1"] = [told, task("failed", task_id="t0")]  # newest first: the older one is history
    (transfer,) = (await only(make(router))).transfers
    assert (transfer.phase, transfer.bytes_done, transfer.error, transfer.node_id) == (phase, done, error, "e1")


async def test_a_task_that_is_done_waits_for_the_inventory_only_if_it_was_seen_under_way() -> None:
    router = Router()
    router.add("e1", "ollama")
    router.tasks["e1"] = [task("completed", 100.0)]
    client = make(router)
    assert not (await only(client)).transfers  # long ago
    router.tasks["e1"] = [task("downloading", task_id="t2")]
    await only(client)
    router.tasks["e1"] = [task("completed", 100.0, task_id="t2")]
    assert [each.error for each in (await only(client)).transfers] == [NOT_SEEN]
    router.held["e1"] = [{"model_id": "gpt-oss:20b", "canonical_name": NAME}]
    model = await only(client)
    assert model.placements and not model.transfers


async def test_inventories_and_tasks_are_asked_for_at_a_polite_pace() -> None:
    router = Router()
    router.add("e1", "ollama")
    time = [0.0]

    async def sleep(seconds: float) -> None:
        time[0] += seconds

    client = make(router, clock=lambda: time[0], sleep=sleep)
    await client.report()
    await client.report(wait_s=10)
    assert router.asked("/endpoints") >= 4
    assert (router.asked("/e1/models"), router.asked("/progress")) == (1, 1)


async def test_orders_carry_what_the_software_knows() -> None:
    router = Router()
    router.add("e1", "ollama")
    router.add("e2", "lm_studio")
    router.add("e3", "vllm")
    router.held["e1"] = [{"model_id": "gpt-oss:20b", "canonical_name": NAME}]
    client = make(router)
    await client.report()
    await client.download(DownloadRequest("e1", NAME, REPO))
    await client.download(DownloadRequest("e2", NAME, REPO, "Q8_0"))
    await client.delete_on("e1", NAME)
    bodies = [json.loads(each.content) for each in router.requests if each.method == "POST"]
    assert bodies == [
        {"model": NAME},
        {"model": NAME, "hf_repo": REPO, "quantization": "Q8_0"},
        {"model": "gpt-oss:20b"},
    ]
    for refused in (
        client.download(DownloadRequest("e3", NAME)),
        client.download(DownloadRequest("e1", NAME, REPO, "Q8_0")),
        client.delete_on("e2", NAME),
        client.approve("e1"),
    ):
        with pytest.raises(NotSupported):
            await refused


async def test_g3_has_the_same_objects_below_v0_and_downloads_on_xllm_alone() -> None:
    router = Router("/v0")
    router.add("e1", "ollama")
    client = make(router, "G3")
    assert not (await client.report()).nodes[0].takes_downloads
    assert (await client.info()).abilities == {Ability.REGISTER, Ability.DELETE}
    router.add("e2", "xllm")
    await client.report()
    assert Ability.PULL_ON_NODE in (await client.info()).abilities
    with pytest.raises(NotSupported):
        await client.delete_on("e2", NAME)


async def test_a_viewer_sees_endpoints_and_is_told_what_is_missing() -> None:
    router = Router()
    router.add("e1", "ollama")
    router.held["e1"] = [{"model_id": "mine:7b"}]
    router.status = {"/models": 403}
    report = await make(router, credentials=Credentials(None, "a.b.c")).report()
    assert [each.name for each in report.models] == ["mine:7b"] and report.notices
    router.status = {"/models": 403, "/endpoints": 403}
    with pytest.raises(Forbidden):
        await make(router, credentials=Credentials(None, "a.b.c")).report()


async def test_one_broken_endpoint_hides_no_other_and_an_ended_login_is_said() -> None:
    router = Router()
    router.add("e1", "ollama")
    router.add("e2", "ollama")
    router.held["e2"] = [{"model_id": NAME}]
    router.status = {"/endpoints/e1/models": 500}
    assert [each.node_id for each in (await only(make(router))).placements] == ["e2"]
    router.status = {"/endpoints/e1/models": 401}
    with pytest.raises(Unauthorised):
        await make(router).report()
