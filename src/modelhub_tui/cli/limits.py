"""`modelhub limits`: what downloads and the trash may take, printed and changed while the service runs."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli import OK
from modelhub_tui.cli.orders import order
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.config import Settings
from modelhub_tui.domain import Fleet, Limits
from modelhub_tui.limit_texts import LIMIT_TEXTS
from modelhub_tui.units import exact_duration, exact_size

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect
    from modelhub_tui.client.base import RouterClient

AUTO = "auto"
"""What is typed for a disk floor that goes by the size of the disk."""


def limits(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:
    """Print what is in force; change what is named first."""
    wanted = _wanted(arguments)

    async def work(client: RouterClient, _fleet: Fleet) -> Limits:
        told = await client.limits()
        return await client.set_limits(replace(told, **wanted)) if wanted else told

    catalog = load_catalog(settings.catalog, settings.cache_dir)
    told = order(connect, catalog, work, Patience(arguments, console))
    if console.as_json:
        console.json(asdict(told))
        return OK
    console.table(("LIMIT", "VALUE", "MEANING"), _rows(told), shrink=("MEANING",), drop=("MEANING",))
    return OK


def _wanted(arguments: Namespace) -> dict[str, Any]:
    """What was named, by member of `Limits`.

    Raises:
        BadUsage: A value cannot be used.
    """
    wanted: dict[str, Any] = {}
    for each in LIMIT_TEXTS:
        text = getattr(arguments, each.setting)
        if text is None:
            continue
        if text.strip().lower() == AUTO and each.member == "disk_floor_bytes":
            wanted[each.member] = None
            continue
        try:
            wanted[each.member] = each.value(text)
        except ValueError as error:
            flag = each.setting.removesuffix("_transfers").replace("_", "-")
            raise BadUsage(f"--{flag}: {error}") from error
    return wanted


def _rows(told: Limits) -> list[tuple[str, str, str]]:
    floor = AUTO if told.disk_floor_bytes is None else exact_size(told.disk_floor_bytes)
    speed = f"{exact_size(told.bandwidth_bps)}/s" if told.bandwidth_bps else "none"
    undo = exact_duration(told.trash_seconds) if told.trash_seconds else "never"
    left_alone = "free space that downloads leave alone" + (
        "; 2 % of the disk, at most 512 MiB" if told.disk_floor_bytes is None else ""
    )
    return [
        ("parallel", str(told.parallel_transfers), "models downloaded at the same time"),
        ("bandwidth", speed, "most that all downloads together take"),
        ("disk floor", floor, left_alone),
        ("trash time", undo, "how long a deletion can be undone"),
        ("trash size", exact_size(told.trash_bytes), "most that the trash may hold"),
    ]
