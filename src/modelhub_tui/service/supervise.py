"""Keep one node running as a child process: start it, log what it says, start it again when it ends or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence

from modelhub_tui.untrusted import clean

log = logging.getLogger(__name__)
node_log = logging.getLogger("node")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
BAD_START_S = 5.0
"""A node that failed this soon did not start at all."""
SOUND_S = 60.0
"""A node that ran this long was not crashing: its next restart is quick again."""
GRACE_S = 2.0
HUNG_S = 60.0
"""A node silent for this long does not work any more, though its process is there; its heartbeats are 10 s apart."""
_MAX_LINE = 8192
NODE_COMMAND = (sys.executable, "-P", "-m", "modelhub_tui.service.node")


class Supervisor:
    """Runs the node.

    The child holds the reading end of a pipe: however this process ends, the pipe closes and the child knows.

    Args:
        env: The child's whole environment, without the lifeline. Secrets travel here, never on the command line.
        lost: Called when the child has ended by itself, with its last words if it ended soon and badly.
        heard_at: When the node last said something to the router, on any clock; None if it never did.
        hung_s: Seconds of silence after which the child is killed, to be started again.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        lost: Callable[[str], None],
        command: Sequence[str] = NODE_COMMAND,
        heard_at: Callable[[], float | None] = lambda: None,
        hung_s: float = HUNG_S,
    ) -> None:
        self._env, self._lost, self._command = dict(env), lost, command
        self._heard_at, self._hung_s = heard_at, hung_s
        self._process: Process | None = None
        self._lifeline = -1
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Begin supervising."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the child: by its lifeline first, then by signals."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._cut()
        process = self._process
        if process is None:
            return
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, sign)
            try:
                async with asyncio.timeout(GRACE_S if sign is None else 0.5):
                    await process.wait()
                return
            except TimeoutError:
                continue

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            begun, words = loop.time(), ""
            try:
                words = await self._run_once()
            except OSError as error:
                log.error("the node cannot be started: %s", error)
                words = f"{error.strerror or error}."
            self._lost(words if loop.time() - begun < BAD_START_S else "")
            if loop.time() - begun > SOUND_S:
                pause_s = FIRST_PAUSE_S
            log.warning("the node is started again in %.1f s", pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _run_once(self) -> str:
        """Run the child until it ends; return its last words if it failed."""
        readable, self._lifeline = os.pipe()
        try:
            env = {**self._env, "MODELHUB_NODE_LIFELINE": str(readable)}
            # A session of its own: ctrl+c in a terminal is for us; the node hears of it through its lifeline.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=env,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                pass_fds=(readable,),
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(readable)
        log.info("node started (process %d)", self._process.pid)
        assert self._process.stdout is not None
        watch = asyncio.create_task(self._end_if_hung(self._process.pid))
        try:
            words = await _copy(self._process.stdout)
            code = await self._process.wait()
        finally:
            watch.cancel()
        self._cut()
        log.warning("the node ended (exit code %d)", code)
        return words if code > 0 else ""

    async def _end_if_hung(self, pid: int) -> None:
        """Kill a child that has fallen silent: stopped, or waiting for ever. It starts again and resumes."""
        loop = asyncio.get_running_loop()
        step_s = self._hung_s / 30
        heard, silent_s, looked_at = self._heard_at(), 0.0, loop.time()
        while silent_s < self._hung_s:
            await asyncio.sleep(step_s)
            now, before = self._heard_at(), heard
            # No more than two steps: while this process slept (a laptop's lid, a busy disk) nobody could be heard.
            silent_s += min(loop.time() - looked_at, 2 * step_s)
            looked_at, heard = loop.time(), now
            if now != before:
                silent_s = 0.0
        log.error("the node has said nothing for %.0f s; it is ended (process %d)", self._hung_s, pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _cut(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


async def _copy(output: asyncio.StreamReader) -> str:
    """Log what the node prints, line by line, and return the last; an endless line is cut."""
    line, last = b"", ""
    while chunk := await output.read(65536):
        *whole, line = (line + chunk).split(b"\n")
        if len(line) > _MAX_LINE:
            whole.append(line)
            line = b""
        for each in whole:
            last = _say(each) or last
    return _say(line) or last


def _say(line: bytes) -> str:
    text = clean(line[:_MAX_LINE].decode("utf-8", "replace"), _MAX_LINE)
    if text:
        node_log.info("%s", text)
    return text
