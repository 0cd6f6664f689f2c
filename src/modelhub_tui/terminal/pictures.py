"""A whole screen as text that shows it again on an empty terminal: what the next start begins with."""

from __future__ import annotations

from collections.abc import Iterable

from modelhub_tui.terminal.rows import Doubt, Row, cells_of, is_fragile, is_wide, unknown
from modelhub_tui.terminal.styles import blank_style


def picture(rows: Iterable[Row]) -> str:
    """Write rows as text with nothing but cursor positions and SGR in it. Hyperlinks are left out."""
    out: list[str] = []
    for y, row in enumerate(rows):
        out.append(f"\x1b[{y + 1};1H")
        style: str | None = None
        for x, (text, styled) in enumerate(row.cells()):
            sgr = styled.partition("\n")[0]
            if text and style != sgr and (text != " " or style is None or sgr != blank_style(style)):
                out.append(f"\x1b[0;{sgr}m" if sgr else "\x1b[0m")
                style = sgr
            out.append(text)
            if is_fragile(text):
                out.append(f"\x1b[{y + 1};{x + 1 + (2 if is_wide(text) else 1)}H")
    return "".join(out)


def read_picture(text: str, width: int, height: int) -> list[Row] | None:
    """Return the rows a terminal of this size shows after `text`, which `picture()` wrote; None if it does not fit."""
    rows = [unknown(width) for _ in range(height)]
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
        if len(cells) and (y >= height or x + len(cells) > width):
            return None
        if len(cells):
            rows[y] = rows[y][:x] + cells + rows[y][x + len(cells) :]
            x += len(cells)
    return rows
