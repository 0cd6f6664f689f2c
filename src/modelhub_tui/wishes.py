"""What people ask of a fleet: each wish as one method, with what is shown until the router confirms it."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from modelhub_tui.client.base import DownloadRequest, Registered, RegisterRequest, RouterClient
from modelhub_tui.domain import Limits, Model, ModelState, Node, Place, Trashed
from modelhub_tui.errors import AlreadyRegistered, NotFound, NotSupported
from modelhub_tui.fleet_state import PRESENT, PULLABLE, Intent
from modelhub_tui.states import model_key

log = logging.getLogger(__name__)

T = TypeVar("T")

NODES_FOLLOW_S = 5.0
"""The router notes a pause at once, its nodes report that they have stopped a moment later."""
_GOING = frozenset({ModelState.QUEUED, ModelState.DOWNLOADING})


class Wishes(ABC):
    """Methods that a `FleetWatcher` offers to screens and commands."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        """The router's names for what we registered, by model key."""
        self._deleted: dict[str, float] = {}
        """When we deleted what, by name; some routers undo it."""

    @abstractmethod
    async def _act(self, key: str, intent: Intent, work: Callable[[RouterClient], Awaitable[T]]) -> T:
        """Show an intent at once, do the work, then keep showing it until a later report tells."""

    @abstractmethod
    def _now(self) -> float:
        """Seconds on a clock that nobody sets."""

    async def pull(self, model: Model) -> None:
        """Have a model fetched. One that failed is tried again; one that is registered already is fine.

        Raises:
            ModelHubError: The router cannot be reached or refuses; the model then looks as before.
        """

        async def work(client: RouterClient) -> None:
            waits = model.transfer is not None and model.transfer.waits_for_line
            if model.registered and (model.state is ModelState.FAILED or waits):
                with contextlib.suppress(NotSupported):
                    await client.retry(self._name(model))
                    return
            self._deleted.pop(self._name(model), None)
            request = RegisterRequest(model.repo, model.file, model.revision, model.title or None)
            try:
                self._names[model.key] = (await client.register(request)).name
            except AlreadyRegistered as known:
                log.debug("registered already: %s", known.name)

        await self._act(model.key, Intent(ModelState.QUEUED, "registering…", PULLABLE), work)

    async def cancel(self, model: Model, keep: bool = True) -> None:
        """Stop fetching a model: it is deregistered and its partial files go.

        Args:
            keep: Where it is whole, as it may be on another node, keep that in the trash for a while.

        Raises:
            ModelHubError: As for `pull()`.
        """
        await self._delete(model, cancel=True, keep=keep)

    async def delete(self, model: Model, keep: bool = True) -> None:
        """Deregister a model and have its files removed. One that the router does not know is gone already.

        Args:
            keep: Keep it in the trash for a while, where there is one.

        Raises:
            Rejected: With code `transfer_running`: cancel that first.
            ModelHubError: As for `pull()`.
        """
        await self._delete(model, cancel=False, keep=keep)

    async def _delete(self, model: Model, *, cancel: bool, keep: bool) -> None:
        async def work(client: RouterClient) -> None:
            name = self._name(model)
            with contextlib.suppress(NotFound):
                await client.delete(name, cancel=cancel, keep=keep)
                self._deleted[name] = self._now()

        await self._act(model.key, Intent(ModelState.DELETING, "", PRESENT), work)

    async def pause(self, model: Model) -> None:
        """Hold a transfer; what is on disk is kept.

        Raises:
            NotSupported: This router cannot. So for all methods down to `adopt()`.
            ModelHubError: As for `pull()`. So for all methods down to `adopt()`.
        """
        intent = Intent(ModelState.PAUSED, "", _GOING, NODES_FOLLOW_S)
        await self._act(model.key, intent, lambda client: client.pause(self._name(model)))

    async def resume(self, model: Model) -> None:
        """Let a held transfer go on."""
        intent = Intent(ModelState.QUEUED, "resuming…", frozenset({ModelState.PAUSED}), NODES_FOLLOW_S)
        await self._act(model.key, intent, lambda client: client.resume(self._name(model)))

    async def move(self, model: Model, to: Place) -> None:
        """Change a transfer's place in the queue."""
        await self._act(model.key, _nothing_to_show(), lambda client: client.move(self._name(model), to))

    async def limits(self) -> Limits:
        """Return what transfers and trash may take."""
        return await self._act("limits", _nothing_to_show(), lambda client: client.limits())

    async def set_limits(self, limits: Limits) -> Limits:
        """Change it; returns what is in force now."""
        return await self._act("limits", _nothing_to_show(), lambda client: client.set_limits(limits))

    async def trash(self) -> tuple[Trashed, ...]:
        """Return the deleted models that can be had back, the newest first."""
        return await self._act("trash", _nothing_to_show(), lambda client: client.trash())

    async def restore(self, name: str) -> Registered:
        """Take a deletion back."""
        return await self._act("trash", _nothing_to_show(), lambda client: client.restore(name))

    async def empty_trash(self, name: str | None = None) -> None:
        """Free one deleted model, or all, for good."""
        await self._act("trash", _nothing_to_show(), lambda client: client.empty_trash(name))

    async def adopt(self, model: Model) -> Registered:
        """Register a model that a node found on its disk."""
        return await self._act(model.key, _nothing_to_show(), lambda client: client.adopt(model.name))

    async def retry(self, model: Model) -> None:
        """Start a failed transfer again.

        Raises:
            NotSupported: This router's nodes retry by themselves.
            ModelHubError: As for `pull()`.
        """
        intent = Intent(ModelState.QUEUED, "trying again…", frozenset({ModelState.FAILED}))
        await self._act(model.key, intent, lambda client: client.retry(self._name(model)))

    async def register(self, request: RegisterRequest) -> Registered:
        """Register any repo, and say what the router made of it.

        Raises:
            AlreadyRegistered: It was registered before.
            Rejected: The repo, file or revision cannot be used.
            ModelHubError: As for `pull()`.
        """
        key = model_key(request.repo, request.file)
        self._deleted.pop(request.repo.lower(), None)
        intent = Intent(ModelState.QUEUED, "registering…", PULLABLE)
        return await self._act(key, intent, lambda client: client.register(request))

    async def download(self, model: Model, node_id: str, quantization: str | None = None) -> None:
        """Order a download of a model on one endpoint.

        Args:
            quantization: Such as `Q4_K_M`; None leaves the choice to the endpoint.

        Raises:
            NotSupported: This router, or this endpoint, takes no such order.
            ModelHubError: As for `pull()`.
        """
        intent = Intent(ModelState.QUEUED, "ordering the download…", PULLABLE)
        request = DownloadRequest(node_id, self._name(model), model.repo, quantization)
        await self._act(model.key, intent, lambda client: client.download(request))

    async def delete_on(self, model: Model, node_id: str) -> None:
        """Delete a model from one endpoint; its registration stays.

        Raises:
            NotSupported: As for `download()`.
            ModelHubError: As for `pull()`.
        """
        only = all(each.node_id == node_id for each in model.placements)
        intent = Intent(ModelState.DELETING, "", PRESENT if only else frozenset())
        await self._act(model.key, intent, lambda client: client.delete_on(node_id, self._name(model)))

    async def approve(self, node: Node) -> None:
        """Let a pending node in.

        Raises:
            Rejected: It is not pending any more.
            ModelHubError: As for `pull()`.
        """
        await self._act(f"node {node.id}", _nothing_to_show(), lambda client: client.approve(node.id))

    def _name(self, model: Model) -> str:
        """The router's name for a model; what it answered to our registration is better than a guess."""
        return model.name if model.registered else self._names.get(model.key, model.name)


def _nothing_to_show() -> Intent:
    """For wishes that change no model's state."""
    return Intent(ModelState.QUEUED, "", frozenset())
