"""How commands wait: in this one way, which has an end and tells a reason.

Everything a command awaits runs under `Patience`: nothing else in this package starts an event loop, sleeps or joins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from modelhub_tui.errors import TookTooLong

if TYPE_CHECKING:
    from argparse import Namespace

    from modelhub_tui.cli.output import Console

T = TypeVar("T")

TELL_S = 3.0
"""After this long somebody who waits is told for what, and again whenever that changes."""
_END_S = 1.0
"""What was given up may take this long to let go of what it holds; then it is left behind."""


class Patience:
    """How long a command may wait altogether, and what for.

    Args:
        arguments: What was typed; its `timeout` is in seconds, 0 for no limit.
    """

    def __init__(self, arguments: Namespace, console: Console) -> None:
        self._console = console
        self._limit_s = float(arguments.timeout)
        self._spent_s = 0.0
        self._told = ""
        self.why = ""
        """What is being waited for, as a sentence; whoever awaits something says it here first. Empty says nothing."""

    @property
    def left_s(self) -> float | None:
        """Seconds that are left; None for no limit. What a person took to answer a question does not count."""
        return max(self._limit_s - self._spent_s, 0.0) if self._limit_s else None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end.

        Raises:
            TookTooLong: The limit was reached before; what was begun is cancelled.
        """
        import asyncio

        from modelhub_tui.left_behind import LeftBehind

        begun = time.monotonic()
        runner = asyncio.Runner()
        runner.get_loop().set_default_executor(LeftBehind())
        try:
            found = runner.run(self._watch(work))
        except TookTooLong:
            # Not `runner.close()`: that waits for tasks, and one of them may be what does not end.
            runner.get_loop().close()
            asyncio.set_event_loop(None)
            raise
        except BaseException:
            runner.close()
            raise
        finally:
            self._spent_s += time.monotonic() - begun
        runner.close()
        return found

    def call(self, work: Callable[[], T]) -> T:
        """Do something that blocks, in a thread that is left behind if it does not end.

        Raises:
            TookTooLong: The limit was reached before.
        """
        found: list[T] = []
        failed: list[BaseException] = []

        def do() -> None:
            try:
                found.append(work())
            except BaseException as error:
                failed.append(error)

        begun = time.monotonic()
        thread = threading.Thread(target=do, name="waited for", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(self._step_s(begun))
                if thread.is_alive():
                    self._tell(begun)
        finally:
            self._spent_s += time.monotonic() - begun
        if failed:
            raise failed[0]
        return found[0]

    async def _watch(self, work: Coroutine[Any, Any, T]) -> T:
        import asyncio

        begun = time.monotonic()
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._step_s(begun))
                if not task.done():
                    self._tell(begun)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_END_S)

    def _step_s(self, begun: float) -> float:
        left = self.left_s
        return TELL_S if left is None else max(min(TELL_S, left - (time.monotonic() - begun)), 0.0)

    def _tell(self, begun: float) -> None:
        """Say why it takes so long, once for each reason.

        Raises:
            TookTooLong: The limit is reached.
        """
        left = self.left_s
        if left is not None and time.monotonic() - begun >= left:
            raise TookTooLong(self.why, self._limit_s)
        if self.why and self.why != self._told:
            self._told = self.why
            self._console.say(self.why)
