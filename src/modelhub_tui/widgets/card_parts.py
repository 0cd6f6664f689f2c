"""The pieces that lines of a card are put together from, and how they share a line: what does not fit goes, by rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Literal, NamedTuple

from rich.segment import Segment
from rich.style import Style

from modelhub_tui.domain import Model
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.cells import Line, clip, width_of
from modelhub_tui.widgets.glyphs import Glyphs

Layout = Literal["hub", "local"]
Action = Literal["pull", "cancel", "retry", "delete", "resume", "adopt"]

EDGE = 2
"""Cells left of the text: the edge mark and a space."""
RIGHT = 1


@dataclass(frozen=True, slots=True)
class Look:
    """Styles of one variant of a card (plain, highlighted, dimmed), with their background."""

    text: Style
    title: Style
    muted: Style
    good: Style
    bad: Style
    warn: Style
    busy: Style
    tag: Style
    action: Style
    selected: Style
    rest: Style
    """The part of a bar that is not done."""
    edge: Style
    page: Style
    """Between cards."""

    @classmethod
    def roles(cls) -> tuple[str, ...]:
        """Names of the styles, in order."""
        return tuple(each.name for each in fields(cls))


class Span(NamedTuple):
    """Where an action is drawn: cells `start` to `end` (exclusive) of a line, counted from the card's corner."""

    line: int
    start: int
    end: int
    action: Action


class Card(NamedTuple):
    """A drawn card: every line is exactly as wide as asked."""

    lines: tuple[list[Segment], ...]
    spans: tuple[Span, ...]
    model: Model
    still: int
    """So many lines from the top show nothing of its transfers."""
    bar: int = 0
    """Cells of its bar."""


class Part:
    """A piece of a line that is shown whole or not at all."""

    __slots__ = ("pieces", "rank", "width")

    def __init__(self, rank: int, pieces: tuple[tuple[str, str], ...]) -> None:
        self.rank = rank
        """The higher, the sooner it goes when the line is too long."""
        self.pieces = pieces
        """Texts, each with the name of a style of `Look`."""
        self.width = sum([width_of(text) for text, _ in pieces])
        """Cells it takes."""


@lru_cache(maxsize=256)
def tag_parts(tags: tuple[str, ...]) -> tuple[Part, ...]:
    """A part for each tag; the last goes first. Kept: many models have the same ones."""
    return tuple(Part(3 + rank, ((tag, "tag"),)) for rank, tag in enumerate(tags))


class LinePen:
    """Puts lines together; each method adds to a line that starts with the edge."""

    glyphs: Glyphs
    look: Look
    end: int
    """The cell after the last one for text."""
    space: int
    """Cells for text."""
    style: Callable[[str], Style]
    """A style by its name."""
    offered: tuple[str, str, Action] | None
    """Key, word and name of the action the card offers."""
    spans: list[Span]
    bar_size: int = 0
    """Cells of the bar that was drawn."""

    def action_width(self, full: bool) -> int:
        found = self.offered
        return 0 if found is None else len(found[0]) + (1 + len(found[1]) if full else 0)

    def with_action(
        self,
        line: Line,
        at: int,
        parts: Sequence[Part],
        *,
        separator: str | None = None,
        shrink: tuple[str, str] | None = None,
        bar: tuple[float | None, str] | None = None,
    ) -> None:
        """The last line: facts (or one text that may be cut, or a bar) on the left, the action on the right."""
        start = line.width
        found = self.offered
        wanted = sum(each.width for each in parts) or (min(width_of(shrink[0]), 12) if shrink else 0)
        full = self.end - start - self.action_width(True) >= min(wanted, 14) + 2
        action = self.action_width(full)
        room = self.end - start - action - (2 if action else 0)
        separator = f" {self.glyphs.dot} " if separator is None else separator
        if bar is not None:
            least = 6
            kept = kept_parts(parts, max(room - least - 1, 0), len(separator))
            used = sum(each.width for each in kept) + len(separator) * max(len(kept) - 1, 0)
            size = min(room - used - 1, 60)
            if size >= 3:
                self.bar(line, bar[0], size, bar[1])
                line.add(" ", self.look.text)
                room -= size + 1
            parts = kept
        self.pieces(line, kept_parts(parts, room, len(separator)), separator)
        if shrink is not None:
            line.add(
                clip(shrink[0], self.end - action - (2 if action else 0) - line.width, self.glyphs.ellipsis),
                self.style(shrink[1]),
            )
        if found is None:
            return
        line.pad(self.end - action, self.look.text)
        left = line.width
        line.add(found[0], self.style("action"))
        if full:
            line.add(f" {found[1]}", self.style("text"))
        self.spans.append(Span(at, left, line.width, found[2]))

    def spread(self, line: Line, left: Sequence[Part], right: Sequence[Part], separator: str | None = None) -> None:
        """Left parts with separators, right parts at the right end; parts go by rank until all fits."""
        separator = f" {self.glyphs.dot} " if separator is None else separator
        # A part on the right costs two cells of distance where one on the left costs its separator.
        kept = kept_parts([*left, *right], self.space, len(separator))
        if len(kept) < len(left) + len(right):
            left = [each for each in left if each in kept]
            right = [each for each in right if each in kept]
        self.pieces(line, left, separator)
        if right:
            width = sum([each.width for each in right]) + 2 * (len(right) - 1)
            line.pad(self.end - width, self.look.text)
            self.pieces(line, right, "  ")

    def pieces(self, line: Line, parts: Iterable[Part], separator: str) -> None:
        for rank, part in enumerate(parts):
            if rank:
                line.add(separator, self.style("muted"))
            line.extend(part.pieces, self.style, part.width)

    def bar(self, line: Line, fraction: float | None, size: int, role: str) -> None:
        self.bar_size = size
        done, rest = bar_cells(fraction, size, self.glyphs)
        line.add(done, self.style(role)).add(rest, self.style("rest"))


def bar_cells(fraction: float | None, size: int, glyphs: Glyphs) -> tuple[str, str]:
    """The two parts of a bar of `size` cells. Told apart by their marks, so that they show without colour."""
    if size <= 0:
        return "", ""
    halves = half_cells(fraction, size)
    full, half = divmod(max(0, min(halves, size * 2)), 2)
    done = glyphs.bar_done * full + (glyphs.bar_half if half else "")
    return done, glyphs.bar_rest * (size - len(done))


def half_cells(fraction: float | None, size: int) -> int:
    """How much of a bar of `size` cells is done, in halves of a cell."""
    return int((fraction or 0.0) * size * 2)


def of_total(done: int, total: int | None) -> str:
    """`2.2 / 5.8 GB`: the unit once where both have the same; without a total `2.2 GB`."""
    if not total:
        return human_size(done)
    (value, unit), whole = human_size(done).split(" "), human_size(total)
    return f"{value} / {whole}" if whole.endswith(f" {unit}") else f"{value} {unit} / {whole}"


def percent(fraction: float | None) -> str:
    """Rounded down: 100 % means all of it."""
    return "" if fraction is None else f"{int(fraction * 100)}%"


def kept_parts(parts: Sequence[Part], room: int, gap: int) -> list[Part]:
    """Drop parts, highest rank first, until the rest fits `room` cells with `gap` cells between two."""
    kept = list(parts)
    total = sum([each.width for each in kept]) + gap * (len(kept) - 1)
    while kept and total > room:
        # The last of equals goes.
        worst = max(range(len(kept)), key=lambda at: (kept[at].rank, at))
        total -= kept.pop(worst).width + (gap if kept else 0)
    return kept
