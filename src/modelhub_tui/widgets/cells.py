"""Text measured in terminal cells: cut, wrapped, aligned. A wide character is never cut in two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

_segment = tuple.__new__
"""Makes a named tuple without the detour through its own constructor: a card has some forty segments."""


_width_of = lru_cache(maxsize=2048)(cell_len)


def width_of(text: str) -> int:
    """Cells that `text` takes."""
    return len(text) if text.isascii() else _width_of(text)


def clip(text: str, width: int, ellipsis: str = "…") -> str:
    """Cut `text` to at most `width` cells; what is cut ends in the ellipsis."""
    if width_of(text) <= width:
        return text
    if width <= 0:
        return ""
    return take(text, width - 1).rstrip() + ellipsis


def take(text: str, width: int) -> str:
    """The longest start of `text` that is at most `width` cells wide."""
    if text.isascii():
        return text[: max(width, 0)]
    if width <= 0 or cell_len(text) <= width:
        return text if width > 0 else ""
    cut = set_cell_size(text, width)
    # A wide character on the edge is replaced by a space: drop that, so that the result is a start of the text.
    return cut if text.startswith(cut) else cut[:-1]


def clip_middle(text: str, width: int, ellipsis: str = "…") -> str:
    """Cut `text` to at most `width` cells, taking from the middle: both ends of a path say most."""
    if width_of(text) <= width:
        return text
    if width <= 2:
        return clip(text, width, ellipsis)
    tail_width = (width - 1) * 2 // 3
    head = take(text, width - 1 - tail_width)
    if text.isascii():
        return head + ellipsis + text[-tail_width:]
    tail = text[len(head) :]
    while tail and cell_len(tail) > tail_width:
        tail = tail[1:]
    return head + ellipsis + tail


def wrap(text: str, width: int, lines: int, ellipsis: str = "…") -> list[str]:
    """Break `text` at spaces into `lines` lines of `width` cells at most; a text cut short ends in an ellipsis."""
    out: list[str] = []
    rest = text.strip()
    while rest and len(out) < lines:
        if width_of(rest) <= width or width <= 0:
            out.append(rest if width > 0 else "")
            return out
        last = len(out) == lines - 1
        head = take(rest, width - 1 if last else width)
        at = len(head)
        if at < len(rest) and rest[at] != " ":
            space = head.rfind(" ")
            # A word that fills most of a line (a path, a language without spaces) is broken instead.
            if space > at // 2:
                at = space
        if at == 0:
            # Not even one wide character fits.
            return out
        out.append(rest[:at].rstrip() + (ellipsis if last else ""))
        rest = rest[at:].lstrip()
    return out


class Line:
    """One line being put together from styled pieces; `width` counts the cells so far."""

    __slots__ = ("segments", "width")

    def __init__(self, start: Line | None = None) -> None:
        """Begin with nothing, or with what another line has."""
        self.segments: list[Segment] = [] if start is None else start.segments.copy()
        self.width: int = 0 if start is None else start.width

    def add(self, text: str, style: Style) -> Line:
        """Append `text`."""
        if text:
            self.segments.append(_segment(Segment, (text, style, None)))
            self.width += len(text) if text.isascii() else _width_of(text)
        return self

    def extend(self, pieces: Iterable[tuple[str, str]], style: Callable[[str], Style], width: int) -> None:
        """Append texts, each with the name of its style; together they take so many cells."""
        self.segments += [_segment(Segment, (text, style(role), None)) for text, role in pieces]
        self.width += width

    def pad(self, width: int, style: Style) -> Line:
        """Fill with spaces up to `width` cells."""
        if self.width < width:
            self.segments.append(_segment(Segment, (" " * (width - self.width), style, None)))
            self.width = width
        return self
