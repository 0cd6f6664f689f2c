"""How the command line and the dashboard reach a router."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelhub_tui.client.base import RouterClient
    from modelhub_tui.config import Settings


def connector(settings: Settings) -> Callable[[], Awaitable[RouterClient]]:
    """Return what makes a client: of the configured router, or of this machine's own service.

    The returned function may be called again after a loss; the local service is then found anew, or started anew.
    It raises `ServiceFailed` if that cannot be, and `BadSettings` if the API key cannot be sent.
    """

    async def connect() -> RouterClient:
        # Imports, TLS and the service's start block: not on the loop.
        return await asyncio.to_thread(_open, settings)

    return connect


def _open(settings: Settings) -> RouterClient:
    from modelhub_tui.net import spare_httpx_its_command

    spare_httpx_its_command()
    if settings.router is not None:
        from modelhub_tui.client.v0 import V0Client

        return V0Client(settings.router, settings.api_key)
    from modelhub_tui.service.lifecycle import ensure_service

    service = ensure_service(settings)
    from modelhub_tui.client.v0 import V0Client

    return V0Client(service.url, service.key, label="this machine")
