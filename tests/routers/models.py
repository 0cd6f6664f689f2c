"""What all four generations share: registered models, login and keys, and the routes for both."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.routers import hf
from tests.routers.auth import DAY_S, Access, Auth, User
from tests.routers.base import (
    Answered,
    Clock,
    Field,
    Request,
    Response,
    RoutedServer,
    failure,
    instant,
    is_text,
    is_texts,
    offset_instant,
    read_body,
    reply,
    text,
)

ADMIN_PASSWORD, VIEWER_PASSWORD = "admin-secret", "viewer-secret"
_SPOKEN = {"text_generation": "TextGeneration", "embedding": "Embedding", "vision": "Vision"}


@dataclass
class Stored:
    """One registration."""

    name: str
    repo: str
    filename: str
    format: str
    size: int
    required_memory: int
    description: str
    tags: list[str] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=lambda: ["text_generation"])
    chat_template: str | None = None

    @property
    def source(self) -> str:
        return f"hf_{self.format}"

    def as_json(self) -> dict[str, Any]:
        """One item of `GET /v0/models`: no state, no path."""
        told = {
            "name": self.name,
            "size": self.size,
            "required_memory": self.required_memory,
            "description": self.description,
            "tags": self.tags,
            "capabilities": self.capabilities,
            "source": self.source,
            "repo": self.repo,
            "filename": self.filename,
            "status": "registered",
        }
        return told | ({"chat_template": self.chat_template} if self.chat_template else {})


class FakeRouter(RoutedServer):
    """Registered models, users and keys of one router.

    Attributes:
        admin_key: A key that opens everything a dashboard needs.
        admin, viewer: Users; `jwt()` logs them in.
        hf: The HuggingFace this router asks.
    """

    generation = ""
    prefix = "/v0"
    prefixed_errors = True
    """Validation errors say "Validation error: " (G1 to G3)."""
    rights_member = "scopes"
    shards_to_index = True

    def __init__(self, *, clock: Clock | None = None, auth_disabled: bool = False, huggingface: Any = None) -> None:
        super().__init__(clock)
        self.hf: hf.HuggingFace = huggingface or hf.HuggingFace()
        self.auth = Auth(self.clock, disabled=auth_disabled, cookies=self.generation == "G4")
        self.admin = self.auth.add_user("admin", ADMIN_PASSWORD)
        self.viewer = self.auth.add_user("viewer", VIEWER_PASSWORD, "viewer")
        self.models: dict[str, Stored] = {}
        self.cloud_models: list[str] = []
        """Such as `openai:gpt-4o`: what `/v1/models` lists of providers whose key the router has."""
        self.add_keys()
        self.add_routes()

    # -- for tests

    def jwt(self, user: User | None = None, *, for_s: float = DAY_S) -> str:
        """A token, as logging in would give."""
        return self.auth.issue(user or self.admin, for_s=for_s)

    def expire_tokens(self) -> None:
        """Every token issued so far is too old from now on."""
        self.auth.expire_tokens()

    def bearer(self, credential: str | None = None) -> dict[str, str]:
        """Headers with a credential; the admin's key if none is named."""
        return {"Authorization": f"Bearer {credential or self.admin_key}"}

    # -- to be told by each generation

    admin_key: str

    def add_keys(self) -> None:
        """Issue the keys that tests use."""
        raise NotImplementedError

    def add_routes(self) -> None:
        """Fill the route table."""
        raise NotImplementedError

    def hub_items(self) -> list[dict[str, Any]]:
        """`GET .../models/hub`."""
        raise NotImplementedError

    def holds(self, name: str) -> bool:
        """Whether any node or endpoint, in any status, says it has this model; an exact comparison."""
        raise NotImplementedError

    def gpu_memories(self) -> list[int]:
        """GPU memory of each node or endpoint that tells, for the warnings of a registration."""
        return []

    # -- routes

    def add_model_routes(self, read: Access, write: Access, manifest: Access) -> None:
        """Lists, register, delete, manifest."""
        base = f"{self.prefix}/models"
        self.route("GET", base, lambda _: reply([each.as_json() for each in self.models.values()]), read)
        self.route("GET", f"{base}/hub", lambda _: reply(self.hub_items()), read)
        self.route("POST", f"{base}/register", self._register, write)
        self.route("GET", f"{base}/registry/{{name}}/manifest.json", self._manifest, manifest)
        self.route("DELETE", f"{base}/{{*name}}", self._delete, write)

    def invalid(self, sentence: str) -> Answered:
        """A model handler's 400."""
        return Answered(failure(400, f"Validation error: {sentence}" if self.prefixed_errors else sentence))

    def _register(self, request: Request) -> Response:
        body = read_body(
            request,
            {"repo": Field(is_text, required=True)}
            | {name: Field(is_text) for name in ("filename", "display_name", "chat_template")},
        )
        if not body["repo"].strip():
            raise self.invalid("repo is required")
        repo_id, from_url = hf.parse_repo(body["repo"], self.hf.url)
        name = hf.model_name(repo_id)
        builtin = hf.builtin_for(repo_id) if self.generation in ("G1", "G2") else None
        try:
            if name in self.models:
                raise hf.Invalid("Model already registered")
            repo = self.hf.listing(repo_id)
            given = body["filename"] if body["filename"] is not None else from_url
            wanted = given if given is not None else (builtin.file if builtin else None)
            found = hf.choose(repo, wanted, shards_to_index=self.shards_to_index)
        except hf.Invalid as refused:
            raise self.invalid(refused.sentence) from None
        except hf.Unanswered:
            raise Answered(self.hf_down()) from None
        memory = hf.required_memory(found.size)
        template = body["chat_template"] or repo.chat_template
        self.models[name] = Stored(
            name,
            repo_id,
            found.file,
            found.format,
            max(found.size, builtin.size if builtin else 0),
            max(memory, builtin.memory if builtin else 0),
            builtin.description if builtin else body["display_name"] or repo_id,
            list(builtin.tags) if builtin else [found.format],
            chat_template=template,
        )
        self.stored(name)
        told = {
            "name": name,
            "status": "registered",
            "filename": found.file,
            "size_bytes": found.size,
            "required_memory_bytes": memory,
            "warnings": self._warnings(memory),
        }
        return reply(told, 201)

    def stored(self, name: str) -> None:
        """A registration is in the database now."""

    def hf_down(self) -> Response:
        """HuggingFace cannot be reached."""
        if self.prefixed_errors:
            return failure(502, f"HTTP client error: error sending request for url ({hf.HF_URL}/api/models/)")
        return failure(502, "Backend service unavailable")

    def _warnings(self, memory: int) -> list[str]:
        """None when the computed memory is zero, which it usually is."""
        whose = "node" if self.generation in ("G1", "G2") else "endpoint"
        if not memory:
            return []
        most = max(self.gpu_memories(), default=0)
        if not most:
            return [f"No GPU memory info available from registered {whose}s"]
        gib = 1024**3
        if memory > most:
            return [f"Model requires {memory / gib:.1f}GB but max {whose} GPU memory is {most / gib:.1f}GB"]
        return []

    def _delete(self, request: Request) -> Response:
        name = request.params["name"]
        if self.models.pop(name, None) is None:
            raise self.invalid("model not found")
        self.removed(name)
        return Response(204)

    def removed(self, name: str) -> None:
        """A registration was deleted from memory."""

    def _manifest(self, request: Request) -> Response:
        name = request.params["name"]
        if not hf.name_is_legal(name):
            return self._manifest_error(400, f"Invalid model name: {name}")
        model = self.models.get(name)
        if model is None:
            return self._manifest_error(404, f"Model not found: {name}")
        try:
            repo = self.hf.listing(model.repo)
        except (hf.Invalid, hf.Unanswered):
            return self._manifest_error(502, "Failed to fetch specified repository")
        wrapped = self.generation in ("G3", "G4")
        generic = ["safetensors_cpp"] if wrapped else None
        files = hf.manifest_files(self.hf.url, repo, model.filename, model.format, generic_runtime=generic)
        quant = next((each for each in ("Q4_K_M", "Q8_0") if each in model.filename), None)
        wrap = {"format": model.format, "files": files} | ({"quantization": quant} if quant else {})
        return reply(wrap if wrapped else {"files": files})

    def _manifest_error(self, status: int, sentence: str) -> Response:
        """Hand-built up to G3: no Content-Type, no escaping."""
        if self.generation == "G4":
            return failure(status, sentence)
        return Response(status, f'{{"error":"{sentence}"}}'.encode())

    def cloud_items(self) -> list[dict[str, Any]]:
        """How `/v1/models` lists the models of providers, after its own."""
        fixed = {"object": "model", "created": 0, "lifecycle_status": "registered", "download_progress": None}
        return [{"id": each, "owned_by": each.split(":")[0], "ready": True, **fixed} for each in self.cloud_models]

    def hub_stats(self, repo_id: str) -> dict[str, Any]:
        """`hf_info`, or nothing."""
        stats = self.hf.stats(repo_id)
        return {} if stats is None else {"hf_info": stats}

    def registered_hub_items(self) -> list[dict[str, Any]]:
        """The hub of G3 and G4: exactly what is registered."""
        return [
            {
                "id": each.name,
                "name": each.name,
                "description": each.description,
                "repo": each.repo,
                "recommended_filename": each.filename,
                "size_bytes": each.size,
                "required_memory_bytes": each.required_memory,
                "tags": each.tags,
                "capabilities": [_SPOKEN[can] for can in each.capabilities],
                "status": "downloaded" if self.holds(each.name) else "available",
                "lifecycle_status": "registered",
                **self.hub_stats(each.repo),
            }
            for each in self.models.values()
        ]

    # -- login and keys

    def add_auth_routes(self, admin: Access) -> None:
        """`/v0/auth/*` and `/v0/api-keys` (G1 to G3)."""
        self.route("POST", "/v0/auth/login", self._log_in)
        self.route("GET", "/v0/auth/me", self.me, self.auth.jwt_only())
        self.route("POST", "/v0/auth/logout", lambda _: Response(204), self.auth.jwt_only())
        self.route("GET", "/v0/api-keys", self._list_keys, admin)
        self.route("POST", "/v0/api-keys", self._add_key, admin)

    def credentials(self, request: Request) -> User | None:
        """The user that a login names, if the password is right."""
        body = read_body(request, {name: Field(is_text, required=True) for name in ("username", "password")})
        return self.auth.log_in(body["username"], body["password"])

    def _log_in(self, request: Request) -> Response:
        user = self.credentials(request)
        if user is None:
            return text(401, "Invalid username or password")
        who = {"id": user.id, "username": user.username, "role": user.role}
        return reply({"token": self.jwt(user), "expires_in": DAY_S, "user": who})

    def me(self, request: Request) -> Response:
        """Who the token belongs to; note `user_id`."""
        user = request.principal.user
        return reply({"user_id": user.id, "username": user.username, "role": user.role})

    def _list_keys(self, request: Request) -> Response:
        return reply({"api_keys": [self._key_json(each) for each in self.auth.keys.values()]})

    def _key_json(self, key: Any) -> dict[str, Any]:
        return {
            "id": key.id,
            "name": key.name,
            "created_by": key.created_by,
            "created_at": offset_instant(key.created_at),
            "expires_at": None if key.expires_at is None else offset_instant(key.expires_at),
            "scopes": sorted(key.rights),
        }

    def _add_key(self, request: Request) -> Response:
        body = read_body(
            request,
            {
                "name": Field(is_text, required=True),
                "expires_at": Field(is_text),
                "scopes": Field(is_texts, required=True),
            },
        )
        if not body["scopes"]:
            return text(400, "Scopes are required")
        expires = self.expiry(body["expires_at"])
        key = self.auth.add_key(*body["scopes"], name=body["name"], expires_at=expires)
        told = self._key_json(self.auth.keys[key]) | {"key": key}
        del told["created_by"]
        return reply(told | ({"key_prefix": key[:10]} if self.generation == "G3" else {}), 201)

    def expiry(self, given: str | None) -> float | None:
        """An optional RFC 3339 instant."""
        if given is None:
            return None
        try:
            return datetime.fromisoformat(given).timestamp()
        except ValueError:
            raise Answered(text(400, "expires_at must be RFC 3339")) from None


def dashboard_stats(noun: str, statuses: list[str], more: dict[str, Any], *, tokens: bool) -> dict[str, Any]:
    """`GET .../dashboard/stats`; `noun` is `nodes`, or since G3 `runtimes`."""
    kinds = ("online", "pending", "registering", "offline")
    counts = {f"total_{noun}": len(statuses)} | {f"{kind}_{noun}": statuses.count(kind) for kind in kinds}
    whole = ("total_requests", "successful_requests", "failed_requests", "total_active_requests", "queued_requests")
    extra = ("total_input_tokens", "total_output_tokens", "total_tokens") if tokens else ()
    nothing = ("average_response_time_ms", "average_gpu_usage", "average_gpu_memory_usage", "last_metrics_updated_at")
    flags = ("openai_key_present", "google_key_present", "anthropic_key_present")
    return (
        counts
        | dict.fromkeys((*whole, *extra), 0)
        | dict.fromkeys((*nothing, "last_registered_at", "last_seen_at"))
        | dict.fromkeys(flags, False)
        | more
    )


def overview(clock: Clock, noun: str, items: list[dict[str, Any]], stats: dict[str, Any]) -> dict[str, Any]:
    """`GET .../dashboard/overview`: always sixty minutes of history."""
    minute = math.floor(clock() / 60) * 60
    history = [{"minute": instant(minute - 60 * ago), "success": 0, "error": 0} for ago in range(59, -1, -1)]
    return {noun: items, "stats": stats, "history": history, "generated_at": instant(clock()), "generation_time_ms": 1}


def csrf_token() -> str:
    """A fresh one."""
    return secrets.token_hex(16)
