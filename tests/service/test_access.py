"""Keys, Host and Origin; and which paths there are."""

from __future__ import annotations

import pytest

from modelhub_tui.service.router.auth import Hosts
from tests.service.conftest import ADMIN_KEY, Service

EVERYTHING = [
    ("GET", "/v0/models"),
    ("GET", "/v0/models/hub"),
    ("POST", "/v0/models/register"),
    ("DELETE", "/v0/models/acme/x"),
    ("POST", "/v0/transfers/acme/x/retry"),
    ("GET", "/v0/models/registry/acme%2Fx/manifest.json"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/acme%2Fx"),
    ("GET", "/v0/nodes"),
    ("POST", "/v0/nodes"),
    ("DELETE", "/v0/nodes/1"),
    ("POST", "/v0/nodes/1/approve"),
    ("POST", "/v0/health"),
    ("GET", "/openapi.json"),
    ("POST", "/v0/service/stop"),
    ("GET", "/v0/nothing/here"),
]


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
async def test_everything_but_health_wants_a_key(service: Service, method: str, path: str) -> None:
    answer = await service.bare.request(method, path)
    assert (answer.status_code, answer.text) == (401, "Missing X-API-Key header or Authorization header")
    assert answer.headers["content-type"].startswith("text/plain")
    for headers in (
        {"X-API-Key": "wrong"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"bearer {ADMIN_KEY}"},
    ):
        assert (await service.bare.request(method, path, headers=headers)).status_code == 401
    assert not service.stops


async def test_health_needs_no_key_and_tells_which_run_this_is(service: Service) -> None:
    answer = await service.bare.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "service": "modelhub", "version": "0.1.0", "state_id": "run-1"}


async def test_both_headers_carry_a_key_and_x_api_key_wins(service: Service) -> None:
    assert (await service.bare.get("/v0/models", headers={"X-API-Key": ADMIN_KEY})).status_code == 200
    both = {"X-API-Key": "wrong", "Authorization": f"Bearer {ADMIN_KEY}"}
    assert (await service.bare.get("/v0/models", headers=both)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v0/models", 200),
        ("GET", "/v0/models/hub", 200),
        ("GET", "/v0/models/registry/acme%2Fx/manifest.json", 404),
        ("POST", "/v0/nodes", 415),
        ("POST", "/v0/health", 401),
        ("POST", "/v0/models/register", 403),
        ("DELETE", "/v0/models/acme/x", 403),
        ("POST", "/v0/transfers/acme/x/retry", 403),
        ("GET", "/v0/nodes", 403),
        ("DELETE", "/v0/nodes/1", 403),
        ("POST", "/v0/nodes/1/approve", 403),
        ("GET", "/v1/models", 403),
        ("POST", "/v0/service/stop", 403),
    ],
)
async def test_what_a_node_key_opens(service: Service, method: str, path: str, status: int) -> None:
    assert (await service.node.request(method, path)).status_code == status


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "evil.example",
        "127.0.0.1:8001",
        "127.0.0.1",
        "10.0.0.1:8000",
        "",
        "[::1",
        "127.0.0.1:" + "9" * 5000,
        "127.0.0.1:²",
        "localhost:08000",
    ],
)
async def test_other_hosts_are_misdirected(service: Service, host: str) -> None:
    for path in ("/health", "/v0/models"):
        assert (await service.admin.get(path, headers={"Host": host.encode("latin-1")})).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000", "testhost:8000"])
async def test_loopback_and_the_configured_name_are_served(service: Service, host: str) -> None:
    assert (await service.admin.get("/v0/models", headers={"Host": host})).status_code == 200


def test_a_service_on_all_interfaces_takes_addresses_but_no_foreign_names() -> None:
    hosts = Hosts.for_bind("0.0.0.0", 80)
    assert all(hosts(each) for each in (b"192.168.1.5", b"192.168.1.5:80", b"[fe80::1]:80"))
    assert not any(hosts(each) for each in (b"evil.example", b"evil.example:80", b"192.168.1.5:81"))


async def test_web_pages_are_refused_even_with_a_key(service: Service) -> None:
    for origin in ("https://evil.example", "http://127.0.0.1:8000", "null"):
        assert (await service.admin.get("/v0/models", headers={"Origin": origin})).status_code == 403
        assert (await service.admin.get("/health", headers={"Origin": origin})).status_code == 403


@pytest.mark.parametrize("path", ["/v0/models/pull", "/v0/models/discover-gguf", "/v0/models/a/b"])
async def test_pull_and_discover_do_not_exist(service: Service, path: str) -> None:
    for method in ("POST", "GET", "PUT"):
        answer = await service.admin.request(method, path, json={})
        assert (answer.status_code, answer.content) == (404, b"")


async def test_what_no_key_opens_is_404_for_everybody(service: Service) -> None:
    """Clients tell routers apart by it, and nobody may think that a password was wrong."""
    for method, path in (("GET", "/api/auth/me"), ("GET", "/nothing/here"), ("POST", "/v0/auth/login")):
        answer = await service.bare.request(method, path)
        assert (answer.status_code, answer.content) == (404, b"")


async def test_unmatched_paths_are_empty_404s_and_wrong_methods_405(service: Service) -> None:
    answer = await service.admin.get("/v2/models")
    assert (answer.status_code, answer.content) == (404, b"")
    for method, path in [
        ("PUT", "/v0/models"),
        ("GET", "/v0/models/register"),
        ("POST", "/v0/models/hub"),
        ("POST", "/v1/models"),
    ]:
        assert (await service.admin.request(method, path)).status_code == 405, path


async def test_stopping_can_be_left_to_idleness(service: Service) -> None:
    service.busy = True
    refused = await service.admin.post("/v0/service/stop?if=idle")
    assert (refused.status_code, refused.json()["code"]) == (409, "busy")
    assert (await service.admin.post("/v0/service/stop")).status_code == 202
    assert service.stops == [True, False]
