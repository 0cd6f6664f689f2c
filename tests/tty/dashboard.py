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
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from modelhub_tui import __main__ as command


class StillWatcher:
    """Says once that all is well; with TEST_MOVING, then how so many transfers get on that share 1 Gbit/s."""

    pace_s: float | None = None

    def __init__(self, session: Any) -> None:
        self._app = session.app
        if os.environ.get("TEST_BREAK"):
            self._app.call_later(self._break)

    def _break(self) -> None:
        secret = "hf_verysecret"  # crash reports like to print locals
        raise RuntimeError(secret)

    async def fleets(self) -> AsyncIterator[Any]:
        from modelhub_tui.domain import Connection, Link, Node, NodeStatus, RouterInfo

        fleet = replace(
            self._app.fleet,
            nodes=(Node("1", "node-a", NodeStatus.ONLINE, ram_bytes=32_000_000_000, disk_free_bytes=10**12),),
            router=RouterInfo("still router", generation="local"),
            connection=Connection(Link.LIVE, heard_at=float(os.environ.get("TEST_HEARD_AT", time.time()))),
        )
        if os.environ.get("TEST_MODELS"):
            from tests.tui.fleets import many

            fleet = replace(fleet, models=many(int(os.environ["TEST_MODELS"])).models)
        yield fleet
        moving = int(os.environ.get("TEST_MOVING", "0"))
        tick = 0
        while moving:
            await asyncio.sleep(self.pace_s or 0.25)
            tick += 1
            begun = [_moved(number, tick, fleet.models[number]) for number in range(moving)]
            yield replace(fleet, models=(*begun, *fleet.models[moving:]))
        await asyncio.Event().wait()

    def refresh(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def _moved(number: int, tick: int, model: Any) -> Any:
    from tests.tui.fleets import downloading

    size = (2 + 2 * number) * 10**9
    rate = 7.8e6 * (1 + 0.03 * ((tick // 4 + number) % 3))
    done = size // 10 + int(tick * 7.8e6 / 4)
    model = replace(model, size_bytes=size)
    return downloading(model, done / size, bytes_per_s=rate, eta_s=(size - done) / rate)


def main() -> int:
    """Run the command; tell what was loaded at the first paint to the file named in TEST_REPORT."""
    report = os.environ.get("TEST_REPORT")

    class Finder(PathFinder):
        """Changes the dashboard's module when the command imports it; doing that here would hide what it imports."""

        @classmethod
        def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            spec = super().find_spec(name, path, target) if name == "modelhub_tui.cli.tui" else None
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def exec_module(module: Any) -> None:
                    execute(module)
                    settle = module._settle_memory

                    def told() -> None:
                        settle()
                        if report:
                            Path(report).write_text(json.dumps(sorted(sys.modules)))

                    async def open_watcher(session: Any) -> StillWatcher:
                        return StillWatcher(session)

                    module._settle_memory = told
                    module._Session._open_watcher = open_watcher

                spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, Finder)
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
