"""What a node has done since its process began, as numbers that only grow: for `GET /metrics` of the router."""

from __future__ import annotations

import threading
from typing import Any

MAX_REASONS = 50


class Totals:
    """Counters of one node. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetched = self._refetched = self._verified = 0
        self._retries: dict[str, int] = {}
        self._longest_pause_s = 0.0

    def fetched(self, count_bytes: int, *, again_bytes: int = 0) -> None:
        """Bytes were written to the disk; `again_bytes` of them had been there before."""
        with self._lock:
            self._fetched += count_bytes
            self._refetched += again_bytes

    def verified(self, count_bytes: int) -> None:
        """The content of a whole file was compared with its checksum, and is right."""
        with self._lock:
            self._verified += count_bytes

    def retried(self, code: str) -> None:
        """A passing fault is waited out; `code` as in a transfer's `error_code`."""
        with self._lock:
            if code in self._retries or len(self._retries) < MAX_REASONS:
                self._retries[code] = self._retries.get(code, 0) + 1

    def paused(self, seconds: float) -> None:
        """The event loop came back this much later than it should have."""
        with self._lock:
            self._longest_pause_s = max(self._longest_pause_s, seconds)

    def as_wire(self) -> dict[str, Any]:
        """Member `totals` of a heartbeat."""
        with self._lock:
            return {
                "fetched_bytes": self._fetched,
                "refetched_bytes": self._refetched,
                "verified_bytes": self._verified,
                "retries": [{"reason": code, "count": count} for code, count in sorted(self._retries.items())],
                "longest_pause_s": round(self._longest_pause_s, 4),
            }
