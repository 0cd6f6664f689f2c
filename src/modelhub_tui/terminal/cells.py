"""A copy of the cells a terminal shows, and the fewest bytes that turn it into another picture.

Textual rewrites every cell of every dirty region, each piece wrapped in its own colours and a reset: 16 KB for a page
or a wheel tick at 120x40, which is 2.6 s on a link of 50 kbit/s. Here only cells that differ are written, colours only
when they change, and lines that merely moved are moved by the terminal itself. Knows nothing of Textual.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from operator import itemgetter, ne

from rich.cells import split_graphemes

from modelhub_tui.terminal.strokes import LINE, STRETCH, Stroke, shortest, split_blanks
from modelhub_tui.terminal.styles import blank_style, ground

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
_ERASABLE = 8
"""So many blanks make it worth to erase a line."""


class Doubt(Exception):
    """The cells cannot be told for sure; whoever asked has to paint in the ordinary way."""


_text_of = itemgetter(0)
_style_of = itemgetter(1)
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
    return list(_clusters(text, style))


@lru_cache(maxsize=2048)
def _clusters(text: str, style: str) -> tuple[Cell, ...]:
    """Text that is not ASCII, one cell after the other. Kept: bars and marks come again and again."""
    glyphs = _glyphs(style)
    row: Row = []
    for start, end, width in split_graphemes(text)[0]:
        if width == 0 and row:
            raise Doubt("a mark without a letter")
        row.append(glyphs[text[start:end]])
        if width == 2:
            row.append(glyphs[""])
    return tuple(row)


def _goes_with(cell: Cell, style: str) -> bool:
    """Whether a cell may be written while the terminal's style is this one."""
    return cell[1] == style or (cell[0] == " " and cell[1] == blank_style(style))


class Canvas:
    """The cells one terminal shows, as far as they are known."""

    def __init__(self, width: int, height: int, *, erases: bool = False) -> None:
        """Know nothing yet.

        Args:
            erases: The terminal erases with the current background ("bce"), so that blanks need not be written.
        """
        self.width, self.height, self.erases = width, height, erases
        self.rows: list[Row] = []
        self._at: tuple[int, int] | None = None
        """Where the cursor is (column, line); None if that is not known."""
        self.forget()

    def forget(self) -> None:
        """Admit to knowing nothing: whatever is painted next is written in full."""
        self.rows = [[UNKNOWN] * self.width for _ in range(self.height)]
        self._at = None

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
        scroll = self._scroll(changed) if len(changed) >= self.height * MOVED_SHARE else ""
        strokes: list[Stroke] = []
        for y in sorted(changed):
            self._strokes(y, changed[y], strokes)
            self.rows[y] = changed[y]
        writer = shortest(strokes, self.width, self._at)
        if writer.out or scroll or self._at != cursor:
            # Always in full: whatever a terminal made of what was written, from here on we know where we are.
            writer.out.append(f"\x1b[{cursor[1] + 1};{cursor[0] + 1}H")
            self._at = cursor
        return scroll + "".join(writer.out)

    def _scroll(self, changed: dict[int, Row]) -> str:
        """The sequence that lets the terminal move lines which only moved: a wheel tick is then a tenth of a page."""
        whence: dict[tuple[Cell, ...], int] = {}
        for y, row in enumerate(self.rows):
            key = tuple(row)
            whence[key] = -1 if key in whence else y  # lines that look alike tell nothing
        votes = Counter(
            old_y - y for y, row in changed.items() if (old_y := whence.get(tuple(row), -1)) >= 0 and old_y != y
        )
        if not votes:
            return ""
        distance = votes.most_common(1)[0][0]
        moved = [y for y, row in changed.items() if 0 <= y + distance < self.height and row == self.rows[y + distance]]
        if len(moved) < len(changed) * MOVED_SHARE or len(moved) < 3:
            return ""
        top = min(min(moved), min(moved) + distance)
        bottom = max(max(moved), max(moved) + distance) + 1
        count = abs(distance)
        if any(UNKNOWN in self.rows[y] for y in range(top, bottom) if y not in changed):
            return ""  # it would have to be put back, and nobody knows what it is
        fresh = [[UNKNOWN] * self.width for _ in range(count)]
        region = self.rows[top:bottom]
        self.rows[top:bottom] = region[count:] + fresh if distance > 0 else fresh + region[:-count]
        self._at = None  # not all terminals go home when the margins are lifted
        # A line of the region that did not move is elsewhere now, changed or not.
        for y in range(top, bottom):
            if y not in changed:
                changed[y] = region[y - top]
        # Margins, first line of the region, delete or insert lines, no margins.
        # Insert and delete are used rather than scroll up and down because every terminal has them.
        return f"\x1b[{top + 1};{bottom}r\x1b[{top + 1}H\x1b[{count}{'M' if distance > 0 else 'L'}\x1b[r"

    def _erased(self, y: int, new: Row, strokes: list[Stroke]) -> Row:
        """Have a line of unknown content erased, each stretch in its own background, if it has many blanks."""
        if sum(text == " " for text, _ in new) < _ERASABLE or UNKNOWN in new or set(self.rows[y]) != {UNKNOWN}:
            return self.rows[y]
        grounds = [ground(style) for _, style in new]
        rest = grounds[-1]
        strokes.append(Stroke(y, 0, "\x1b[K", rest, 0, layer=LINE))
        erased = [_glyphs(rest)[" "]] * self.width
        x = 0
        for each, run in groupby(grounds):
            count = sum(1 for _ in run)
            if each != rest and count >= _ERASABLE:
                strokes.append(Stroke(y, x, f"\x1b[{count}X", each, 0, layer=STRETCH))
                erased[x : x + count] = [_glyphs(each)[" "]] * count
            x += count
        return erased

    def _strokes(self, y: int, new: Row, strokes: list[Stroke]) -> None:
        """Add what has to be written to make line `y` this one."""
        old = self.rows[y]
        if old == new:
            return
        if old[0] is UNKNOWN and self.erases:
            old = self._erased(y, new, strokes)
        if _fragile_seen and not _fragile_seen.isdisjoint(map(_text_of, old + new)):
            # A neighbour may have been drawn where we do not expect it.
            spans: Iterable[tuple[int, int]] = [(0, self.width)]
        else:
            spans = _spans(old, new)
        found: list[Stroke] = []
        for start, end in spans:
            _lay_out(y, start, new[start:end], found)
        for each in found:
            _trim(each, old, new)
            strokes += split_blanks(each, self.width) if self.erases else (each,)


def _lay_out(y: int, x: int, cells: Row, found: list[Stroke]) -> None:
    """Add the strokes that write `cells` from column `x` on: stretches of one style, with blanks that look alike."""
    stroke: Stroke | None = None
    blank = False
    for style, stretch in groupby(cells, _style_of):
        texts = list(map(_text_of, stretch))
        width, text = len(texts), "".join(texts)
        if style == UNKNOWN[1]:
            stroke = None
        elif not text.isascii() and any(map(is_fragile, texts)):
            # Where the cursor is behind some of it is not certain: a stroke for each.
            for each in texts:
                if each:
                    stroke = Stroke(y, x, each, style, 1, is_fragile(each))
                    found.append(stroke)
                elif stroke is not None:
                    stroke.width += 1
                x += 1
            width, blank = 0, False
        elif stroke is not None and not stroke.fragile and _follows(stroke.style, style, text):
            stroke.text, stroke.width = stroke.text + text, stroke.width + width
            blank = blank and text.isspace()
        elif stroke is not None and blank and blank_style(style) == stroke.style:
            # Only blanks so far, which look the same in this style.
            stroke.text, stroke.width = stroke.text + text, stroke.width + width
            stroke.style, blank = style, text.isspace()
        else:
            stroke = Stroke(y, x, text, style, width)
            blank = text.isspace()
            found.append(stroke)
        x += width


def _follows(style: str, other: str, text: str) -> bool:
    return other == style or (text.isspace() and other == blank_style(style))


def _trim(stroke: Stroke, old: Row, new: Row) -> None:
    """Leave out blanks at both ends that are there already: they are between two changes of other styles."""
    text, x = stroke.text, stroke.x
    if stroke.fragile or (text[0] != " " and text[-1] != " ") or text.isspace():
        return
    for at in range(x + stroke.width - 1, x, -1):
        if new[at][0] != " " or old[at] != new[at]:
            break
        stroke.text, stroke.width = stroke.text[:-1], stroke.width - 1
    while stroke.text[0] == " " and old[stroke.x] == new[stroke.x]:
        stroke.text, stroke.width, stroke.x = stroke.text[1:], stroke.width - 1, stroke.x + 1


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


_RUNS = re.compile(b"\x01+")


def _spans(old: Row, new: Row) -> list[tuple[int, int]]:
    """Columns to write, as (start, end): differing cells, never half a wide character, small equal gaps included."""
    spans: list[tuple[int, int]] = []
    width = len(new)
    wide = "" in map(_text_of, new) or "" in map(_text_of, old)
    # As bytes, so that neither comparing nor looking for the next run takes a line of Python per cell.
    for run in _RUNS.finditer(bytes(map(ne, old, new))):
        start, end = run.span()
        while wide and start > 0 and (new[start][0] == "" or old[start][0] == ""):
            start -= 1
        while wide and end < width and (new[end][0] == "" or old[end][0] == ""):
            end += 1
        if spans and start <= (last := spans[-1])[1] + _MAX_GAP:
            if _may_be_written(new[last[1] : start], new[last[1] - 1][1]):
                spans[-1] = (last[0], max(end, last[1]))
                continue
            start = max(start, last[1])
            if start >= end:
                continue
        spans.append((start, end))
    return spans


def _may_be_written(gap: Row, style: str) -> bool:
    """Whether to write equal cells again in the style that is set anyway costs no more than to jump over them."""
    for text, styled in gap:
        if styled != style and (text != " " or styled != blank_style(style)):
            return False
    return len("".join(map(_text_of, gap)).encode()) <= _JUMP_BYTES


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
