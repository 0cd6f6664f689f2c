"""The limits that somebody set while the service ran: a file of their own, which no lost database takes along."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from modelhub_tui import net
from modelhub_tui.domain import Limits
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.own_folder import read_private, write_private
from modelhub_tui.service.limits import read_limits
from modelhub_tui.service.router.blocking import run_blocking
from modelhub_tui.service.router.store import StoreFailed


class LimitsFile:
    """The file, which may not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, configured: Limits, before: str | None) -> Limits:
        """The limits somebody set; else the configured ones. Blocking; for the start.

        Args:
            before: What an earlier version kept in its database.
        """
        told: object = read_private(self._path)
        if not told and before:
            try:
                told = net.loads(before.encode())
            except ValueError:
                told = {}
        return read_limits(told, configured)

    async def put(self, limits: Limits) -> None:
        """Remember the limits; durable when this returns.

        Raises:
            StoreFailed: They cannot be written.
        """
        try:
            await run_blocking(lambda: write_private(self._path, asdict(limits)), "limits")
        except ServiceFailed as error:
            raise StoreFailed(error.reason) from error
        except OSError as error:
            raise StoreFailed(f"{self._path} cannot be written ({error.strerror}).", full=error.errno == 28) from error
