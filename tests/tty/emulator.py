"""A terminal's screen on top of pyte: with the alternate screen, and answers to what programs ask a modern terminal."""

from __future__ import annotations

import copy
import re
from typing import Any

import pyte

# What pyte does not know and would print, or what has to be answered.
_QUERY = re.compile(
    rb"\x1b\[(?:(?P<mode>\?\d+)\$p|(?P<cursor>6n)|(?P<status>5n)|(?P<da>0?c)|(?P<xt>>0?q)|(?P<kitty>\?u))"
)
_UNKNOWN = re.compile(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\][0-9]+;[^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[\?2026[hl]")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?\Z")

Look = tuple[str, str, str, bool, bool, bool, bool, bool]
"""What a cell looks like: text, foreground, background, bold, italics, underscore, strikethrough, reverse."""


class _Screen(pyte.Screen):
    """pyte's screen, with mode 1049."""

    _main: Any = None
    in_alternate = False

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        if 1049 in modes and kwargs.get("private"):
            if not self.in_alternate:
                self._main = copy.deepcopy((dict(self.buffer), self.cursor.x, self.cursor.y))
            self.in_alternate = True
            # xterm clears it also when it is on already; so whoever enters twice shows an empty screen for a moment.
            self.erase_in_display(2)
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        if 1049 in modes and kwargs.get("private") and self.in_alternate:
            self.in_alternate = False
            buffer, self.cursor.x, self.cursor.y = self._main
            self.buffer.clear()
            self.buffer.update(buffer)
            self.dirty.update(range(self.lines))
        super().reset_mode(*modes, **kwargs)


class Emulator:
    """Feed it a program's output; it keeps the screen and returns what a terminal would answer."""

    def __init__(self, columns: int, lines: int) -> None:
        self.screen = _Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take output in; return the terminal's answers to the queries in it."""
        data = self._rest + data
        unfinished = _UNFINISHED.search(data)
        cut = unfinished.start() if unfinished and len(data) - unfinished.start() < 4096 else len(data)
        data, self._rest = data[:cut], data[cut:]
        answers = []
        at = 0
        for query in _QUERY.finditer(data):
            self._show(data[at : query.start()])
            at = query.end()
            answers.append(self._answer(query))
        self._show(data[at:])
        return b"".join(answers)

    def _show(self, data: bytes) -> None:
        data = _UNKNOWN.sub(b"", data)
        if data:
            self._stream.feed(data)

    def _answer(self, query: re.Match[bytes]) -> bytes:
        if query["mode"]:
            # Synchronized output is known, in-band resize is not: the commonest combination.
            return b"\x1b[" + query["mode"] + (b";2$y" if query["mode"] == b"?2026" else b";0$y")
        if query["cursor"]:
            return b"\x1b[%d;%dR" % (self.screen.cursor.y + 1, self.screen.cursor.x + 1)
        if query["status"]:
            return b"\x1b[0n"
        if query["da"]:
            return b"\x1b[?62;22c"
        if query["xt"]:
            return b"\x1bP>|emulator 1.0\x1b\\"
        return b"\x1b[?0u"

    def resize(self, columns: int, lines: int) -> None:
        """Cut or widen the screen, as terminals do before the program hears of it."""
        self.screen.resize(lines, columns)

    def text(self) -> str:
        """The screen's lines."""
        return "\n".join(self.screen.display)

    def looks(self) -> list[list[Look]]:
        """Every cell as it looks, for comparing two screens. The colour of text does not show on a blank."""
        rows = range(self.screen.lines)
        return [[_look(self.screen.buffer[y][x]) for x in range(self.screen.columns)] for y in rows]


def _look(cell: Any) -> Look:
    drawn = (cell.underscore, cell.strikethrough, cell.reverse)
    if cell.data == " " and not any(drawn):
        return (" ", "default", cell.bg, False, False, *drawn)
    return (cell.data, cell.fg, cell.bg, cell.bold, cell.italics, *drawn)
