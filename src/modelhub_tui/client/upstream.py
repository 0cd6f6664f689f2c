"""The client of llm-router, whose nodes report to it: G1, and G2 with what its nodes say about their downloads."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from modelhub_tui.client import upstream_wire, wire
from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.base import DownloadRequest
from modelhub_tui.client.remote import Part, RemoteClient, by_name, info
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.client.upstream_wire import ReportedNode, Sync
from modelhub_tui.domain import Ability, Node, Phase, Placement, RouterInfo, RouterModel, Transfer
from modelhub_tui.errors import ModelHubError, NotSupported

LABEL = "llm-router (nodes)"
FRESH_S = 30.0
"""Nodes report every ten seconds; what is older than three reports does not move any more."""
ABILITIES = (Ability.REGISTER, Ability.PULL, Ability.CANCEL, Ability.DELETE, Ability.APPROVE)


class UpstreamClient(RemoteClient):
    """One router of the first two generations."""

    def __init__(self, http: RouterHttp, credentials: Credentials, **more: Any) -> None:
        super().__init__(http, credentials, "/v0", **more)
        reader = wire.ListReader(upstream_wire.node, "nodes", wire.MOST_NODES)
        self._readers.append(reader)
        self._reported = Part[tuple[ReportedNode, ...]](self._access, "/v0/nodes", (), reader.read)
        self._generation = "G1"
        self._rates: dict[tuple[str, str], _Rate] = {}

    async def info(self) -> RouterInfo:
        """Say who answers; it is G2 once a node has said something about its downloads."""
        return info(LABEL, self._http.url, self._generation, ABILITIES)

    async def approve(self, node_id: str) -> None:
        """Let a pending node in, by `POST /v0/nodes/{id}/approve`; see `RouterClient.approve`."""
        await self._order("POST", f"/nodes/{quote(node_id, safe='')}/approve", model="")

    async def download(self, request: DownloadRequest) -> None:
        """Nodes follow the registrations; none takes orders."""
        raise NotSupported("order a download on one node; its nodes fetch what is registered")

    async def delete_on(self, node_id: str, name: str) -> None:
        """Nodes follow the registrations; none takes orders."""
        raise NotSupported("delete a model from one node; its nodes drop what is deregistered")

    async def _poll(self, *, all_of_it: bool) -> list[ModelHubError]:
        error = await self._reported.try_poll()
        if any(each.tells_sync for each in self._reported.value):
            self._generation = "G2"
        return [error] if error is not None else []

    def _nodes(self) -> tuple[Node, ...]:
        return tuple(each.node for each in self._reported.value)

    def _placed(self, models: tuple[RouterModel, ...]) -> tuple[RouterModel, ...]:
        # A node cannot tell that its last model is gone: what is not registered is not looked for.
        places = by_name(each for each in models if each.registered)
        folders = {_folder(name): name for name in places}
        registered = [at for at, each in enumerate(models) if each.registered]
        placements: dict[int, list[Placement]] = {}
        transfers: dict[int, list[Transfer]] = {}
        now = self._router_time(self._reported)
        for each in self._reported.value:
            node = each.node
            for said in each.loaded:
                name = said.lower() if said.lower() in places else _named_in(said, folders)
                if name:
                    there = placements.setdefault(registered[places[name]], [])
                    path = said if said.startswith("/") else None
                    if all(known.node_id != node.id for known in there):
                        there.append(Placement(node.name, path, (path,) if path else (), node_id=node.id))
            sync = each.sync
            if sync is not None and sync.name in places and abs(now - sync.at) <= FRESH_S:
                transfers.setdefault(registered[places[sync.name]], []).append(self._transfer(node, sync))
        return tuple(
            replace(
                each,
                placements=tuple(placements[at]) if at in placements else each.placements,
                transfers=tuple(transfers.get(at, ())),
            )
            for at, each in enumerate(models)
        )

    def _transfer(self, node: Node, sync: Sync) -> Transfer:
        """A node reports on one file of several at a time, so speed is only known between reports on the same one."""
        rate = self._rates.setdefault((node.id, sync.name), _Rate())
        bps = rate.over(sync)
        left = None if sync.bytes_total is None else max(sync.bytes_total - sync.bytes_done, 0)
        return Transfer(
            node=node.name,
            phase=Phase.FETCHING,
            bytes_done=sync.bytes_done,
            bytes_total=sync.bytes_total,
            bytes_per_s=bps,
            eta_s=left / bps if left is not None and bps else None,
            file=sync.file,
            node_id=node.id,
        )


class _Rate:
    """Speed between a node's reports on one file."""

    def __init__(self) -> None:
        self._last: Sync | None = None
        self._bps: float | None = None

    def over(self, sync: Sync) -> float | None:
        """Bytes per second up to this report; None before there are two."""
        last = self._last
        if last is None or last.file != sync.file or sync.bytes_done < last.bytes_done:
            self._last, self._bps = sync, None
        elif sync.at > last.at:
            self._last, self._bps = sync, (sync.bytes_done - last.bytes_done) / (sync.at - last.at)
        return self._bps


def _folder(name: str) -> str:
    """The folder a stock node keeps a model in."""
    return re.sub(r"[^a-z0-9\-_./]", "_", name.lower()).strip("/")


def _named_in(said: str, folders: dict[str, str]) -> str | None:
    """The model whose folder is in a path, such as `/home/u/.llm-router/models/owner/name/model.gguf`."""
    if "/" not in said:
        return None
    parts = said.lower().split("/")[:-1]
    for length in (2, 1):
        for end in range(len(parts), length - 1, -1):
            found = folders.get("/".join(parts[end - length : end]))
            if found and end > length - 1:
                return found
    return None
