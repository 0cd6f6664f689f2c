"""Send a frame as the difference from what the terminal shows. Overrides Textual's private `App._display`.

It is bound to Textual 8.2 and gives way to the stock painting on any doubt: another version, inline or web mode, an
update of a kind it does not know, a character that would not simply show, or any error. Tests compare the emulated
terminal with a full repaint. `MODELHUB_WIRE=plain` switches it off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import textual
from rich.color import ColorSystem
from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import SYNC_END, SYNC_START
from textual.binding import Binding
from textual.driver import Driver
from textual.strip import Strip

from modelhub_tui.terminal.cells import Canvas
from modelhub_tui.terminal.pacing import Pace
from modelhub_tui.terminal.pictures import read_picture
from modelhub_tui.terminal.rows import Doubt, Row, cells_of, joined

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.style import Style
    from textual.app import App
    from textual.screen import Screen

    _Base = App[Any]
else:
    _Base = object

log = logging.getLogger(__name__)

SUPPORTED = "8.2."
"""Versions of Textual whose private parts are as we know them."""
_MAX_ERRORS = 3
"""After so many errors of our own the session goes on in plain mode."""
_MAX_STRIPS = 512
_SHORT, _MAX_PIECES = 16, 4096
"""Characters of texts whose cells are kept; so many of them, and of styles."""
_WHOLE = 1400
"""Characters that arrive in one piece anyway: one packet of most networks."""


def textual_version() -> str:
    """Textual's version, by the name of the folder of its metadata: `textual.__version__` reads what is in it.

    The modules for that are a twentieth of the start of a Textual app.
    """
    found = [each.name for each in Path(textual.__file__).parents[1].glob("textual-*.dist-info")]
    return found[0].removeprefix("textual-").removesuffix(".dist-info") if len(found) == 1 else textual.__version__


@cache
def is_supported() -> bool:
    """Whether this is a Textual whose private parts are as we know them."""
    return textual_version().startswith(SUPPORTED)


class DeltaOutput(_Base):
    """Mix into an `App`, before it: `class MyApp(DeltaOutput, App)`.

    `ctrl+l` (`action_repaint`) repaints everything; so do the end of a suspension and the terminal's focus returning.
    """

    wire_plain: bool
    """Paint as stock Textual does."""
    on_first_paint: Callable[[], None] | None = None
    """Called once, right after the first frame is on its way to the terminal."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wire_plain = os.environ.get("MODELHUB_WIRE") == "plain" or not is_supported()
        self._canvas: Canvas | None = None
        self._strips: dict[int, tuple[Strip, Row]] = {}
        self._keys: dict[int, tuple[Style | None, str]] = {}
        """How cells name the style with this id. They keep it alive, so that no id is used again."""
        self._pieces: dict[tuple[str, int], Row] = {}
        """Short texts in the style with this id, which is in `_keys`."""
        self.wire_errors = 0
        """Frames that could not be compared because of a bug; they were painted in the ordinary way."""
        self._erases = erases_with_background()
        self.pace = Pace()
        self._held: dict[int, Row] = {}
        """Rows that wait for the terminal to have shown the last frame."""
        self._told_slow = False
        self._writer: object = None
        self._blurred = False
        self._painted = False
        self._in_band = False
        # Textual reads BINDINGS of DOM classes only, which a mixin is not. Priority: it has to work in dialogs too.
        repaint = Binding("ctrl+l", "repaint", "Repaint", show=False, priority=True, id="app.repaint")
        self._bindings.key_to_bindings.setdefault("ctrl+l", []).append(repaint)

    @property
    def canvas(self) -> Canvas | None:
        """What the terminal shows now; None while nothing is known, or while that is not the latest."""
        return None if self._held else self._canvas

    def adopt_picture(self, text: str, width: int, height: int) -> None:
        """Begin with what the terminal shows already (see `pictures.picture()`): only changes to it are written."""
        rows = read_picture(text, width, height)
        if rows is not None:
            self._canvas = Canvas(width, height, erases=self._erases)
            self._canvas.rows = rows

    def forget_canvas(self) -> None:
        """Assume nothing about the terminal, so that what is painted next is written in full."""
        if self._canvas is not None:
            self._canvas.forget()
        if self._held:
            self._held = {}
            self.call_next(self.action_repaint)

    def action_repaint(self) -> None:
        """Write every cell again, whatever has happened to the terminal."""
        self.forget_canvas()
        if self.screen_stack:
            self.screen.refresh()

    async def on_event(self, event: events.Event) -> None:
        """Notice what changes the terminal's cells behind our back."""
        if isinstance(event, events.Resize):
            self._resized(event)
        elif isinstance(event, events.AppBlur):
            self._blurred = True
        elif isinstance(event, events.AppFocus) and self._blurred:
            self._blurred = False
            self.call_next(self.action_repaint)
        elif isinstance(event, Driver.SignalResume):
            self.call_next(self.action_repaint)
        await super().on_event(event)

    def _resized(self, event: events.Resize) -> None:
        """Terminals reflow or cut what they show, even when by the time we look the size is the old one again."""
        in_band = bool(getattr(self._driver, "_in_band_window_resize", False))
        announced = self._writer is None or (in_band and not self._in_band)
        self._in_band = in_band
        canvas = self._canvas
        if announced and canvas is not None and (canvas.width, canvas.height) == tuple(event.size):
            return  # told before the first frame, and once more by terminals that report in band: nothing was resized
        if canvas is not None:
            self.forget_canvas()
            self.call_next(self.action_repaint)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Paint an update: as a difference where that is certain, else in Textual's own way."""
        driver = self._driver
        if renderable is None or self._batch_count or not self._running or self._closed or driver is None:
            super()._display(screen, renderable)
            return
        if self.wire_plain or not isinstance(renderable, LayoutUpdate | ChopsUpdate) or not _is_terminal(driver):
            self.forget_canvas()
            super()._display(screen, renderable)
            return
        try:
            sequence = self._difference(renderable, driver)
        except Exception as error:
            self.forget_canvas()
            if not isinstance(error, Doubt):
                self.wire_errors += 1
                self.wire_plain = self.wire_errors >= _MAX_ERRORS
                log.warning("the frame could not be compared", exc_info=error)
            super()._display(screen, renderable)
            # Stock has painted this update only; what else is unknown now is repainted as soon as it changes.
            return
        try:
            self._send(sequence, driver)
        finally:
            self.post_display_hook()

    def _send(self, sequence: str, driver: Driver) -> None:
        """Write a frame, and ask the terminal to say when it has arrived."""
        if not sequence:
            return
        query = self.pace.sent(len(sequence)) if getattr(driver, "hears_answers", False) else ""
        # One write, so that a frame arrives whole; terminals that can are asked to show it at once. Not on a slow link:
        # there the first lines are worth having while the rest is on its way.
        if self._sync_available and len(sequence) > _WHOLE and not self.pace.slow:
            sequence = f"{SYNC_START}{sequence}{SYNC_END}"
        driver.write(sequence + query)
        driver.flush()

    def terminal_answered(self) -> None:
        """The terminal has shown a frame: send what changed meanwhile. Called in the event loop."""
        with self._context():  # the input thread has called, which knows no app
            if self.pace.slow != self._told_slow:
                self._told_slow = self.pace.slow
                self.link_changed(self._told_slow)
            self._send_held()

    def link_changed(self, slow: bool) -> None:
        """The link turned out to be slow, or is not any more; for somebody to spare it."""

    def _send_held(self) -> None:
        driver, canvas = self._driver, self._canvas
        if not self._held or driver is None or canvas is None or not self._running or self.pace.wait_s():
            return
        held, self._held = self._held, {}
        try:
            sequence = canvas.paint(held, self._rest())
        except Exception as error:
            log.warning("what was held back cannot be sent", exc_info=error)
            self.wire_errors += 1
            self.action_repaint()
            return
        self._send(sequence, driver)
        self.post_display_hook()

    def _difference(self, update: LayoutUpdate | ChopsUpdate, driver: Driver) -> str:
        """The sequence that shows an update, and the canvas brought up to it."""
        width, height = self.size
        canvas = self._canvas
        if canvas is None or (canvas.width, canvas.height) != (width, height):
            canvas = self._canvas = Canvas(width, height, erases=self._erases)
            self._held = {}
        # A new writer thread means that the terminal was ours no longer: after a suspension it is blank.
        writer = getattr(driver, "_writer_thread", None)
        if self._writer is not None and writer is not self._writer:
            canvas.forget()
        self._writer = writer
        rows = dict(self._held)
        for y, x, strip in _pieces(update):
            if 0 <= y < height and 0 <= x < width:
                rows[y] = canvas.with_piece(y, x, self._cells(strip), rows.get(y))
        wait_s = self.pace.wait_s()
        if wait_s:
            if not self._held:
                self.set_timer(wait_s, self._send_held)  # if no answer comes
            self._held = rows
            return ""
        self._held = {}
        return canvas.paint(rows, self._rest())

    def _rest(self) -> tuple[int, int]:
        """Where the cursor rests between frames."""
        cursor = self.screen.outer_size.clamp_offset(self.cursor_position)
        self._previous_cursor_position = cursor
        return cursor.x, cursor.y

    def _cells(self, strip: Strip) -> Row:
        """A strip's cells. Strips are immutable and re-used by widgets, so the answer is kept while the strip is."""
        kept = self._strips.get(id(strip))
        if kept is not None and kept[0] is strip:
            return kept[1]
        pieces = self._pieces
        cells = joined([pieces.get((text, id(style))) or self._piece(text, style) for text, style, _ in strip])
        if len(cells) != strip.cell_length:
            raise Doubt("a strip is not as wide as it says")
        if len(self._strips) >= _MAX_STRIPS:
            self._strips.clear()
        self._strips[id(strip)] = (strip, cells)
        return cells

    def _piece(self, text: str, style: Style | None) -> Row:
        """Some text of a strip. Short ones come again and again: marks, units, gaps. Styles are found by identity."""
        if max(len(self._pieces), len(self._keys)) >= _MAX_PIECES:
            self._pieces.clear()
            self._keys.clear()
        kept = self._keys.get(id(style))
        if kept is None:
            kept = self._keys[id(style)] = (style, "" if style is None else self._style_key(style))
        cells = cells_of(text, kept[1])
        if len(text) <= _SHORT:
            self._pieces[text, id(style)] = cells
        return cells

    def _style_key(self, style: Style) -> str:
        """How cells name a style (see `rows.Cell`)."""
        key = style._ansi or Strip.render_ansi(style, self.console._color_system or ColorSystem.TRUECOLOR)
        return f"{key}\nid={style._link_id};{style._link}" if style._link else key

    def post_display_hook(self) -> None:
        """The first frame is out: there is somebody to send keys to now."""
        super().post_display_hook()
        if self._painted or self._driver is None or not self._running or self.screen.size.area == 0:
            return
        self._painted = True
        release = getattr(self._driver, "release_input", None)
        if release is not None:
            release()
        if self.on_first_paint is not None:
            self.on_first_paint()


def erases_with_background() -> bool:
    """Whether the terminal's description says that what is erased gets the current background ("bce")."""
    try:
        import _curses

        _curses.setupterm(None, 1)
        return bool(_curses.tigetflag("bce") > 0)
    except Exception as error:  # no curses in this Python, or no such terminal: write blanks, which always works
        log.debug("the terminal is not described", exc_info=error)
        return False


def _is_terminal(driver: Driver) -> bool:
    return not (driver.is_headless or driver.is_inline or driver.is_web)


def _pieces(update: LayoutUpdate | ChopsUpdate) -> Iterable[tuple[int, int, Strip]]:
    """What an update draws, as (row, column, strip)."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in strips:
                yield y, x, strip
                x += strip.cell_length
        return
    for y, start, end in update.spans:
        for chop_end, (x, chop) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            # Stock cuts the last one at the span's end, through wide characters too. The rest of it is just as fresh.
            if chop is not None and x < end and chop_end > start:
                yield y, x, chop
