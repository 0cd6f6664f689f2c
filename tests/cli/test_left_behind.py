"""A name that no server answers for holds no command up: real processes, with a resolver that never returns."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelhub_tui.left_behind import LeftBehind
from tests.tty import Terminal
from tests.tty.terminal import installed

pytestmark = pytest.mark.timeout(180)

ROUTER = ("--router", "http://router.invalid")
ENV = {"PYTHONPATH": str(Path(__file__).with_name("no_names"))}
LONG_S = 120
"""Far below the hour that the resolver takes."""


def modelhub(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelhub_tui", *argv, *ROUTER]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, env={**os.environ, **ENV})


@pytest.mark.parametrize("argv", [("list",), ("status",), ("rm", "a/b", "--yes"), ("pull", "a/b:c.gguf")])
def test_a_command_ends_when_it_has_said_that_nobody_answers(argv: tuple[str, ...]) -> None:
    done = modelhub(*argv)
    assert done.returncode == 3, done.stderr
    assert "No router answers at http://router.invalid." in done.stderr and "Traceback" not in done.stderr


def test_a_limit_is_the_end_of_the_command() -> None:
    done = modelhub("list", "--timeout", "1")
    assert done.returncode == 1, done.stderr
    assert "That took longer than 1 s." in done.stderr and "Traceback" not in done.stderr


def test_the_dashboard_is_left_at_once() -> None:
    with Terminal([installed(), *ROUTER], env=ENV) as terminal:
        terminal.wait_for("No router answers", timeout=60)
        terminal.send("q")
        assert terminal.wait(LONG_S) == 0


def test_what_ends_in_time_is_as_usual() -> None:
    async def work() -> tuple[int, str]:
        asyncio.get_running_loop().set_default_executor(LeftBehind())
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return await asyncio.to_thread(lambda: 6 * 7), await asyncio.to_thread(lambda: threading.current_thread().name)

    assert asyncio.run(work()) == (42, "left behind")


def test_the_end_of_the_loop_waits_for_nothing() -> None:
    executor = LeftBehind()
    gate = threading.Event()
    future = executor.submit(gate.wait)
    executor.shutdown()  # does not wait
    gate.set()
    assert future.result(10) is True
