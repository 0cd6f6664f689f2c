"""The longest pause of an event loop: how late it comes back while something else is held up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import TracebackType
from typing import Any

HELD_S = 2.0
"""How long tests hold something up while they look at the loop."""
PAUSE_S = 2.0
"""A loop comes back much sooner, also on a busy machine. One that waits for what is held up here does not: nobody but
the test on that loop lets go of it, and it takes 5 s or more until it gives up."""


class Pulse:
    """Measures the running loop's longest pause, while it is used as an async context manager."""

    longest_s = 0.0

    async def __aenter__(self) -> Pulse:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(0.02)  # a pause that ends right now is seen, too
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            at = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_s = max(self.longest_s, time.monotonic() - at)


class HeldUp:
    """In place of a function: a call waits, in whichever thread it comes, until `let_go()`."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.on_a_loop = False
        """It was called where a loop waits for it."""
        self._asked, self._answered = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **more: Any) -> Any:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            self.on_a_loop = True
        self._asked.set()
        self._answered.wait(30)
        return self._real(*args, **more)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A method, where it stands in a class."""
        return self if instance is None else lambda *args, **more: self(instance, *args, **more)

    async def asked(self) -> None:
        """Wait until somebody waits for it."""
        async with asyncio.timeout(30):
            while not self._asked.is_set():
                await asyncio.sleep(0.01)

    def let_go(self) -> None:
        self._answered.set()
