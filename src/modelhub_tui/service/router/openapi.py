"""The OpenAPI document, made from the table of endpoints. Imported on first request only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from modelhub_tui import __version__

if TYPE_CHECKING:
    from modelhub_tui.service.router.app import Endpoint

_STRING: dict[str, Any] = {"type": "string"}
_INTEGER: dict[str, Any] = {"type": "integer", "minimum": 0}
_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _STRING}
_LISTS = ("Models", "HubModels", "Nodes", "OpenAIModels")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$"
"""Model names and node ids; slashes of a name may be encoded or not."""
_MEANING = {
    200: "Done",
    201: "Created",
    202: "Begun",
    204: "Done, nothing to say",
    304: "Not changed since the ETag that was given",
    400: "The request cannot be met; the sentence says what to do",
    401: "No key, or a wrong one",
    403: "The key may not do this",
    404: "Not there",
    409: "Work is under way",
    413: "The body is too large",
    415: "The body must be JSON",
    421: "The Host header is not this service's",
    422: "A member of the body is missing or wrong",
    429: "The hub limits us; see Retry-After",
    502: "The hub cannot be reached",
    503: "The database failed",
    507: "The disk of the state folder is full",
}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


_PROGRESS = _object(
    {
        "percent": {"type": "number", "minimum": 0, "maximum": 1},
        "bytes_downloaded": _INTEGER,
        "bytes_total": _nullable(_INTEGER),
        "error": _nullable(_STRING),
    }
)
_STATS = _object({}, {"downloads": _INTEGER, "likes": _INTEGER, "stale": _BOOLEAN})
_NUMBER = {"type": "number", "minimum": 0}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _object({"error": _STRING}, {"code": _STRING, "candidates": _TEXTS, "name": _STRING}),
    "OpenAIError": _object(
        {"error": _object({"message": _STRING, "type": _STRING, "param": _STRING, "code": _STRING})}
    ),
    "Health": _object(
        {"status": {"const": "ok"}, "service": {"const": "modelhub"}, "version": _STRING, "state_id": _STRING}
    ),
    "Transfer": _object(
        {
            "node_id": _STRING,
            "node": _STRING,
            "bytes_done": _INTEGER,
            "bytes_total": _nullable(_INTEGER),
            "phase": {"enum": ["waiting", "fetching", "verifying", "retrying", "paused", "failed"]},
            "bytes_per_s": _nullable(_NUMBER),
            "eta_s": _nullable(_NUMBER),
            "file": _nullable(_STRING),
            "file_index": _INTEGER,
            "file_count": _INTEGER,
            "attempt": _INTEGER,
            "max_attempts": _INTEGER,
            "retry_in_s": _nullable(_NUMBER),
            "error": _nullable(_STRING),
            "error_code": _nullable(_STRING),
            "stalled_s": _nullable(_NUMBER),
            "refetched_bytes": _INTEGER,
            "orphaned": _BOOLEAN,
            "history": {"type": "array", "items": _object({"at": _STRING, "what": _STRING})},
        }
    ),
    "Limits": _object(
        {
            "parallel_transfers": {"type": "integer", "minimum": 1, "maximum": 16},
            "bandwidth_bps": _INTEGER,
            "disk_floor_bytes": _nullable(_INTEGER),
            "trash_seconds": _INTEGER,
            "trash_bytes": _INTEGER,
        }
    ),
    "Trash": {
        "type": "array",
        "items": _object(
            {
                "name": _STRING,
                "title": _STRING,
                "repo": _STRING,
                "filename": _nullable(_STRING),
                "bytes": _INTEGER,
                "deleted_at": _STRING,
                "expires_at": _STRING,
                "nodes": _TEXTS,
            }
        ),
    },
    "Placement": _object(
        {
            "node_id": _STRING,
            "node": _STRING,
            "path": _nullable(_STRING),
            "paths": _TEXTS,
            "disk_bytes": _nullable(_INTEGER),
            "verified": _nullable(_BOOLEAN),
            "unverified": _TEXTS,
            "shared_bytes": _INTEGER,
        }
    ),
    "Model": _object(
        {
            "name": _STRING,
            "title": _STRING,
            "description": _STRING,
            "repo": _STRING,
            "filename": _nullable(_STRING),
            "revision": _nullable(_STRING),
            "size": _INTEGER,
            "required_memory": _INTEGER,
            "tags": _TEXTS,
            "capabilities": _TEXTS,
            "source": {"enum": ["predefined", "hf_gguf", "hf_safetensors", "hf_onnx"]},
            "chat_template": _nullable(_STRING),
            "format": _STRING,
            "quantization": _STRING,
            "parameter_count": _STRING,
            "context_length": _nullable(_INTEGER),
            "license": _STRING,
            "gated": _BOOLEAN,
            "registered": _BOOLEAN,
            "registration": _nullable(_STRING),
            "attempt": _INTEGER,
            "paused": _BOOLEAN,
            "queue_position": _nullable(_INTEGER),
            "found": _BOOLEAN,
            "unusable": _BOOLEAN,
            "reason": _STRING,
            "status": {"enum": ["available", "registered", "downloading", "ready", "error", "deleting"]},
            "download_progress": _nullable(_PROGRESS),
            "transfers": _list_of("Transfer"),
            "placements": _list_of("Placement"),
            "hf_info": _nullable(_STATS),
        },
        {"id": _STRING},
    ),
    "Models": _list_of("Model"),
    "HubModel": _object(
        {
            "id": _STRING,
            "name": _STRING,
            "description": _STRING,
            "repo": _STRING,
            "recommended_filename": _STRING,
            "size_bytes": _INTEGER,
            "required_memory_bytes": _INTEGER,
            "tags": _TEXTS,
            "capabilities": _TEXTS,
            "status": {"enum": ["available", "downloading", "downloaded"]},
        },
        {
            "quantization": _STRING,
            "parameter_count": _STRING,
            "download_progress": _PROGRESS,
            "hf_info": _STATS,
            "lifecycle_status": {"enum": ["pending", "caching", "registered", "error"]},
        },
    ),
    "HubModels": _list_of("HubModel"),
    "Registered": _object(
        {
            "name": _STRING,
            "status": {"const": "registered"},
            "filename": _STRING,
            "size_bytes": _INTEGER,
            "required_memory_bytes": _INTEGER,
            "warnings": _TEXTS,
        }
    ),
    "Manifest": _object(
        {
            "format": _STRING,
            "files": {
                "type": "array",
                "items": _object(
                    {
                        "name": _STRING,
                        "path": _STRING,
                        "url": _STRING,
                        "priority": {"type": "integer"},
                        "repo": _STRING,
                        "revision": _STRING,
                        "size": _nullable(_INTEGER),
                        "sha256": _nullable(_STRING),
                        "blob_id": _nullable(_STRING),
                    },
                    {"runtimes": _TEXTS},
                ),
            },
        },
        {"quantization": _STRING},
    ),
    "OpenAIModel": _object(
        {
            "id": _STRING,
            "object": {"const": "model"},
            "created": _INTEGER,
            "owned_by": _STRING,
            "ready": _BOOLEAN,
            "lifecycle_status": _STRING,
            "capabilities": {"type": "object", "additionalProperties": _BOOLEAN},
            "repo": _STRING,
            "filename": _STRING,
            "size_bytes": _INTEGER,
            "required_memory_bytes": _INTEGER,
            "source": _STRING,
            "tags": _TEXTS,
            "description": _STRING,
            "chat_template": _nullable(_STRING),
        }
    ),
    "OpenAIModels": _object({"object": {"const": "list"}, "data": _list_of("OpenAIModel")}),
    "Node": _object(
        {
            "id": _STRING,
            "machine_name": _STRING,
            "ip_address": _STRING,
            "runtime_version": _STRING,
            "runtime_port": _INTEGER,
            "status": {"enum": ["pending", "registering", "online", "offline"]},
            "registered_at": _STRING,
            "last_seen": _STRING,
            "tags": _TEXTS,
            "loaded_models": _TEXTS,
            "supported_runtimes": _TEXTS,
            "gpu_available": _BOOLEAN,
            "initializing": _BOOLEAN,
            "ram_bytes": _nullable(_INTEGER),
            "disk_free_bytes": _nullable(_INTEGER),
            "disk_total_bytes": _nullable(_INTEGER),
            "models_dir": _nullable(_STRING),
            "problem": _nullable(_STRING),
            "transfers": _list_of("Transfer"),
            "placements": _list_of("Placement"),
        }
    ),
    "Nodes": _list_of("Node"),
    "NodeRegistered": _object(
        {
            "node_id": _STRING,
            "status": {"enum": ["registered", "updated"]},
            "node_api_port": _INTEGER,
            "node_token": _STRING,
        }
    ),
}


def build(table: Iterable[Endpoint]) -> dict[str, Any]:
    """The document for this table of endpoints."""
    table = tuple(table)
    bodies = [each.body for each in table if each.body is not None]
    _, defined = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in table:
        paths.setdefault(re.sub(r":path\}", "}", each.path), {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "modelhub local service",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **defined.get("$defs", {})},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"key": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    method = getattr(endpoint.handler, "__func__", endpoint.handler)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _NAME}}
        for name in re.findall(r"\{(\w+)", endpoint.path)
    ]
    if endpoint.schema in _LISTS:
        wait = "wait=N holds the answer back for up to N seconds (at most 30), until it differs from If-None-Match"
        parameters.append({"name": "If-None-Match", "in": "header", "schema": _STRING})
        parameters.append(
            {
                "name": "Prefer",
                "in": "header",
                "description": wait,
                "schema": {"type": "string", "pattern": "^wait=[0-9]$"},
            }
        )
    if endpoint.path == "/v0/health":
        parameters.append({"name": "X-Node-Token", "in": "header", "required": True, "schema": _STRING})
    if endpoint.path == "/v0/service/stop":
        parameters.append(
            {
                "name": "if",
                "in": "query",
                "description": "`idle`: only if nothing is under way",
                "schema": {"enum": ["idle"]},
            }
        )
    general = () if endpoint.path == "/health" else (401, 403)
    operation: dict[str, Any] = {
        "operationId": method.__name__,
        "summary": (method.__doc__ or "").strip().splitlines()[0],
        "parameters": parameters,
        "responses": {str(status): _answer(endpoint, status) for status in sorted({*endpoint.answers, *general, 421})},
    }
    if endpoint.path == "/health":
        operation["security"] = []
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(endpoint.body.__name__)}},
        }
    return operation


def _answer(endpoint: Endpoint, status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": _MEANING[status]}
    if endpoint.path == "/metrics" and status == 200:
        return {**told, "content": {"text/plain": {"schema": _STRING}}}
    if status < 300 and status != 204 and endpoint.schema:
        told["content"] = {"application/json": {"schema": _ref(endpoint.schema)}}
    elif status == 404 and endpoint.schema == "OpenAIModel":
        told["content"] = {"application/json": {"schema": _ref("OpenAIError")}}
    elif status in (401, 403, 413, 415, 421, 422):
        told["content"] = {"text/plain": {"schema": _STRING}}
    elif status == 400 and endpoint.body is not None:
        # Upstream's framework words unreadable bodies as text, its handlers word refusals as JSON.
        told["content"] = {"application/json": {"schema": _ref("Error")}, "text/plain": {"schema": _STRING}}
    elif status >= 400:
        told["content"] = {"application/json": {"schema": _ref("Error")}}
    return told
