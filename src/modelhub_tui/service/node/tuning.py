"""The node's limits and delays. Tests shorten them; nobody else should need to."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Every number that decides when the node does something."""

    parallel_models: int | None = None
    """Models fetched at the same time, whatever the router's limit is; None means that limit."""
    connect_s: float = 10.0
    metadata_s: float = 10.0
    stall_s: float = 15.0
    """No byte for this long means that the connection is dead."""
    connections: int = 8
    """At most so many for one file, when more than one is faster."""
    parallel_bytes: int = 64 * 1024 * 1024
    """Files smaller than this always come over one connection."""
    fast_bps: float = 250_000_000
    """As fast as this, one connection is enough: the processor is the limit."""
    xet_bytes: int = 50_000_000_000
    """Files in Xet storage come by plain HTTP up to this size, and from it on through `hf_xet`."""
    slow_bytes: int = 4096
    """Fewer bytes than this in four times `stall_s` is a stall as well."""
    max_attempts: int = 6
    """Failures in a row, without a new byte between them, after which a transfer gives up."""
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 30.0
    retry_after_cap_s: float = 300.0
    """Never wait longer than this for a hub that asks us to."""
    restart_base_s: float = 15.0
    """A transfer that gave up for a cause that may pass starts again after this long, then twice as long."""
    restart_cap_s: float = 120.0
    poll_s: float = 3.0
    """Between two looks at the list of a router that does not hold its answer back."""
    settle_s: float = 0.4
    """Between two looks when the list changed in nothing that concerns us (our own progress)."""
    wait_s: float = 25.0
    """How long the router may hold the list back (`Prefer: wait`)."""
    router_timeout_s: float = 10.0
    router_retry_base_s: float = 0.5
    router_retry_cap_s: float = 15.0
    heartbeat_s: float = 10.0
    moving_heartbeat_s: float = 0.25
    space_check_s: float = 5.0
    """Between two looks whether there is room again, for transfers paused by a full disk."""
    recheck_s: float = 60.0
    """Between two looks whether the files of whole models are still there."""
    margin_bytes: int | None = None
    """Room to leave on the disk, whatever the router's limit is; None means that limit."""

    @classmethod
    def from_json(cls, text: str | None) -> Tuning:
        """Read overrides from a JSON object; what makes no sense is ignored. None or "" gives the defaults."""
        try:
            raw: Any = json.loads(text) if text else {}
        except ValueError:
            raw = {}
        if not isinstance(raw, dict):
            return cls()
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {
            name: value for name, value in raw.items() if name in known and type(value) in (int, float)
        }
        return cls(**values)
