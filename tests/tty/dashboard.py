"""The real command with a router that is always there and never changes: `python -m tests.tty.dashboard [FLAGS]`.

Everything is the program's own, but the watcher: what these tests look at is the terminal.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelhub_tui import __main__ as command


class StillWatcher:
    """Says once that all is well."""

    def __init__(self, session: Any) -> None:
        self._app = session.app

    async def fleets(self) -> AsyncIterator[Any]:
        from modelhub_tui.domain import Connection, Link, Node, NodeStatus, RouterInfo

        yield replace(
            self._app.fleet,
            nodes=(Node("1", "node-a", NodeStatus.ONLINE, ram_bytes=32_000_000_000, disk_free_bytes=10**12),),
            router=RouterInfo("this machine", generation="local"),
            connection=Connection(Link.LIVE, heard_at=float(os.environ.get("TEST_HEARD_AT", time.time()))),
        )
        await asyncio.Event().wait()

    def refresh(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def main() -> int:
    """Run the command; tell what was loaded at the first paint to the file named in TEST_REPORT."""
    report = os.environ.get("TEST_REPORT")

    class Hook:
        """Waits until the command imports its dashboard: importing it here would hide what the command itself imports."""

        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "modelhub_tui.cli.tui" and self in sys.meta_path:
                sys.meta_path.remove(self)
                import modelhub_tui.cli.tui as tui

                settle = tui._settle_memory

                def told() -> None:
                    settle()
                    if report:
                        Path(report).write_text(json.dumps(sorted(sys.modules)))

                async def open_watcher(session: Any) -> StillWatcher:
                    return StillWatcher(session)

                tui._settle_memory = told
                tui._Session._open_watcher = open_watcher  # type: ignore[assignment,method-assign]

    sys.meta_path.insert(0, Hook())  # type: ignore[arg-type]
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
