"""Threads that nobody waits for, not even Python at its exit: one may look up a name that no server answers for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class LeftBehind(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own. For an event loop's default executor, which has to be of this type:
    the usual one's threads are joined when the loop ends, and again at the exit.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Begin a call."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                found = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(found)

        threading.Thread(target=work, name="left behind", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more. What runs is left to itself."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
