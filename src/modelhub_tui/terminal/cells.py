"""A copy of the cells a terminal shows, and the fewest bytes that turn it into another picture.

Textual rewrites every cell of every dirty region, each piece wrapped in its own colours and a reset: 16 KB for a page
or a wheel tick at 120x40, which is 2.6 s on a link of 50 kbit/s. Here only cells that differ are written, colours only
when they change, and lines that merely moved are moved by the terminal itself. Knows nothing of Textual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import itemgetter

from rich.cells import split_graphemes

Cell = tuple[str, str]
"""What one cell shows: its text and its style. The text is "" in the right half of a wide character.

The style is the parameters of an SGR sequence ("1;38;2;255;0;0"), and after a line feed the hyperlink, if there is one.
"""
Row = list[Cell]

UNKNOWN: Cell = ("\0", "?")
"""Equal to nothing that is ever drawn, so it is always written over."""

MOVED_SHARE = 0.4
"""Scroll the terminal when at least this share of the changed full-width lines are old lines moved by one distance."""
_MAX_GAP = 6
"""Equal cells between two changes that may be written again rather than jumped over."""
_JUMP_BYTES = 4


class Doubt(Exception):
    """The cells cannot be told for sure; whoever asked has to paint in the ordinary way."""


_text_of = itemgetter(0)
_fragile_seen: set[str] = set()
"""Fragile texts met so far, to tell quickly that a row has none."""


class _Glyphs(dict[str, Cell]):
    """The cells of one style by text, one object each: rows then compare by identity, at C speed."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style

    def __missing__(self, text: str) -> Cell:
        # Blanks that look alike are alike, whatever colour the text would have: fewer cells differ, and fewer styles.
        cell = self[text] = (text, blank_style(self.style) if text == " " else self.style)
        if is_fragile(text):
            _fragile_seen.add(text)
        return cell


@lru_cache(maxsize=4096)
def _glyphs(style: str) -> _Glyphs:
    return _Glyphs(style)


def is_fragile(text: str) -> bool:
    """Say whether terminals disagree about this text's width: emoji, and several code points in one cell."""
    return len(text) > 1 or (("\u2300" <= text <= "\u2bff" or "\U0001f000" <= text < "\U00020000") and _is_wide(text))


def cells_of(text: str, style: str) -> Row:
    """Lay text out in cells of one style.

    Raises:
        Doubt: It holds a control character, so it would do something else than show.
    """
    glyphs = _glyphs(style)
    if not text.isprintable() and any(char < " " or "\x7f" <= char < "\xa0" for char in text):
        raise Doubt(f"a control character in {text!r}")
    if text.isascii():
        return list(map(glyphs.__getitem__, text))
    row: Row = []
    for start, end, width in split_graphemes(text)[0]:
        if width == 0 and row:
            raise Doubt("a mark without a letter")
        row.append(glyphs[text[start:end]])
        if width == 2:
            row.append(glyphs[""])
    return row


@lru_cache(maxsize=1024)
def _parts(style: str) -> tuple[tuple[str, ...], str, str, str]:
    """A style's attributes, foreground, background and hyperlink."""
    sgr, _, link = style.partition("\n")
    attributes: list[str] = []
    foreground = background = ""
    numbers = sgr.split(";") if sgr else []
    at = 0
    while at < len(numbers):
        size = {"5": 3, "2": 5}.get("".join(numbers[at + 1 : at + 2]), 1) if numbers[at] in ("38", "48") else 1
        part, code = ";".join(numbers[at : at + size]), int(numbers[at])
        if 30 <= code <= 39 or 90 <= code <= 97:
            foreground = "" if code == 39 else part
        elif 40 <= code <= 49 or 100 <= code <= 107:
            background = "" if code == 49 else part
        else:
            attributes.append(part)
        at += size
    return tuple(attributes), foreground, background, link


_UNSEEN = frozenset({"1", "2", "3"})
"""Bold, dim and italic: they show on text only."""


@lru_cache(maxsize=4096)
def blank_style(style: str) -> str:
    """The part of a style that shows on a blank: its background, if nothing is drawn on blanks too, such as a line."""
    attributes, _, background, link = _parts(style)
    return style if link or not _UNSEEN.issuperset(attributes) else background


def _goes_with(cell: Cell, style: str) -> bool:
    """Whether a cell may be written while the terminal's style is this one."""
    return cell[1] == style or (cell[0] == " " and cell[1] == blank_style(style))


@lru_cache(maxsize=8192)
def restyle(old: str, new: str) -> str:
    """The sequence that turns the terminal's style from `old` to `new`; "" is the terminal's default style."""
    (had, old_fg, old_bg, old_link), (has, fg, bg, link) = _parts(old), _parts(new)
    out = "" if old_link == link else f"\x1b]8;{link or ';'}\x1b\\"
    if not has and not fg and not bg:
        return f"{out}\x1b[m" if had or old_fg or old_bg else out
    changes: list[str] = []
    if not set(had) <= set(has):
        # Attributes cannot be switched off one by one: 22 ends both bold and dim.
        changes, had, old_fg, old_bg = ["0"], (), "", ""
    changes += [part for part in has if part not in had]
    if fg != old_fg:
        changes.append(fg or "39")
    if bg != old_bg:
        changes.append(bg or "49")
    return f"{out}\x1b[{';'.join(changes)}m" if changes else out


class Canvas:
    """The cells one terminal shows, as far as they are known."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows: list[Row] = []
        self._out: list[str] = []
        self._style = ""
        self._x: int | None = None
        self._y: int | None = None
        self.forget()

    def forget(self) -> None:
        """Admit to knowing nothing: whatever is painted next is written in full."""
        self.rows = [[UNKNOWN] * self.width for _ in range(self.height)]
        self._x = self._y = None

    @property
    def known(self) -> bool:
        """True when every cell is."""
        return all(UNKNOWN not in row for row in self.rows)

    def with_piece(self, y: int, x: int, cells: Row, row: Row | None = None) -> Row:
        """Return row `y` (or `row`, changed in place) with `cells` put at column `x`, cut at the right edge."""
        row = self.rows[y][:] if row is None else row
        cells = cells[: self.width - x]
        row[x : x + len(cells)] = cells
        return row

    def paint(self, rows: Mapping[int, Row], cursor: tuple[int, int] = (0, 0)) -> str:
        """Make the given rows what the terminal shows; return the sequence that does it, "" when nothing differs.

        Args:
            rows: New rows by their number, each exactly `width` cells.
            cursor: Where the cursor rests afterwards (column, row): input methods follow it though it is hidden.
        """
        changed = {y: _mended(row, self.rows[y]) for y, row in rows.items() if row != self.rows[y]}
        self._out, self._style = [], ""
        if len(changed) >= self.height * MOVED_SHARE:
            self._scroll(changed)
        for y in sorted(changed):
            self._write_row(y, changed[y])
            self.rows[y] = changed[y]
        self._restyle("")
        if self._out or (self._x, self._y) != cursor:
            self._move(*cursor, exact=True)
        return "".join(self._out)

    def _scroll(self, changed: dict[int, Row]) -> None:
        """Let the terminal move lines that only moved: a wheel tick is then 0.9 KB instead of 8.7."""
        whence: dict[tuple[Cell, ...], int] = {}
        for y, row in enumerate(self.rows):
            key = tuple(row)
            whence[key] = -1 if key in whence else y  # lines that look alike tell nothing
        votes = Counter(
            old_y - y for y, row in changed.items() if (old_y := whence.get(tuple(row), -1)) >= 0 and old_y != y
        )
        if not votes:
            return
        distance = votes.most_common(1)[0][0]
        moved = [y for y, row in changed.items() if 0 <= y + distance < self.height and row == self.rows[y + distance]]
        if len(moved) < len(changed) * MOVED_SHARE or len(moved) < 3:
            return
        top = min(min(moved), min(moved) + distance)
        bottom = max(max(moved), max(moved) + distance) + 1
        count = abs(distance)
        if any(UNKNOWN in self.rows[y] for y in range(top, bottom) if y not in changed):
            return  # it would have to be put back, and nobody knows what it is
        fresh = [[UNKNOWN] * self.width for _ in range(count)]
        region = self.rows[top:bottom]
        self.rows[top:bottom] = region[count:] + fresh if distance > 0 else fresh + region[:-count]
        # Margins, first line of the region, delete or insert lines, no margins.
        # Insert and delete are used rather than scroll up and down because every terminal has them.
        self._out.append(f"\x1b[{top + 1};{bottom}r\x1b[{top + 1}H\x1b[{count}{'M' if distance > 0 else 'L'}\x1b[r")
        self._x = self._y = None  # not all terminals go home when the margins are lifted
        # A line of the region that did not move is elsewhere now, changed or not.
        for y in range(top, bottom):
            if y not in changed:
                changed[y] = region[y - top]

    def _write_row(self, y: int, new: Row) -> None:
        old = self.rows[y]
        if old == new:
            return
        if _fragile_seen and not _fragile_seen.isdisjoint(map(_text_of, old + new)):
            # A neighbour may have been drawn where we do not expect it.
            spans: Iterable[tuple[int, int]] = [(0, self.width)]
        else:
            spans = _spans(old, new)
        for start, end in spans:
            self._move(start, y)
            for x in range(start, end):
                text, style = new[x]
                if not text or new[x] is UNKNOWN:
                    self._x = self._x if not text else None
                    continue
                if self._x is None:
                    self._move(x, y)
                if style != self._style and not _goes_with(new[x], self._style):
                    self._restyle(style)
                self._out.append(text)
                if is_fragile(text):
                    self._x = None  # the terminal may have gone one cell more or less than we think
                elif self._x is not None:
                    self._x += 1 if x + 1 >= self.width or new[x + 1][0] else 2
            if end >= self.width:
                self._x = None  # terminals differ on where the cursor is after the last column

    def _restyle(self, style: str) -> None:
        if style != self._style:
            self._out.append(restyle(self._style, style))
            self._style = style

    def _move(self, x: int, y: int, *, exact: bool = False) -> None:
        if not exact and self._y == y and self._x is not None and x >= self._x:
            if x > self._x:
                self._out.append("\x1b[C" if x == self._x + 1 else f"\x1b[{x - self._x}C")
        elif not exact and x == 0 and self._y == y - 1:
            self._out.append("\r\n")
        else:
            self._out.append(f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H")
        self._x, self._y = x, y


def _mended(row: Row, old: Row) -> Row:
    """Replace halves of wide characters whose other half was drawn over, as terminals do."""
    if "" not in map(_text_of, row) and "" not in map(_text_of, old):
        return row
    mended = row[:]
    for x, (text, style) in enumerate(row):
        orphaned = x == 0 or not _is_wide(mended[x - 1][0])
        widowed = _is_wide(text) and (x + 1 == len(row) or row[x + 1][0] != "")
        if widowed or (text == "" and orphaned):
            mended[x] = (" ", style)
    return mended


@lru_cache(maxsize=4096)
def _is_wide(text: str) -> bool:
    return bool(text) and not text.isascii() and split_graphemes(text)[1] == 2


def _spans(old: Row, new: Row) -> list[tuple[int, int]]:
    """Columns to write, as (start, end): differing cells, never half a wide character, small equal gaps included."""
    spans: list[tuple[int, int]] = []
    width = len(new)
    for at, (was, now) in enumerate(zip(old, new, strict=True)):
        if was is now or was == now:
            continue
        start, end = at, at + 1
        while start > 0 and (new[start][0] == "" or old[start][0] == ""):
            start -= 1
        while end < width and (new[end][0] == "" or old[end][0] == ""):
            end += 1
        if spans and start <= (last := spans[-1])[1] + _MAX_GAP:
            gap = new[last[1] : start]
            if (
                all(_goes_with(cell, new[last[1] - 1][1]) for cell in gap)
                and sum(len(cell[0].encode()) for cell in gap) <= _JUMP_BYTES
            ):
                spans[-1] = (last[0], max(end, last[1]))
                continue
            start = max(start, last[1])
            if start >= end:
                continue
        spans.append((start, end))
    return spans


def picture(rows: Iterable[Row]) -> str:
    """Write rows as text with nothing but cursor positions and SGR in it. Hyperlinks are left out."""
    out: list[str] = []
    for y, row in enumerate(rows):
        out.append(f"\x1b[{y + 1};1H")
        style: str | None = None
        for x, (text, styled) in enumerate(row):
            sgr = styled.partition("\n")[0]
            if text and (style is None or not _goes_with((text, sgr), style)):
                out.append(f"\x1b[0;{sgr}m" if sgr else "\x1b[0m")
                style = sgr
            out.append(text)
            if is_fragile(text):
                out.append(f"\x1b[{y + 1};{x + 1 + (2 if _is_wide(text) else 1)}H")
    return "".join(out)


def read_picture(text: str, width: int, height: int) -> list[Row] | None:
    """Return the rows a terminal of this size shows after `text`, which `picture()` wrote; None if it does not fit."""
    canvas = Canvas(width, height)
    x = y = 0
    style = ""
    for piece in text.split("\x1b[")[1:]:
        end = next((at for at, char in enumerate(piece) if char in "Hm"), None)
        if end is None:
            return None
        numbers = piece[:end]
        if piece[end] == "m":
            style = numbers.removeprefix("0").removeprefix(";")
        else:
            row, _, column = numbers.partition(";")
            x, y = int(column or 1) - 1, int(row or 1) - 1
        try:
            cells = cells_of(piece[end + 1 :], style)
        except Doubt:
            return None
        if cells and (y >= height or x + len(cells) > width):
            return None
        if cells:
            canvas.rows[y][x : x + len(cells)] = cells
            x += len(cells)
    return canvas.rows
