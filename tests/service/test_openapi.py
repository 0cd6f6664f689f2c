"""The service keeps to its own OpenAPI document, and the document names everything there is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings

from modelhub_tui.service.listen import listen
from modelhub_tui.service.router.app import create_app
from modelhub_tui.service.router.auth import Hosts
from modelhub_tui.service.router.core import Router
from modelhub_tui.service.router.hub import Hub
from modelhub_tui.service.router.store import Store
from tests.service.conftest import ADMIN_KEY, CATALOG, NODE_KEY, Service
from tests.service.test_nodes_api import registration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server with one registered model; its hub is down."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    listener = listen("127.0.0.1", 0, 0)
    port = listener.getsockname()[1]
    started, stop = threading.Event(), []

    async def main() -> None:
        store = Store(folder / "db")
        router = Router(store, CATALOG, "http://127.0.0.1:9", hub=Hub("http://127.0.0.1:9", sleep=lambda _s: None))
        await router.registry.add(registration())
        app = create_app(
            router,
            admin_key=ADMIN_KEY,
            node_key=NODE_KEY,
            hosts=Hosts(port),
            stop=lambda if_idle, _asker: "busy" if if_idle else "",
        )
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False))
        stop.append(lambda: setattr(server, "should_exit", True))
        router.start()
        started.set()
        await server.serve(sockets=[listener])
        await router.stop()
        store.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(30)
    yield f"http://127.0.0.1:{port}"
    stop[0]()
    thread.join(30)


@pytest.fixture
def document(running: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{running}/openapi.json", headers={"Authorization": f"Bearer {ADMIN_KEY}"})


schema = schemathesis.pytest.from_fixture("document")
# Left out: a valid body is refused while the hub is down or the node token is made up, so "accepts what the schema
# allows" cannot hold; keys are checked in full by test_access.py.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]
"""502 is an answer of the hub's, and documented; every other 5xx is a bug."""


@schema.parametrize()
@settings(max_examples=3, deadline=None, suppress_health_check=[*HealthCheck])
def test_answers_are_as_documented(case: schemathesis.Case) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    answer = case.call(headers=headers)
    checks = [each for each in CHECKS if not (answer.status_code == 502 and each is CHECKS[0])]
    case.validate_response(answer, checks=checks, headers=headers)


async def test_the_document_names_every_operation(service: Service) -> None:
    document = (await service.admin.get("/openapi.json")).json()
    operations = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert operations == {
        ("get", "/health"),
        ("get", "/metrics"),
        ("get", "/v0/models"),
        ("get", "/v0/models/hub"),
        ("post", "/v0/models/register"),
        ("get", "/v0/models/registry/{name}/manifest.json"),
        ("delete", "/v0/models/{name}"),
        ("post", "/v0/models/adopt"),
        ("post", "/v0/models/{name}/restore"),
        ("get", "/v0/trash"),
        ("delete", "/v0/trash"),
        ("delete", "/v0/trash/{name}"),
        ("post", "/v0/transfers/{name}/retry"),
        ("post", "/v0/transfers/{name}/pause"),
        ("post", "/v0/transfers/{name}/resume"),
        ("post", "/v0/transfers/{name}/move"),
        ("get", "/v0/service/limits"),
        ("patch", "/v0/service/limits"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{name}"),
        ("get", "/v0/nodes"),
        ("post", "/v0/nodes"),
        ("delete", "/v0/nodes/{node_id}"),
        ("post", "/v0/nodes/{node_id}/approve"),
        ("post", "/v0/health"),
        ("post", "/v0/service/stop"),
    }
