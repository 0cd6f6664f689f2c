"""The node's keeper: what ends is started again, ever more slowly, and what hangs is ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from modelhub_tui.service import supervise
from modelhub_tui.service.supervise import Supervisor

PATIENCE_S = 60.0


async def until(check: Callable[[], Any], what: str) -> Any:
    """Wait for what a process does."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := check()):
            await asyncio.sleep(0.01)
    assert found, what
    return found


def waiting() -> tuple[str, ...]:
    """A child that says nothing and lives until its lifeline is cut."""
    return (sys.executable, "-c", "import os; os.read(int(os.environ['MODELHUB_NODE_LIFELINE']), 1)")


@pytest.mark.parametrize("how", ["stopped", "silent"])
async def test_a_child_that_has_fallen_silent_is_ended_and_started_again(how: str) -> None:
    lost: list[str] = []
    supervisor = Supervisor({**os.environ}, lost=lost.append, command=waiting(), heard_at=lambda: 7.0, hung_s=0.5)
    supervisor.start()
    try:
        first = await until(lambda: supervisor.pid, "it starts")
        if how == "stopped":
            os.kill(first, signal.SIGSTOP)
        await until(lambda: supervisor.pid not in (None, first), "another one")
        assert lost == [""] and not psutil.pid_exists(first)
    finally:
        await supervisor.stop()


async def test_a_child_that_is_heard_lives_on() -> None:
    ticks = iter(range(10**9))
    supervisor = Supervisor(
        {**os.environ}, lost=lambda _: None, command=waiting(), heard_at=lambda: float(next(ticks)), hung_s=0.3
    )
    supervisor.start()
    first = await until(lambda: supervisor.pid, "it starts")
    await asyncio.sleep(1.0)  # that nothing happens is what is tested
    assert supervisor.pid == first
    await supervisor.stop()
    assert supervisor.pid is None and not psutil.pid_exists(first)


async def test_one_that_keeps_crashing_is_started_ever_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    wait = asyncio.sleep

    async def sleep(seconds: float) -> None:
        # Told by the size: the watch on the child sleeps in steps of its own.
        if seconds in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0):
            pauses.append(seconds)
            seconds = 0
        await wait(seconds)

    monkeypatch.setattr(supervise.asyncio, "sleep", sleep)
    words: list[str] = []
    command = (sys.executable, "-S", "-E", "-c", "import sys; sys.exit('no disk')")
    supervisor = Supervisor({**os.environ}, lost=words.append, command=command, hung_s=3000.0)
    supervisor.start()
    async with asyncio.timeout(PATIENCE_S):
        while len(pauses) < 8:
            await wait(0.01)
    await supervisor.stop()
    assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert {*words} == {"no disk"}
