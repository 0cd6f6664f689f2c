"""G3: the router asks endpoints. Only xLLM takes orders for downloads, and they never begin."""

from __future__ import annotations

from typing import Any

from tests.routers.base import Answered, Request, Response, failure, reply
from tests.routers.endpoints import Endpoint, EndpointRouter

TYPES = ("xllm", "ollama", "vllm", "openai_compatible", "unknown")


class FakeG3(EndpointRouter):
    """llmlb of 2026-01-30."""

    generation = "G3"
    tests_new_endpoints = False

    def add_keys(self) -> None:
        self.admin_key = self.auth.add_key("admin", name="admin")
        self.endpoint_key = self.auth.add_key("endpoint", name="endpoint")
        self.api_key = self.auth.add_key("api", name="api")

    def add_routes(self) -> None:
        auth = self.auth
        admin = auth.jwt_or_key({"admin"}, "Admin scope required")
        lists = auth.jwt_or_key({"admin", "endpoint"}, "Admin or Endpoint scope required")
        self.add_model_routes(lists, admin, auth.key_only({"admin", "endpoint"}, "Admin or Endpoint scope required"))
        self.add_auth_routes(admin)
        # The role is checked by the handlers that write.
        anyone = auth.jwt_or_key({"admin", "api"}, "Insufficient API key scope", admin=False)
        self.add_endpoint_routes(anyone, anyone)
        for name in ("endpoints", "nodes"):  # the old path still answers, with endpoint objects
            self.route("GET", f"/v0/dashboard/{name}", lambda _: reply(self.dashboard_items()), admin)
        self.route("GET", "/v0/dashboard/stats", lambda _: reply(self.dashboard_stats()), admin)
        self.route("GET", "/v0/dashboard/overview", lambda _: reply(self.dashboard_overview()), admin)
        self.add_v1_routes(auth.key_only({"admin", "api"}))

    def refuse(self, status: int, sentence: str, code: str) -> Answered:
        return Answered(failure(status, sentence, code))

    def must_write(self, request: Request) -> None:
        if request.principal.role != "admin":
            raise self.refuse(403, "Admin access required", "FORBIDDEN")

    def restart(self) -> None:
        """Stop and start the router: both registries agree again, and everything is health-checked."""
        with self.lock:
            for each in self.endpoints.values():
                each.in_memory_status, each.health_checked = each.status, True

    def endpoint_json(self, endpoint: Endpoint, *, counted: bool = False) -> dict[str, Any]:
        return super().endpoint_json(endpoint, counted=counted) | {"supports_responses_api": False}

    def order(self, endpoint: Endpoint, body: dict[str, Any]) -> Response:
        if endpoint.endpoint_type != "xllm":
            words = f"Model download is not supported for {endpoint.endpoint_type} endpoints"
            raise self.refuse(400, words, "DOWNLOAD_NOT_SUPPORTED")
        return self.accept(endpoint, body["model"], body["model"])[1]

    def dashboard_items(self) -> list[dict[str, Any]]:
        """From the second registry, whose states can be stale."""
        return [self.endpoint_json(each) | {"status": each.in_memory_status} for each in self.newest_first()]

    def v1_items(self) -> list[dict[str, Any]]:
        """Only what endpoints that the second registry thinks are online report."""
        online = [each for each in self.endpoints.values() if each.in_memory_status == "online"]
        names = dict.fromkeys(name for each in online for name in each.inventory)
        return [self.v1_item(name) for name in names]
