"""The ASGI application: one table of endpoints, from which both the routes and the OpenAPI document are made."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.routing import Router as RouteTable

from modelhub_tui import __version__
from modelhub_tui.service.router.auth import Guard, Use
from modelhub_tui.service.router.bodies import AdoptBody, Body, Heartbeat, LimitsBody, MoveBody, NodeBody, RegisterBody
from modelhub_tui.service.router.core import Router
from modelhub_tui.service.router.endpoints import Endpoints
from modelhub_tui.service.router.errors import BadBody, Refused, error_json, to_response
from modelhub_tui.service.router.store import StoreFailed
from modelhub_tui.values import dataclass

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
_CATCH_ALL = "/v0/models/{name:path}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the API."""

    method: str
    path: str
    """As Starlette writes it; `{name:path}` takes slashes, raw or encoded."""
    handler: Handler
    answers: tuple[int, ...]
    """Statuses beside those that any request may get (401, 403, 421)."""
    body: type[Body] | None = None
    schema: str | None = None
    """Name of the answer's schema in `openapi.SCHEMAS`."""


def endpoint_table(endpoints: Endpoints) -> tuple[Endpoint, ...]:
    """Every operation, in the order in which paths are tried."""
    e = endpoints
    return (
        Endpoint("GET", "/health", e.health, (200,), schema="Health"),
        Endpoint("GET", "/metrics", e.metrics, (200,)),
        Endpoint("GET", "/v0/models", e.list_models, (200, 304, 400), schema="Models"),
        Endpoint("GET", "/v0/models/hub", e.list_hub, (200, 304, 400), schema="HubModels"),
        Endpoint(
            "POST",
            "/v0/models/register",
            e.register_model,
            (201, 400, 413, 415, 422, 429, 502, 503, 507),
            RegisterBody,
            "Registered",
        ),
        Endpoint("GET", "/v0/models/registry/{name:path}/manifest.json", e.manifest, (200, 404), schema="Manifest"),
        Endpoint(
            "POST", "/v0/models/adopt", e.adopt_model, (201, 400, 404, 413, 415, 422, 503, 507), AdoptBody, "Registered"
        ),
        Endpoint(
            "POST", "/v0/models/{name:path}/restore", e.restore_model, (201, 404, 409, 503, 507), schema="Registered"
        ),
        Endpoint("DELETE", _CATCH_ALL, e.delete_model, (204, 400, 409, 503, 507)),
        Endpoint("GET", "/v0/trash", e.list_trash, (200,), schema="Trash"),
        Endpoint("DELETE", "/v0/trash", e.empty_trash, (204, 404, 503, 507)),
        Endpoint("DELETE", "/v0/trash/{name:path}", e.empty_trash, (204, 404, 503, 507)),
        Endpoint("POST", "/v0/transfers/{name:path}/retry", e.retry_transfer, (204, 404, 503, 507)),
        Endpoint("POST", "/v0/transfers/{name:path}/pause", e.pause_transfer, (204, 404, 409, 503, 507)),
        Endpoint("POST", "/v0/transfers/{name:path}/resume", e.resume_transfer, (204, 404, 409, 503, 507)),
        Endpoint(
            "POST",
            "/v0/transfers/{name:path}/move",
            e.move_transfer,
            (204, 400, 404, 409, 413, 415, 422, 503, 507),
            MoveBody,
        ),
        Endpoint("GET", "/v0/service/limits", e.limits, (200,), schema="Limits"),
        Endpoint(
            "PATCH", "/v0/service/limits", e.set_limits, (200, 400, 413, 415, 422, 503, 507), LimitsBody, "Limits"
        ),
        Endpoint("GET", "/v1/models", e.list_usable, (200, 304), schema="OpenAIModels"),
        Endpoint("GET", "/v1/models/{name:path}", e.usable_model, (200, 404), schema="OpenAIModel"),
        Endpoint("GET", "/v0/nodes", e.list_nodes, (200, 304, 400), schema="Nodes"),
        Endpoint("POST", "/v0/nodes", e.register_node, (200, 201, 400, 413, 415, 422), NodeBody, "NodeRegistered"),
        Endpoint("DELETE", "/v0/nodes/{node_id}", e.delete_node, (204, 404, 503, 507)),
        Endpoint("POST", "/v0/nodes/{node_id}/approve", e.approve_node, (200, 400, 404, 503, 507), schema="Node"),
        Endpoint("POST", "/v0/health", e.heartbeat, (200, 400, 404, 413, 415, 422, 503, 507), Heartbeat),
        Endpoint("POST", "/v0/service/stop", e.stop, (202, 409)),
    )


def create_app(
    router: Router,
    *,
    admin_key: str,
    node_key: str,
    hosts: Callable[[bytes], bool],
    state_id: str = "",
    stop: Callable[[bool, int], str] = lambda _if_idle, _asker: "",
    use: Use | None = None,
    open_metrics: bool = False,
) -> ASGIApp:
    """Assemble the application.

    Args:
        hosts: Decides which `Host` headers are ours.
        state_id: Random id of this run, told by `GET /health`.
        stop: See `Endpoints`.
        use, open_metrics: See `Guard`.
    """
    health = {"status": "ok", "service": "modelhub", "version": __version__, "state_id": state_id}
    table = endpoint_table(Endpoints(router, health=health, stop=stop))
    document: bytes = b""

    async def openapi(_request: Request) -> Response:
        nonlocal document
        if not document:
            from modelhub_tui.service.router.openapi import build

            document = json.dumps(build(table)).encode()
        return Response(document, media_type="application/json")

    routes = [Route(each.path, _answering(each.handler), methods=[each.method]) for each in table]
    routes.insert(1, Route("/openapi.json", openapi, methods=["GET"]))
    # Below the catch-all of DELETE every path would answer 405 to other methods; what does not exist is to be 404.
    real = [each for each in routes if each.path.startswith("/v0/models/") and each.path != _CATCH_ALL]

    async def not_there(request: Request) -> Response:
        allowed = {method for each in real if each.path_regex.match(request.url.path) for method in each.methods or ()}
        return Response(None, 405, {"Allow": ", ".join(sorted(allowed))}) if allowed else Response(None, 404)

    routes.append(Route(_CATCH_ALL, not_there, methods=["GET", "POST", "PUT", "PATCH", "OPTIONS"]))
    return Guard(
        _Application(RouteTable(routes, redirect_slashes=False, default=_nothing)),
        admin_key=admin_key,
        node_key=node_key,
        hosts=hosts,
        use=use,
        open_metrics=open_metrics,
    )


class _Application:
    """The last resort: a bug becomes one line for the caller and a traceback in the log."""

    def __init__(self, routes: ASGIApp) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: object) -> None:
            nonlocal started
            started = True
            await send(message)  # type: ignore[arg-type]

        try:
            await self._routes(scope, receive, watched)
        except Exception:
            log.exception("failed: %s %s", scope["method"], scope["path"])
            if not started:
                await error_json(500, {"error": "Internal server error"})(scope, receive, send)


def _answering(handler: Handler) -> Handler:
    """The handler, with this package's errors translated to their answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (Refused, BadBody, StoreFailed) as error:
            if isinstance(error, StoreFailed):
                log.error("store: %s", error.reason)
            return to_response(error)

    return answer


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Unmatched paths: 404 with an empty body, as upstream."""
    await Response(None, 404)(scope, receive, send)
