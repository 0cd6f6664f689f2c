"""Queue, limits, trash and adoption as docs/wire.md words them: what is sent, and what every answer means."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from modelhub_tui.client.base import Registered
from modelhub_tui.client.no_control import NoControl
from modelhub_tui.client.v0 import V0Client
from modelhub_tui.domain import Event, Limits, Place, Trashed
from modelhub_tui.errors import (
    AlreadyRegistered,
    ModelHubError,
    NotFound,
    NotSupported,
    Rejected,
    RouterFault,
    explain,
)
from tests.client.payloads import HEALTH, MODEL, NODE

Call = Callable[[V0Client], Awaitable[object]]

MODEL_PATH = "/v0/models/a%2Fb"
LIMITS = {
    "parallel_transfers": 4,
    "bandwidth_bps": 50_000_000,
    "disk_floor_bytes": None,
    "trash_seconds": 60,
    "trash_bytes": 7,
}
TRASH = [
    {
        "name": "acme/tiny-gguf",
        "title": "Tiny\x1b[31m",
        "repo": "Acme/Tiny-GGUF",
        "filename": "tiny-Q4.gguf",
        "bytes": 1000,
        "deleted_at": "2026-11-22T21:00:00Z",
        "expires_at": "2026-11-22T22:00:00Z",
        "nodes": ["gpu-01"],
    }
]


class Router:
    """Answers every request in the same way, and keeps them."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer = httpx.Response(204)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, json=HEALTH) if request.url.path == "/health" else self.answer

    @property
    def sent(self) -> tuple[str, str, Any]:
        """Method, path and body of the last request."""
        last = self.requests[-1]
        return last.method, last.url.raw_path.decode(), json.loads(last.content) if last.content else None


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
async def client(router: Router) -> AsyncIterator[V0Client]:
    client = V0Client("http://127.0.0.1:4242", "sk_test", transport=httpx.MockTransport(router))
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (lambda c: c.pause("a/b:q4"), ("POST", "/v0/transfers/a%2Fb%3Aq4/pause", None)),
        (lambda c: c.resume("a/b"), ("POST", "/v0/transfers/a%2Fb/resume", None)),
        (lambda c: c.retry("a/b"), ("POST", "/v0/transfers/a%2Fb/retry", None)),
        (lambda c: c.move("a/b", Place.EARLIER), ("POST", "/v0/transfers/a%2Fb/move", {"to": "earlier"})),
        (lambda c: c.empty_trash(), ("DELETE", "/v0/trash", None)),
        (lambda c: c.empty_trash("a/b"), ("DELETE", "/v0/trash/a%2Fb", None)),
        (lambda c: c.delete("a/b"), ("DELETE", "/v0/models/a%2Fb", None)),
        (lambda c: c.delete("a/b", cancel=True), ("DELETE", "/v0/models/a%2Fb?cancel=true", None)),
        (
            lambda c: c.delete("a/b", cancel=True, keep=False),
            ("DELETE", f"{MODEL_PATH}?cancel=true&keep=false", None),
        ),
    ],
)  # fmt: skip
async def test_orders_without_an_answer(
    client: V0Client, router: Router, call: Call, sent: tuple[str, str, Any]
) -> None:
    await call(client)
    assert router.sent == sent


async def test_limits_are_read_and_changed(client: V0Client, router: Router) -> None:
    router.answer = httpx.Response(200, json=LIMITS)
    assert await client.limits() == Limits(4, 50_000_000, None, 60, 7)
    assert router.sent == ("GET", "/v0/service/limits", None)
    assert await client.set_limits(Limits(4, 50_000_000, None, 60, 7)) == Limits(4, 50_000_000, None, 60, 7)
    assert router.sent == ("PATCH", "/v0/service/limits", LIMITS)
    router.answer = httpx.Response(200, json={"parallel_transfers": "many", "trash_bytes": 5, "new": 1})
    assert await client.limits() == Limits(trash_bytes=5)


async def test_the_trash_is_read_and_cleaned(client: V0Client, router: Router) -> None:
    router.answer = httpx.Response(200, json=[*TRASH, {"no": "name"}])
    tiny = Trashed(
        "acme/tiny-gguf", "Tiny[31m", "Acme/Tiny-GGUF", "tiny-Q4.gguf", 1000, 1795381200.0, 1795384800.0, ("gpu-01",)
    )
    assert await client.trash() == (tiny,)


async def test_what_registers_says_as_what(client: V0Client, router: Router) -> None:
    router.answer = httpx.Response(201, json={"name": "acme/tiny-gguf", "filename": "t.gguf", "size_bytes": 5})
    assert await client.restore("acme/tiny-gguf") == Registered("acme/tiny-gguf", "t.gguf", 5)
    assert router.sent == ("POST", "/v0/models/acme%2Ftiny-gguf/restore", None)
    assert (await client.adopt("acme/tiny-gguf")).name == "acme/tiny-gguf"
    assert router.sent == ("POST", "/v0/models/adopt", {"name": "acme/tiny-gguf"})


@pytest.mark.parametrize(
    ("call", "status", "code", "expected"),
    [
        (lambda c: c.pause("a/b"), 404, "not_registered", NotFound),
        (lambda c: c.pause("a/b"), 409, "nothing_to_do", Rejected),
        (lambda c: c.delete("a/b"), 409, "transfer_running", Rejected),
        (lambda c: c.restore("a/b"), 404, "not_in_trash", Rejected),
        (lambda c: c.restore("a/b"), 409, "already_registered", AlreadyRegistered),
        (lambda c: c.adopt("a/b"), 404, "not_on_disk", Rejected),
        (lambda c: c.set_limits(Limits()), 422, "", Rejected),
        (lambda c: c.pause("a/b"), 507, "no_space", Rejected),
        (lambda c: c.pause("a/b"), 503, "", RouterFault),
    ],
)
async def test_refusals_keep_their_code_and_their_words(
    client: V0Client, router: Router, call: Call, status: int, code: str, expected: type[ModelHubError]
) -> None:
    router.answer = httpx.Response(status, json={"error": "The reason", "code": code})
    with pytest.raises(expected) as caught:
        await call(client)
    if isinstance(caught.value, Rejected):
        assert (caught.value.code, caught.value.reason) == (code, "The reason.")


ALL: list[Call] = [
    lambda c: c.pause("a/b"),
    lambda c: c.resume("a/b"),
    lambda c: c.move("a/b", Place.FIRST),
    lambda c: c.limits(),
    lambda c: c.set_limits(Limits()),
    lambda c: c.trash(),
    lambda c: c.restore("a/b"),
    lambda c: c.empty_trash(),
    lambda c: c.adopt("a/b"),
]


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("call", ALL)
async def test_a_service_of_an_older_version_is_named_with_the_way_out(
    client: V0Client, router: Router, call: Call, status: int
) -> None:
    router.answer = httpx.Response(status)
    await client.info()
    with pytest.raises(NotSupported) as caught:
        await call(client)
    said = str(explain(caught.value))
    assert said.startswith("This router cannot ")
    assert said.endswith(": it is version 0.1.0. Run `modelhub stop` where it runs; its downloads resume.")


@pytest.mark.parametrize("call", ALL)
async def test_upstreams_routers_say_what_they_cannot(call: Call) -> None:
    with pytest.raises(NotSupported) as caught:
        await call(NoControl())  # type: ignore[arg-type]
    said = str(explain(caught.value))
    assert said.startswith("This router cannot ") and said.endswith(".")


@pytest.mark.parametrize("body", [b"", b"null", b"[", b'"text"', b"5"])
async def test_answers_that_cannot_be_read(client: V0Client, router: Router, body: bytes) -> None:
    router.answer = httpx.Response(200, content=body)
    calls: list[Call] = [
        lambda c: c.limits(),
        lambda c: c.trash(),
        lambda c: c.restore("a/b"),
        lambda c: c.adopt("a/b"),
    ]
    for call in calls:
        with pytest.raises(RouterFault):
            await call(client)


async def test_the_new_members_of_models_and_nodes(client: V0Client, router: Router) -> None:
    history = [{"at": "2026-11-22T21:04:11Z", "what": f"event {number}"} for number in range(12)]
    transfer = {
        **MODEL["transfers"][0],
        "error_code": "stalled",
        "stalled_s": 12.0,
        "refetched_bytes": 7,
        "orphaned": True,
        "history": [*history, {"at": "yesterday", "what": "x"}, {"at": history[0]["at"]}, 5],
    }
    model = {**MODEL, "transfers": [transfer], "paused": True, "queue_position": 2, "found": True}
    node = {**NODE, "models_bytes": 5, "trash_bytes": 6, "disk_floor_bytes": 7}
    node |= {"found_bytes": 3, "unfinished_bytes": 4}

    def lists(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[model] if request.url.path == "/v0/models" else [node])

    other = V0Client("http://127.0.0.1:4242", "k", transport=httpx.MockTransport(lists))
    report = await other.report()
    await other.aclose()
    (told,) = report.models
    assert (told.paused, told.queue_position, told.found) == (True, 2, True)
    (moving,) = told.transfers
    assert (moving.error_code, moving.stalled_s, moving.refetched_bytes, moving.orphaned) == ("stalled", 12.0, 7, True)
    assert moving.history == tuple(Event(1795381451.0, f"event {number}") for number in range(2, 12))
    assert [(each.models_bytes, each.trash_bytes, each.disk_floor_bytes) for each in report.nodes] == [(5, 6, 7)]
    assert [(each.local_bytes, each.unfinished_bytes) for each in report.nodes] == [(8, 4)]
