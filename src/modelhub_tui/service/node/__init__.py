"""The node: holds model files. Its own process; speaks only the `/v0` protocol of docs/wire.md to its router.

`agent.py` is the whole, `sync.py` decides, `job.py` and `fetch.py` move bytes, `cache.py` and `removal.py` know the
disk.
"""

from __future__ import annotations

from modelhub_tui.config import Settings


def run_node(settings: Settings, *, router_url: str, key: str, name: str | None = None) -> int:
    """Run a node in this process until it is told to stop; see `runner.run_node`. Imports what it needs only now."""
    from modelhub_tui.service.node import runner

    return runner.run_node(settings, router_url=router_url, key=key, name=name)
