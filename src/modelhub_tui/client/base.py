"""What the rest of the program may ask a router, whatever generation answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelhub_tui.domain import RouterInfo, RouterReport


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

    async def delete(self, name: str) -> None:
        """Deregister a model; nodes then stop its transfer and remove its files.

        Raises:
            NotFound: The router does not know it.
        """
        ...

    async def retry(self, name: str) -> None:
        """Start a failed transfer again.

        Raises:
            NotSupported: This generation retries by itself.
        """
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
