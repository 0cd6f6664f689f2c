"""Limits as they stand in JSON: in the state folder, in its answers to nodes, and in a node's record."""

from __future__ import annotations

from modelhub_tui.domain import Limits

LIMITS_FILE = "limits.json"
"""What somebody set while the service ran, in the state folder."""
MAX_TRASH_S = 10 * 365 * 86_400
"""Ten years: an end of the trash that has a date."""


def read_limits(raw: object, otherwise: Limits) -> Limits:
    """Limits from JSON; a member that is missing or out of range is as in `otherwise`."""
    told = raw if isinstance(raw, dict) else {}

    def number(name: str, least: int, most: int = 2**63 - 1) -> int:
        value = told.get(name)
        return value if type(value) is int and least <= value <= most else int(getattr(otherwise, name))

    floor = told.get("disk_floor_bytes", otherwise.disk_floor_bytes)
    usable = floor is None or (type(floor) is int and 0 <= floor < 2**63)
    return Limits(
        parallel_transfers=number("parallel_transfers", 1, 16),
        bandwidth_bps=number("bandwidth_bps", 0),
        disk_floor_bytes=floor if usable else otherwise.disk_floor_bytes,
        trash_seconds=number("trash_seconds", 0, MAX_TRASH_S),
        trash_bytes=number("trash_bytes", 0),
    )
