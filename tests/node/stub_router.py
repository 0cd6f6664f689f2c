"""A router as docs/wire.md says, as small as the node needs it; and as the upstream one, without our additions."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.hub import HubRepo

KEY = "nk-secret-node-key"


def manifest_of(
    repo: HubRepo, *paths: str, base: str = "https://huggingface.co", priority: int = 0
) -> list[dict[str, Any]]:
    """A manifest's files, with everything our own router adds."""
    return [
        {
            "name": "model.gguf" if len(paths) == 1 and path.endswith(".gguf") else path,
            "path": path,
            "url": f"{base}/{repo.id}/resolve/{repo.sha}/{path}",
            "priority": priority,
            "size": repo[path].size,
            "sha256": repo[path].sha256 if repo[path].lfs else None,
            "blob_id": None if repo[path].lfs else repo[path].oid,
            "repo": repo.id,
            "revision": repo.sha,
        }
        for path in paths or repo.main.files
    ]


class StubRouter:
    """Runs on a thread. `stock=True` answers as the upstream router: no ETag, no store, no attempt, no waiting."""

    def __init__(self, *, stock: bool = False) -> None:
        self.stock = stock
        self.store = str(uuid.uuid4())
        self.models: dict[str, dict[str, Any]] = {}
        self.manifests: dict[str, Any] = {}
        self.orders: dict[str, dict[str, Any]] = {}
        """What nodes are to remove, by registration."""
        self.heartbeats: list[dict[str, Any]] = []
        self.registrations: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.refuse: dict[str, tuple[int, Any]] = {}
        """(status, body) to answer with instead, by the beginning of the path."""
        self.limits: dict[str, Any] | None = None
        self.trash: set[str] = set()
        """Deleted models that nodes are to keep for a while."""
        self.unknown: list[str] = []
        """What the answer to a heartbeat says; None answers as upstream does."""
        self.changed = threading.Condition()
        self._version = 0
        self._tokens: set[str] = set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> StubRouter:
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        router = self

        class Handler(_Handler):
            stub = router

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        self.touch()

    # -- what a person does

    def register(self, name: str, files: Iterable[dict[str, Any]] | Any, **more: Any) -> str:
        with self.changed:
            told = {"registered": True, "status": "registered", "attempt": 0, "registration": str(uuid.uuid4())}
            self.models[name] = {"name": name, **told, **more}
            self.manifests[name] = {"format": "gguf", "files": list(files)}
            self._touch()
        return name

    def remove(self, name: str, *, keep: bool = False) -> None:
        with self.changed:
            gone = self.models.pop(name)
            if keep:
                self.trash.add(name)
            self._order(name, gone["registration"], keep)

    def free(self, name: str) -> None:
        """Have a deleted model freed for good."""
        with self.changed:
            self.trash.discard(name)
            [registration] = [each["registration"] for each in self.orders.values() if each["name"] == name]
            self._order(name, registration, keep=False)

    def _order(self, name: str, registration: str, keep: bool) -> None:
        order = {"order": str(uuid.uuid4()), "registration": registration, "name": name, "keep": keep}
        self.orders[registration] = {**order, "registered": False, "status": "deleting"}
        self._touch()

    def retry(self, name: str) -> None:
        with self.changed:
            self.models[name]["attempt"] += 1
            self._touch()

    def change(self, name: str, **more: Any) -> None:
        """Change what the list says of a model: `paused`, `queue_position`."""
        with self.changed:
            self.models[name] = {**self.models[name], **more}
            self._touch()

    def limit(self, **limits: Any) -> None:
        with self.changed:
            self.limits = {**(self.limits or {}), **limits}
            self._touch()

    def touch(self) -> None:
        with self.changed:
            self._touch()

    def forget_nodes(self) -> None:
        self._tokens.clear()

    # -- what is seen

    @property
    def last(self) -> dict[str, Any]:
        return self.heartbeats[-1] if self.heartbeats else {}

    def transfer(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self.last.get("transfers", ()) if each["name"] == name), None)

    def placement(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self.last.get("placements", ()) if each["name"] == name), None)

    @property
    def found(self) -> list[dict[str, Any]]:
        """What the node last said it found; not every heartbeat carries it."""
        return next((each["found"] for each in reversed(self.heartbeats) if "found" in each), [])

    def trashed(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self.last.get("trash", ()) if each["name"] == name), None)

    def wait(self, seen: Callable[[], Any], timeout_s: float = 40.0) -> Any:
        """Wait until `seen()` is true of the reports so far, and return what it gave."""
        with self.changed:
            if not self.changed.wait_for(seen, timeout_s):
                raise AssertionError(f"not seen in {timeout_s} s; last report: {json.dumps(self.last, indent=1)}")
            return seen()

    def wait_whole(self, name: str) -> dict[str, Any]:
        return self.wait(lambda: self.placement(name))

    def wait_phase(self, name: str, *phases: str) -> dict[str, Any]:
        return self.wait(lambda: (found := self.transfer(name)) and found["phase"] in phases and found)

    def wait_offline(self, name: str) -> dict[str, Any]:
        """The transfer once it waits for the hub or the line to come back, to try again by itself."""
        return self.wait(
            lambda: (found := self.transfer(name)) and found["phase"] == "waiting" and found["retry_in_s"] and found
        )

    def wait_gone(self, name: str) -> None:
        count = len(self.heartbeats)
        self.wait(
            lambda: (
                len(self.heartbeats) > count
                and not self.placement(name)
                and not self.transfer(name)
                and (name in self.trash or not self.trashed(name))
            )
        )

    def wait_trashed(self, name: str) -> dict[str, Any]:
        """Wait until the node holds a model in its trash only."""
        return self.wait(lambda: not self.placement(name) and self.trashed(name))

    def _touch(self) -> None:
        self._version += 1
        self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    stub: StubRouter
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        stub = self.stub
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        stub.requests.append(f"{method} {self.path}")
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return self._send(401, "Invalid API key")
        for start, (status, answer) in stub.refuse.items():
            if self.path.startswith(start):
                return self._send(status, answer)
        if method == "GET" and self.path == "/v0/models":
            return self._list()
        if method == "GET" and self.path.endswith("/manifest.json"):
            name = unquote(self.path.split("/")[4])
            found = stub.manifests.get(name) if name in stub.models else None
            return self._send(200, found) if found else self._send(404, {"error": f"Model not found: {name}"})
        if method == "POST" and self.path == "/v0/nodes":
            if stub.stock and not self._reaches(body):
                return self._send(500, {"error": "Internal server error"})
            token = f"nt_{uuid.uuid4()}"
            with stub.changed:
                stub._tokens = {token}
                stub.registrations.append(body)
                stub.changed.notify_all()
            return self._send(201, {"node_id": str(uuid.uuid4()), "status": "registered", "node_token": token})
        if method == "POST" and self.path == "/v0/health":
            if self.headers.get("x-node-token") not in stub._tokens:
                return self._send(401, "Invalid node token")
            with stub.changed:
                stub.heartbeats.append({**body, "at": time.monotonic()})
                stub.changed.notify_all()
            told = {"limits": stub.limits or {}, "store": stub.store, "unknown": stub.unknown}
            return self._send(200, None if stub.stock else told)
        return self._send(404, None)

    def _reaches(self, node: dict[str, Any]) -> bool:
        """The upstream router's connection check."""
        try:
            url = f"http://{node['ip_address']}:{node['runtime_port'] + 1}/v1/models"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return isinstance(json.load(answer)["data"], list)
        except OSError:
            return False

    def _list(self) -> None:
        stub = self.stub
        if stub.stock:
            keys = ("name", "repo", "filename")
            return self._send(200, [{k: v for k, v in each.items() if k in keys} for each in stub.models.values()])
        prefer = self.headers.get("prefer", "")
        wait_s = float(prefer.partition(",")[0].removeprefix("wait=")) if prefer.startswith("wait=") else 0.0
        with stub.changed:
            stub.changed.wait_for(lambda: f'"{stub._version}"' != self.headers.get("if-none-match"), wait_s)
            etag, models = f'"{stub._version}"', [*stub.models.values(), *stub.orders.values()]
        headers = {"ETag": etag, "X-Modelhub-Store": stub.store, "Preference-Applied": "orders"}
        if etag == self.headers.get("if-none-match"):
            return self._send(304, None, headers)
        return self._send(200, models, headers)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = (
            body.encode()
            if isinstance(body, str)
            else b""
            if status in (304, 404) and body is None
            else json.dumps(body).encode()
        )
        try:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            pass
