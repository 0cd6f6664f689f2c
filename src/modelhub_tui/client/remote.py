"""What the clients of all upstream generations have in common: lists that are asked for again, and registrations."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from modelhub_tui.client import upstream_wire, wire
from modelhub_tui.client.auth import Access, Credentials
from modelhub_tui.client.base import Registered, RegisterRequest
from modelhub_tui.client.no_control import NoControl
from modelhub_tui.client.transport import READ_S, RouterHttp
from modelhub_tui.domain import Ability, Node, Placement, RouterInfo, RouterModel, RouterReport
from modelhub_tui.errors import AlreadyRegistered, Forbidden, ModelHubError, NotSupported, RouterFault, Unauthorised

T = TypeVar("T")

REGISTER_S = 90.0
"""The router asks the hub before it answers, some generations without a limit of their own."""
HUB_PACE_S, HUB_READ_S = 60.0, 30.0
"""The router's list of supported models asks the hub about each: slow when its cache is cold."""
MOVING_PACE_S, IDLE_PACE_S = 1.0, 3.0
"""How often the lists are asked for while something moves, and otherwise."""
_LARGE_BYTES = 256 * 1024


class Part(Generic[T]):
    """One answer of a router that is asked for again and again; the same value while its bytes are the same.

    Args:
        empty: The value until there is an answer.
        read: Makes a value of a body; raises WrongShapeError.
    """

    def __init__(
        self,
        access: Access,
        path: str,
        empty: T,
        read: Callable[[bytes], T],
        *,
        key_only: bool = False,
        read_s: float = READ_S,
    ) -> None:
        self.value = empty
        self.refused: ModelHubError | None = None
        """Why it may not be read; None if it may."""
        self.served_at: float | None = None
        """When the last answer was given, by the router's clock."""
        self._access, self._path, self._read = access, path, read
        self._key_only, self._read_s = key_only, read_s
        self._body: bytes | None = None

    async def poll(self) -> None:
        """Ask once.

        Raises:
            ModelHubError: As for `RouterClient.report`, also when it may not be read.
        """
        answer = await self._access.request("GET", self._path, key_only=self._key_only, read_s=self._read_s)
        self.served_at = _date(answer.headers.get("date", ""))
        if answer.status != 200:
            error = self._access.error(answer, action=f"list {self._path}")
            self.refused = error if isinstance(error, Unauthorised | Forbidden) else None
            raise error
        self.refused = None
        if answer.body == self._body:
            return
        try:
            large = len(answer.body) > _LARGE_BYTES
            value = await asyncio.to_thread(self._read, answer.body) if large else self._read(answer.body)
        except wire.WrongShapeError as error:
            raise RouterFault(f"its list {self._path} cannot be read ({error}).") from error
        self._body, self.value = answer.body, value

    async def try_poll(self) -> ModelHubError | None:
        """Ask once; what went wrong is the result, not raised."""
        try:
            await self.poll()
        except ModelHubError as error:
            return error
        return None


class RemoteClient(NoControl, ABC):
    """One upstream router. Making it blocks for up to 150 ms (TLS) unless it is given a connection.

    Args:
        http: The connection; closed with the client.
        prefix: `/v0` or `/api`.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        http: RouterHttp,
        credentials: Credentials,
        prefix: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http, self._prefix, self._clock, self._sleep = http, prefix, clock, sleep
        self._access = Access(http, credentials)
        models, hub = wire.ListReader(upstream_wire.registered), wire.ListReader(upstream_wire.hub_item)
        self._readers: list[wire.ListReader[Any]] = [models, hub]
        self._models = Part[tuple[RouterModel, ...]](self._access, f"{prefix}/models", (), models.read)
        self._hub = Part[tuple[upstream_wire.HubItem, ...]](
            self._access,
            f"{prefix}/models/hub",
            (),
            hub.read,
            read_s=HUB_READ_S,
        )
        self._served = Part[tuple[RouterModel, ...]](
            self._access,
            "/v1/models",
            (),
            lambda body: upstream_wire.read_list(body, upstream_wire.served, "data"),
            key_only=True,
        )
        self._hub_task: asyncio.Task[None] | None = None
        self._hub_at: float | None = None
        self._report: RouterReport | None = None
        self._asked_at = 0.0

    # -- for each generation to say

    @abstractmethod
    async def info(self) -> RouterInfo:
        """Say who answers; see `RouterClient.info`."""

    @abstractmethod
    async def _poll(self, *, all_of_it: bool) -> list[ModelHubError]:
        """Ask for the nodes and what they hold; return what may not be read. `all_of_it`: also what rarely changes."""

    @abstractmethod
    def _nodes(self) -> tuple[Node, ...]:
        """The nodes, as last told."""

    @abstractmethod
    def _placed(self, models: tuple[RouterModel, ...]) -> tuple[RouterModel, ...]:
        """The models with their transfers and placements; maybe more of them."""

    # -- news

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        """Return all models and nodes; see `RouterClient.report`. Here the waiting is done on this side."""
        began = self._clock()
        while True:
            before = self._report
            if wait_s > 0 and before is not None:
                moving = any(each.transfers for each in before.models)
                pace_s = MOVING_PACE_S if moving else IDLE_PACE_S
                await self._sleep(max(0.0, min(self._asked_at + pace_s - self._clock(), pace_s)))
            self._asked_at = self._clock()
            report = await self._ask(all_of_it=wait_s <= 0 or before is None)
            if report is not before or wait_s <= 0 or not 0 <= self._clock() - began < wait_s:
                return report

    async def _ask(self, *, all_of_it: bool) -> RouterReport:
        models, told = await asyncio.gather(self._models.try_poll(), self._poll(all_of_it=all_of_it))
        refused = [each for each in (models, *told) if each is not None]
        notices: list[str] = []
        known = self._models.value
        for error in refused:
            if not isinstance(error, Forbidden):
                raise error
        if models is not None:
            if self._access.credentials.api_key and await self._served.try_poll() is None:
                known = self._served.value
                notices.append("This key may only list the models that are served.")
            elif len(refused) > len(told):
                if told or not self._nodes():
                    raise models
                known = ()
                notices.append("Only an administrator may list the registered models here.")
        if told:
            notices.append("This key may not list the nodes; where a model is cannot be told.")
        notices += filter(None, dict.fromkeys(each.notice for each in self._readers))
        self._ask_hub()
        report = RouterReport(self._placed(self._with_hub(known, bool(told))), self._nodes(), tuple(notices))
        if self._report is None or report != self._report:
            self._report = report
        return self._report

    def _with_hub(self, models: tuple[RouterModel, ...], blind: bool) -> tuple[RouterModel, ...]:
        """Registered models and the router's own supported ones, joined on the repo in lower case."""
        items = {each.model.name: each for each in self._hub.value}
        joined: list[RouterModel] = []
        for each in models:
            item = items.pop(each.repo.lower(), None)
            if item is not None:
                told = item.model
                there = (Placement(upstream_wire.SOMEWHERE),) if blind and item.downloaded else each.placements
                each = replace(
                    each,
                    title=each.title or (told.title if told.title.lower() != each.name else ""),
                    quantization=each.quantization or told.quantization,
                    parameters=each.parameters or told.parameters,
                    size_bytes=each.size_bytes or told.size_bytes,
                    required_memory_bytes=each.required_memory_bytes or told.required_memory_bytes,
                    stats=told.stats,
                    placements=there,
                )
            joined.append(each)
        # What this list still calls registered is older news than the list of the registered ones.
        joined += [replace(item.model, registered=False) for item in items.values() if not item.model.registered]
        return tuple(joined)

    def _ask_hub(self) -> None:
        """Ask for the list of supported models beside everything else, at its own pace; a failure is no news."""
        now = self._clock()
        if self._hub_task is not None and self._hub_task.done():
            self._hub_task = None
        if self._hub_task is None and (self._hub_at is None or not 0 <= now - self._hub_at < HUB_PACE_S):
            self._hub_at = now
            self._hub_task = asyncio.create_task(self._poll_hub(), name="supported models")

    async def _poll_hub(self) -> None:
        await self._hub.try_poll()

    def _router_time(self, part: Part[Any]) -> float:
        return part.served_at if part.served_at is not None else self._clock()

    # -- registrations

    async def register(self, request: RegisterRequest) -> Registered:
        """Register a model, by `POST …/models/register`; see `RouterClient.register`. The revision is always main."""
        body = {"repo": request.repo}
        body.update(
            {name: said for name, said in (("filename", request.file), ("display_name", request.title)) if said}
        )
        path = f"{self._prefix}/models/register"
        answer = await self._access.request("POST", path, body=body, read_s=REGISTER_S)
        if not answer.ok:
            error = self._access.error(answer, model=request.repo.lower())
            raise AlreadyRegistered(request.repo.lower()) if isinstance(error, AlreadyRegistered) else error
        try:
            return wire.read_registered(answer.body)
        except wire.WrongShapeError as error:
            raise RouterFault("its answer to the registration cannot be read.") from error

    async def delete(self, name: str, *, cancel: bool = False, keep: bool = True) -> None:
        """Deregister a model, by `DELETE …/models/{name}`; see `RouterClient.delete`. Nothing is ever kept."""
        await self._order("DELETE", f"/models/{quote(name, safe='')}", model=name)

    async def retry(self, name: str) -> None:
        """Nobody can be told to; see `RouterClient.retry`."""
        raise NotSupported("start a failed transfer again; its nodes do that by themselves")

    async def _order(self, method: str, below: str, *, model: str = "", body: dict[str, str] | None = None) -> None:
        answer = await self._access.request(method, self._prefix + below, body=body)
        if not answer.ok:
            raise self._access.error(answer, model=model)

    async def aclose(self) -> None:
        """Close connections; see `RouterClient.aclose`."""
        if self._hub_task is not None:
            self._hub_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._hub_task
        await self._http.aclose()


def by_name(models: Iterable[RouterModel]) -> dict[str, int]:
    """Where each model is among them, by its name and its repo in lower case."""
    places: dict[str, int] = {}
    for at, each in enumerate(models):
        places.setdefault(each.name.lower(), at)
        places.setdefault(each.repo.lower(), at)
    return places


def info(label: str, url: str, generation: str, abilities: Iterable[Ability], version: str = "") -> RouterInfo:
    """Who answers."""
    return RouterInfo(label, url, version, generation, supplies_stats=False, abilities=frozenset(abilities))


def _date(said: str) -> float | None:
    try:
        return parsedate_to_datetime(said).timestamp() if said else None
    except (ValueError, OverflowError):
        return None
