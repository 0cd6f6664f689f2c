"""G1 and G2 in their own words: what is joined, what counts as moving, what each credential still shows."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.base import DownloadRequest, RegisterRequest
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.client.upstream import UpstreamClient
from modelhub_tui.domain import HubStats, ModelState, RouterModel
from modelhub_tui.errors import AlreadyRegistered, Forbidden, NotFound, NotSupported
from modelhub_tui.states import derive_state

URL = "http://router:8080"
NAME, REPO, FILE = "acme/tiny-gguf", "Acme/Tiny-GGUF", "tiny-Q4.gguf"
NOW = 1_767_315_920.0


class Router:
    """Lists that a test decides; `status` replaces a path's answer by a refusal."""

    def __init__(self) -> None:
        self.lists: dict[str, Any] = {
            "/v0/models": [{"name": NAME, "repo": REPO, "filename": FILE, "size": 0, "status": "registered"}],
            "/v0/nodes": [{"id": "n1", "machine_name": "gpu-01", "status": "online", "loaded_models": []}],
            "/v0/models/hub": [],
            "/v1/models": {"object": "list", "data": []},
        }
        self.status: dict[str, int] = {}
        self.requests: list[httpx.Request] = []
        self.hub_held: asyncio.Event | None = None
        self.now = NOW

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path == "/v0/models/hub" and self.hub_held is not None:
            await self.hub_held.wait()
        if path in self.status:
            return httpx.Response(self.status[path], text="Admin access required")
        if path in self.lists:
            return httpx.Response(200, json=self.lists[path], headers={"Date": formatdate(self.now, usegmt=True)})
        return httpx.Response(404)

    def node(self, **changes: Any) -> None:
        """What the node says now."""
        self.lists["/v0/nodes"][0].update(changes)

    def syncing(self, done: int, total: int, at: str, state: str = "running") -> None:
        """What the node says about its download."""
        told = {"model_id": NAME, "file": "model.gguf", "downloaded_bytes": done, "total_bytes": total}
        self.node(sync_state=state, sync_progress=told, sync_updated_at=at)


def make(router: Router, key: str | None = "sk_1", token: str | None = None) -> UpstreamClient:
    http = RouterHttp(URL, None, transport=httpx.MockTransport(router))
    return UpstreamClient(http, Credentials(key, token))


@pytest.fixture
def router() -> Router:
    return Router()


async def only(client: UpstreamClient) -> tuple[RouterModel, ModelState]:
    """The one model, and its state."""
    report = await client.report()
    (model,) = report.models
    told = {"placements": model.placements, "transfers": model.transfers}
    return model, derive_state(registered=model.registered, nodes=report.nodes, **told)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "path"),
    [
        (NAME, None),
        (f"/home/u/.llm-router/models/{NAME}/model.gguf", f"/home/u/.llm-router/models/{NAME}/model.gguf"),
        (f"/srv/{NAME}/weights/part-1.gguf", f"/srv/{NAME}/weights/part-1.gguf"),
    ],
)
async def test_a_node_tells_by_name_or_by_path_that_it_has_a_model(router: Router, said: str, path: str | None) -> None:
    router.node(loaded_models=[said])
    model, state = await only(make(router))
    assert state is ModelState.DOWNLOADED
    assert [(each.node, each.node_id, each.path) for each in model.placements] == [("gpu-01", "n1", path)]


async def test_another_model_in_a_path_is_not_this_one(router: Router) -> None:
    router.node(loaded_models=["/models/acme/tiny-gguf-v2/model.gguf", "/models/tiny-gguf/model.gguf"])
    assert (await only(make(router)))[1] is ModelState.QUEUED


async def test_a_copy_on_a_node_that_is_offline_counts(router: Router) -> None:
    router.node(loaded_models=[NAME], status="offline")
    assert (await only(make(router)))[1] is ModelState.DOWNLOADED


@pytest.mark.parametrize(
    ("at", "state", "expected"),
    [
        ("2026-01-02T01:05:10.123456789Z", "running", ModelState.DOWNLOADING),
        ("2026-01-02T01:04:00Z", "running", ModelState.QUEUED),
        ("2026-01-02T01:05:10Z", "success", ModelState.QUEUED),
        ("soon", "running", ModelState.QUEUED),
    ],
)
async def test_progress_counts_only_while_it_runs_and_is_fresh(
    router: Router, at: str, state: str, expected: ModelState
) -> None:
    router.syncing(10, 100, at, state)
    client = make(router)
    assert (await only(client))[1] is expected
    assert (await client.info()).generation == "G2"


async def test_progress_without_a_total_is_no_fraction_and_speed_comes_with_the_second_report(router: Router) -> None:
    client = make(router)
    router.syncing(100, 0, "2026-01-02T01:05:10Z")
    first = (await only(client))[0].transfers[0]
    assert (first.bytes_total, first.fraction, first.bytes_per_s) == (None, None, None)
    router.syncing(300, 700, "2026-01-02T01:05:12Z")
    second = (await only(client))[0].transfers[0]
    assert (second.bytes_per_s, second.eta_s) == (100.0, 4.0)


async def test_the_hub_list_never_delays_and_is_joined_when_it_comes(router: Router) -> None:
    router.hub_held = asyncio.Event()
    router.lists["/v0/models/hub"] = [
        {
            "id": "tiny",
            "name": "Tiny",
            "repo": REPO,
            "status": "available",
            "lifecycle_status": "registered",
            "size_bytes": 1000,
            "hf_info": {"downloads": 5},
        },
        {
            "id": "other",
            "name": "Other",
            "repo": "Acme/Other-GGUF",
            "recommended_filename": "o.gguf",
            "status": "available",
            "capabilities": ["TextGeneration"],
        },
    ]
    client = make(router)
    (alone,) = (await client.report()).models
    assert alone.stats is None
    router.hub_held.set()
    assert client._hub_task is not None
    await client._hub_task
    mine, other = (await client.report()).models
    assert (mine.title, mine.size_bytes, mine.stats) == ("Tiny", 1000, HubStats(5, None))
    assert (other.registered, other.name, other.file) == (False, "acme/other-gguf", "o.gguf")
    assert other.capabilities == ("text_generation",)


async def test_the_same_news_is_the_same_report(router: Router) -> None:
    client = make(router)
    assert await client.report() is await client.report()


async def test_waiting_asks_again_at_its_own_pace_until_something_changes(router: Router) -> None:
    slept: list[float] = []
    time = [0.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        time[0] += seconds
        if len(slept) == 3:
            router.node(loaded_models=[NAME])

    http = RouterHttp(URL, None, transport=httpx.MockTransport(router))
    client = UpstreamClient(http, Credentials("sk_1"), clock=lambda: time[0], sleep=sleep)
    first = await client.report()
    second = await client.report(wait_s=25)
    assert second is not first and second.models[0].placements
    assert slept == [3.0, 3.0, 3.0]


async def test_a_key_for_inference_shows_what_is_served_and_no_providers_models(router: Router) -> None:
    router.status = {"/v0/models": 403, "/v0/nodes": 403}
    router.lists["/v1/models"]["data"] = [
        {"id": NAME, "repo": REPO, "filename": FILE, "owned_by": "router", "ready": True, "size_bytes": 9},
        {"id": "openai:gpt-4o", "owned_by": "openai", "ready": True},
    ]
    client = make(router)
    assert (await only(client))[1] is ModelState.DOWNLOADED
    assert len((await client.report()).notices) == 2


async def test_a_viewers_token_is_forbidden_and_never_asks_v1(router: Router) -> None:
    router.status = {"/v0/models": 403, "/v0/nodes": 403}
    with pytest.raises(Forbidden):
        await make(router, None, "a.b.c").report()
    assert not [each for each in router.requests if each.url.path.startswith("/v1")]


async def test_registering_sends_what_this_generation_knows_and_reads_its_refusals(router: Router) -> None:
    client = make(router)
    answers = iter(
        [
            httpx.Response(201, json={"name": NAME, "size_bytes": 0, "warnings": ["w"]}),
            httpx.Response(400, json={"error": "Validation error: Model already registered"}),
            httpx.Response(400, json={"error": "Invalid model name: Model already registered"}),
        ]
    )
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return next(answers)

    client = UpstreamClient(RouterHttp(URL, None, transport=httpx.MockTransport(answer)), Credentials("sk_1"))
    told = await client.register(RegisterRequest(REPO, FILE, "a-revision", "Tiny"))
    assert (told.name, told.size_bytes, told.warnings) == (NAME, None, ("w",))
    assert httpx.Response(200, content=bodies[0]).json() == {"repo": REPO, "filename": FILE, "display_name": "Tiny"}
    for _ in range(2):
        with pytest.raises(AlreadyRegistered) as known:
            await client.register(RegisterRequest(REPO))
        assert known.value.name == NAME


async def test_deleting_encodes_the_whole_name_and_400_is_not_found() -> None:
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(400, json={"error": "Validation error: model not found"})

    client = UpstreamClient(RouterHttp(URL, None, transport=httpx.MockTransport(answer)), Credentials("sk_1"))
    with pytest.raises(NotFound):
        await client.delete(NAME)
    assert seen == [b"/v0/models/acme%2Ftiny-gguf"]


async def test_nodes_take_no_orders(router: Router) -> None:
    client = make(router)
    with pytest.raises(NotSupported):
        await client.download(DownloadRequest("n1", NAME))
    with pytest.raises(NotSupported):
        await client.delete_on("n1", NAME)
    with pytest.raises(NotSupported):
        await client.retry(NAME)
