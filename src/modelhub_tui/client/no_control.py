"""What no router but our own service can be asked: every method says so in one sentence."""

from __future__ import annotations

from modelhub_tui.client.base import Registered
from modelhub_tui.domain import Limits, Place, Trashed
from modelhub_tui.errors import NotSupported


class NoControl:
    """The methods of `RouterClient` that upstream's routers have nothing for."""

    async def pause(self, name: str) -> None:
        """See `RouterClient.pause`."""
        raise NotSupported("pause a download; its nodes fetch on until it is cancelled")

    async def resume(self, name: str) -> None:
        """See `RouterClient.resume`."""
        raise NotSupported("resume a download; its nodes never pause one")

    async def move(self, name: str, to: Place) -> None:
        """See `RouterClient.move`."""
        raise NotSupported("change the order of downloads")

    async def limits(self) -> Limits:
        """See `RouterClient.limits`."""
        raise NotSupported("tell or change the limits of its nodes' downloads")

    async def set_limits(self, limits: Limits) -> Limits:
        """See `RouterClient.set_limits`."""
        raise NotSupported("tell or change the limits of its nodes' downloads")

    async def trash(self) -> tuple[Trashed, ...]:
        """See `RouterClient.trash`."""
        raise NotSupported("bring back what was deleted; it keeps no trash")

    async def restore(self, name: str) -> Registered:
        """See `RouterClient.restore`."""
        raise NotSupported("bring back what was deleted; it keeps no trash")

    async def empty_trash(self, name: str | None = None) -> None:
        """See `RouterClient.empty_trash`."""
        raise NotSupported("empty a trash; it keeps none")

    async def adopt(self, name: str) -> Registered:
        """See `RouterClient.adopt`."""
        raise NotSupported("adopt models; its nodes do not report what else is on their disks")
