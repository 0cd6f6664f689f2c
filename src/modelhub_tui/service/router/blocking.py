"""Run blocking library calls beside the event loop, without holding up the service's exit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_blocking(work: Callable[[], T], name: str = "blocking") -> T:
    """Run `work` in a daemon thread of its own and return what it returns.

    Unlike `asyncio.to_thread`, nobody joins the thread: a hub that never answers must not keep the process alive.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = work(), None
        except BaseException as caught:
            result, error = None, caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop has closed meanwhile: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
