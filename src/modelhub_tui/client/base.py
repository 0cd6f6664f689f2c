"""What the rest of the program may ask a router, whatever generation answers."""

from __future__ import annotations

from typing import Protocol

from modelhub_tui.domain import Limits, Place, RouterInfo, RouterReport, Trashed
from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """A model to register: `repo` is `owner/name`, already parsed and checked, never a raw URL."""

    repo: str
    file: str | None = None
    """One file of the repo, such as one GGUF quantization; None lets the router choose, or refuse."""
    revision: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """A router's answer to a registration."""

    name: str
    file: str | None = None
    size_bytes: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """A model to download on one endpoint."""

    node_id: str
    name: str
    """What the endpoint should fetch: the registered name or the repo."""
    repo: str | None = None
    quantization: str | None = None
    """Such as `Q4_K_M`; None leaves the choice to the endpoint."""


class RouterClient(Protocol):
    """One router, spoken to in its own protocol. Every method raises subclasses of `ModelHubError` only."""

    async def info(self) -> RouterInfo:
        """Say who answers.

        Raises:
            Unreachable: No answer within 3 s (connect) or 10 s (read).
            NotARouter: An answer in other words than a router's.
        """
        ...

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        """Return all models and nodes; the same object as last time while nothing has changed.

        Args:
            wait_s: Let the router hold the answer back until something changes, for at most this long. A router that
                does not know how answers at once.
        """
        ...

    async def register(self, request: RegisterRequest) -> Registered:
        """Register a model, so that nodes fetch it.

        Raises:
            AlreadyRegistered: It was registered before; its `name` is the router's name.
            Rejected: The repo, file or revision cannot be used; `reason` says why, `candidates` what could be.
        """
        ...

    async def delete(self, name: str, *, cancel: bool = False, keep: bool = True) -> None:
        """Deregister a model; nodes then remove its files.

        Args:
            cancel: Stop its transfer if one runs; a router that can tell refuses to delete it otherwise.
            keep: Keep it in the trash for a while, where there is one.

        Raises:
            NotFound: The router does not know it.
            Rejected: With code `transfer_running`.
        """
        ...

    async def retry(self, name: str) -> None:
        """Start a failed transfer again.

        Raises:
            NotSupported: This generation retries by itself.
        """
        ...

    async def pause(self, name: str) -> None:
        """Hold a transfer; what is on disk is kept.

        Raises:
            NotSupported: This generation cannot. So for all methods down to `adopt`.
            NotFound: Nothing of that name is registered. So for all methods down to `adopt`.
        """
        ...

    async def resume(self, name: str) -> None:
        """Let a held transfer go on."""
        ...

    async def move(self, name: str, to: Place) -> None:
        """Change a transfer's place in the queue."""
        ...

    async def limits(self) -> Limits:
        """Return what transfers and trash may take."""
        ...

    async def set_limits(self, limits: Limits) -> Limits:
        """Change what transfers and trash may take; returns what is in force now."""
        ...

    async def trash(self) -> tuple[Trashed, ...]:
        """Return the deleted models that can be had back, the newest first."""
        ...

    async def restore(self, name: str) -> Registered:
        """Take a deletion back."""
        ...

    async def empty_trash(self, name: str | None = None) -> None:
        """Free the space of one deleted model, or of all, for good."""
        ...

    async def adopt(self, name: str) -> Registered:
        """Register a model that a node found on its disk, as it is; the hub is not asked."""
        ...

    async def download(self, request: DownloadRequest) -> None:
        """Order a download on one endpoint.

        Raises:
            NotSupported: This generation, or this endpoint's software, takes no such order.
        """
        ...

    async def delete_on(self, node_id: str, name: str) -> None:
        """Delete a model from one endpoint; the registration stays.

        Raises:
            NotSupported: As for `download()`.
        """
        ...

    async def approve(self, node_id: str) -> None:
        """Let a pending node in.

        Raises:
            NotSupported: This generation has no pending nodes.
            Rejected: The node is not pending (any more).
        """
        ...

    async def aclose(self) -> None:
        """Close connections. The client cannot be used afterwards."""
        ...
