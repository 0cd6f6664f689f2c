"""Open the dashboard: last known states first, the router when the first frame is out, the last screen kept on leaving.

Nothing heavy is imported at module level, nor before the first frame: no HTTP client, no pydantic, no YAML.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import modelhub_tui.app as dashboard
from modelhub_tui import __version__
from modelhub_tui.catalog import catalog_path, load_catalog
from modelhub_tui.cli.keys import keep_key
from modelhub_tui.cli.trouble import log_to_file
from modelhub_tui.config import Settings
from modelhub_tui.domain import Fleet, Link
from modelhub_tui.errors import PasswordChangeNeeded, explain
from modelhub_tui.filtering import Filter, SortKey
from modelhub_tui.screens.main import HUB
from modelhub_tui.snapshot import fleet_path, load_fleet, rejoin, save_fleet
from modelhub_tui.terminal import instant
from modelhub_tui.terminal.delta import DeltaOutput
from modelhub_tui.terminal.driver import HandoverDriver
from modelhub_tui.terminal.pictures import picture
from modelhub_tui.terminal.rows import Row, blank
from modelhub_tui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from textual.driver import Driver

    from modelhub_tui.client.auth import Session
    from modelhub_tui.client.base import RouterClient
    from modelhub_tui.screens.login import Secret
    from modelhub_tui.watch import FleetWatcher

log = logging.getLogger(__name__)

SLOW_PACE_S = 2.0
"""Pace of news on a slow link: sixteen transfers then take less than 300 bytes a second."""
_GARBAGE = (10_000, 3, 3)
"""So many objects more than before make it worth to look for garbage, so many times among new ones before older ones
are looked at too. With Python's (700, 10, 10) it took 7 % of a page; all are looked at about as often as with that."""


class TerminalApp(DeltaOutput, dashboard.ModelHubApp):
    """The dashboard on a real terminal."""

    # Textual looks for a relative path beside the class's own module.
    CSS_PATH = str(Path(dashboard.__file__).with_name("app.tcss"))

    home_rows: list[Row] | None = None
    """The last whole frame that looked as the next start will: the hub's first page, nothing open above it."""
    home_heard_at: float | None = None
    home_slot = (0, 0, 0)
    """Where the status line was in it: row, column, width."""

    built = False
    leave_with: int | None = None
    """The exit code somebody asked for."""

    def on_mount(self) -> None:
        """Go on as usual, and take note when all widgets are there."""
        self.once_painted(self._built)

    def _built(self) -> None:
        """Until now Textual could not leave: a half-built screen ends in a traceback."""
        self.built = True
        if self.leave_with is not None:
            self.exit(return_code=self.leave_with)

    def leave(self, return_code: int) -> None:
        """Leave in order, as soon as that can be done."""
        self.leave_with = return_code
        if self.built:
            self.exit(return_code=return_code)

    def _fatal_error(self) -> None:
        """A bug: the log gets the traceback, the person a sentence. Stock prints it, with every local there is."""
        error = sys.exc_info()[1]
        log.error("the dashboard broke", exc_info=error)
        self.panic(f"modelhub: {explain(error or RuntimeError())}")

    def get_driver_class(self) -> type[Driver]:
        """Take over from the instant frame."""
        return HandoverDriver

    def post_display_hook(self) -> None:
        """Keep what the terminal shows, if it is what the next start will show."""
        super().post_display_hook()
        canvas = self.canvas
        if canvas is not None and self._at_start() and canvas.known:
            # Rows are replaced, never changed, so keeping the list of them is enough.
            self.home_rows, self.home_heard_at = list(canvas.rows), self.fleet.connection.heard_at
            region = self.main.query_one(StatusLine).region
            self.home_slot = (region.y, region.x, region.width)

    def link_changed(self, slow: bool) -> None:
        """On a slow link: news at a slower pace, and dialogs without a shade over the whole screen behind them."""
        self.set_class(slow, "-slow-link")
        self.pace_s = SLOW_PACE_S if slow else None

    def _at_start(self) -> bool:
        """Whether the screen is as a new session opens it: the hub's first page, no search, nothing open above it."""
        if len(self.screen_stack) != 1 or self._notifications:
            return False
        if self.fleet.connection.link not in (Link.LIVE, Link.CONNECTING):
            return False  # the list is dimmed then
        main = self.main
        plain = main.tab == HUB and not main.details_open and not main.searching
        plain = plain and main.wanted == Filter() and main.sort is SortKey.CATALOG
        return plain and main.grid.cursor == 0 and not main.grid.scroll_offset.y and not main.grid.selected


def run_tui(settings: Settings, *, picture_key: str = "") -> int:
    """Open the dashboard and stay until it is left.

    Args:
        picture_key: What a kept picture of the screen depends on (see `instant.identity()`); "" keeps none.

    Returns:
        The exit code.

    Raises:
        BadCatalog: The catalog cannot be used.
    """
    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stdout__ and sys.__stdout__.isatty()):
        sentence = "The dashboard needs a terminal. `modelhub list` prints the models without one."
        print(f"modelhub: {sentence}", file=sys.stderr)
        return 2
    log_to_file(settings)
    session = _Session(settings, picture_key)
    app = session.app
    app.on_first_paint = _settle_memory
    held = instant.current()
    if held is not None and held.drawn:
        app.adopt_picture(held.picture, *held.size)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, session.leave_on_signal)
    app.run()
    session.keep_picture()
    return app.return_code or 0


def session_app(settings: Settings) -> TerminalApp:
    """The dashboard as `run_tui()` runs it, for somebody else to run: it connects, and keeps no picture."""
    return _Session(settings, "").app


class _Session:
    """One run of the dashboard: what it starts from, how it connects, what it leaves behind."""

    def __init__(self, settings: Settings, picture_key: str) -> None:
        self._settings, self._picture_key = settings, picture_key
        self._session: Session | None = None
        self._keep_session = False
        source = catalog_path(settings.catalog)
        self._fleet_path = fleet_path(settings.cache_dir, settings.router, str(source))
        self._stamp = _stamp(source)
        kept = load_fleet(self._fleet_path)
        if kept is not None and kept.catalog == self._stamp:
            fleet = kept.fleet
        else:
            fleet = rejoin(load_catalog(settings.catalog, settings.cache_dir), kept.fleet if kept else None)
        self.app = TerminalApp(
            fleet,
            self._open_watcher,
            theme=settings.theme,
            on_leave=self._keep_fleet,
            use_key=None if settings.embedded else self._use_key,
            login=None if settings.embedded else self._login,
            change_password=None if settings.embedded else self._change_password,
            endpoint=settings.hf_endpoint,
        )
        self._first_theme = self.app.theme

    async def _open_watcher(self) -> FleetWatcher:
        """Make a watcher. Called after the first frame: this is where the heavy imports are."""
        from modelhub_tui.left_behind import LeftBehind

        asyncio.get_running_loop().set_default_executor(LeftBehind())
        # In a thread, and with the interpreter switching often, the imports do not hold up the keys.
        switching = sys.getswitchinterval()
        sys.setswitchinterval(0.001)
        try:
            return await asyncio.to_thread(self._make_watcher, self.app.fleet)
        finally:
            sys.setswitchinterval(switching)

    def _make_watcher(self, kept: Fleet) -> FleetWatcher:
        from modelhub_tui.watch import FleetWatcher

        settings = self._settings
        catalog = load_catalog(settings.catalog, settings.cache_dir)
        notices = (settings.notice,) if settings.notice else ()
        if settings.embedded:  # our own service tells them with its list
            return FleetWatcher(self._connect, catalog, kept=kept, notices=notices)
        from modelhub_tui.hub_stats import HubStatsCache, HubStatsService

        stats = HubStatsService(HubStatsCache(settings.cache_dir / "hub-stats"), settings.hf_endpoint)
        return FleetWatcher(self._connect, catalog, kept=kept, stats=stats, notices=notices)

    async def _connect(self) -> RouterClient:
        """Connect as the settings say now: a key may have been given since."""
        from modelhub_tui.cli.connect import connector

        connect: Callable[[], Awaitable[RouterClient]] = connector(self._settings, self._session)
        return await connect()

    async def _use_key(self, key: str, remember: bool) -> None:
        """From the next attempt to connect on, use this key; keep it for the next session if asked to."""
        self._settings = replace(self._settings, api_key=key)
        if remember:
            await asyncio.to_thread(keep_key, self._settings, key)

    async def _login(self, user: str, password: Secret, remember: bool) -> None:
        """Log in; from the next attempt to connect on, use that session.

        Raises:
            PasswordChangeNeeded: The router wants a new password for this user first.
            ModelHubError: Wrong, or the router cannot be reached.
        """
        from modelhub_tui.client import auth

        assert self._settings.router is not None
        session = await auth.login(self._settings.router, user, password.get_secret_value())
        self._session, self._keep_session = session, remember
        if session.must_change_password:
            raise PasswordChangeNeeded
        await self._store_session(session)

    async def _change_password(self, password: Secret) -> None:
        """Give the user who logged in last a new password, and log in with it."""
        from modelhub_tui.client import auth

        assert self._settings.router is not None and self._session is not None
        router, user = self._settings.router, self._session.username
        await auth.change_password(router, self._session, password.get_secret_value())
        self._session = await auth.login(router, user, password.get_secret_value())
        await self._store_session(self._session)

    async def _store_session(self, session: Session) -> None:
        if not self._keep_session:
            return
        from modelhub_tui.client.auth import Sessions

        assert self._settings.router is not None
        router, folder = self._settings.router, self._settings.state_dir
        # A keyring may ask the user first, and takes as long as that takes.
        await asyncio.to_thread(lambda: Sessions(folder).store(router, session))

    def _keep_fleet(self, fleet: Fleet) -> None:
        try:
            save_fleet(self._fleet_path, fleet, self._stamp)
        except OSError as error:
            log.warning("the fleet was not kept: %s", error)

    def keep_picture(self) -> None:
        """Keep the last frame that looked as the next start will."""
        app = self.app
        if not self._picture_key or app.home_rows is None or app.theme != self._first_theme:
            return
        rows = list(app.home_rows)
        path = instant.path_for(str(self._settings.cache_dir), len(rows[0]), len(rows))
        row, column, width = app.home_slot
        # What the status line said is not true any more when the picture is shown; its age will be there instead.
        status = rows[row][column : column + width]
        cells = status.cells()
        style = next((style for text, style in cells if text not in ("", " ")), cells[0][1]).partition("\n")[0]
        rows[row] = rows[row][:column] + blank(len(status), status) + rows[row][column + width :]
        try:
            instant.save(
                path,
                self._picture_key,
                picture(rows),
                slot=app.home_slot,
                style=style,
                heard_at=app.home_heard_at,
            )
        except OSError as error:
            log.warning("the screen was not kept: %s", error)

    def leave_on_signal(self, number: int, _frame: object) -> None:
        """SIGTERM and SIGINT leave in order. After SIGHUP there is no terminal to leave: keep what is known and go."""
        if number != signal.SIGHUP:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                sys.exit(128 + number)
            # The loop may be waiting: leaving has to wake it.
            loop.call_soon_threadsafe(self.app.leave, 128 + number)
            return
        self._keep_fleet(self.app.fleet)
        os._exit(128 + number)


def _stamp(source: Path) -> str:
    """What tells one state of a catalog file from another."""
    try:
        state = source.stat()
    except OSError:
        return ""
    return f"{__version__} {source} {state.st_mtime_ns} {state.st_size}"


def _settle_memory() -> None:
    """The first frame is out: what exists now stays, and need never be searched for garbage again."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    gc.enable()
