"""Runs a node as a process: signals, the parent's lifeline, the log, and an end that nothing can hold up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from modelhub_tui import hf_env
from modelhub_tui.config import Settings
from modelhub_tui.errors import ModelHubError, explain
from modelhub_tui.own_folder import prepare_dir
from modelhub_tui.service.logs import start_log
from modelhub_tui.service.node.hub import quiet_library
from modelhub_tui.service.node.tuning import Tuning

log = logging.getLogger(__name__)

_LAST_RESORT_S = 2.7
"""A stop that takes longer than this (a file system that hangs) becomes an exit."""


def run_node(
    settings: Settings,
    *,
    router_url: str,
    key: str,
    name: str | None = None,
    lifeline: int | None = None,
    door: Path | None = None,
) -> int:
    """Run a node until it is told to stop; the whole life of a process.

    Args:
        settings: Cache, state folder and hub.
        router_url: The router to serve.
        key: Its key with the right to be a node (or admin).
        name: What the router shows; the host's name if None.
        lifeline: A pipe's descriptor; its end of file means that the parent is gone, and this process with it.
        door: The folder whose socket leads to the router; None goes to `router_url` itself.

    Returns:
        Exit code: 0 after a stop, 1 if something broke.

    Raises:
        ModelHubError: It cannot work here, and says why: `NoWay` for a proxy or certificates that cannot be used,
            `BadSettings` for a variable of the HuggingFace library, `ServiceFailed` for a state folder that is not
            ours alone.
    """
    hf_env.check()
    streams = sys.stdout, sys.stderr
    _set_up_logging(settings.state_dir / "node" / "node.log", key)
    # Read by the library when it is imported, which happens later: no word to anybody but the configured hub.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ["HF_ENDPOINT"] = settings.hf_endpoint
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asyncio.run(_main(settings, router_url, key, name, lifeline, door))
    except ModelHubError as error:  # such as a proxy that is not understood
        log.critical("%s", explain(error))
        sys.stdout, sys.stderr = streams  # the last word is for whoever started us
        raise
    except Exception:
        log.critical("the node broke", exc_info=True)
        return 1
    return 0


async def _main(
    settings: Settings, router_url: str, key: str, name: str | None, lifeline: int | None, door: Path | None
) -> None:
    from modelhub_tui.service.node.agent import Agent

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(why: str) -> None:
        if stop.is_set():
            return
        log.info("stopping: %s", why)
        watchdog = threading.Timer(_LAST_RESORT_S, os._exit, args=(0,))
        watchdog.daemon = True
        watchdog.start()
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end, each.name)
    if lifeline is not None:
        _watch(loop, lifeline, lambda: end("the parent is gone"))
    log.info("node %s for %s, files in %s", os.getpid(), router_url, settings.hub_cache)
    await Agent(
        settings,
        router_url=router_url,
        key=key,
        name=name,
        door=door,
        tuning=Tuning.from_json(os.environ.get("MODELHUB_NODE_TUNING")),
    ).run(stop)
    log.info("stopped")


def _watch(loop: asyncio.AbstractEventLoop, fd: int, on_end: object) -> None:
    """Call `on_end` when the other end of a pipe is closed. Nothing is ever written to it."""
    assert callable(on_end)

    def look() -> None:
        try:
            if os.read(fd, 512):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        loop.remove_reader(fd)
        on_end()

    try:
        os.set_blocking(fd, False)
        loop.add_reader(fd, look)
    except (OSError, ValueError):
        log.warning("the lifeline (descriptor %d) is no pipe; going on without it", fd)


def _set_up_logging(path: Path, key: str) -> None:
    """Log to a file that rotates, and to a terminal if somebody sits at one; never to a stderr that may be closed."""
    prepare_dir(path.parent)
    at_terminal = False
    with contextlib.suppress(AttributeError, ValueError, OSError):
        at_terminal = sys.stderr.isatty()
    start_log(path, foreground=at_terminal, fds=(1, 2) if at_terminal else ()).secrets.append(key)
    quiet_library()
