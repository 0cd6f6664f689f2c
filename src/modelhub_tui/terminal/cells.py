"""A copy of the cells a terminal shows, and the fewest bytes that turn it into another picture.

Textual rewrites every cell of every dirty region, each piece wrapped in its own colours and a reset: 16 KB for a page
or a wheel tick at 120x40, which is 2.6 s on a link of 50 kbit/s. Here only cells that differ are written, colours only
when they change, and lines that merely moved are moved by the terminal itself. Knows nothing of Textual.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import ne

from modelhub_tui.terminal.rows import NOTHING, RIGHT, Row, blanks, fragile, mended, row_of, shown, styles, unknown
from modelhub_tui.terminal.strokes import LINE, MANY_BLANKS, STRETCH, Stroke, shortest, split_blanks
from modelhub_tui.terminal.styles import blank_style, ground

MOVED_SHARE = 0.4
"""Scroll the terminal when at least this share of the changed full-width lines are old lines moved by one distance."""
_JUMP_BYTES = 4
"""Equal cells between two changes that may be written again rather than jumped over."""
_ERASABLE = 8
"""So many blanks make it worth to erase a line."""
_SAME = re.compile(r"(.)\1*", re.DOTALL)
_ONE, _TWO = (bytes([0, *[mark] * 255]) for mark in (1, 2))
_CHANGED = re.compile(rb"[\x01\x03]+(?:\x00{1,%d}[\x01\x03]+)*" % _JUMP_BYTES)
"""Cells that differ (bit 0), with short gaps of others in which the style (bit 1) stays that of the cell before."""


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
        self.rows = [unknown(self.width) for _ in range(self.height)]
        self._at = None

    @property
    def known(self) -> bool:
        """True when every cell is."""
        return all(row.known for row in self.rows)

    def with_piece(self, y: int, x: int, cells: Row, row: Row | None = None) -> Row:
        """Return row `y` (or `row` instead) with `cells` put at column `x`, cut at the right edge."""
        if x == 0 and len(cells) == self.width:
            return cells
        row = self.rows[y] if row is None else row
        return row[:x] + cells[: self.width - x] + row[x + len(cells) :]

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
        whence: dict[tuple[str, str], int] = {}
        for y, row in enumerate(self.rows):
            key = (row.text, row.looks)
            whence[key] = -1 if key in whence else y  # lines that look alike tell nothing
        votes = Counter(
            old_y - y
            for y, row in changed.items()
            if (old_y := whence.get((row.text, row.looks), -1)) >= 0 and old_y != y
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
        if not all(self.rows[y].known for y in range(top, bottom) if y not in changed):
            return ""  # it would have to be put back, and nobody knows what it is
        fresh = [unknown(self.width) for _ in range(count)]
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
        if new.text.count(" ") < _ERASABLE or not new.known or self.rows[y].text != NOTHING * self.width:
            return self.rows[y]
        grounds = [
            (ground(styles[ord(new.looks[start])]), end - start)
            for start, end in (run.span() for run in _SAME.finditer(new.looks))
        ]
        rest = grounds[-1][0]
        strokes.append(Stroke(y, 0, "\x1b[K", rest, 0, layer=LINE))
        stretches: list[tuple[str, int]] = []
        for each, count in grounds:
            if stretches and stretches[-1][0] == each:
                stretches[-1] = (each, stretches[-1][1] + count)
            else:
                stretches.append((each, count))
        erased: list[tuple[str, str]] = []
        x = 0
        for each, count in stretches:
            if each != rest and count >= _ERASABLE:
                strokes.append(Stroke(y, x, f"\x1b[{count}X", each, 0, layer=STRETCH))
                erased.append((" " * count, each))
            else:
                erased.append((" " * count, rest))
            x += count
        return row_of(erased)

    def _strokes(self, y: int, new: Row, strokes: list[Stroke]) -> None:
        """Add what has to be written to make line `y` this one."""
        old = self.rows[y]
        if old == new:
            return
        if self.erases and old.text[0] == NOTHING:
            old = self._erased(y, new, strokes)
        if fragile and not (fragile.isdisjoint(new.text) and fragile.isdisjoint(old.text)):
            # A neighbour may have been drawn where we do not expect it.
            spans: Iterable[tuple[int, int]] = [(0, self.width)]
        else:
            spans = _spans(old, new)
        found: list[Stroke] = []
        for start, end in spans:
            _lay_out(y, start, end, new, found)
        for each in found:
            _trim(each, old, new)
            if self.erases and MANY_BLANKS in each.text:
                strokes += split_blanks(each, self.width)
            else:
                strokes.append(each)


def _lay_out(y: int, start: int, end: int, new: Row, found: list[Stroke]) -> None:
    """Add the strokes that write some cells of a row: stretches of one style, with blanks that look alike."""
    stroke: Stroke | None = None
    for run in _SAME.finditer(new.styles, start, end):
        x, stop = run.span()
        style, text, width = styles[ord(new.styles[x])], new.text[x:stop], stop - x
        if text[0] == NOTHING:
            stroke = None
            continue
        if not text.isascii():
            if fragile and not fragile.isdisjoint(text):
                # Where the cursor is behind some of it is not certain: a stroke for each.
                for at, char in enumerate(text, x):
                    if char == RIGHT and stroke is not None:
                        stroke.width += 1
                    else:
                        stroke = Stroke(y, at, shown(char), style, 1, char in fragile)
                        found.append(stroke)
                continue
            text = shown(text)
        blank = text.isspace()
        if blank:
            style = blank_style(style)
        if stroke is not None and not stroke.fragile:
            if style == stroke.style or (blank and style == blank_style(stroke.style)):
                stroke.text, stroke.width = stroke.text + text, stroke.width + width
                continue
            if blank_style(style) == stroke.style and stroke.text.isspace():
                # Only blanks so far, which look the same in this style.
                stroke.text, stroke.width, stroke.style = stroke.text + text, stroke.width + width, style
                continue
        stroke = Stroke(y, x, text, style, width)
        found.append(stroke)


def _trim(stroke: Stroke, old: Row, new: Row) -> None:
    """Leave out blanks at both ends that are there already: they are between two changes of other styles."""
    text, x = stroke.text, stroke.x
    if stroke.fragile or (text[0] != " " and text[-1] != " ") or text.isspace():
        return
    for at in range(x + stroke.width - 1, x, -1):
        if new.text[at] != " " or _differs(at, old, new):
            break
        stroke.text, stroke.width = stroke.text[:-1], stroke.width - 1
    while stroke.text[0] == " " and not _differs(stroke.x, old, new):
        stroke.text, stroke.width, stroke.x = stroke.text[1:], stroke.width - 1, stroke.x + 1


def _differs(x: int, old: Row, new: Row) -> bool:
    return old.text[x] != new.text[x] or old.looks[x] != new.looks[x]


def _mended(row: Row, old: Row) -> Row:
    """Halves of wide characters are only left where there were some."""
    return mended(row) if RIGHT in row.text or RIGHT in old.text else row


def _spans(old: Row, new: Row) -> list[tuple[int, int]]:
    """Columns to write, as (start, end): differing cells, never half a wide character, small equal gaps included.

    A gap is small if to write it again in the style that is set anyway costs no more than to jump over it.
    """
    width = len(new)
    # As numbers with a byte for each cell: neither comparing nor looking for the next run takes Python for each cell.
    differing = _unlike(old.text, new.text, _ONE) | _unlike(old.looks, new.looks, _ONE)
    restyled = _unlike(new.styles[:1] + new.styles[:-1], new.styles, _TWO)
    spans: list[tuple[int, int]] = []
    last = 0
    for run in _CHANGED.finditer((differing | restyled).to_bytes(width, "little")):
        start, end = run.span()
        # Blanks of another style may look the same.
        if (
            spans
            and start - last <= _JUMP_BYTES
            and new.looks[last:start] == blanks[new.styles[last - 1]] * (start - last)
        ):
            start = spans.pop()[0]
        spans.append((start, end))
        last = end
    if RIGHT in new.text or RIGHT in old.text:
        return [_whole(start, end, old, new) for start, end in spans]
    return spans


def _unlike(one: str, other: str, table: bytes) -> int:
    """A number with a byte for each character: 0 where two texts of the same length are alike, else as in `table`."""
    if one == other:
        return 0
    try:
        marks = int.from_bytes(one.encode("latin-1"), "little") ^ int.from_bytes(other.encode("latin-1"), "little")
        found = marks.to_bytes(len(one), "little")
    except UnicodeEncodeError:
        found = bytes(map(ne, one, other))
    return int.from_bytes(found.translate(table), "little")


def _whole(start: int, end: int, old: Row, new: Row) -> tuple[int, int]:
    """A span that cuts no wide character in two, neither of those that come nor of those that go."""
    while start > 0 and RIGHT in (new.text[start], old.text[start]):
        start -= 1
    while end < len(new) and RIGHT in (new.text[end], old.text[end]):
        end += 1
    return start, end
