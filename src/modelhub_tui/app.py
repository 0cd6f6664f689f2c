"""The dashboard: wires a fleet watcher to the screens, and their requests to the watcher."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import App
from textual.command import CommandPalette, Provider
from textual.reactive import reactive
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from modelhub_tui import __version__
from modelhub_tui.actions import applicable, deleters
from modelhub_tui.app_actions import RouterActions
from modelhub_tui.app_control import ControlActions
from modelhub_tui.app_watcher import Asked, FleetWatcherLike
from modelhub_tui.away import while_away
from modelhub_tui.domain import Ability, Connection, Fleet, Limits, Link, Model, Place
from modelhub_tui.errors import AlreadyRegistered, ModelHubError, Unauthorised, Unforeseen, explain
from modelhub_tui.screens.main import MainScreen
from modelhub_tui.screens.wording import cancel_question, delete_question, fetched, goodbye, titles
from modelhub_tui.terminal.repairs import mend
from modelhub_tui.themes import DEFAULT, OURS, choose_theme
from modelhub_tui.widgets.glyphs import ASCII, choose_glyphs

if TYPE_CHECKING:
    from modelhub_tui.screens.api_key import GivenKey
    from modelhub_tui.screens.login import Secret

log = logging.getLogger(__name__)

RETRY_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Waits between attempts to open the watcher; it starts over with the first once one has worked for the last."""
PAINTED_S = 0.3
"""By then the first screen is painted, or covered by another one."""
AT_ONCE = 4
"""Requests to the router at the same time."""


def _commands() -> type[Provider]:
    from modelhub_tui.palette import HubCommands

    return HubCommands


class Palette(CommandPalette):
    """The command palette, with a cursor that does not blink (2.5 kB/s on the wire otherwise)."""

    def on_mount(self) -> None:
        """Hold the cursor still."""
        from textual.command import SearchIcon
        from textual.widgets import Input

        self.query_one(Input).cursor_blink = False
        self.query_one(SearchIcon).icon = ">"  # an emoji otherwise, of a width terminals disagree on


class ModelHubApp(RouterActions, ControlActions, App[None]):
    """The dashboard."""

    TITLE = "modelhub"
    CSS_PATH = "app.tcss"
    COMMANDS = {_commands}

    fleet: reactive[Fleet] = reactive(Fleet, repaint=False)
    """What is shown: the router's last word, and what was asked of it since (the watcher adds that)."""

    def __init__(
        self,
        fleet: Fleet,
        open_watcher: Callable[[], Awaitable[FleetWatcherLike]],
        *,
        theme: str | None = None,
        clock: Callable[[], float] = time.time,
        env: Mapping[str, str] | None = None,
        on_leave: Callable[[Fleet], None] | None = None,
        use_key: Callable[[str, bool], Awaitable[None]] | None = None,
        login: Callable[[str, Secret, bool], Awaitable[None]] | None = None,
        change_password: Callable[[Secret], Awaitable[None]] | None = None,
        endpoint: str = "https://huggingface.co",
        version: str = __version__,
    ) -> None:
        """Prepare the dashboard; nothing is connected before the first frame is out.

        Args:
            fleet: What the first frame shows: the catalog with the last known states.
            open_watcher: Finds or starts the router and returns a watcher; called again after a failure.
            theme: `dark`, `light`, `ansi` or any theme of Textual; None chooses by terminal.
            clock: Seconds since the epoch.
            env: The environment; `os.environ` if None.
            on_leave: Told the last fleet when the app closes.
            use_key: Makes the next attempt to connect use an API key, and keeps it if the second argument says so.
            login: Logs in with user and password, and keeps the session if the third argument says so; the next attempt
                to connect uses it. Raises PasswordChangeNeeded when the router wants a new password first.
            change_password: Sets the new password of the user who logged in last.
            endpoint: The configured hub, whose URLs the register dialog understands.
            version: Shown by the help screen.
        """
        # Decided here because Textual picks the filter that takes colours away before it knows the theme.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        mend()
        self.animation_level = "none"
        environ = os.environ if env is None else env
        encoding = getattr(sys.__stdout__, "encoding", None) if env is None else None
        self._glyphs = choose_glyphs(environ, encoding)
        self.set_class(self._glyphs is ASCII, "-ascii")
        for each in OURS:
            self.register_theme(each)
        chosen = choose_theme(theme, environ.get("TERM", ""), self.no_color)
        self.theme = chosen or DEFAULT
        self.stylesheet.set_variables(self.get_css_variables())
        self._styled: str | None = self.theme
        """What the styles are going to be read with, until Textual asks for them to be read once more for it."""
        self._unknown_theme = theme if chosen is None else None
        self._open_watcher = open_watcher
        self._clock = clock
        self._on_leave = on_leave
        self._use_key, self._login, self._change_password = use_key, login, change_password
        self._endpoint, self._version = endpoint, version
        self._watcher: FleetWatcherLike | None = None
        self._copied_usage = ("", 0)
        """Key of the model whose command was copied last, and which of its commands that was."""
        self._opened = asyncio.Event()
        """An attempt to open the watcher has ended, well or badly."""
        self._open_error: ModelHubError | None = None
        self.pace_s: float | None = None
        """Seconds between two snapshots at least; None leaves it to the watcher. Answers to keys do not wait."""
        self._again = asyncio.Event()
        """Try now, do not wait."""
        self._asked_for_key = False
        self._noticed: set[str] = set()
        known = fleet.connection.heard_at is not None and fleet.connection.link is not Link.LIVE
        self._before = fleet if known else None
        """What was known when the router was last heard; None while it is heard."""
        self._limits: Limits | None = None
        self._deleting = asyncio.Lock()
        self.set_reactive(ModelHubApp.fleet, fleet)

    def get_default_screen(self) -> Screen[None]:
        """The first screen is the only one: a blank one below it would cost a layout."""
        screen = MainScreen(
            self._glyphs,
            self._clock,
            endpoint=self._endpoint,
            version=self._version,
            can_use_key=self._use_key is not None or self._login is not None,
        )
        screen.set_reactive(MainScreen.fleet, self.fleet)
        return screen.data_bind(ModelHubApp.fleet)

    def refresh_css(self, animate: bool = True) -> None:
        """Read the styles anew, but not because of the theme we start with: they were read with it just now."""
        begun, self._styled = self._styled, None
        if begun != self.theme:
            super().refresh_css(animate)

    def on_mount(self) -> None:
        """Show first, then connect."""
        if self._unknown_theme is not None:
            self.notify(
                "Try dark, light or ansi.",
                title=f"No theme is called {self._unknown_theme}",
                severity="warning",
                markup=False,
            )
        self.once_painted(self.follow_fleet)

    def once_painted(self, call: Callable[[], object]) -> None:
        """Call once when the first screen is painted, or soon after.

        Textual keeps such calls with the screen: one that is covered before it is painted would never make them.
        """
        left = [call]

        def make_it() -> None:
            later.stop()
            if left:
                left.pop()()

        later = self.set_timer(PAINTED_S, make_it)
        self.main.call_after_refresh(make_it)

    @property
    def main(self) -> MainScreen:
        """The screen below all dialogs."""
        screen = self.screen_stack[0]
        assert isinstance(screen, MainScreen)
        return screen

    # --- the fleet ---

    @work(exclusive=True, group="watch", exit_on_error=False, description="watch the fleet")
    async def follow_fleet(self) -> None:
        """Open the watcher, and show what it says; after any failure, a bug too, wait, and try again."""
        failures, clock = 0, asyncio.get_running_loop().time
        while True:
            self._again.clear()
            begun = clock()
            try:
                self._watcher = await self._open_watcher()
                self._open_error = None
                self._opened.set()
                async for fleet in self._watcher.fleets():
                    self._hear(fleet)
                    self._watcher.pace_s = self.pace_s
                return
            except Exception as error:  # a job's boundary: nothing may leave a screen that says the same for ever
                problem = _as_ours(error)
            failures = 0 if clock() - begun > RETRY_S[-1] else failures
            wait_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
            failures += 1
            await self._close_watcher()
            self._open_error = problem
            self._opened.set()
            try:
                self._lose(problem, wait_s)
            except Exception:  # what cannot show a fleet may not be able to show that either
                log.exception("the loss of the watcher is not shown")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), wait_s)
            self._opened.clear()

    def _hear(self, fleet: Fleet) -> None:
        """The router said something."""
        was, self.fleet = self.fleet, fleet
        self.show_notices(fleet.notices)
        if fleet.connection.link is Link.LIVE:
            self._asked_for_key = False
            before, self._before = self._before, None
            if before is not None and (line := while_away(before, fleet)):
                self.notify(line, timeout=15, markup=False)
        elif was.connection.link is Link.LIVE:
            self._before = replace(was, connection=fleet.connection)
        if fleet.connection.link is Link.REFUSED and not self._asked_for_key:
            self._asked_for_key = True
            self.ask_for_key()

    def _lose(self, error: ModelHubError, wait_s: float) -> None:
        """There is no watcher to speak for the link: say why, and keep the last list."""
        advice = explain(error)
        link = Link.REFUSED if isinstance(error, Unauthorised) else Link.LOST
        heard_at = self.fleet.connection.heard_at
        self._hear(
            replace(self.fleet, connection=Connection(link, advice.what, advice.todo, heard_at, self._clock() + wait_s))
        )

    async def _connected(self) -> FleetWatcherLike:
        """The watcher, as soon as there is one.

        Raises:
            ModelHubError: Opening it failed; it is tried again later.
        """
        await self._opened.wait()
        if self._watcher is None:
            raise self._open_error or ModelHubError()
        return self._watcher

    @on(MainScreen.RefreshRequested)
    def _refresh(self) -> None:
        self._again.set()
        if self._watcher is not None:
            self._watcher.refresh()

    # --- what people ask for ---

    @on(MainScreen.ActionRequested)
    def _act(self, event: MainScreen.ActionRequested) -> None:
        abilities = self.fleet.router.abilities
        match event.action:
            case "pull" if Ability.PULL_ON_NODE in abilities:
                self.choose_endpoint(event.models)
            case "pull" if plan := self.lacks_room(event.models):
                self.show_plan(event.models, plan)
            case "delete" if Ability.DELETE_ON_NODE in abilities:
                self.choose_copies(event.models)
            case "copy":
                self._copy(event.models[0])
            case "usage":
                self._copy_usage(event.models[0])
            case "delete" if Ability.UNDO in abilities:
                self.ask_to_delete(event.models)
            case "delete":
                self._confirm(event.action, event.models, *delete_question(event.models), yes="Delete", no="Keep")
            case "cancel" if fetched(event.models):
                question = cancel_question(event.models, can_pause=Ability.PAUSE in abilities)
                self._confirm(event.action, event.models, *question, yes="Stop", no="Go on")
            case "first" | "earlier" | "later" | "last":
                self.reorder(event.models, Place(event.action))
            case "undo":
                self.undo()
            case "trash":
                self.show_trash()
            case "limits":
                self.show_limits()
            case _:
                self._start(event.action, event.models)

    def _confirm(
        self, action: str, models: tuple[Model, ...], question: str, lines: tuple[str, ...], *, yes: str, no: str
    ) -> None:
        from modelhub_tui.screens.confirm import ConfirmScreen

        self.push_screen(ConfirmScreen(question, lines, yes=yes, no=no), partial(self._confirmed, action, models))

    def _confirmed(self, action: str, models: tuple[Model, ...], answer: bool | None) -> None:
        """Act on what the models are *now*: a download may have finished while the question stood."""
        if answer and (still := self.still(action, models)):
            self._start(action, still)

    def still(self, action: str, models: tuple[Model, ...]) -> tuple[Model, ...]:
        """What `models` are now, as far as the action still makes sense; says so if it does not for all of them."""
        keys = {model.key for model in models}
        now = tuple(model for model in self.fleet.models if model.key in keys)
        still = applicable(action, now, self.fleet.router.abilities, deleters(self.fleet.nodes))
        if len(still) < len(models):
            gone = [model for model in models if model.key not in {each.key for each in still}]
            self.notify(f"{titles(gone)} changed meanwhile and was left alone.", severity="warning", markup=False)
        return still

    def _start(self, action: str, models: tuple[Model, ...]) -> None:
        async def ask(watcher: FleetWatcherLike, model: Model) -> None:
            await getattr(watcher, action)(model)

        self.start(action, models, ask)

    def start(self, action: str, models: tuple[Model, ...], ask: Asked, *, at_once: int = AT_ONCE) -> None:
        """Ask something about each of `models` in the background, `at_once` at the same time."""
        self.main.forget_selection()
        self.run_worker(
            self.perform(action, models, ask, at_once=at_once),
            group="actions",
            exit_on_error=False,
            description=f"{action} {len(models)} models",
        )

    async def perform(
        self, action: str, models: tuple[Model, ...], ask: Asked, *, at_once: int = AT_ONCE
    ) -> tuple[Model, ...]:
        """Ask the router for each model, a few at a time, and report what did not work; returns what did."""
        slots = asyncio.Semaphore(at_once)

        async def one(model: Model) -> ModelHubError | None:
            async with slots:
                try:
                    await ask(await self._connected(), model)
                except AlreadyRegistered:
                    pass
                except ModelHubError as error:
                    return error
                return None

        results = await asyncio.gather(*(one(model) for model in models))
        failed = [(model, error) for model, error in zip(models, results, strict=True) if error is not None]
        if failed:
            about = titles([model for model, _ in failed])
            self.report(failed[0][1], title=f"Could not {action} {about}")
        return tuple(model for model, error in zip(models, results, strict=True) if error is None)

    def report(self, error: BaseException, title: str = "") -> None:
        """Tell a person what went wrong and what to do."""
        self.tell(explain(error), title)

    @on(Worker.StateChanged)
    def _report_bug(self, event: Worker.StateChanged) -> None:
        """A worker died of something nobody expected: say so, and stay alive."""
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            self.report(event.worker.error)

    # --- keys ---

    @on(MainScreen.KeyRequested)
    def ask_for_key(self) -> None:
        """Ask for a login or an API key, whatever somebody can use."""
        if self._login is not None and self.takes_login():
            self.ask_for_login()
        elif self._use_key is not None:
            self.ask_for_api_key()

    def ask_for_api_key(self) -> None:
        """Ask for an API key."""
        from modelhub_tui.screens.api_key import ApiKeyScreen

        fleet = self.fleet
        self.push_screen(ApiKeyScreen(fleet.router.label or "the router", fleet.connection.problem), self._take_key)

    def _take_key(self, given: GivenKey | None) -> None:
        if given is not None:
            self.run_worker(
                self._reconnect(given), group="key", exclusive=True, exit_on_error=False, description="use a new key"
            )

    async def _reconnect(self, given: GivenKey) -> None:
        """Connect again, with another key."""
        assert self._use_key is not None
        self._asked_for_key = False
        try:
            await self._use_key(given.key, given.remember)
        except (ModelHubError, OSError) as error:
            self.report(error, title="The key was not kept")
        self._refresh()

    # --- palette, leaving ---

    def action_command_palette(self) -> None:
        """Open the palette."""
        if self.use_command_palette and not isinstance(self.screen, CommandPalette):
            self.push_screen(Palette(id="--command-palette", placeholder="Find a command"))

    async def action_quit(self) -> None:
        """Leave. Downloads go on; say so."""
        self.exit(message=goodbye(self.fleet) or None)

    async def on_unmount(self) -> None:
        """Hand over the last fleet, and close what was opened."""
        if self._on_leave is not None:
            fleet, connection = self.fleet, self.fleet.connection
            if connection.link is Link.LIVE:
                # It is true as of now, although nothing may have changed for hours.
                fleet = replace(fleet, connection=replace(connection, heard_at=self._clock()))
            await asyncio.to_thread(self._on_leave, fleet)
        await self._close_watcher()

    async def _close_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            try:
                await asyncio.wait_for(watcher.aclose(), 1.0)
            except (ModelHubError, TimeoutError):
                pass
            except Exception:  # there is nobody to tell, and no reason to stay
                log.exception("the watcher does not close")


def _as_ours(error: Exception) -> ModelHubError:
    """The error itself, or one of ours that it is the cause of, once the log has it."""
    if isinstance(error, ModelHubError):
        return error
    log.error("following the fleet failed", exc_info=error)
    bug = Unforeseen()
    bug.__cause__ = error
    return bug
