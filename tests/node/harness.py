"""A node to test: in this process on a thread of its own, or as the process the service would start."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelhub_tui.config import Settings
from modelhub_tui.service.node.agent import Agent
from modelhub_tui.service.node.transport import Transport
from modelhub_tui.service.node.tuning import Tuning
from tests.hub import LoopbackHub
from tests.node.stub_router import KEY, StubRouter

QUICK: dict[str, Any] = {
    "stall_s": 1.0,
    "metadata_s": 5.0,
    "backoff_base_s": 0.05,
    "backoff_cap_s": 0.2,
    "restart_base_s": 0.3,
    "restart_cap_s": 1.0,
    "poll_s": 0.1,
    "settle_s": 0.02,
    "router_retry_base_s": 0.05,
    "router_retry_cap_s": 0.2,
    "heartbeat_s": 1.0,
    "moving_heartbeat_s": 0.05,
    "space_check_s": 0.1,
    "recheck_s": 0.3,
    "margin_bytes": 0,
}


class NodeThread:
    """An agent in this process. Use as a context manager; `stop()` and a new one model a restart."""

    def __init__(
        self,
        router: StubRouter,
        hub: LoopbackHub | str,
        home: Path,
        *,
        transport: Callable[[], Transport] | None = None,
        **tuning: Any,
    ) -> None:
        endpoint = hub if isinstance(hub, str) else hub.url
        self.settings = Settings(
            state_dir=home / "state", cache_dir=home / "cache", hub_cache=home / "hub", hf_endpoint=endpoint
        )
        self._router, self._tuning, self._transport = router, Tuning(**{**QUICK, **tuning}), transport
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def cache(self) -> Path:
        return self.settings.hub_cache

    def __enter__(self) -> NodeThread:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive() and self._loop and self._stop:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the node did not stop"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            agent = Agent(
                self.settings,
                router_url=self._router.url,
                key=KEY,
                name="node-a",
                tuning=self._tuning,
                transport=self._transport,
            )
            self._ready.set()
            await agent.run(self._stop)

        try:
            asyncio.run(main())
        except BaseException as error:
            self._error = error
            self._ready.set()


def start_process(
    router: StubRouter, hub: LoopbackHub, home: Path, *, lifeline: int | None = None, **more: Any
) -> subprocess.Popen[bytes]:
    """`python -m modelhub_tui.service.node`, configured by its environment as the service does it."""
    import json

    tuning = {**QUICK, **more.pop("tuning", {})}
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MODELHUB_", "HF_"))},
        **hub.env(),
        "MODELHUB_ROUTER": router.url,
        "MODELHUB_API_KEY": KEY,
        "MODELHUB_STATE_DIR": str(home / "state"),
        "HF_HOME": str(home),
        "MODELHUB_NODE_TUNING": json.dumps(tuning),
        **more.pop("env", {}),
    }
    if lifeline is not None:
        env["MODELHUB_NODE_LIFELINE"] = str(lifeline)
    options: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "modelhub_tui.service.node"],
        env=env,
        start_new_session=True,
        pass_fds=() if lifeline is None else (lifeline,),
        **options,
    )
