"""What a line of the terminal shows: strings with a character for each cell, compared and cut at the speed of C."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from rich.cells import split_graphemes

from modelhub_tui.terminal.styles import blank_style

Cell = tuple[str, str]
"""What one cell shows: its text and its style. The text is "" in the right half of a wide character.

The style is the parameters of an SGR sequence ("1;38;2;255;0;0"), and after a line feed the hyperlink, if there is one.
"""

RIGHT, NOTHING = "\0", "\x01"
"""Stand in a row's text for the right half of a wide character, and for a cell that nobody knows."""
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")
_FIRST_MARK = 0x80
_MOST = 50_000
"""Different styles, and different characters: more than any session has met."""


class Doubt(Exception):
    """The cells cannot be told for sure; whoever asked has to paint in the ordinary way."""


styles: list[str] = ["?"]
"""All styles met so far. In a row each is the character with its position; the first is that of unknown cells."""
_codes: dict[str, str] = {}
"""Their characters."""
blanks: dict[str, str] = {"\0": "\0"}
"""By the character of a style that of the style its blanks look like."""
_marks: dict[str, str] = {}
"""What is not ASCII stands in a row as a character of its own, in the order in which it was met, whatever it takes to
write it: so most rows have a byte for each cell, which is what comparing them is quick with."""
_shown: dict[int, str] = {}
"""What these stand for."""
fragile: set[str] = set()
"""Characters met so far whose width terminals disagree about: see `is_fragile()`."""


class Row:
    """Cells next to each other. Equal when they look alike, whatever colour the text of a blank would have."""

    __slots__ = ("looks", "styles", "text")

    def __init__(self, text: str, styles: str, looks: str) -> None:
        self.text = text
        """A character for each cell: see `RIGHT`, `NOTHING`, `shown()`."""
        self.styles = styles
        """Their styles as given."""
        self.looks = looks
        """The same, but for blanks what shows of the style: fewer cells differ, and fewer styles."""

    def __len__(self) -> int:
        return len(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.text == other.text and self.looks == other.looks

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, part: slice) -> Row:
        return Row(self.text[part], self.styles[part], self.looks[part])

    def __add__(self, other: Row) -> Row:
        return Row(self.text + other.text, self.styles + other.styles, self.looks + other.looks)

    def cells(self) -> list[Cell]:
        """The cells one by one."""
        return [
            ("" if char == RIGHT else shown(char), styles[ord(look)])
            for char, look in zip(self.text, self.looks, strict=True)
        ]

    @property
    def known(self) -> bool:
        """Whether all cells are."""
        return NOTHING not in self.text


def unknown(width: int) -> Row:
    """Cells that equal nothing that is ever drawn, so that they are always written over."""
    return Row(NOTHING * width, "\0" * width, "\0" * width)


def row_of(pieces: Iterable[tuple[str, str]]) -> Row:
    """Lay out texts, each in its style, one behind the other; see `cells_of()`."""
    return joined([cells_of(text, style) for text, style in pieces])


def joined(rows: list[Row]) -> Row:
    """Put rows one behind the other."""
    return Row(
        "".join([each.text for each in rows]),
        "".join([each.styles for each in rows]),
        "".join([each.looks for each in rows]),
    )


def cells_of(text: str, style: str) -> Row:
    """Lay out text in one style.

    Raises:
        Doubt: There is a control character, so it would do something else than show.
    """
    if not text.isascii():
        text = _one_each(text)
    elif not text.isprintable():
        raise Doubt(f"a control character in {text!r}")
    code = _codes.get(style) or _code_of(style)
    run, blank = code * len(text), blanks[code]
    return Row(text, run, run if blank == code or " " not in text else _looks(text, code, blank))


def blank(width: int, like: Row) -> Row:
    """Blanks that look as they would in the style of the first cell of `like`."""
    return cells_of(" " * width, styles[ord(like.looks[0])])


def shown(text: str) -> str:
    """What is written to show some of a row's text."""
    return text if text.isascii() else _written(text)


@lru_cache(maxsize=4096)
def _written(text: str) -> str:
    return text.replace(RIGHT, "").translate(_shown)


def mended(row: Row) -> Row:
    """Replace halves of wide characters whose other half was drawn over, as terminals do."""
    text, looks = [*row.text], [*row.looks]
    for x, char in enumerate(row.text):
        orphaned = char == RIGHT and (x == 0 or not is_wide(shown(text[x - 1])))
        if orphaned or (is_wide(shown(char)) and row.text[x + 1 : x + 2] != RIGHT):
            text[x], looks[x] = " ", blanks[row.styles[x]]
    return Row("".join(text), row.styles, "".join(looks))


def is_fragile(text: str) -> bool:
    """Say whether terminals disagree about this text's width: emoji, and several code points in one cell."""
    return len(text) > 1 or (("\u2300" <= text <= "\u2bff" or "\U0001f000" <= text < "\U00020000") and is_wide(text))


@lru_cache(maxsize=4096)
def is_wide(text: str) -> bool:
    """Whether a character takes two cells."""
    return bool(text) and not text.isascii() and split_graphemes(text)[1] == 2


def _code_of(style: str) -> str:
    if len(styles) >= _MOST:
        raise Doubt("too many different styles")
    code = _codes[style] = chr(len(styles))
    styles.append(style)
    looks = blank_style(style)
    blanks[code] = code if looks == style else _codes.get(looks) or _code_of(looks)
    return code


def _looks(text: str, code: str, blank: str) -> str:
    if not text.strip(" "):
        return blank * len(text)
    return blank.join([code * len(word) for word in text.split(" ")])


@lru_cache(maxsize=4096)
def _one_each(text: str) -> str:
    """Text that is not ASCII, a character for each cell. Kept: bars and marks come again and again."""
    if _CONTROLS.search(text):
        raise Doubt(f"a control character in {text!r}")
    out: list[str] = []
    for start, end, width in split_graphemes(text)[0]:
        if width == 0 and out:
            raise Doubt("a mark without a letter")
        char = text[start:end]
        out.append(char if char.isascii() else _marks.get(char) or _mark_of(char))
        if width == 2:
            out.append(RIGHT)
    return "".join(out)


def _mark_of(text: str) -> str:
    """The character that stands for what one cell shows, and is not ASCII."""
    if len(_marks) >= _MOST:
        raise Doubt("too many different characters")
    mark = _marks[text] = chr(_FIRST_MARK + len(_marks))
    _shown[ord(mark)] = text
    if is_fragile(text):
        fragile.add(mark)
    return mark
