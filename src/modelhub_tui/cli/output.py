"""Where text goes: data to stdout, the rest to stderr, colours and live lines only where a person looks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import IO, Any

from modelhub_tui.domain import ModelState
from modelhub_tui.untrusted import clean

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}
STATE_COLOURS = {
    ModelState.AVAILABLE: "",
    ModelState.QUEUED: "yellow",
    ModelState.DOWNLOADING: "cyan",
    ModelState.PAUSED: "yellow",
    ModelState.FAILED: "red",
    ModelState.DOWNLOADED: "green",
    ModelState.DELETING: "dim",
}


class Console:
    """The two streams of this process.

    Args:
        as_json: Data is printed as JSON.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.width = shutil.get_terminal_size().columns if _is_tty(sys.stdout) else 0
        """Columns of the terminal on stdout; 0 if there is none, which means any width will do."""
        self.live = _is_tty(sys.stderr) and os.environ.get("TERM") != "dumb"
        """True if stderr is a terminal on which a line can be rewritten."""
        self._shown = ""

    def print(self, text: str = "", colour: str = "") -> None:
        """Print a line of data."""
        self.clear_live()
        _write(sys.stdout, self._paint(text, colour, sys.stdout) + "\n")

    def json(self, value: Any) -> None:
        """Print a value as JSON, indented."""
        _write(sys.stdout, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def json_line(self, value: Any) -> None:
        """Print a value as JSON on one line, at once."""
        _write(sys.stdout, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.flush()

    def say(self, text: str, colour: str = "") -> None:
        """Print a message for a person."""
        self.clear_live()
        _write(sys.stderr, self._paint(text, colour, sys.stderr) + "\n")
        sys.stderr.flush()

    def error(self, text: str) -> None:
        """Print what went wrong."""
        self.say(f"modelhub: {text}", "red")

    def show_live(self, text: str) -> None:
        """Show a line that the next one replaces; does nothing without a terminal."""
        if self.live and text != self._shown:
            columns = max(shutil.get_terminal_size().columns - 1, 10)
            _write(sys.stderr, f"\r{cut(text, columns)}\x1b[K")
            sys.stderr.flush()
            self._shown = text

    def clear_live(self) -> None:
        """Take the live line away."""
        if self._shown:
            _write(sys.stderr, "\r\x1b[K")
            sys.stderr.flush()
            self._shown = ""

    def confirm(self, question: str) -> bool | None:
        """Ask a yes-or-no question; None if nobody is there to answer."""
        if not (_is_tty(sys.stdin) and _is_tty(sys.stderr)):
            return None
        _write(sys.stderr, f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: frozenset[int] = frozenset(),
        shrink: Sequence[int] = (),
        colours: Sequence[str] = (),
    ) -> None:
        """Print aligned columns.

        Args:
            right: Columns aligned to the right.
            shrink: Columns that are cut when the terminal is too narrow, first one first, never below ten columns.
            colours: The colour of the first cell of each row.
        """
        widths = [max(cell_width(line[at]) for line in (head, *rows)) for at in range(len(head))]
        for at in shrink:
            excess = sum(widths) + 2 * (len(widths) - 1) - self.width
            if self.width and excess > 0:
                widths[at] = max(min(widths[at], 10), widths[at] - excess)
        self.print(_aligned(head, widths, right).rstrip(), "bold")
        for number, row in enumerate(rows):
            line = _aligned(row, widths, right)
            colour = colours[number] if colours else ""
            # Padded first, painted then: escape sequences have no width, but would count as if they had.
            first = cut(row[0], widths[0])
            self.print((self._paint(first, colour, sys.stdout) + line[len(first) :]).rstrip())

    def _paint(self, text: str, colour: str, stream: IO[str]) -> str:
        plain = not colour or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not _is_tty(stream)
        return text if plain or not text else f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def cell_width(text: str) -> int:
    """Columns a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with an ellipsis if it was cut."""
    if cell_width(text) <= width:
        return text
    kept = ""
    for char in text:
        if cell_width(kept + char) > width - 1:
            break
        kept += char
    return kept + "…"


def _aligned(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    out = []
    for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = cut(cell, width)
        gap = " " * (width - cell_width(text))
        out.append(gap + text if at in right else text + gap)
    return "  ".join(out)


def one_line(text: str) -> str:
    """A text that came from a person or the system, safe to print."""
    return clean(text, 500)


def _is_tty(stream: Any) -> bool:
    try:
        return bool(stream is not None and stream.isatty())
    except ValueError:  # closed
        return False


def _write(stream: IO[str], text: str) -> None:
    """Write, with replacements for what the stream's encoding lacks."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.replace("…", "...").encode(encoding, "replace").decode(encoding))
