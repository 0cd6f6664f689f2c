"""The client of llmlb, which asks its endpoints: G4 on `/api`, and G3, which has the same objects on `/v0`."""

from __future__ import annotations

import asyncio
from dataclasses import field, replace
from typing import Any
from urllib.parse import quote

from modelhub_tui.client import upstream_wire, wire
from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.base import DownloadRequest
from modelhub_tui.client.remote import Part, RemoteClient, by_name, info
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.client.upstream_wire import Held, Task
from modelhub_tui.domain import Ability, Node, Phase, Placement, RouterInfo, RouterModel, Transfer
from modelhub_tui.errors import ModelHubError, NotSupported, Unauthorised
from modelhub_tui.values import dataclass

DOWNLOADS = {"G3": frozenset({"xllm"}), "G4": frozenset({"xllm", "ollama", "lm_studio"})}
"""Software on which a download can be ordered."""
DELETES = {"G3": frozenset[str](), "G4": frozenset({"ollama"})}
QUANTIZES = frozenset({"lm_studio"})
"""Software to which a download order may name a quantization."""
INVENTORY_S = 15.0
"""How often inventories are asked for; the router itself looks every 15 minutes."""
AT_ONCE = 8
NO_PROGRESS = "accepted, but this endpoint reports no progress"
NOT_SEEN = "accepted by the endpoint; it shows up when the router next looks there"
_MOVING = frozenset({"pending", "downloading"})


@dataclass(slots=True)
class _Endpoint:
    """What is asked of one endpoint."""

    inventory: Part[tuple[Held, ...]]
    tasks: Part[tuple[Task, ...]]
    watched: set[str] = field(default_factory=set)
    """Tasks that we saw under way."""


class LlmlbClient(RemoteClient):
    """One router of the last two generations."""

    def __init__(
        self, http: RouterHttp, credentials: Credentials, generation: str, version: str = "", **more: Any
    ) -> None:
        super().__init__(http, credentials, "/api" if generation == "G4" else "/v0", **more)
        self._generation, self._version = generation, version
        self._listed = Part[tuple[Node, ...]](
            self._access,
            f"{self._prefix}/endpoints",
            (),
            lambda body: upstream_wire.read_list(body, upstream_wire.endpoint, "endpoints", wire.MOST_NODES),
        )
        self._endpoints: dict[str, _Endpoint] = {}
        self._looked_at: float | None = None
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def info(self) -> RouterInfo:
        """Say who answers."""
        abilities = {Ability.REGISTER, Ability.DELETE}
        if self._generation == "G4":
            abilities |= {Ability.PULL_ON_NODE, Ability.QUANTIZATION, Ability.DELETE_ON_NODE}
            label = f"llmlb {self._version}".strip()
        else:
            label = "llmlb (endpoints)"
            if any(each.takes_downloads for each in self._nodes()):
                abilities.add(Ability.PULL_ON_NODE)
        return info(label, self._http.url, self._generation, abilities, self._version)

    async def download(self, request: DownloadRequest) -> None:
        """Order a download, by `POST …/endpoints/{id}/download`; see `RouterClient.download`."""
        node = next((each for each in self._nodes() if each.id == request.node_id), None)
        if node is not None and not node.takes_downloads:
            raise NotSupported(f"download a model to {node.name}: its software ({node.software}) takes no downloads")
        quantizes = self._generation == "G4" and (node is None or node.software in QUANTIZES)
        if request.quantization and not quantizes:
            raise NotSupported(f"choose the quantization on {node.name if node else 'its endpoints'}")
        body = {"model": request.name}
        if quantizes:
            more = {"hf_repo": request.repo, "quantization": request.quantization}
            body.update({name: said for name, said in more.items() if said})
        await self._order("POST", f"/endpoints/{quote(request.node_id, safe='')}/download", body=body)
        self._looked_at = None

    async def delete_on(self, node_id: str, name: str) -> None:
        """Delete a model from an endpoint, by `POST …/models/delete`; see `RouterClient.delete_on`."""
        node = next((each for each in self._nodes() if each.id == node_id), None)
        if self._generation == "G3" or (node is not None and not node.deletes):
            where = f"{node.name} ({node.software})" if node is not None else "its endpoints"
            raise NotSupported(f"delete a model from {where}")
        known = self._endpoints.get(node_id)
        inventory = known.inventory.value if known else ()
        ids = [each.id for each in inventory]
        said = name if name in ids else next((each.id for each in inventory if name.lower() in _names(each)), name)
        path = f"/endpoints/{quote(node_id, safe='')}/models/delete"
        await self._order("POST", path, model=name, body={"model": said})

    async def approve(self, node_id: str) -> None:
        """Endpoints are added by hand, and need no approval."""
        raise NotSupported("approve endpoints; whoever adds one has approved it")

    async def _poll(self, *, all_of_it: bool) -> list[ModelHubError]:
        error = await self._listed.try_poll()
        if error is not None:
            return [error]
        base = f"{self._prefix}/endpoints"
        for each in self._listed.value:
            if each.id not in self._endpoints:
                one = f"{base}/{quote(each.id, safe='')}"
                self._endpoints[each.id] = _Endpoint(
                    Part(self._access, f"{one}/models", (), _inventory),
                    Part(self._access, f"{one}/download/progress", (), _tasks),
                )
        there = {each.id for each in self._listed.value}
        self._endpoints = {node_id: each for node_id, each in self._endpoints.items() if node_id in there}
        now = self._clock()
        look = all_of_it or self._looked_at is None or not 0 <= now - self._looked_at < INVENTORY_S
        if look:
            self._looked_at = now
        wanted: list[Part[Any]] = []
        for node in self._nodes():
            asked = self._endpoints[node.id]
            if look:
                wanted.append(asked.inventory)
            if node.takes_downloads and (look or asked.watched):
                wanted.append(asked.tasks)
        for problem in await asyncio.gather(*map(self._gently, wanted)):
            if isinstance(problem, Unauthorised):
                raise problem
        for asked in self._endpoints.values():
            asked.watched |= {each.id for each in asked.tasks.value if each.status in _MOVING}
        return []

    async def _gently(self, part: Part[Any]) -> ModelHubError | None:
        """One broken endpoint must not hide the others."""
        async with self._limit:
            return await part.try_poll()

    def _nodes(self) -> tuple[Node, ...]:
        takes, deletes = DOWNLOADS[self._generation], DELETES[self._generation]
        return tuple(
            replace(each, takes_downloads=each.software in takes, deletes=each.software in deletes)
            for each in self._listed.value
        )

    def _placed(self, models: tuple[RouterModel, ...]) -> tuple[RouterModel, ...]:
        found = list(models)
        places = by_name(found)
        placements: dict[int, list[Placement]] = {}
        transfers: dict[int, list[Transfer]] = {}

        def at(names: tuple[str, ...]) -> int:
            """The place of the model with one of these names; a new one if nobody registered it."""
            known = next((places[name] for name in names if name in places), None)
            if known is None:
                known = len(found)
                found.append(RouterModel(names[0], names[-1], None, registered=False))
            for name in names:
                places.setdefault(name, known)
            return known

        for node in self._nodes():
            asked = self._endpoints.get(node.id)
            if asked is None:
                continue
            held: set[int] = set()
            for each in asked.inventory.value:
                place = at(_names(each))
                if place not in held:
                    held.add(place)
                    placements.setdefault(place, []).append(Placement(node.name, node_id=node.id))
            seen: set[int] = set()
            for task in asked.tasks.value:  # newest first: only that one counts
                known = places.get(task.model.lower())
                place = known if known is not None else at((task.model.lower(),))
                if place in seen or place in held:
                    continue
                seen.add(place)
                transfer = _transfer(node, task, found[place].size_bytes, asked.watched)
                if transfer is not None:
                    transfers.setdefault(place, []).append(transfer)
        return tuple(
            replace(
                each,
                placements=tuple(placements.get(place, each.placements)),
                transfers=tuple(transfers.get(place, ())),
            )
            for place, each in enumerate(found)
            if place < len(models) or place in placements or place in transfers
        )


def _transfer(node: Node, task: Task, size_bytes: int | None, watched: set[str]) -> Transfer | None:
    """What a task shows; None if it is over and done with."""
    if task.status == "failed":
        return Transfer(node.name, Phase.FAILED, error=task.error or "the endpoint did not say why", node_id=node.id)
    if task.status == "downloading":
        done = int(size_bytes * task.percent / 100) if size_bytes else 0
        return Transfer(
            node.name, Phase.FETCHING, bytes_done=done, bytes_total=size_bytes, eta_s=task.eta_s, node_id=node.id
        )
    if task.status == "pending":
        said = NO_PROGRESS if node.software == "xllm" else None
        return Transfer(node.name, Phase.WAITING, error=said, node_id=node.id)
    if task.status == "completed" and task.id in watched:
        return Transfer(node.name, Phase.WAITING, error=NOT_SEEN, node_id=node.id)
    return None


def _names(held: Held) -> tuple[str, ...]:
    names = (held.id.lower(), held.canonical.lower())
    return tuple(name for name in names if name)


def _inventory(body: bytes) -> tuple[Held, ...]:
    return upstream_wire.read_list(body, upstream_wire.held, "models")


def _tasks(body: bytes) -> tuple[Task, ...]:
    return upstream_wire.read_list(body, upstream_wire.task, "tasks")
