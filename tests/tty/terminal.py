"""A program in a pseudo-terminal: send keys, wait for text, count bytes, resize, hang up."""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pyte
from ptyprocess import PtyProcess

from tests.tty.emulator import Emulator, Look

KEYS = {
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "backspace": "\x7f",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "ctrl+c": "\x03",
    "ctrl+l": "\x0c",
    "ctrl+q": "\x11",
    "ctrl+r": "\x12",
    "wheel_down": "\x1b[<65;40;15M",
    "wheel_up": "\x1b[<64;40;15M",
}
"""What a terminal sends for keys with a name; anything else is sent as it is."""


class Terminal:
    """A program in a terminal of its own. A context manager: at its end the program is gone."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        size: tuple[int, int] = (120, 40),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        type_ahead: str = "",
        emulate: bool = True,
        link: Link | None = None,
    ) -> None:
        """Start it.

        Args:
            size: Columns and lines.
            env: Added to this process's environment; a value of "" removes a name.
            type_ahead: Typed at once, before the program has begun to read.
            emulate: Draw the output on the emulated screen. Without, only bytes can be waited for, which is what
                measurements want: the emulator is slow.
            link: What lies between program and terminal; None for nothing.
        """
        # The test runner's own idea of a size would go before the terminal's.
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment = {**inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
        environment = {name: value for name, value in environment.items() if value != ""}
        self.size = size
        self.emulator = Emulator(*size)
        self._emulate = emulate
        self.output = bytearray()
        """Everything the program has written."""
        self.reads: list[tuple[float, int]] = []
        """When output arrived (monotonic seconds), and how much of it."""
        self._link = link
        self._changed = threading.Condition()
        self._open = True
        self.started_at = time.monotonic()
        self.process = PtyProcess.spawn(
            [str(each) for each in argv], cwd=str(cwd) if cwd else None, env=environment, dimensions=(size[1], size[0])
        )
        if type_ahead:
            self.send(type_ahead)
        self._reader = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reader.start()

    # What the program does

    @property
    def pid(self) -> int:
        """Process id of the program."""
        return int(self.process.pid)

    @property
    def bytes_written(self) -> int:
        """How many bytes the program has written so far."""
        return len(self.output)

    @property
    def screen(self) -> pyte.Screen:
        """The emulated screen. It changes under you: use `text()` and `looks()` where that matters."""
        return self.emulator.screen

    def text(self) -> str:
        """The screen's lines as they are now."""
        with self._changed:
            return self.emulator.text()

    def looks(self) -> list[list[Look]]:
        """Every cell as it looks now."""
        with self._changed:
            return self.emulator.looks()

    def wait_for(self, what: str | Callable[[str], bool], timeout: float = 30.0) -> str:
        """Wait until the screen shows a text, or a test of its text holds; return the screen.

        Raises:
            AssertionError: It did not within `timeout` seconds, or the program ended; the message shows the screen.
        """
        holds = what if callable(what) else lambda text: what in text
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                text = self.emulator.text()
                if holds(text):
                    return text
                left = until - time.monotonic()
                if left <= 0 or not self._open:
                    why = f"within {timeout} s" if self._open else "before the program ended"
                    raise AssertionError(f"no {what!r} {why}; the screen was:\n{text}")
                self._changed.wait(left)

    def wait_for_bytes(self, marker: bytes, timeout: float = 30.0, start: int = 0) -> float:
        """Wait until the output holds `marker` after offset `start`; return when it came (monotonic seconds)."""
        until = time.monotonic() + timeout
        with self._changed:
            while (at := self.output.find(marker, start)) < 0:
                left = until - time.monotonic()
                assert left > 0 and self._open, f"no {marker!r}; the screen was:\n{self.emulator.text()}"
                self._changed.wait(left)
            seen = 0
            for when, count in self.reads:
                seen += count
                if seen >= at + len(marker):
                    return when
        raise AssertionError("unreachable")

    def settle(self, quiet_s: float = 0.3, timeout: float = 30.0) -> int:
        """Wait until nothing has been written for `quiet_s`; return the bytes written so far."""
        until = time.monotonic() + timeout
        with self._changed:
            while self._open:
                before = len(self.output)
                self._changed.wait(quiet_s)
                if len(self.output) == before:
                    break
                assert time.monotonic() < until, f"still writing after {timeout} s"
            return len(self.output)

    # What the person does

    def send(self, *keys: str) -> None:
        """Type keys by name (see `KEYS`), or any text as it is; everything in one write."""
        data = "".join(KEYS.get(key, key) for key in keys).encode()
        if self._link is not None:
            self._link.bring(data, self._write)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        while data and self._open:
            data = data[os.write(self.process.fd, data) :]

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window."""
        with self._changed:
            self.emulator.resize(columns, lines)
            self.size = (columns, lines)
        self.process.setwinsize(lines, columns)

    def hangup(self) -> None:
        """Close the window: the program gets SIGHUP and its terminal is gone."""
        self.process.kill(signal.SIGHUP)
        self.vanish()

    def vanish(self) -> None:
        """Let the terminal go; the kernel tells only who leads the session."""
        self._open = False
        self._reader.join(5)
        self._close_fd()

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the program's end; return its exit code (negative: the signal that killed it)."""
        until = time.monotonic() + timeout
        while self.process.isalive():
            assert time.monotonic() < until, f"still running after {timeout} s; the screen was:\n{self.text()}"
            with self._changed:
                self._changed.wait(0.05)
        if not self.process.closed:
            self._reader.join(5)
        return -self.process.signalstatus if self.process.signalstatus else int(self.process.exitstatus or 0)

    def close(self) -> None:
        """End the program if it still runs, and close the terminal."""
        if self.process.isalive():
            self.process.kill(signal.SIGKILL)
            self.process.wait()
        self._open = False
        self._reader.join(5)
        self._close_fd()

    def _close_fd(self) -> None:
        # Through the file object that owns the descriptor: collected later, it would close somebody else's.
        if not self.process.closed:
            self.process.fileobj.close()
            self.process.fd, self.process.closed = -1, True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        fd = self.process.fd
        while self._open:
            if not select.select([fd], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            now = time.monotonic()
            if self._link is not None and data:
                self._link.carry(data, self._arrive)
                continue
            with self._changed:
                if not data:
                    self._open = False
                    self._changed.notify_all()
                    return
                self.output += data
                self.reads.append((now, len(data)))
                answers = self.emulator.feed(data) if self._emulate else b""
                self._changed.notify_all()
            if answers:
                try:
                    os.write(fd, answers)
                except OSError:
                    return

    def _arrive(self, data: bytes) -> None:
        """What has come over the link."""
        with self._changed:
            self.output += data
            self.reads.append((time.monotonic(), len(data)))
            answers = self.emulator.feed(data)
            self._changed.notify_all()
        if answers and self._open and self._link is not None:
            self._link.bring(answers, self._answer)

    def _answer(self, answers: bytes) -> None:
        with suppress(OSError, ValueError):
            os.write(self.process.fd, answers)


class _Way:
    """One direction of a line. A single thread hands on what was sent: a timer for each could overtake another."""

    def __init__(self) -> None:
        self._sent: queue.SimpleQueue[tuple[float, bytes, Callable[[bytes], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._hand_on, name="link", daemon=True).start()

    def send(self, due: float, data: bytes, arrive: Callable[[bytes], None]) -> None:
        """Let `data` arrive at that time (monotonic seconds), behind what was sent before."""
        self._sent.put((due, data, arrive))

    def _hand_on(self) -> None:
        while True:
            due, data, arrive = self._sent.get()
            time.sleep(max(due - time.monotonic(), 0))
            with suppress(OSError, ValueError):
                arrive(data)


class Link:
    """A slow line: bytes come one after the other, each after a delay. What is behind it never pushes back.

    Args:
        bytes_per_s: What it carries from the program to the terminal.
        delay_s: One way.
    """

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self.bytes_per_s, self.delay_s = bytes_per_s, delay_s
        self._to_terminal, self._to_program = _Way(), _Way()
        self._free_at = 0.0
        """When the last byte taken so far has left."""
        self.most_waiting = 0
        """The most bytes there ever were on it at the same time."""

    def carry(self, data: bytes, arrive: Callable[[bytes], None]) -> None:
        """Take the program's output; hand it on in packets as they arrive."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now)
        for at in range(0, len(data), _PACKET):
            packet = data[at : at + _PACKET]
            self._free_at += len(packet) / self.bytes_per_s
            self._to_terminal.send(self._free_at + self.delay_s, packet, arrive)
        self.most_waiting = max(self.most_waiting, int((self._free_at - now) * self.bytes_per_s))

    def bring(self, data: bytes, arrive: Callable[[bytes], None]) -> None:
        """Take keys, or the terminal's answers, on their way to the program."""
        self._to_program.send(time.monotonic() + self.delay_s, data, arrive)


_PACKET = 512


def installed(name: str = "modelhub") -> Path:
    """The installed program: the console script beside this interpreter."""
    return Path(sys.executable).parent / name
