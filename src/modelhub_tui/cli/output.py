"""Where text goes: data to stdout, the rest to stderr, colours and live lines only where a person looks."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import IO, Any

from modelhub_tui.domain import ModelState
from modelhub_tui.identifiers import whole_number
from modelhub_tui.untrusted import escaped, printable

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}
_LEAST_CELLS = 12
OUTPUT = "The output cannot be written"
"""Stands for the file name where it is stdout or stderr that failed."""
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
        self.width = columns() if _is_tty(sys.stdout) else 0
        """Columns of the terminal on stdout; 0 if there is none, which means any width will do."""
        self.live = _is_tty(sys.stderr) and os.environ.get("TERM") != "dumb"
        """True if stderr is a terminal on which a line can be rewritten."""
        self.unicode = (getattr(sys.stderr, "encoding", None) or "").lower().startswith("utf")
        """True if stderr can spell more than ASCII."""
        self._shown = ""

    def print(self, text: str = "", colour: str = "") -> None:
        """Print a line of data."""
        self.clear_live()
        _write(sys.stdout, self._paint(printable(text), colour, sys.stdout) + "\n")

    def json(self, value: Any) -> None:
        """Print a value as JSON, indented."""
        _write(sys.stdout, _json(value, indent=2))

    def json_line(self, value: Any) -> None:
        """Print a value as JSON on one line, at once."""
        _write(sys.stdout, _json(value))
        sys.stdout.flush()

    def say(self, text: str, colour: str = "") -> None:
        """Print a message for a person."""
        self.clear_live()
        _tell(self._paint(printable(text), colour, sys.stderr) + "\n")

    def error(self, text: str) -> None:
        """Print what went wrong."""
        self.say(f"modelhub: {text}", "red")

    @property
    def live_width(self) -> int:
        """Columns that a live line may take."""
        return max(columns() - 1, 10)

    def show_live(self, text: str) -> None:
        """Show a line that the next one replaces; does nothing without a terminal."""
        if self.live and text != self._shown:
            _tell(f"\r{cut(printable(text), self.live_width)}\x1b[K")
            self._shown = text

    def clear_live(self) -> None:
        """Take the live line away."""
        if self._shown:
            _tell("\r\x1b[K")
            self._shown = ""

    def confirm(self, question: str) -> bool | None:
        """Ask a yes-or-no question; None if nobody is there to answer."""
        if not (_is_tty(sys.stdin) and _is_tty(sys.stderr)):
            return None
        _tell(f"{printable(question)} [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Iterable[str] = (),
        shrink: Sequence[str] = (),
        drop: Sequence[str] = (),
        colours: Sequence[str] = (),
    ) -> None:
        """Print aligned columns, without those that are empty in every row.

        Args:
            right: Columns aligned to the right.
            shrink: Columns that are cut if the terminal is too narrow, first one first, to twelve cells at the least.
            drop: Columns that are left out, first one first, if that is not enough.
            colours: The colour of the first cell of each row.
        """
        rows = [[printable(cell) for cell in row] for row in rows]
        columns = [name for at, name in enumerate(head) if any(row[at] for row in rows)]
        widths = {name: max(cell_width(line[head.index(name)]) for line in (head, *rows)) for name in columns}
        for name in (None, *drop):
            if name in columns:
                columns.remove(name)
            least = sum(min(widths[each], _LEAST_CELLS) if each in shrink else widths[each] for each in columns)
            if not self.width or least + 2 * (len(columns) - 1) <= self.width:
                break
        for name in shrink:
            excess = sum(widths[each] for each in columns) + 2 * (len(columns) - 1) - self.width
            if self.width and excess > 0 and name in columns:
                widths[name] = max(min(widths[name], _LEAST_CELLS), widths[name] - excess)
        to_right = frozenset(right)
        for number, row in enumerate((head, *rows)):
            line = ""
            for name in columns:
                text = cut(row[head.index(name)], widths[name])
                gap = " " * (widths[name] - cell_width(text))
                # Padded first, painted then: escape sequences have no width, but would count as if they had.
                if number and not line and colours:
                    text = self._paint(text, colours[number - 1], sys.stdout)
                line += (gap + text if name in to_right else text + gap) + "  "
            self.clear_live()
            _write(sys.stdout, self._paint(line.rstrip(), "" if number else "bold", sys.stdout) + "\n")

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


def columns() -> int:
    """How wide the terminal is, as `shutil` says it, which comes with every kind of compression: 3 ms of 130."""
    if "COLUMNS" in os.environ and (said := whole_number(os.environ["COLUMNS"], 10_000)) is not None:
        return said or 80
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def _is_tty(stream: Any) -> bool:
    try:
        return bool(stream is not None and stream.isatty())
    except ValueError:  # closed
        return False


def _json(value: Any, indent: int | None = None) -> str:
    """JSON that loses nothing on the way to a program: UTF-8, or escaped to ASCII where stdout is anything else, or
    where a name on this machine is no text (half a surrogate pair, which an escape can say)."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    try:
        plain = encoding in ("utf8", "utf8sig") and bool(text.encode())
    except UnicodeEncodeError:
        plain = False
    return (escaped(text) if plain else json.dumps(value, indent=indent, allow_nan=False)) + "\n"


def _write(stream: IO[str], text: str) -> None:
    """Write, with replacements for what the stream's encoding lacks.

    Raises:
        OSError: With the stream as its file name, if it cannot take it.
    """
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.replace("…", "...").encode(encoding, "replace").decode(encoding))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(error) from error


def _tell(text: str) -> None:
    """Write to stderr, as far as that goes: a full disk behind it is no reason to stop."""
    try:
        _write(sys.stderr, text)
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        pass


def unwritable(error: OSError) -> OSError:
    """The error with words for what could not be written."""
    return OSError(error.errno, error.strerror, OUTPUT)
