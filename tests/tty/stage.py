"""The dashboard on an emulated terminal in this very process: no pty, no clock, some ten times as fast as one.

Bytes typed go through Textual's own parser, bytes written go to the emulator, and both are counted. What it does not
have is a real terminal's timing; `Terminal` is for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual._compositor import LayoutUpdate
from textual.driver import Driver
from textual.drivers.headless_driver import HeadlessDriver
from textual.events import Resize
from textual.geometry import Size
from textual.pilot import Pilot

import modelhub_tui.app as dashboard
from modelhub_tui.domain import Fleet
from modelhub_tui.terminal.delta import DeltaOutput
from modelhub_tui.terminal.driver import AnswerParser
from modelhub_tui.widgets.card_grid import CardGrid
from tests.tty.emulator import Emulator, Look
from tests.tty.terminal import KEYS
from tests.tui import fleets
from tests.tui.conftest import FakeWatcher


class PipeDriver(HeadlessDriver):
    """Writes to the emulator of its app. Headless only in that Textual's pilot may resize it."""

    hears_answers = True

    @property
    def is_headless(self) -> bool:
        return False

    def write(self, data: str) -> None:
        stage: Stage = self._app.stage  # type: ignore[attr-defined]
        stage.take(data.encode())


class StagedApp(DeltaOutput, dashboard.ModelHubApp):
    """The dashboard as it is on a terminal."""

    CSS_PATH = str(Path(dashboard.__file__).with_name("app.tcss"))
    stage: Stage

    def get_driver_class(self) -> type[Driver]:
        return PipeDriver


class Stage:
    """A running dashboard and what its terminal shows."""

    def __init__(self, app: StagedApp, watcher: FakeWatcher, size: tuple[int, int]) -> None:
        self.app, self.watcher, self.size = app, watcher, size
        self.emulator = Emulator(*size)
        self.written = 0
        """Bytes so far."""
        self.output = bytearray()
        self.pilot: Pilot[Any] | None = None
        self._parser = AnswerParser(self._answered)
        self.far = False
        """The link is slow: answers to status queries come when `answer()` is called."""
        self._on_their_way = b""

    def _answered(self) -> None:
        self.app.pace.answered()
        asyncio.get_running_loop().call_soon(self.app.terminal_answered)

    async def answer(self) -> None:
        """Let all answers arrive, and what they set free."""
        while self._on_their_way or self.app.pace.waiting:
            answers, self._on_their_way = self._on_their_way, b""
            self._type(answers.decode())
            await self.settle()

    def take(self, data: bytes) -> None:
        """The app writes."""
        self.written += len(data)
        self.output += data
        answers = self.emulator.feed(data)
        if self.far:
            self._on_their_way += answers
        elif answers:
            self._type(answers.decode())

    def _type(self, text: str) -> None:
        assert self.app._driver is not None
        for event in self._parser.feed(text):
            self.app._driver.process_message(event)
        if text.endswith("\x1b"):
            # It is the key, not the start of a sequence: nothing follows.
            for event in self._parser.feed(""):
                self.app._driver.process_message(event)
            self._parser = AnswerParser(self._answered)

    async def send(self, *keys: str) -> int:
        """Type keys by name or text as it is, let everything be painted, and return the bytes that took."""
        before = self.written
        for key in keys:
            self._type(KEYS.get(key, key))
        await self.settle()
        return self.written - before

    async def say(self, fleet: Fleet) -> int:
        """Let the router have news; return the bytes they took."""
        before = self.written
        self.watcher.say(fleet)
        await self.settle()
        return self.written - before

    async def resize(self, columns: int, lines: int) -> None:
        """Change the window's size, as terminals do: the picture is cut first, the program told afterwards."""
        self.emulator.resize(columns, lines)
        self.size = (columns, lines)
        size = Size(columns, lines)
        self.app._driver._size = (columns, lines)  # type: ignore[union-attr]
        self.app.post_message(Resize(size, size))
        await self.settle()

    async def settle(self) -> None:
        """Let every message be handled and everything dirty be painted."""
        assert self.pilot is not None
        quiet = 0
        while quiet < 3:
            before = self.written
            await self.pilot._wait_for_screen()
            await asyncio.sleep(0)
            screen = self.app.screen
            with self.app._context():
                screen._on_timer_update()
            busy = self.written != before or screen._dirty_widgets or screen._layout_required or screen._callbacks
            quiet = 0 if busy else quiet + 1

    async def calm(self) -> None:
        """Let also what is scrolled or searched a moment later come to its end."""
        while True:
            before = self.written
            await asyncio.sleep(0.05)
            await self.settle()
            if self.written == before:
                return

    def looks(self) -> list[list[Look]]:
        """Every cell as the terminal shows it."""
        return self.emulator.looks()

    def text(self) -> str:
        """The terminal's lines."""
        return self.emulator.text()

    def stock_looks(self) -> list[list[Look]]:
        """Every cell as a full repaint by Textual itself shows it, on an empty terminal, with nothing kept."""
        with self.app._context():  # theme colours are looked up in the app at hand
            for screen in self.app.screen_stack:
                for grid in screen.query(CardGrid):
                    grid.forget()
                for widget in screen.walk_children(with_self=True):
                    widget._styles_cache.clear()
                    widget._set_dirty()
            stack = self.app._background_screens
            update = self.app.screen._compositor.render_update(full=True, screen_stack=stack)
            assert isinstance(update, LayoutUpdate)
            painted = update.render_segments(self.app.console)
        emulator = Emulator(*self.size)
        emulator.feed(painted.encode())
        return emulator.looks()


@asynccontextmanager
async def staged(
    fleet: Fleet | None = None, *, size: tuple[int, int] = (120, 40), theme: str = "dark"
) -> AsyncIterator[Stage]:
    """Run the dashboard on a stage."""
    watcher = FakeWatcher()

    async def open_watcher() -> FakeWatcher:
        return watcher

    app = StagedApp(
        fleet if fleet is not None else fleets.fleet(),
        open_watcher,
        clock=lambda: fleets.NOW,
        env={"TERM": "xterm-256color", "LANG": "C.UTF-8"},
        theme=theme,
        version="0.1.0",
    )
    from rich.color import ColorSystem

    app.console._color_system = ColorSystem.TRUECOLOR
    stage = app.stage = Stage(app, watcher, size)
    ready, done = asyncio.Event(), asyncio.Event()

    async def hold(pilot: Pilot[Any]) -> None:
        stage.pilot = pilot
        ready.set()
        await done.wait()

    running = asyncio.create_task(app.run_async(size=size, auto_pilot=hold))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
    assert stage.pilot is not None, "the app ended before it was ready"
    try:
        await stage.settle()
        yield stage
    finally:
        done.set()
        app.exit()
        await running
