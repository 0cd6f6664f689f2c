"""The node's side of the `/v0` protocol: register, list, manifest, heartbeat. See docs/wire.md.

Works against the upstream router's first two generations as well: they ignore what we add and leave out what we miss.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx

from modelhub_tui import tls
from modelhub_tui.domain import Limits
from modelhub_tui.net import new_transport, retry_after_s
from modelhub_tui.service.limits import read_limits
from modelhub_tui.service.node import faults
from modelhub_tui.service.node.manifest import Listed, read_list
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

_MAX_BYTES = 64 * 1024 * 1024
_PASSING_STATUS = frozenset({401, 403, 404, 408, 421, 425, 429})


class RouterTrouble(Exception):
    """The router did not answer, or not as it should. `status` is None when there was no answer at all."""

    def __init__(
        self, what: str, status: int | None = None, body: Any = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what)
        self.status, self.body, self.retry_after_s = status, body, retry_after_s


@dataclass(frozen=True, slots=True)
class Listing:
    """A router's list of models to hold."""

    listed: Listed
    store: str | None
    """Identity of its database; None from a router that has none."""
    etag: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a router answers to a heartbeat. An upstream router says nothing."""

    limits: Limits | None = None
    unknown: frozenset[str] = frozenset()
    """Names of the deleted models, of those we told of, of which the router knows nothing."""


class RouterLink:
    """One router. Coroutines; each raises RouterTrouble."""

    def __init__(
        self, url: str, key: str, *, timeout_s: float = 10.0, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "modelhub-node"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            follow_redirects=False,
            transport=transport or new_transport(url),
            trust_env=False,
        )
        self._token: str | None = None
        self.node_id: str | None = None

    @property
    def registered(self) -> bool:
        return self._token is not None

    async def register(self, description: dict[str, Any]) -> None:
        """Introduce this node; the router gives it an id and a token for heartbeats."""
        answer, _ = await self._ask("POST", "/v0/nodes", body=description)
        node_id = answer.get("node_id") if isinstance(answer, dict) else None
        token = answer.get("node_token") if isinstance(answer, dict) else None
        if not isinstance(node_id, str) or not isinstance(token, str):
            raise RouterTrouble("its answer to a registration names no node")
        self.node_id, self._token = node_id, token

    async def models(self, etag: str | None, wait_s: float) -> Listing | None:
        """The models to hold; None if nothing changed since `etag`. The router may take `wait_s` seconds to answer."""
        headers = {"Prefer": f"wait={wait_s:.0f}, orders" if wait_s >= 1 else "orders"}
        if etag:
            headers["If-None-Match"] = etag
        answer, response = await self._ask("GET", "/v0/models", headers=headers, extra_s=wait_s)
        if response.status_code == 304:
            return None
        try:
            applied = response.headers.get("preference-applied", "").replace(",", " ").split()
            listed = read_list(answer, orders="orders" in applied)
        except ValueError as error:
            raise RouterTrouble(str(error)) from error
        store = response.headers.get("x-modelhub-store")
        return Listing(listed, clean(store, 100) if store else None, response.headers.get("etag"))

    async def manifest(self, name: str) -> Any:
        """One model's files, unchecked."""
        answer, _ = await self._ask("GET", f"/v0/models/registry/{quote(name, safe='')}/manifest.json")
        return answer

    async def heartbeat(self, report: dict[str, Any], limits: Limits) -> Answer:
        """Tell how things are. Forgets the registration when the router does not know us (any more).

        Args:
            limits: What holds now; members that the router leaves out stay so.
        """
        if self._token is None:
            raise RouterTrouble("not registered yet")
        try:
            answer, _ = await self._ask(
                "POST", "/v0/health", body={"node_id": self.node_id, **report}, headers={"X-Node-Token": self._token}
            )
        except RouterTrouble as trouble:
            if trouble.status in (401, 403, 404):
                self._token = None
            raise
        return read_answer(answer, limits)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _ask(
        self, method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None, extra_s: float = 0.0
    ) -> tuple[Any, httpx.Response]:
        """Send a request, read at most 64 MiB of answer, parse it if there is something to parse."""
        timeout = httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, 5.0), read=self._timeout_s + extra_s)
        try:
            async with self._client.stream(method, path, json=body, headers=headers, timeout=timeout) as response:
                chunks, count = [], 0
                async for chunk in response.aiter_bytes():
                    count += len(chunk)
                    if count > _MAX_BYTES:
                        raise RouterTrouble("its answer is far too long", response.status_code)
                    chunks.append(chunk)
        except httpx.HTTPError as error:
            refused = tls.refusal(error, self._client.base_url.host)
            raise RouterTrouble(str(refused or error) or type(error).__name__) from error
        raw = b"".join(chunks)
        try:
            parsed = json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            parsed = None if response.is_success else raw[:2000].decode("utf-8", "replace")
            if response.is_success:
                raise RouterTrouble("its answer is not JSON", response.status_code) from None
        if not response.is_success and response.status_code != 304:
            raise RouterTrouble(
                f"error {response.status_code}", response.status_code, parsed, retry_after_s(response.headers)
            )
        return parsed, response


def read_answer(raw: object, limits: Limits) -> Answer:
    """A router's answer to a heartbeat; what makes no sense is as if it had not been said."""
    if not isinstance(raw, dict):
        return Answer()
    unknown = raw.get("unknown")
    return Answer(
        limits=read_limits(raw["limits"], limits) if isinstance(raw.get("limits"), dict) else None,
        unknown=frozenset(each for each in unknown if isinstance(each, str))
        if isinstance(unknown, list)
        else frozenset(),
    )


def manifest_fault(trouble: RouterTrouble) -> faults.Fault:
    """Why there is no manifest, in the router's own words if it gave some."""
    said = trouble.body.get("error") if isinstance(trouble.body, dict) else trouble.body
    code = trouble.body.get("code") if isinstance(trouble.body, dict) else None
    status = trouble.status
    sentence = clean(said, 300) if isinstance(said, str) and said else ""
    if status is None or status >= 500 or status in _PASSING_STATUS or not sentence:
        fault = faults.router_failed(sentence or str(trouble))
        return faults.Fault(
            code if isinstance(code, str) else fault.code,
            fault.sentence,
            passing=True,
            retry_after_s=trouble.retry_after_s,
        )
    return faults.Fault(code if isinstance(code, str) else "router", sentence)
