"""Bring cells to the terminal in as few bytes as possible: in which order to write them, and how to get there.

Changing the colour costs 19 bytes, going somewhere else 4 to 8. So a frame is laid out twice, line by line and colour
by colour, and the shorter one is sent: a page of cards, with ten pieces of five colours in a line, shrinks by a third.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from operator import ne

from modelhub_tui.terminal.styles import by_ground, ground, is_plain, restyle

_MANY = 4
"""With so many changes of colour for each of them, a frame is shorter colour by colour; it need not be tried."""
_SOMEWHERE = -1
"""A column that is not known."""


LINE, STRETCH, TEXT = range(3)
"""Layers of a line, in the order in which they are written: all of it erased, a part of it erased, text."""


class Stroke:
    """Cells next to each other that can be written in one style."""

    __slots__ = ("fragile", "layer", "style", "text", "width", "x", "y")

    def __init__(
        self, y: int, x: int, text: str, style: str, width: int, fragile: bool = False, layer: int = TEXT
    ) -> None:
        self.y, self.x, self.text, self.style, self.width = y, x, text, style, width
        """`width` is how far the cursor moves: by nothing when the text is a sequence that erases."""
        self.fragile, self.layer = fragile, layer
        """Where the cursor is afterwards is not certain. What has to be there before."""


MANY_BLANKS = " " * 6
"""What a stroke has in it that is worth to be split."""
_LONG = re.compile(" {12,}| {6,}$")
"""Blanks that are shorter erased: up to 5 bytes, and as many to go on behind them."""


def split_blanks(stroke: Stroke, columns: int) -> Iterable[Stroke]:
    """Have long blanks erased, if that leaves the same: blanks in a style that draws nothing on them."""
    text = stroke.text
    if stroke.layer != TEXT or stroke.fragile or not is_plain(stroke.style):
        return (stroke,)
    if len(text) != stroke.width:
        return (stroke,)  # its cells are not its characters
    parts: list[Stroke] = []
    at = 0
    for blanks in _LONG.finditer(text):
        start, end = blanks.span()
        if start > at:
            parts.append(Stroke(stroke.y, stroke.x + at, text[at:start], stroke.style, start - at))
        to_edge = stroke.x + end >= columns
        erase = "\x1b[K" if to_edge else f"\x1b[{end - start}X"
        parts.append(Stroke(stroke.y, stroke.x + start, erase, stroke.style, 0))
        at = end
    if at < len(text):
        parts.append(Stroke(stroke.y, stroke.x + at, text[at:], stroke.style, len(text) - at))
    return parts


class Writer:
    """Puts strokes into one sequence, keeping track of cursor and style.

    Args:
        width: Columns of the terminal: after the last one nobody knows where the cursor is.
        at: Where the cursor is; None if that is not known.
    """

    def __init__(self, width: int, at: tuple[int, int] | None) -> None:
        self._width = width
        self._style = ""
        self.at = at
        self.out: list[str] = []

    def move(self, x: int, y: int) -> None:
        """Bring the cursor there."""
        if self.at != (x, y):
            self.out.append(_way(self.at, x, y))
            self.at = (x, y)

    def restyle(self, style: str) -> None:
        """Make this the terminal's style."""
        if style != self._style:
            self.out.append(restyle(self._style, style))
            self._style = style

    def write(self, strokes: Iterable[Stroke]) -> None:
        """Write in this order, then go back to the default style."""
        for each in strokes:
            self.move(each.x, each.y)
            self.restyle(each.style)
            self.out.append(each.text)
            end = each.x + each.width
            # After the last column terminals differ on where in the line they are.
            self.at = (_SOMEWHERE if each.fragile or end >= self._width else end, each.y)
        self.restyle("")


def shortest(strokes: Sequence[Stroke], width: int, at: tuple[int, int] | None) -> Writer:
    """Write line by line or colour by colour, whichever is shorter; return the writer that did."""
    styles = [each.style for each in strokes]
    changes, colours = sum(map(ne, styles, styles[1:])), len(set(styles))
    ways = []
    if changes < _MANY * colours:
        ways.append(_written(strokes, width, at))
    if changes >= colours:
        ways.append(_written(_by_colour(strokes), width, at))
    return min(ways, key=lambda writer: sum(map(len, writer.out)))


def _by_colour(strokes: Iterable[Stroke]) -> Iterable[Stroke]:
    """The same strokes, within a colour from top to bottom."""
    groups: dict[tuple[int, str], list[Stroke]] = {}
    for each in strokes:
        groups.setdefault((each.layer, each.style), []).append(each)
    # Text begins with the background that the erasing ends with.
    last = max((style for layer, style in groups if layer == STRETCH), key=by_ground, default=None)
    order = sorted(groups, key=lambda group: (group[0], ground(group[1]) != last, by_ground(group[1])))
    return chain.from_iterable(groups[each] for each in order)


def _written(strokes: Iterable[Stroke], width: int, at: tuple[int, int] | None) -> Writer:
    writer = Writer(width, at)
    writer.write(strokes)
    return writer


@lru_cache(maxsize=8192)
def _way(at: tuple[int, int] | None, x: int, y: int) -> str:
    """The shortest sequence that brings the cursor from `at` to column `x`, line `y`, both from 0."""
    best = f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H"
    if at is None:
        return best
    was_x, was_y = at
    ways = []
    if y == was_y:
        if was_x != _SOMEWHERE:
            ways.append(_right(x - was_x) if x > was_x else "\b" * (was_x - x))
        ways.append("\r" + _right(x))
    elif 0 < y - was_y <= 2:
        ways.append("\r\n" * (y - was_y) + _right(x))
    for way in ways:
        if len(way) < len(best):
            best = way
    return best


def _right(columns: int) -> str:
    return "" if not columns else "\x1b[C" if columns == 1 else f"\x1b[{columns}C"
