"""The /v0 client against docs/wire.md: what it sends, what it makes of every answer, and what it survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.client.transport import BODY_LIMIT
from modelhub_tui.client.v0 import V0Client
from modelhub_tui.domain import Gpu, HubStats, NodeStatus, Phase, Placement, Transfer
from modelhub_tui.errors import (
    AlreadyRegistered,
    BadSettings,
    Forbidden,
    ModelHubError,
    NotARouter,
    NotFound,
    NotSupported,
    RateLimited,
    Rejected,
    RouterFault,
    Unauthorised,
    Unreachable,
    explain,
)
from modelhub_tui.identifiers import safe_repo_path
from tests.client.payloads import HEALTH, MODEL, NODE, REGISTERED

URL = "http://127.0.0.1:4242"
Handler = Callable[[httpx.Request], httpx.Response]


class Router:
    """A router of fixed lists with entity tags; `answers` replaces the answer to one path."""

    def __init__(self) -> None:
        self.models: list[Any] = [MODEL]
        self.nodes: list[Any] = [NODE]
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, httpx.Response | Exception] = {}
        self.tagged = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.raw_path.decode()
        if path in self.answers:
            answer = self.answers[path]
            if isinstance(answer, Exception):
                raise answer
            return answer
        if path == "/health":
            return httpx.Response(200, json=HEALTH)
        if path in ("/v0/models", "/v0/nodes"):
            body = json.dumps(self.models if path == "/v0/models" else self.nodes).encode()
            tag = f'"{hash(body)}"'
            if self.tagged and request.headers.get("If-None-Match") == tag:
                return httpx.Response(304, headers={"ETag": tag})
            return httpx.Response(200, content=body, headers={"ETag": tag} if self.tagged else {})
        return httpx.Response(404)


def make(router: Handler, key: str | None = "sk_test") -> V0Client:
    return V0Client(URL, key, transport=httpx.MockTransport(router), label="this machine")


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
async def client(router: Router) -> AsyncIterator[V0Client]:
    client = make(router)
    yield client
    await client.aclose()


async def test_info_names_our_service(client: V0Client) -> None:
    info = await client.info()
    assert (info.label, info.version, info.generation, info.supplies_stats) == ("this machine", "0.1.0", "local", True)
    assert info.url == URL


async def test_a_report_holds_all_that_the_wire_says(client: V0Client) -> None:
    report = await client.report()
    (model,) = report.models
    assert model.name == "bartowski/qwen2.5-7b-instruct-gguf"
    assert model.file == "Qwen2.5-7B-Instruct-Q4_K_M.gguf"
    assert (model.size_bytes, model.required_memory_bytes, model.context_length) == (4683074240, 7024611360, 32768)
    assert (model.title, model.revision, model.license, model.format) == (
        "Qwen2.5 7B Instruct",
        "8911e8a4",
        "apache-2.0",
        "gguf",
    )
    assert model.registered and not model.deleting and not model.gated
    assert model.transfers == (
        Transfer(
            "gpu-01",
            Phase.FETCHING,
            1780000000,
            4683074240,
            112000000.0,
            26.0,
            "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
            1,
            1,
            1,
            6,
            node_id="3f2c",
        ),
    )
    path = "/m/snapshots/8911/Qwen.gguf"
    assert model.placements == (Placement("gpu-01", path, (path,), 4683074240, "3f2c"),)
    assert model.stats == HubStats(125000, 450)
    (node,) = report.nodes
    assert (node.id, node.name, node.status, node.version) == ("3f2c", "gpu-01", NodeStatus.ONLINE, "1.0.0")
    assert node.gpus == (Gpu("NVIDIA RTX 4090", 25757220864, 2),)
    assert node.last_seen == 1767315910.5
    assert (node.ram_bytes, node.disk_free_bytes, node.models_dir) == (64_000_000_000, 1_000_000_000, "/m")


async def test_one_scheme_one_origin_no_cookies(client: V0Client, router: Router) -> None:
    router.answers["/v0/nodes"] = httpx.Response(200, json=[], headers={"Set-Cookie": "llmlb_jwt=x; Path=/"})
    await client.report()
    await client.report()
    for request in router.requests:
        assert request.headers["Authorization"] == "Bearer sk_test"
        assert "X-API-Key" not in request.headers and "Cookie" not in request.headers
        assert request.url.host == "127.0.0.1" and request.url.port == 4242


async def test_an_unchanged_list_gives_the_same_report(client: V0Client, router: Router) -> None:
    first = await client.report()
    assert await client.report() is first
    assert router.requests[-1].headers["If-None-Match"]
    router.tagged = False
    client._models._etag = client._nodes._etag = ""
    assert await client.report() is first  # no tags, equal bytes
    router.models = [{**MODEL, "an_unknown_member": 1}]
    router.nodes = [*router.nodes]
    again = await client.report()
    assert again.nodes is first.nodes
    router.models = [{**MODEL, "size": 5}, {**MODEL, "name": "b/b", "repo": "b/b"}]
    second = await client.report()
    assert second is not again
    router.models = [router.models[1], {**MODEL, "size": 6}]
    third = await client.report()
    assert third.models[0] is second.models[1]  # moved, but not changed


async def test_a_list_with_a_record_on_each_line_is_read_the_same(router: Router) -> None:
    records = [{**MODEL, "name": f"a/b{number}", "description": "one,\ntwo"} for number in range(5)]
    plain = json.dumps(records).encode()
    lined = b"[" + b",\n".join(json.dumps(each).encode() for each in records) + b"]"
    assert json.loads(lined) == records
    reports = []
    nested = plain.replace(b'"tags": ["chat"]', b'"tags": ["chat"], "x": [{},\n{}]')
    for body in (plain, lined, json.dumps(records, indent=1).encode(), nested):
        router.answers["/v0/models"] = httpx.Response(200, content=body)
        client = make(router)
        reports.append(await client.report())
        if body is lined:
            records[2]["size"] = 1
            changed = b"[" + b",\n".join(json.dumps(each).encode() for each in records) + b"]"
            router.answers["/v0/models"] = httpx.Response(200, content=changed)
            after = (await client.report()).models
            kept = [new is old for new, old in zip(after, reports[1].models, strict=True)]
            assert kept == [True, True, False, True, True]
            records[2]["size"] = MODEL["size"]
        await client.aclose()
    assert all(each == reports[0] for each in reports)


async def test_a_change_that_came_with_a_failure_is_not_lost(client: V0Client, router: Router) -> None:
    await client.report()
    router.models = [{**MODEL, "size": 5}]
    router.answers["/v0/nodes"] = httpx.Response(500)
    with pytest.raises(RouterFault):
        await client.report()
    del router.answers["/v0/nodes"]
    assert (await client.report()).models[0].size_bytes == 5


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        "text",
        {},
        {"name": None},
        {"name": 5},
        {"name": ""},
        {"name": "a/b\x1b[31m"},
        {"name": "a/\u202eb"},
        {"name": "x" * 501},
        {"name": "a/b", "repo": 7},
        {"name": "a/b", "filename": ["x"]},
        {"name": "a/b", "registered": "yes"},
        {"name": "a/b", "status": 3},
    ],
)
async def test_an_unusable_record_is_left_out_alone(client: V0Client, router: Router, record: object) -> None:
    router.models = [record, MODEL]
    router.nodes = [record if not isinstance(record, dict) else {"id": record.get("name")}, NODE]
    report = await client.report()
    assert [each.name for each in report.models] == [MODEL["name"]]
    assert "gpu-01" in [each.name for each in report.nodes]


async def test_a_model_with_the_longest_file_name_is_listed(client: V0Client, router: Router) -> None:
    name = safe_repo_path("/".join([*["d" * 200] * 4, "m" * 214 + ".gguf"]))
    router.models = [MODEL | {"filename": name}]
    assert [each.file for each in (await client.report()).models] == [name]


async def test_decoration_of_a_wrong_type_counts_as_absent(client: V0Client, router: Router) -> None:
    odd = dict.fromkeys(MODEL, True) | {
        "name": "a/b",
        "repo": None,
        "filename": None,
        "registered": None,
        "status": "a state of the future",
        "size": 1e400,
        "required_memory": -1,
        "context_length": 2**80,
        "tags": ["ok", 5, None, "\x1b[2J"],
        "transfers": [5, {"phase": "teleporting", "bytes_done": "many", "eta_s": float("nan")}, {"node": "no phase"}],
        "placements": {"node": "x"},
        "hf_info": {"downloads": "many", "likes": 4},
    }
    router.models = [odd]
    (model,) = (await client.report()).models
    assert (model.name, model.repo, model.file) == ("a/b", "a/b", None)
    assert model.registered
    assert (model.size_bytes, model.required_memory_bytes, model.context_length) == (None, None, None)
    assert model.title == "" and model.license == ""
    assert model.tags == ("ok", "[2J")
    assert model.transfers == (Transfer("", Phase.WAITING),)
    assert model.placements == ()
    assert model.stats == HubStats(None, 4)


@pytest.mark.parametrize(
    ("told", "verified", "unverified"),
    [
        ({"verified": True, "unverified": []}, True, ()),
        ({"verified": False, "unverified": ["/m/a\x1b", 5]}, False, ("/m/a",)),
        ({"verified": "yes", "unverified": "/m/a"}, None, ()),
        ({"verified": 1}, None, ()),
        ({}, None, ()),
    ],
)
async def test_only_a_plain_word_calls_files_verified(
    client: V0Client, router: Router, told: dict[str, Any], verified: bool | None, unverified: tuple[str, ...]
) -> None:
    router.models = [MODEL | {"placements": [{"node": "gpu-01", **told}]}]
    (place,) = (await client.report()).models[0].placements
    assert (place.verified, place.unverified) == (verified, unverified)


async def test_upstreams_bare_record_is_enough(client: V0Client, router: Router) -> None:
    """router-api.md 2.1: no registered flag, no state, no progress."""
    router.models = [
        {"name": "a/b", "size": 0, "required_memory": 0, "description": "", "tags": [], "capabilities": [],
         "source": "hf_safetensors", "repo": "A/B", "status": "registered"}
    ]  # fmt: skip
    (model,) = (await client.report()).models
    assert model.registered and model.repo == "A/B" and model.format == "safetensors"
    assert model.size_bytes is None  # 0 means the router does not know


async def test_outside_text_is_cleaned(client: V0Client, router: Router) -> None:
    evil = "a\x1b]52;c;eA==\x07b\u202ec\u200bd"
    router.models = [
        {**MODEL, "title": evil, "description": f"one\n{evil}", "license": evil, "tags": [evil], "quantization": evil,
         "transfers": [{"phase": "failed", "node": evil, "error": evil, "file": evil}],
         "placements": [{"node": evil, "path": evil, "paths": [evil]}]}
    ]  # fmt: skip
    router.nodes = [{**NODE, "machine_name": evil, "models_dir": evil, "gpu_devices": [{"model": evil, "memory": 5}]}]
    report = await client.report()
    shown = repr(report)
    for bad in ("\\x1b", "\\x07", "\u202e", "\u200b", "\\u202e", "\\u200b"):
        assert bad not in shown
    assert report.models[0].description.startswith("one\n")


@pytest.mark.parametrize(
    ("status", "error"),
    [("online", NodeStatus.ONLINE), ("offline", NodeStatus.OFFLINE), ("dancing", NodeStatus.OFFLINE)],
)
async def test_an_unknown_node_state_is_offline(
    client: V0Client, router: Router, status: str, error: NodeStatus
) -> None:
    router.nodes = [{"id": "n", "status": status, "last_seen": "yesterday"}]
    (node,) = (await client.report()).nodes
    assert node.status is error and node.last_seen is None and node.name == "n"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[" * 100_000, b'[{"name": "a/b"', b"\xff\xfe", b"[1" + b"0" * 9999 + b"]"]
)
async def test_a_list_that_is_none_is_one_clear_error(client: V0Client, router: Router, body: bytes) -> None:
    router.answers["/v0/models"] = httpx.Response(200, content=body)
    with pytest.raises(RouterFault) as caught:
        await client.report()
    assert "/v0/models cannot be read" in str(explain(caught.value))


async def test_a_huge_answer_is_refused(client: V0Client, router: Router) -> None:
    router.answers["/v0/models"] = httpx.Response(200, headers={"Content-Length": str(BODY_LIMIT + 1)})
    with pytest.raises(RouterFault, match="too large"):
        await client.report()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1_000_000

    router.answers["/v0/models"] = httpx.Response(200, content=endless())
    with pytest.raises(RouterFault, match="too large"):
        await client.report()


REGISTER, NAME = "/v0/models/register", "acme/tiny"


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (httpx.Response(401, text="Invalid API key"), Unauthorised, ""),
        (httpx.Response(403, text="Admin access required"), Forbidden, ""),
        (httpx.Response(429, headers={"Retry-After": "42"}), RateLimited, "42"),
        (httpx.Response(400, json={"error": "Validation error: repo is required"}), Rejected, "repo is required."),
        (httpx.Response(400, json={"error": "Validation error: Model already registered"}), AlreadyRegistered, NAME),
        (httpx.Response(400, json={"error": "Invalid model name: Model already registered"}), AlreadyRegistered, NAME),
        (httpx.Response(400, json={"error": "x", "code": "already_registered", "name": "n"}), AlreadyRegistered, "n"),
        (httpx.Response(400, json={"error": "Validation error: No.", "code": "no_such_repo"}), Rejected, "No."),
        (httpx.Response(400, json={"error": "Gated; set HF_TOKEN", "code": "gated"}), Rejected, "Gated; set HF_TOKEN."),
        (httpx.Response(502, json={"error": "HTTP client error: Down.", "code": "hub_unreachable"}), Rejected, "Down."),
        (httpx.Response(502, json={"error": "HTTP client error: dns"}), RouterFault, "dns."),
        (httpx.Response(507, json={"error": "Disk full.", "code": "no_space"}), Rejected, "Disk full."),
        (httpx.Response(422, text="Failed to deserialize the JSON body"), Rejected, "Failed to deserialize"),
        (httpx.Response(400, json={"error": {"message": "Bad", "code": 7}}), Rejected, "Bad."),
        (httpx.Response(404, json={"error": "Endpoint not found", "code": "NOT_FOUND"}), NotFound, NAME),
        (httpx.Response(400, content=b'{"error": "not \\x esc'), Rejected, "not"),
        (httpx.Response(500), RouterFault, "status 500."),
        (httpx.Response(500, html="<html><b>oops</b></html>"), RouterFault, "status 500."),
        (httpx.Response(503, json=["what"]), RouterFault, "status 503."),
        (httpx.Response(400, json={"error": "bad \x1b[31m\u202e" + "x" * 9000}), Rejected, "bad [31mxxx"),
        (httpx.Response(201, json={"no": "name"}), RouterFault, "cannot be read"),
        (httpx.Response(201, text="fine"), RouterFault, "cannot be read"),
        (httpx.Response(302, headers={"Location": "https://login.example/"}), NotARouter, "login.example"),
        (httpx.ConnectError("refused"), Unreachable, URL),
        (httpx.ReadTimeout("slow"), Unreachable, URL),
        (httpx.RemoteProtocolError("illegal status line: b'SSH-2.0'"), NotARouter, "does not speak HTTP"),
    ],
)  # fmt: skip
async def test_each_refusal_is_one_typed_error(
    client: V0Client, router: Router, answer: httpx.Response | Exception, expected: type[ModelHubError], says: str
) -> None:
    router.answers[REGISTER] = answer
    with pytest.raises(expected) as caught:
        await client.register(RegisterRequest("Acme/Tiny"))
    assert type(caught.value) is expected
    advice = str(explain(caught.value))
    assert says in advice and "\x1b" not in advice and len(advice) < 800
    assert "sk_test" not in advice + repr(caught.value)


async def test_several_files_give_the_choice(client: V0Client, router: Router) -> None:
    answer = {
        "error": "Validation error: Multiple GGUF files found; specify filename",
        "code": "several_files",
        "candidates": ["a-Q4_K_M.gguf", 7, "b\x1b.gguf"],
    }
    router.answers[REGISTER] = httpx.Response(400, json=answer)
    with pytest.raises(Rejected) as caught:
        await client.register(RegisterRequest("Acme/Tiny"))
    assert caught.value.reason == "Multiple GGUF files found; specify filename."
    assert caught.value.candidates == ("a-Q4_K_M.gguf", "b.gguf")


async def test_register_sends_only_what_is_known(client: V0Client, router: Router) -> None:
    router.answers[REGISTER] = httpx.Response(201, json=REGISTERED)
    told = await client.register(RegisterRequest("Acme/Tiny"))
    assert told == Registered(
        "bartowski/phi-3-mini-4k-instruct-gguf",
        "Phi-3-mini-4k-instruct-Q4_K_M.gguf",
        None,
        ("Model requires 12.3GB but max node GPU memory is 8.0GB",),
    )
    assert json.loads(router.requests[-1].content) == {"repo": "Acme/Tiny"}
    await client.register(RegisterRequest("Acme/Tiny", "x.gguf", "abc", "Tiny"))
    assert json.loads(router.requests[-1].content) == {
        "repo": "Acme/Tiny",
        "filename": "x.gguf",
        "revision": "abc",
        "display_name": "Tiny",
    }
    assert router.requests[-1].headers["Content-Type"] == "application/json"
    assert router.requests[-1].extensions["timeout"]["read"] >= 60


async def test_names_are_one_path_segment(client: V0Client, router: Router) -> None:
    path = "/v0/models/acme%2Ftiny%3Aq4%20x"
    router.answers[path] = httpx.Response(204)
    await client.delete("acme/tiny:q4 x")
    assert (router.requests[-1].method, router.requests[-1].url.raw_path.decode()) == ("DELETE", path)
    router.answers[path] = httpx.Response(400, json={"error": "Validation error: model not found"})
    with pytest.raises(NotFound):
        await client.delete("acme/tiny:q4 x")
    router.answers["/v0/transfers/a%2Fb/retry"] = httpx.Response(204)
    await client.retry("a/b")
    assert router.requests[-1].method == "POST"
    with pytest.raises(NotSupported):
        await client.retry("c/d")  # upstream: 404 with an empty body
    router.answers["/v0/transfers/a%2Fb/retry"] = httpx.Response(404, json={"error": "x", "code": "not_registered"})
    with pytest.raises(NotFound):
        await client.retry("a/b")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"/health": httpx.Response(200, html="<!DOCTYPE html><title>Login</title>")}, "is a web page"),
        ({"/": httpx.Response(200, text="Ollama is running")}, "is an Ollama server"),
        ({"/v0/nodes": httpx.Response(401, text="Missing")}, "does not know yet"),
        ({"/v0/nodes": httpx.Response(404)}, "some other server"),
        ({"/health": httpx.Response(200, json={"service": "grafana"})}, "not a model router"),
    ],
)
async def test_who_is_no_router_gets_a_sentence(
    client: V0Client, router: Router, answers: dict[str, httpx.Response], says: str
) -> None:
    router.answers = {"/health": httpx.Response(404), **answers}
    with pytest.raises(NotARouter) as caught:
        await client.info()
    assert says in str(explain(caught.value))


async def test_get_is_sent_again_once_if_a_kept_connection_was_closed(client: V0Client, router: Router) -> None:
    lost = httpx.RemoteProtocolError("Server disconnected without sending a response.")
    answers = iter([lost, httpx.Response(200, json=HEALTH)])

    def flaky(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    flaky_client = make(flaky)
    assert (await flaky_client.info()).version == "0.1.0"
    await flaky_client.aclose()
    router.answers[REGISTER] = lost
    with pytest.raises(Unreachable):
        await client.register(RegisterRequest("a/b"))
    assert [each.url.path for each in router.requests].count(REGISTER) == 1  # never an action twice


@pytest.mark.parametrize("key", ["sk\nX-Evil: 1", "schlüssel", "a b"])
def test_a_key_that_cannot_be_sent_is_a_settings_error(key: str) -> None:
    with pytest.raises(BadSettings):
        make(Router(), key)


async def test_a_closed_client_is_unreachable(router: Router) -> None:
    client = make(router)
    await client.aclose()
    with pytest.raises(Unreachable):
        await client.report()


class Held:
    """A router that holds requests with `Prefer: wait=` until told."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[asyncio.Future[httpx.Response]]] = {"/v0/models": [], "/v0/nodes": []}
        self.prefer: list[str | None] = []
        self.models = [MODEL]
        self.arrived = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.prefer.append(request.headers.get("Prefer"))
        if "Prefer" in request.headers:
            answer: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
            self.waiting[path].append(answer)
            self.arrived.set()
            return await answer
        told = self.models if path == "/v0/models" else [NODE]
        return httpx.Response(200, json=told, headers={"ETag": '"1"'})

    async def held(self, models: int, nodes: int) -> None:
        async with asyncio.timeout(20):
            while (len(self.waiting["/v0/models"]), len(self.waiting["/v0/nodes"])) != (models, nodes):
                self.arrived.clear()
                await self.arrived.wait()


async def test_either_list_ends_the_wait_and_the_other_stays_held() -> None:
    router = Held()
    client = V0Client(URL, None, transport=httpx.MockTransport(router))
    first = await client.report(wait_s=25)  # nothing is known yet: no waiting
    assert router.prefer == [None, None]
    waiting = asyncio.create_task(client.report(wait_s=25))
    await router.held(1, 1)
    assert router.prefer[-1] == "wait=25"
    changed = [{**MODEL, "size": 9}]
    router.waiting["/v0/models"][0].set_result(httpx.Response(200, json=changed, headers={"ETag": '"2"'}))
    second = await waiting
    assert second.models[0].size_bytes == 9 and second.nodes is first.nodes
    waiting = asyncio.create_task(client.report(wait_s=25))
    await router.held(2, 1)  # the nodes' request was kept, not asked again
    router.waiting["/v0/nodes"][0].set_result(httpx.Response(200, json=[], headers={"ETag": '"3"'}))
    third = await waiting
    assert third.nodes == () and third.models is second.models
    waiting = asyncio.create_task(client.report(wait_s=25))
    await router.held(2, 2)
    for path in router.waiting:
        router.waiting[path][1].set_result(httpx.Response(304))
    assert await waiting is third
    await client.aclose()


async def test_a_fresh_report_gives_up_what_is_held() -> None:
    router = Held()
    client = V0Client(URL, None, transport=httpx.MockTransport(router))
    await client.report()
    waiting = asyncio.create_task(client.report(wait_s=25))
    await router.held(1, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    router.models = [{**MODEL, "size": 7}]
    assert (await client.report()).models[0].size_bytes == 7
    assert all(each.cancelled() for path in router.waiting for each in router.waiting[path])
    await client.aclose()


async def test_a_real_socket_is_reached_past_any_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loopback must not go through a proxy, and plain HTTP must not read the CA bundle."""
    import ssl

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(HEALTH).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: pytest.fail("read the CA bundle"))
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = V0Client(f"http://127.0.0.1:{port}", None)
    assert (await client.info()).label == f"127.0.0.1:{port}"
    await client.aclose()
    server.close()
    gone = V0Client(f"http://127.0.0.1:{port}", None)
    with pytest.raises(Unreachable) as caught:
        await gone.info()
    assert f"http://127.0.0.1:{port}" in str(explain(caught.value))
    await gone.aclose()
