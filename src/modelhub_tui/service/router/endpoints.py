"""The HTTP handlers: read a request, ask the `Router`, write the answer. Shapes: docs/wire.md."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from modelhub_tui import own_socket
from modelhub_tui.identifiers import whole_number
from modelhub_tui.service.router import metrics
from modelhub_tui.service.router.auth import LOCAL, NODE, PID, ROLE
from modelhub_tui.service.router.blocking import run_blocking
from modelhub_tui.service.router.bodies import AdoptBody, Body, Heartbeat, LimitsBody, MoveBody, NodeBody, RegisterBody
from modelhub_tui.service.router.core import Router
from modelhub_tui.service.router.errors import BadBody, Refused, error_json, openai_not_found
from modelhub_tui.service.router.listing import Listing, Page, openai_json, trashed_json
from modelhub_tui.service.router.manifest import manifest_json
from modelhub_tui.service.router.records import Registration
from modelhub_tui.untrusted import clean, encodable

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_WAIT_S = 30.0
_WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,6})(?:$|[,;\s])")
_ORDERS = re.compile(r"(?:^|[,;\s])orders(?:$|[,;\s])")
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
B = TypeVar("B", bound=Body)


class Endpoints:
    """All handlers of the router's API.

    Args:
        health: Members of `GET /health`.
        stop: Makes the service exit; called with True to stop only if nothing is going on, and with the process that
            asks (0 where unknown). Returns "", or `busy` or `in_use` if it did not.
    """

    def __init__(self, router: Router, *, health: dict[str, str], stop: Callable[[bool, int], str]) -> None:
        self._router = router
        self._health = json.dumps(health).encode()
        self._stop = stop

    @property
    def _store_headers(self) -> dict[str, str]:
        store = self._router.store
        notice = {"X-Modelhub-Notice": store.notice.encode("ascii", "replace").decode()} if store.notice else {}
        return {"X-Modelhub-Store": store.id, **notice}

    # -- lists ----------------------------------------------------------------------------------------------------

    async def list_models(self, request: Request) -> Response:
        """All supported and registered models, with their state."""
        if request.scope.get(ROLE) == NODE:
            # A node that knows nothing of orders would take what is to go for something to fetch.
            orders = _ORDERS.search(request.headers.get("prefer", "")) is not None
            return await self._list(request, lambda: self._router.listing.models_for_nodes(orders), to_people=False)
        if self._router.stats is not None:
            self._router.stats.looked()
        return await self._list(request, (await self._listing(request)).models)

    async def metrics(self, _request: Request) -> Response:
        """The service in numbers, in Prometheus' text format."""
        await run_blocking(metrics.prepare, "metrics")
        return Response(
            metrics.exposition(self._router), 200, {"Cache-Control": "no-cache"}, media_type=metrics.CONTENT_TYPE
        )

    async def list_hub(self, request: Request) -> Response:
        """The same in the form of upstream's dashboard."""
        if self._router.stats is not None and request.scope.get(ROLE) != NODE:
            self._router.stats.looked()
        return await self._list(request, (await self._listing(request)).hub)

    async def list_usable(self, request: Request) -> Response:
        """OpenAI's list: the models that are whole on disk now."""
        return await self._list(request, self._router.listing.usable)

    async def list_nodes(self, request: Request) -> Response:
        """All nodes."""
        return await self._list(request, (await self._listing(request)).nodes)

    async def usable_model(self, request: Request) -> Response:
        """One item of OpenAI's list."""
        name = request.path_params["name"]
        row = self._router.listing.row(name)
        if row is None or row.status != "ready" or row.found:
            return openai_not_found(clean(name, 200))
        told = openai_json(row)
        del told["download_progress"]
        return _json(told)

    async def _listing(self, request: Request) -> Listing:
        return await self._router.listing_of(_catalog(request))

    async def _list(self, request: Request, page: Callable[[], Page], *, to_people: bool = True) -> Response:
        """Answer a list; hold it back while it is what the caller has already, for as long as it asked for."""
        has = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")} - {""}
        match = _WAIT.search(request.headers.get("prefer", ""))
        wait_s = min(float(match[1]), MAX_WAIT_S) if match and has else 0.0
        changes = self._router.changes
        deadline = asyncio.get_running_loop().time() + wait_s
        # A change not yet announced is left to its announcement: waiting readers hear of four a second at most.
        if wait_s and changes.pending:
            await changes.wait(wait_s)
        while True:
            found = page()
            if found.etag not in has and "*" not in has:
                break
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0 or not await changes.wait(left_s):
                found = page()
                break
        headers = {"ETag": found.etag, "Cache-Control": "no-cache", **self._store_headers}
        if to_people and (unheard := self._router.fleet.unheard):
            headers["X-Modelhub-Unheard"] = unheard.encode("ascii", "replace").decode()
        applied = [f"wait={wait_s:.0f}"] if wait_s else []
        if not to_people and _ORDERS.search(request.headers.get("prefer", "")):
            applied.append("orders")
        if applied:
            headers["Preference-Applied"] = ", ".join(applied)
        if found.etag in has or "*" in has:
            return Response(None, 304, headers)
        return Response(found.body, 200, headers, media_type="application/json")

    # -- models ---------------------------------------------------------------------------------------------------

    async def register_model(self, request: Request) -> Response:
        """Register a model, so that nodes fetch it."""
        body = await _body(request, RegisterBody)
        record, warnings = await self._router.register(body, _catalog(request))
        return _registered(record, warnings)

    async def delete_model(self, request: Request) -> Response:
        """Deregister a model; nodes then remove it."""
        query = request.query_params
        await self._router.delete(
            request.path_params["name"], cancel=query.get("cancel") == "true", keep=query.get("keep") != "false"
        )
        return Response(None, 204)

    async def restore_model(self, request: Request) -> Response:
        """Take a deletion back."""
        return _registered(await self._router.restore(request.path_params["name"]))

    async def adopt_model(self, request: Request) -> Response:
        """Register what a node found on its disk."""
        body = await _body(request, AdoptBody)
        return _registered(await self._router.adopt(body.name, _catalog(request)))

    async def list_trash(self, _request: Request) -> Response:
        """The deleted models that can be had back."""
        return _json([trashed_json(each) for each in self._router.trash.listing()], headers=self._store_headers)

    async def empty_trash(self, request: Request) -> Response:
        """Free deleted models for good: one, or all."""
        # An empty name is no name, not all of them: `DELETE /v0/trash/` must not empty the trash.
        await self._router.trash.empty(request.path_params.get("name"))
        return Response(None, 204)

    async def pause_transfer(self, request: Request) -> Response:
        """Hold a transfer."""
        await self._router.pause(request.path_params["name"], True)
        return Response(None, 204)

    async def resume_transfer(self, request: Request) -> Response:
        """Let a held transfer go on."""
        await self._router.pause(request.path_params["name"], False)
        return Response(None, 204)

    async def move_transfer(self, request: Request) -> Response:
        """Change a transfer's place in the queue."""
        body = await _body(request, MoveBody)
        await self._router.move(request.path_params["name"], body.to)
        return Response(None, 204)

    async def limits(self, _request: Request) -> Response:
        """What transfers and trash may take."""
        return _json(asdict(self._router.limits))

    async def set_limits(self, request: Request) -> Response:
        """Change what transfers and trash may take."""
        body = await _body(request, LimitsBody)
        told = {name: getattr(body, name) for name in body.model_fields_set}
        await self._router.set_limits(replace(self._router.limits, **told))
        return _json(asdict(self._router.limits))

    async def retry_transfer(self, request: Request) -> Response:
        """Make nodes start a failed transfer again."""
        await self._router.retry(request.path_params["name"])
        return Response(None, 204)

    async def manifest(self, request: Request) -> Response:
        """The files of one registered model."""
        name = request.path_params["name"]
        record = self._router.registry.records.get(name)
        if record is None or record.deleting:
            return error_json(404, {"error": f"Model not found: {clean(name, 200)}", "code": "not_registered"})
        return _json(manifest_json(record, self._router.endpoint), headers=self._store_headers)

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def register_node(self, request: Request) -> Response:
        """Take in a node."""
        body = await _body(request, NodeBody)
        # Whoever has a key of this service may run a node for it; the admin key could approve it in any case.
        ours = request.scope.get(ROLE) == NODE
        node, token, new = self._router.register_node(body, trusted=True, supervised=ours and _is_local(request))
        told = {
            "node_id": node.id,
            "status": "registered" if new else "updated",
            "node_api_port": body.runtime_port + 1,
            "node_token": token,
        }
        return _json(told, 201 if new else 200, self._store_headers)

    async def approve_node(self, request: Request) -> Response:
        """Let a pending node in."""
        known = self._router.fleet.nodes.get(request.path_params["node_id"])
        if known is not None and known.status.value != "pending":
            return error_json(400, {"error": "Request error", "code": "not_pending"})
        node = self._router.approve_node(request.path_params["node_id"])
        return _json(self._router.listing.node(node)) if node is not None else _no_node()

    async def delete_node(self, request: Request) -> Response:
        """Forget a node."""
        return Response(None, 204) if await self._router.remove_node(request.path_params["node_id"]) else _no_node()

    async def heartbeat(self, request: Request) -> Response:
        """Take in what a node says about itself."""
        token = request.headers.get("x-node-token")
        if token is None:
            return PlainTextResponse("Missing X-Node-Token header", 401)
        node = self._router.fleet.by_token(token)
        if node is None:
            return PlainTextResponse("Invalid node token", 401)
        beat = await _body(request, Heartbeat)
        if beat.node_id != node.id:
            return _no_node()
        await self._router.heartbeat(node, beat)
        if beat.transfers is None:
            return _json(None, headers=self._store_headers)  # an upstream node, which is answered as upstream does
        registry = self._router.registry
        known = (self._router.trash, registry.records, registry.unreadable)
        kept = [name for name in node.trash if any(name in each for each in known)]
        ordered = {each.name for each in registry.removals.values()}
        unknown = [name for name in node.trash if name not in ordered and name not in kept]
        told = {"limits": asdict(self._router.limits), "store": self._router.store.id, "kept": kept, "unknown": unknown}
        return _json(told, headers=self._store_headers)

    # -- service --------------------------------------------------------------------------------------------------

    async def health(self, _request: Request) -> Response:
        """Say that the service is alive, and which run of it."""
        return Response(self._health, media_type="application/json")

    async def stop(self, request: Request) -> Response:
        """Make the service exit."""
        if_idle = request.query_params.get("if") == "idle"
        if code := self._stop(if_idle, request.scope.get(PID, 0)):
            why = "has transfers under way" if code == "busy" else "is in use by another program"
            return error_json(409, {"error": f"The service {why}.", "code": code})
        return _json({"status": "stopping"}, 202)


def _catalog(request: Request) -> Path | None:
    """The catalog that a program of this user goes by: it says so through the socket, and nobody else may.

    Raises:
        Refused: `bad_catalog`: it names no file.
    """
    said = request.headers.get(own_socket.CATALOG_HEADER)
    if said is None or request.scope.get(LOCAL) is not True:
        return None
    path = unquote(said, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise Refused("bad_catalog", "The catalog is not named by a full path.")
    return Path(path)


async def _body(request: Request, form: type[B]) -> B:
    """Read and validate a JSON body.

    Raises:
        BadBody: 413, 415, 400 or 422, worded as upstream's framework does.
    """
    if not _JSON.match(request.headers.get("content-type", "")):
        raise BadBody(415, "Expected request with `Content-Type: application/json`")
    if (whole_number(request.headers.get("content-length")) or 0) > MAX_BODY_BYTES:
        raise BadBody(413, "The request body is too large")
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MAX_BODY_BYTES:
                raise BadBody(413, "The request body is too large")
    except ClientDisconnect as error:
        raise BadBody(400, "The request body is incomplete") from error
    try:
        return form.model_validate_json(bytes(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = clean(first["msg"], 200)
        if first["type"] == "json_invalid":
            raise BadBody(400, f"Failed to parse the request body as JSON: {message}") from error
        where = clean(".".join(str(each) for each in first["loc"]), 100)
        about = f"{where}: {message}" if where else message
        raise BadBody(422, f"Failed to deserialize the JSON body into the target type: {about}") from error


def _registered(record: Registration, warnings: Sequence[str] = ()) -> Response:
    """Upstream's answer to a registration."""
    told = {
        "name": record.name,
        "status": "registered",
        "filename": record.filename,
        "size_bytes": record.size,
        "required_memory_bytes": record.required_memory,
    }
    return _json({**told, "warnings": [*warnings]}, 201)


def _is_local(request: Request) -> bool:
    if request.scope.get(LOCAL) is True:
        return True
    if request.client is None:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _no_node() -> Response:
    return error_json(404, {"error": "Node not found"})


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = encodable(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return Response(text, status, headers, media_type="application/json")
