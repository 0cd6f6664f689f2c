"""The client of the `/v0` API as docs/wire.md describes it: our own service, on this machine or another."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

from modelhub_tui.client import wire
from modelhub_tui.client.base import DownloadRequest, Registered, RegisterRequest
from modelhub_tui.client.problems import to_error
from modelhub_tui.client.transport import READ_S, Answer, RouterHttp
from modelhub_tui.domain import Limits, Place, RouterInfo, RouterReport, Trashed
from modelhub_tui.errors import NotARouter, NotSupported, Rejected, RouterFault
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

REGISTER_S = 90.0
"""The router asks the hub before it answers, some generations without a limit of their own."""
_LARGE_BYTES = 256 * 1024
"""A list of this size is parsed in a thread, because it takes longer than a frame."""
_HELD_S = 1.0
"""A request unanswered for this long was held back on purpose."""


class V0Client:
    """One router that speaks `/v0`. Making it blocks for up to 150 ms (TLS), so make it in a thread.

    Args:
        url: Base URL, such as `http://127.0.0.1:41234`.
        api_key: An admin key; None if the router wants none.
        transport: Replaces the network, in tests.
        label: What the status line shows; the router's host if empty.
        notices: What people should be told, beside what the router says of itself.
        headers: Sent with every request.
        about_token: Added where the router has no access to a repo: why that may be so.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        label: str = "",
        notices: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        about_token: str = "",
    ) -> None:
        self._http = RouterHttp(url, api_key, transport=transport, more=headers)
        self._label, self._notices, self._about_token = label, notices, about_token
        self._version = ""
        self._models = Feed(self._http, "/v0/models", wire.models_reader())
        self._nodes = Feed(self._http, "/v0/nodes", wire.nodes_reader())
        self._report: RouterReport | None = None

    async def info(self) -> RouterInfo:
        """Say who answers, by `GET /health`; see `RouterClient.info`."""
        answer = await self._http.request("GET", "/health")
        version = wire.read_health(answer.body) if answer.status == 200 else None
        if version is None:
            if answer.status in (401, 403):
                raise to_error(answer.status, answer.headers, answer.body)
            if answer.status >= 500:
                raise to_error(answer.status, answer.headers, answer.body)
            raise NotARouter(self._http.url, await self._guess(answer))
        self._version = version
        url = self._http.url
        label = self._label or urlsplit(url).netloc
        return RouterInfo(label=label, url=url, version=version, generation="local", supplies_stats=True)

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        """Return all models and nodes; see `RouterClient.report`."""
        if wait_s <= 0 or self._report is None:
            await self._drop_held()
            results = await asyncio.gather(self._models.poll(0), self._nodes.poll(0), return_exceptions=True)
            for each in results:
                if isinstance(each, BaseException):
                    raise each
        else:
            await self._first_change(wait_s)
        models, nodes = self._models.value, self._nodes.value
        last, unheard = self._report, self._models.unheard
        if last is None or last.models is not models or last.nodes is not nodes or last.unheard != unheard:
            told = filter(None, (*self._notices, self._models.notice, self._models.cut, self._nodes.cut))
            last = self._report = RouterReport(models, nodes, tuple(dict.fromkeys(told)), unheard)
        return last

    async def register(self, request: RegisterRequest) -> Registered:
        """Register a model, by `POST /v0/models/register`; see `RouterClient.register`."""
        body = {"repo": request.repo}
        optional = {"filename": request.file, "revision": request.revision, "display_name": request.title}
        body.update({name: value for name, value in optional.items() if value})
        answer = await self._http.request("POST", "/v0/models/register", body=body, read_s=REGISTER_S)
        if not answer.ok:
            refusal = to_error(answer.status, answer.headers, answer.body, model=request.repo.lower())
            if isinstance(refusal, Rejected) and refusal.code in ("gated", "bad_token") and self._about_token:
                raise Rejected(f"{refusal.reason} {self._about_token}", code=refusal.code)
            raise refusal
        try:
            return wire.read_registered(answer.body)
        except wire.WrongShapeError as error:
            raise RouterFault("its answer to the registration cannot be read.") from error

    async def delete(self, name: str, *, cancel: bool = False, keep: bool = True) -> None:
        """Deregister a model, by `DELETE /v0/models/{name}`; see `RouterClient.delete`."""
        said = [word for word, wanted in (("cancel=true", cancel), ("keep=false", not keep)) if wanted]
        query = "?" + "&".join(said) if said else ""
        answer = await self._http.request("DELETE", f"/v0/models/{quote(name, safe='')}{query}")
        if not answer.ok:
            raise to_error(answer.status, answer.headers, answer.body, model=name)

    async def retry(self, name: str) -> None:
        """Start a failed transfer again, by `POST /v0/transfers/{name}/retry`; see `RouterClient.retry`."""
        await self._order_transfer(name, "retry", "start a failed download again")

    async def pause(self, name: str) -> None:
        """Hold a transfer, by `POST /v0/transfers/{name}/pause`; see `RouterClient.pause`."""
        await self._order_transfer(name, "pause", "pause a download")

    async def resume(self, name: str) -> None:
        """Let a held transfer go on, by `POST /v0/transfers/{name}/resume`; see `RouterClient.resume`."""
        await self._order_transfer(name, "resume", "resume a download")

    async def move(self, name: str, to: Place) -> None:
        """Change the order of transfers, by `POST /v0/transfers/{name}/move`; see `RouterClient.move`."""
        await self._order_transfer(name, "move", "change the order of downloads", {"to": str(to)})

    async def limits(self) -> Limits:
        """What transfers and trash may take, by `GET /v0/service/limits`; see `RouterClient.limits`."""
        answer = await self._ask("GET", "/v0/service/limits", "limit downloads")
        return _read(wire.read_limits, answer)

    async def set_limits(self, limits: Limits) -> Limits:
        """Change it, by `PATCH /v0/service/limits`; see `RouterClient.set_limits`."""
        answer = await self._ask("PATCH", "/v0/service/limits", "limit downloads", body=asdict(limits))
        return _read(wire.read_limits, answer)

    async def trash(self) -> tuple[Trashed, ...]:
        """What can be had back, by `GET /v0/trash`; see `RouterClient.trash`."""
        return _read(wire.read_trash, await self._ask("GET", "/v0/trash", "bring back what was deleted"))

    async def restore(self, name: str) -> Registered:
        """Take a deletion back, by `POST /v0/models/{name}/restore`; see `RouterClient.restore`."""
        path = f"/v0/models/{quote(name, safe='')}/restore"
        action = "bring back what was deleted"
        return _read(wire.read_registered, await self._ask("POST", path, action, model=name))

    async def empty_trash(self, name: str | None = None) -> None:
        """Free what was deleted, by `DELETE /v0/trash[/{name}]`; see `RouterClient.empty_trash`."""
        path = "/v0/trash" if name is None else f"/v0/trash/{quote(name, safe='')}"
        await self._ask("DELETE", path, "empty its trash", model=name or "")

    async def adopt(self, name: str) -> Registered:
        """Register what a node found, by `POST /v0/models/adopt`; see `RouterClient.adopt`."""
        answer = await self._ask("POST", "/v0/models/adopt", "adopt models", body={"name": name}, model=name)
        return _read(wire.read_registered, answer)

    async def _order_transfer(self, name: str, verb: str, action: str, body: dict[str, Any] | None = None) -> None:
        await self._ask("POST", f"/v0/transfers/{quote(name, safe='')}/{verb}", action, body=body, model=name)

    async def _ask(
        self, method: str, path: str, action: str, *, body: dict[str, Any] | None = None, model: str = ""
    ) -> Answer:
        answer = await self._http.request(method, path, body=body)
        if not answer.ok:
            # A route without words is not there: the service is older than this program.
            version = f"version {self._version}" if self._version else "an older version"
            older = f"{action}: it is {version}. Run `modelhub stop` where it runs; its downloads resume"
            raise to_error(answer.status, answer.headers, answer.body, model=model, action=older)
        return answer

    async def download(self, request: DownloadRequest) -> None:
        """Nodes follow the registrations; none takes orders."""
        raise NotSupported("order a download on one node; its nodes fetch what is registered")

    async def delete_on(self, node_id: str, name: str) -> None:
        """Nodes follow the registrations; none takes orders."""
        raise NotSupported("delete a model from one node; its nodes drop what is deregistered")

    async def approve(self, node_id: str) -> None:
        """Let a pending node in, by `POST /v0/nodes/{id}/approve`; see `RouterClient.approve`."""
        answer = await self._http.request("POST", f"/v0/nodes/{quote(node_id, safe='')}/approve")
        if not answer.ok:
            raise to_error(answer.status, answer.headers, answer.body, model=node_id)

    async def aclose(self) -> None:
        """Close connections; see `RouterClient.aclose`."""
        await self._drop_held()
        await self._http.aclose()

    async def _first_change(self, wait_s: float) -> None:
        """Wait until either list has changed. The other's request stays held, for the next call to wait on."""
        began = time.monotonic()
        feeds: tuple[Feed[object], ...] = (self._models, self._nodes)  # type: ignore[assignment]
        waiting = {feed.hold(wait_s): feed for feed in feeds}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                changed = False
                for task in done:
                    feed = waiting.pop(task)
                    held_s = feed.release()
                    if task.result():
                        changed = True
                    elif held_s >= _HELD_S and time.monotonic() - began < wait_s:
                        waiting[feed.hold(wait_s)] = feed  # it was asked before the other one: it must not go unheard
                if changed:
                    return
        except BaseException:
            await self._drop_held()
            raise

    async def _drop_held(self) -> None:
        await asyncio.gather(self._models.drop(), self._nodes.drop())

    async def _guess(self, answer: Answer) -> str:
        """Say what somebody who is not a router looks like."""
        text = answer.body[:2000].decode(errors="replace").lstrip().lower()
        if text.startswith(("<!doctype", "<html", "<?xml", "<head", "<body")):
            return "a web page"
        root = await self._http.request("GET", "/")
        if b"ollama is running" in root.body[:200].lower():
            return "an Ollama server"
        if (await self._http.request("GET", "/v0/nodes")).status in (200, 401, 403):
            return "a router of a kind this version does not know yet"
        if root.body[:2000].lstrip().lower().startswith((b"<!doctype", b"<html")):
            return "a web page"
        return "some other server"


class Feed(Generic[T]):
    """One list of a router, followed with conditional requests."""

    def __init__(self, http: RouterHttp, path: str, reader: wire.ListReader[T]) -> None:
        self.value: tuple[T, ...] = ()
        self.notice = ""
        """What the router says of itself with the list: that it had to repair something at its start."""
        self.unheard = ""
        """What the router says of a node that has not told yet what it holds."""
        self._http, self._path, self._reader = http, path, reader
        self._etag = ""
        self._body: bytes | None = None
        self._held: asyncio.Task[bool] | None = None
        self._held_since = 0.0

    async def poll(self, wait_s: float) -> bool:
        """Fetch the list if it has changed; True if it has.

        Args:
            wait_s: How long the router may hold its answer back while it has not.

        Raises:
            ModelHubError: As for `RouterClient.report`.
        """
        headers: dict[str, str] = {}
        if self._etag:
            headers["If-None-Match"] = self._etag
            if wait_s >= 1:
                headers["Prefer"] = f"wait={int(wait_s)}"
        answer = await self._http.request("GET", self._path, headers=headers, read_s=wait_s + READ_S)
        if answer.status == 304 and self._body is not None:
            return False
        if answer.status != 200:
            if answer.status == 404:
                raise NotARouter(self._http.url, "some other server")
            raise to_error(answer.status, answer.headers, answer.body)
        before, self.unheard = self.unheard, clean(answer.headers.get("x-modelhub-unheard", ""), 300)
        etag = answer.headers.get("etag", "")
        if not (len(etag) < 200 and etag.isascii() and etag.isprintable()):
            etag = ""
        if answer.body == self._body:
            self._etag = etag
            return self.unheard != before
        self.notice = clean(answer.headers.get("x-modelhub-notice", ""), 300)
        try:
            if len(answer.body) > _LARGE_BYTES:
                value = await asyncio.to_thread(self._reader.read, answer.body)
            else:
                value = self._reader.read(answer.body)
        except wire.WrongShapeError as error:
            raise RouterFault(f"its list {self._path} cannot be read ({error}).") from error
        # All or nothing: a tag without its list would answer "unchanged" for ever.
        self._etag, self._body = etag, answer.body
        if _same(value, self.value):
            return self.unheard != before
        self.value = value
        return True

    @property
    def cut(self) -> str:
        """One sentence when the list was too long to be read whole."""
        return self._reader.notice

    def hold(self, wait_s: float) -> asyncio.Task[bool]:
        """The request that is being held, or a new one."""
        if self._held is None:
            self._held = asyncio.create_task(self.poll(wait_s), name=f"follow {self._path}")
            self._held_since = time.monotonic()
        return self._held

    def release(self) -> float:
        """Forget the request that was held, and say for how many seconds."""
        self._held = None
        return time.monotonic() - self._held_since

    async def drop(self) -> None:
        """Give up the request that is being held."""
        held, self._held = self._held, None
        if held is not None:
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)


def _read(reader: Callable[[bytes], T], answer: Answer) -> T:
    try:
        return reader(answer.body)
    except wire.WrongShapeError as error:
        raise RouterFault("its answer cannot be read.") from error


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))
