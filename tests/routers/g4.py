"""G4, llmlb 5.7.1: `/api`, permissions instead of scopes, cookies, downloads ordered on endpoints, a catalogue."""

from __future__ import annotations

from typing import Any

from tests.routers.auth import DAY_S
from tests.routers.base import (
    Answered,
    Clock,
    Field,
    Request,
    Response,
    failure,
    is_text,
    is_texts,
    offset_instant,
    read_body,
    reply,
    text,
)
from tests.routers.endpoints import CANONICAL, OLLAMA_NAMES, Endpoint, EndpointRouter, Task
from tests.routers.models import csrf_token

VERSION = "5.7.1"
PERMISSIONS = (
    "openai.inference",
    "openai.models.read",
    "endpoints.read",
    "endpoints.manage",
    "api_keys.manage",
    "users.manage",
    "invitations.manage",
    "models.manage",
    "registry.read",
    "logs.read",
    "metrics.read",
)
DOWNLOADABLE = ("xllm", "ollama", "lm_studio")


class FakeG4(EndpointRouter):
    """llmlb 5.7.1. There is no AUTH_DISABLED any more.

    Args:
        real_hf: HuggingFace's records have both `_id` and `id`, which the catalogue's parser refuses.
    """

    generation = "G4"
    prefix = "/api"
    prefixed_errors = False

    def __init__(self, *, clock: Clock | None = None, huggingface: Any = None, real_hf: bool = False) -> None:
        super().__init__(clock=clock, huggingface=huggingface)
        self.real_hf = real_hf

    # -- for tests

    def run_task(self, task: Task | str, *, error: str | None = None) -> Task:
        """Let the engine finish a download. What has arrived shows in the inventory after the next sync."""
        with self.lock:
            task = next(each for each in self.tasks if each is task or each.task_id == task)
            endpoint = self.endpoints[task.endpoint_id]
            if endpoint.endpoint_type == "xllm":
                return task  # nothing was ever sent to it
            if error is not None:
                task.status, task.error_message = "failed", error
                return task
            task.status, task.progress = "completed", 100.0
            self.backend(endpoint).models.append(task.engine_model)
        return task

    # -- routes

    def add_keys(self) -> None:
        self.admin_key = self.auth.add_key(*PERMISSIONS, name="everything")
        self.registry_key = self.auth.add_key("registry.read", name="registry")
        self.api_key = self.auth.add_key("openai.inference", "openai.models.read", name="openai")

    def add_routes(self) -> None:
        auth = self.auth
        self.route("GET", "/api/version", lambda _: reply({"version": VERSION}))
        self.route("GET", "/api/system", lambda _: reply(_system()))
        self.add_model_routes(
            self._allowed("registry.read"),
            self._allowed("models.manage", unaffected=False),
            auth.key_only({"registry.read"}, "Missing required permission: registry.read"),
        )
        self.add_endpoint_routes(self._allowed("endpoints.read", admin=False), self._allowed("endpoints.manage"))
        self.route("POST", "/api/endpoints/{id}/models/delete", self._delete_on, self._allowed("endpoints.manage"))
        self.route("POST", "/api/auth/login", self._sign_in)
        self.route("POST", "/api/auth/logout", self._sign_out, auth.jwt_only())
        self.route("GET", "/api/auth/me", self.me, auth.jwt_only())
        self.route("PUT", "/api/auth/change-password", self._change_password, auth.jwt_only())
        self.route("POST", "/api/me/api-keys", self._add_own_key, auth.jwt_only(unaffected=False))
        anyone = auth.jwt_only(unaffected=False)
        self.route("GET", "/api/dashboard/models", self._dashboard_models, anyone)
        self.route("GET", "/api/dashboard/endpoints", lambda _: reply(self.dashboard_items()), anyone)
        self.route("GET", "/api/dashboard/stats", lambda _: reply(self.dashboard_stats()), anyone)
        whole = lambda _: reply(self.dashboard_overview() | {"endpoint_tps": []})  # noqa: E731
        self.route("GET", "/api/dashboard/overview", whole, anyone)
        self.route("GET", "/api/catalog/search", self._search, anyone)
        self.route("GET", "/api/catalog/recommend-endpoints/{*repo}", self._recommend, anyone)
        self.route("GET", "/api/catalog/{*repo}", self._catalog_detail, anyone)
        self.add_v1_routes(auth.key_only({"openai.models.read"}, "Missing required permission: openai.models.read"))

    def _allowed(self, permission: str, *, admin: bool = True, unaffected: bool = True) -> Any:
        words = f"Missing required permission: {permission}"
        return self.auth.jwt_or_key({permission}, words, admin=admin, unaffected=unaffected)

    def refuse(self, status: int, sentence: str, code: str) -> Answered:
        return Answered(failure(status, sentence))

    # -- login

    def _sign_in(self, request: Request) -> Response:
        user = self.credentials(request)
        if user is None:
            return failure(401, "Invalid username or password")
        token = self.jwt(user)
        who = {"id": user.id, "username": user.username, "role": user.role}
        answer = reply(
            {
                "token": token,
                "expires_in": DAY_S,
                "user": who | {"must_change_password": user.must_change_password},
            }
        )
        rules = f"Path=/; SameSite=Lax; Max-Age={DAY_S}"
        cookies = [f"llmlb_jwt={token}; HttpOnly; {rules}", f"llmlb_csrf={csrf_token()}; {rules}"]
        answer.headers["Set-Cookie"] = cookies  # type: ignore[assignment]
        return answer

    def _sign_out(self, request: Request) -> Response:
        gone = "Path=/; Max-Age=0"
        cookies = [f"llmlb_jwt=; {gone}", f"llmlb_csrf=; {gone}"]
        return Response(204, headers={"Set-Cookie": cookies})  # type: ignore[dict-item]

    def _change_password(self, request: Request) -> Response:
        password = read_body(request, {"new_password": Field(is_text, required=True)})["new_password"]
        if len(password) < 6:
            return failure(400, "Password must be at least 6 characters")
        user = request.principal.user
        user.password, user.must_change_password = password, False
        return Response(204)

    def _add_own_key(self, request: Request) -> Response:
        given = {
            "name": Field(is_text, required=True),
            "expires_at": Field(is_text),
            "permissions": Field(is_texts),
            "scopes": Field(lambda _: True),
        }
        body = read_body(request, given)
        if body["scopes"] is not None:
            return failure(400, "scopes is no longer supported; use permissions")
        admin = request.principal.role == "admin"
        if admin and not body["permissions"]:
            return failure(400, "permissions are required")
        if not admin and body["permissions"]:
            return failure(403, "permissions cannot be chosen")
        wanted = body["permissions"] or ["openai.inference", "openai.models.read"]
        unknown = next((each for each in wanted if each not in PERMISSIONS), None)
        if unknown:
            return text(422, f"Failed to deserialize the JSON body into the target type: unknown variant `{unknown}`")
        key = self.auth.add_key(*wanted, name=body["name"], expires_at=self.expiry(body["expires_at"]))
        kept = self.auth.keys[key]
        told = {"id": kept.id, "key": key, "key_prefix": key[:10], "name": kept.name, "permissions": wanted}
        return reply(told | {"created_at": offset_instant(kept.created_at), "expires_at": body["expires_at"]}, 201)

    # -- endpoints

    def order(self, endpoint: Endpoint, body: dict[str, Any]) -> Response:
        """Section 5.4: what each software makes of it."""
        kind, model = endpoint.endpoint_type, body["model"]
        if kind not in DOWNLOADABLE:
            raise self.refuse(400, f"Model download is not supported for {kind} endpoints", "")
        if kind == "xllm":
            return self.accept(endpoint, model, model)[1]
        if kind == "ollama":
            task, answer = self.accept(endpoint, model, OLLAMA_NAMES.get(model, model))
            task.status = "downloading"
            return answer
        quantization = body["quantization"] or "Q4_K_M"
        task, answer = self.accept(endpoint, model, f"{body['hf_repo'] or model}@{quantization}".lower())
        task.status, task.progress = "completed", 100.0  # as soon as LM Studio accepts it
        return answer

    def _delete_on(self, request: Request) -> Response:
        endpoint = self.find(request)
        model = read_body(request, {"model": Field(is_text, required=True)})["model"]
        if endpoint.endpoint_type != "ollama":
            raise self.refuse(400, f"Model deletion is not supported for {endpoint.endpoint_type} endpoints", "")
        backend = self.backend(endpoint)
        if model not in backend.models:
            raise self.refuse(400, f"model '{model}' not found", "")
        backend.models.remove(model)
        return Response(204)

    # -- what endpoints really have

    def _merged(self, *, offline: bool) -> list[dict[str, Any]]:
        """Ids merged by canonical name."""
        found: dict[str, dict[str, Any]] = {}
        for endpoint in self.endpoints.values():
            online = endpoint.status == "online"
            for engine_name in endpoint.inventory if online or offline else ():
                canonical = CANONICAL.get(engine_name)
                name = canonical or engine_name
                item = found.setdefault(
                    name,
                    self.v1_item(name, ready=False)
                    | {"max_tokens": None, "endpoint_ids": [], "canonical_name": canonical, "aliases": []},
                )
                item["ready"] = item["ready"] or online
                item["endpoint_ids"].append(endpoint.id)
                if engine_name != name and engine_name not in item["aliases"]:
                    item["aliases"].append(engine_name)
        return list(found.values())

    def v1_items(self) -> list[dict[str, Any]]:
        return self._merged(offline=False)

    def _dashboard_models(self, request: Request) -> Response:
        return reply({"object": "list", "data": self._merged(offline=True)})

    # -- catalogue

    def _catalog_item(self, repo: Any) -> dict[str, Any]:
        engines = {"ollama": OLLAMA_NAMES.get(repo.id), "lm_studio": repo.id, "xllm": None, "vllm": None}
        kinds = [each for each in DOWNLOADABLE if each != "ollama" or engines["ollama"]]
        base = {"repo_id": repo.id, "description": None, "downloads": repo.downloads, "tags": repo.tags}
        return base | {"engine_names": engines, "supports_download": kinds}

    def _search(self, request: Request) -> Response:
        wanted = request.query.get("q")
        if wanted is None:
            return text(400, "Failed to deserialize query string: missing field `q`")
        if self.real_hf:
            return failure(500, "Internal server error")
        if self.hf.down:
            return failure(502, "Backend service unavailable")
        limit = int(request.query.get("limit", 20))
        found = [each for each in self.hf.repos.values() if wanted.lower() in each.id.lower()]
        return reply({"models": [self._catalog_item(each) for each in found if "gguf" in each.tags][:limit]})

    def _catalog_detail(self, request: Request) -> Response:
        if self.real_hf:
            return failure(500, "Internal server error")
        repo = self.hf.repos.get(request.params["repo"].lower())
        if repo is None:
            return failure(404, "Model not found")
        files = [{"rfilename": each} for each in repo.files]
        return reply(self._catalog_item(repo) | {"pipeline_tag": None, "siblings": files})

    def _recommend(self, request: Request) -> Response:
        name = request.params["repo"]
        told = [
            {
                "id": each.id,
                "name": each.name,
                "endpoint_type": each.endpoint_type,
                "can_download": each.endpoint_type in DOWNLOADABLE,
                "has_model": name in each.inventory or OLLAMA_NAMES.get(name) in each.inventory,
            }
            for each in self.newest_first()
            if each.status == "online"
        ]
        return reply({"endpoints": told})


def _system() -> dict[str, Any]:
    state = {"update": {"state": "up_to_date"}, "schedule": None, "rollback_available": False}
    return {"version": VERSION, "pid": 4242, "in_flight": 0, **state}
