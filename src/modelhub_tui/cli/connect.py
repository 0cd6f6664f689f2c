"""How the command line and the dashboard reach a router."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from modelhub_tui.domain import RouterInfo, RouterReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from modelhub_tui.client.auth import Credentials, Session
    from modelhub_tui.client.base import RouterClient
    from modelhub_tui.config import Settings
    from modelhub_tui.service.lifecycle import ServiceInfo

THIS_MACHINE = "this machine"


def connector(settings: Settings, session: Session | None = None) -> Connector:
    """Return what makes a client: of the configured router, or of this machine's own service.

    Args:
        session: Of who has logged in just now; otherwise the one that is kept, if any.
    """
    return Connector(settings, session=session)


class Connector:
    """Makes clients; may be called again after a loss: the local service is then found anew, or started anew."""

    def __init__(
        self, settings: Settings, service: ServiceInfo | None = None, *, session: Session | None = None
    ) -> None:
        self._settings, self._service, self._session = settings, service, session

    def to_service(self, service: ServiceInfo) -> Connector:
        """One that reaches this service and no other: none is started or replaced to suit the settings."""
        return Connector(self._settings, service)

    async def __call__(self) -> RouterClient:
        """Make a client.

        Raises:
            ServiceFailed: The local service cannot be started.
            BadSettings: The API key cannot be sent.
            NotARouter, Unreachable: What answers at the configured address is no router, or nobody does.
        """
        import asyncio

        # Imports, TLS and the service's start block: not on the loop.
        if self._settings.router is None:
            return await asyncio.to_thread(self._open)
        open_router, credentials = await asyncio.to_thread(self._remote)
        return await open_router(self._settings.router, credentials)

    def at_once(self) -> tuple[RouterInfo, RouterReport] | None:
        """Look at this machine's service without a client, which would cost ten times as much; None if that cannot be.

        Raises:
            ServiceFailed: The local service cannot be started.
        """
        if not self._settings.embedded:
            return None
        from modelhub_tui.client import quick

        service = self._found()
        try:
            report = quick.report(service.folder, self._headers())
        except quick.NotSimpleError:
            return None
        info = RouterInfo(THIS_MACHINE, service.url, service.version, "local", supplies_stats=True)
        return info, replace(report, notices=(*service.notices, *report.notices))

    def _open(self) -> RouterClient:
        from modelhub_tui.net import own_transport

        service = self._found()
        # Through the socket, each connection anew: no key is sent, and whoever takes its port later hears nothing.
        transport = own_transport(service.folder)
        from modelhub_tui.client.v0 import V0Client

        return V0Client(
            service.url,
            None,
            transport=transport,
            label=THIS_MACHINE,
            notices=service.notices,
            headers=self._headers(),
            about_token=service.about_token,
        )

    def _headers(self) -> dict[str, str]:
        """Say which catalog we go by: programs with different ones share this machine's service."""
        from urllib.parse import quote

        from modelhub_tui.catalog import catalog_path
        from modelhub_tui.own_socket import CATALOG_HEADER

        return {CATALOG_HEADER: quote(os.fsencode(catalog_path(self._settings.catalog).absolute()))}

    def _remote(self) -> tuple[Callable[[str, Credentials], Awaitable[RouterClient]], Credentials]:
        """How to open the configured router, and what to show it: a key, and the token of who has logged in."""
        import time

        from modelhub_tui.net import spare_httpx_its_command

        spare_httpx_its_command()
        from modelhub_tui.cli.keys import kept_key
        from modelhub_tui.client.auth import Credentials, Sessions, usable
        from modelhub_tui.client.detect import open_router

        settings = self._settings
        assert settings.router is not None
        session = self._session or usable(Sessions(settings.state_dir).load(settings.router), time.time())
        key = settings.api_key or kept_key(settings)
        return open_router, Credentials(key, session.token if session else None)

    def _found(self) -> ServiceInfo:
        """This machine's service, started if it is not running."""
        if self._service is not None:
            return self._service
        from modelhub_tui.service.lifecycle import ensure_service

        return ensure_service(self._settings)
