"""Draw one model as a card: pure functions from a `Model` to lines of styled segments.

A card has a fixed height, so that a list finds any row by arithmetic. What does not fit the width goes, the least
important first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

from rich.segment import Segment
from rich.style import Style

from modelhub_tui.actions import can
from modelhub_tui.domain import IN_FLIGHT, LOCAL_ABILITIES, Ability, Fit, FitKind, Model, ModelState, Phase, Transfer
from modelhub_tui.units import human_context, human_count, human_duration, human_rate, human_size
from modelhub_tui.widgets.cells import Line, clip, clip_middle, width_of, wrap
from modelhub_tui.widgets.glyphs import Glyphs

Layout = Literal["hub", "local"]
Action = Literal["pull", "cancel", "retry", "delete"]

LOW, TALL = 4, 5
"""Lines of a card: one line of description, or two."""
MIN_WIDTH = 12
"""Below this nothing but the title is drawn."""
_EDGE = 2
"""Cells left of the text: the edge mark and a space."""
_RIGHT = 1


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


@dataclass(frozen=True, slots=True)
class Span:
    """Where an action is drawn: cells `start` to `end` (exclusive) of a line, counted from the card's corner."""

    line: int
    start: int
    end: int
    action: Action


@dataclass(frozen=True, slots=True)
class Card:
    """A drawn card: every line is exactly as wide as asked."""

    lines: tuple[list[Segment], ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line that is shown whole or not at all."""

    rank: int
    """The higher, the sooner it goes when the line is too long."""
    pieces: tuple[tuple[str, str], ...]
    """Texts, each with the name of a style of `Look`."""

    @property
    def width(self) -> int:
        """Cells it takes."""
        return sum(width_of(text) for text, _ in self.pieces)


_BADGE = {
    ModelState.AVAILABLE: ("available", "muted"),
    ModelState.QUEUED: ("queued", "warn"),
    ModelState.DOWNLOADING: ("downloading", "busy"),
    ModelState.PAUSED: ("paused", "warn"),
    ModelState.FAILED: ("failed", "bad"),
    ModelState.DOWNLOADED: ("downloaded", "good"),
    ModelState.DELETING: ("deleting", "muted"),
}
_WORDS: dict[Action, tuple[str, str, Action]] = {
    "pull": ("[p]", "Pull", "pull"),
    "cancel": ("[x]", "Cancel", "cancel"),
    "retry": ("[R]", "Retry", "retry"),
    "delete": ("[d]", "Delete", "delete"),
}
_FIRST: dict[ModelState, tuple[Action, ...]] = {
    ModelState.AVAILABLE: ("pull",),
    ModelState.QUEUED: ("cancel", "pull", "delete"),
    ModelState.DOWNLOADING: ("cancel",),
    ModelState.PAUSED: ("cancel",),
    ModelState.FAILED: ("retry", "pull", "cancel"),
    ModelState.DOWNLOADED: ("delete",),
}
"""What a card offers, the first of these that can be done."""


def action_for(model: Model, abilities: frozenset[Ability]) -> tuple[str, str, Action] | None:
    """Key, word and name of the action a card offers; None when nothing can be done."""
    return next((_WORDS[each] for each in _FIRST.get(model.state, ()) if can(each, model, abilities)), None)


def draw_card(
    model: Model,
    *,
    width: int,
    look: Look,
    glyphs: Glyphs,
    nodes_fit: Fit,
    memory: str = "VRAM",
    layout: Layout = "hub",
    height: int = LOW,
    cursor: bool = False,
    selected: bool = False,
    dimmed: bool = False,
    abilities: frozenset[Ability] = LOCAL_ABILITIES,
) -> Card:
    """Draw `model` as `height` lines of exactly `width` cells.

    Args:
        model: Its strings have been cleaned; they are drawn as they are.
        width: At least 1; from 28 on everything important is there.
        look: Styles of this variant.
        glyphs: Marks this terminal can show.
        nodes_fit: What `fit()` says about the model's required memory.
        memory: Which memory that is: `VRAM` or `RAM`.
        layout: `hub` describes the model, `local` what is on disk.
        height: `LOW` or `TALL`.
        cursor: The highlighted card.
        selected: Marked for an action on several.
        dimmed: The data is old; nothing is drawn in colour.
        abilities: What the router can do; no other action is offered.
    """
    pen = _Pen(model, width, look, glyphs, dimmed, memory, nodes_fit, action_for(model, abilities))
    rows = pen.local() if layout == "local" else pen.hub(height)
    edge = glyphs.cursor if cursor else glyphs.edge
    out: list[list[Segment]] = []
    for at in range(height):
        line = Line().add(edge, look.edge if cursor else pen.style(pen.edge_role)).add(" ", look.text)
        if at == 0:
            pen.title(line, selected)
        elif at - 1 < len(rows):
            rows[at - 1](line, at)
        out.append(_exact(line, width, look.text))
    return Card(tuple(out), tuple(each for each in pen.spans if each.end <= width))


def _exact(line: Line, width: int, style: Style) -> list[Segment]:
    """Fill up or, on absurdly narrow screens, cut."""
    if line.width <= width:
        return line.pad(width, style).segments
    cut = Line()
    for text, piece_style, _ in line.segments:
        if piece_style is not None:
            cut.add(clip(text, width - cut.width, "") if cut.width < width else "", piece_style)
    return cut.pad(width, style).segments


_Row = Callable[[Line, int], None]


class _Pen:
    """Draws the lines of one card; each method adds to a line that starts with the edge."""

    def __init__(
        self,
        model: Model,
        width: int,
        look: Look,
        glyphs: Glyphs,
        dimmed: bool,
        memory: str,
        nodes_fit: Fit,
        offered: tuple[str, str, Action] | None,
    ) -> None:
        self.model, self.look, self.glyphs, self.dimmed = model, look, glyphs, dimmed
        self.memory, self.fit, self.offered = memory, nodes_fit, offered
        self.end = max(width - _RIGHT, _EDGE)
        """The cell after the last one for text."""
        self.space = self.end - _EDGE
        self.spans: list[Span] = []
        self.muted = model.state is ModelState.DELETING

    @property
    def edge_role(self) -> str:
        """Colour of the left edge: says which cards need attention."""
        transfer = self.model.transfer
        if transfer is not None and transfer.phase is Phase.RETRYING and self.model.state is ModelState.DOWNLOADING:
            return "warn"
        return _BADGE[self.model.state][1]

    def style(self, role: str) -> Style:
        """A style by its name; old data and models on their way out have one colour only."""
        if self.dimmed or self.muted:
            return self.look.muted
        style: Style = getattr(self.look, role)
        return style

    # Lines

    def title(self, line: Line, selected: bool) -> None:
        """Name on the left; badge on the right."""
        model, glyphs = self.model, self.glyphs
        word, role = _BADGE[model.state]
        badge = f"{getattr(glyphs, word)} {word}"
        if self.space < width_of(badge) + MIN_WIDTH:
            badge = badge[0]
        room = self.space - width_of(badge) - 2
        if selected:
            line.add(f"{glyphs.selected} ", self.style("selected"))
            room -= 2
        gated = "gated" if model.gated and room >= width_of(model.title) + 7 else ""
        line.add(clip(model.title, max(room, 0), glyphs.ellipsis), self.style("title"))
        if gated:
            line.add("  ", self.look.text).add(gated, self.style("warn"))
        line.pad(self.end - width_of(badge), self.look.text).add(badge, self.style(role))

    def hub(self, height: int) -> list[_Row]:
        """Lines below the title of a card in the hub."""
        model = self.model
        tall = height >= TALL
        moving = model.state in IN_FLIGHT
        texts = wrap(model.description, self.space, 2 if tall and not moving else 1, self.glyphs.ellipsis)
        rows: list[_Row] = [self._text(texts[0] if texts else "")]
        if tall and not moving:
            rows.append(self._text(texts[1] if len(texts) > 1 else ""))
        rows.append(self._facts)
        if moving:
            rows += self._moving(tall)
        elif model.state is ModelState.AVAILABLE:
            rows.append(self._tags)
        else:
            rows.append(self._on_disk)
        return rows

    def local(self) -> list[_Row]:
        """Lines below the title of a card in the list of what is on disk."""
        model = self.model
        rows: list[_Row] = [self._facts_on_disk]
        if model.state in IN_FLIGHT:
            rows += [self._path, *self._moving(False)]
        else:
            rows += [self._path, self._nodes]
        return rows

    def _text(self, text: str) -> _Row:
        def row(line: Line, _at: int) -> None:
            line.add(text, self.style("text"))

        return row

    def _facts(self, line: Line, _at: int) -> None:
        """Size, memory, quantization, parameters, context; popularity on the right."""
        model = self.model
        left = [Part(1, ((human_size(model.size_bytes), "text"),))] if model.size_bytes else []
        left += [*self._memory(), *self._kind()]
        right: list[Part] = []
        if model.stats is not None:
            role = "muted" if model.stats.stale else "text"
            for rank, mark, count in (
                (5, self.glyphs.downloads, model.stats.downloads),
                (6, self.glyphs.likes, model.stats.likes),
            ):
                if count is not None:
                    right.append(Part(rank, ((f"{mark} ", "muted"), (human_count(count), role))))
        self._spread(line, left, right)

    def _facts_on_disk(self, line: Line, _at: int) -> None:
        model = self.model
        size = model.disk_bytes if model.disk_bytes is not None else model.size_bytes
        left = [Part(1, ((human_size(size), "text"), (" on disk", "muted")))] if size is not None else []
        left += [*self._memory(), *self._kind()]
        self._spread(line, left, [])

    def _memory(self) -> list[Part]:
        """Required memory and whether it is there. The verdict outlives the figure on narrow cards."""
        if not self.model.required_memory_bytes:
            return []
        need: tuple[tuple[str, str], ...] = (
            (human_size(self.model.required_memory_bytes), "text"),
            (f" {self.memory}", "muted"),
        )
        glyphs = self.glyphs
        if self.fit.kind in (FitKind.GPU, FitKind.RAM):
            return [Part(3, (*need, (f" {glyphs.yes} fits", "good")))]
        if self.fit.kind is FitKind.TOO_BIG:
            lacking = human_size(self.fit.short_by_bytes)
            long = Part(3, (*need, (f" {glyphs.no} needs {lacking} more", "bad")))
            short = Part(3, (*need, (f" {glyphs.no}", "bad")))
            return [long if self.space >= width_of(f"000.0 GB {glyphs.dot} ") + long.width else short]
        return [Part(3, need)]

    def _kind(self) -> list[Part]:
        model = self.model
        out = [
            Part(4, ((model.quantization, "text"),)),
            Part(7, ((model.parameters, "text"),)),
        ]
        if model.context_length:
            out.append(Part(8, ((human_context(model.context_length), "text"), (" ctx", "muted"))))
        return [each for each in out if each.pieces[0][0]]

    def _tags(self, line: Line, at: int) -> None:
        tags = [Part(3 + rank, ((tag, "tag"),)) for rank, tag in enumerate(self.model.tags)]
        self._with_action(line, at, tags, separator="  ")

    def _on_disk(self, line: Line, at: int) -> None:
        model = self.model
        if model.state is ModelState.DELETING:
            self._with_action(line, at, [Part(1, (("being removed from ", "muted"), (_names(model), "muted")))])
            return
        left = []
        if model.disk_bytes is not None:
            left.append(Part(3, ((human_size(model.disk_bytes), "text"), (" on disk", "muted"))))
        if model.placements:
            left.append(Part(2, (("on ", "muted"), (_names(model), "text"))))
        self._with_action(line, at, left)

    def _path(self, line: Line, _at: int) -> None:
        """Where it is, in full as far as there is room."""
        model = self.model
        path = next((each.path for each in model.placements if each.path), None)
        text = path or (f"{model.repo}/{model.file}" if model.file else model.repo)
        line.add(clip_middle(text, self.space, self.glyphs.ellipsis), self.style("text" if path else "muted"))

    def _nodes(self, line: Line, at: int) -> None:
        if self.model.state is ModelState.DELETING:
            self._on_disk(line, at)
            return
        names = _names(self.model)
        self._with_action(line, at, [], shrink=(f"on {names}", "muted") if names else None)

    def _moving(self, tall: bool) -> list[_Row]:
        """The last lines while a model is on its way: bar, figures, reason, action."""
        model = self.model
        transfer = model.transfer
        if model.state is ModelState.FAILED:
            return self._reason(tall, model.reason or "failed", "bad")
        if model.state is ModelState.QUEUED or transfer is None:
            return self._reason(tall, model.reason or "waiting", "warn" if model.state is ModelState.QUEUED else "text")
        paused = model.state is ModelState.PAUSED
        retrying = transfer.phase is Phase.RETRYING
        role = "warn" if paused or retrying else "busy"
        figures, note = self._figures(transfer, paused), None
        if retrying:
            note = (f"{_retry(transfer)}: {transfer.error}" if transfer.error else _retry(transfer), "warn")
        if tall:

            def full_bar(line: Line, _at: int) -> None:
                self._bar(line, transfer.fraction, self.end - line.width - 6, role)
                line.add(_percent(transfer.fraction).rjust(6), self.style("text"))

            def below(line: Line, at: int) -> None:
                self._with_action(line, at, [] if note else figures, shrink=note)

            return [full_bar, below]

        def one_line(line: Line, at: int) -> None:
            if note and self.space >= 44:
                # The bar stays, short: how far it came matters while it tries again.
                self._bar(line, transfer.fraction, 8, role)
                line.add(f" {_percent(transfer.fraction)}  ", self.style("text"))
                self._with_action(line, at, [], shrink=note)
            elif note:
                self._with_action(line, at, [], shrink=note)
            else:
                percent = Part(0, ((_percent(transfer.fraction).rjust(4), "text"),))
                self._with_action(line, at, [percent, *figures], bar=(transfer.fraction, role), separator="  ")

        return [one_line]

    def _figures(self, transfer: Transfer, paused: bool) -> list[Part]:
        """Bytes, speed and time left; or what is done instead of fetching."""
        done = of_total(transfer.bytes_done, transfer.bytes_total)
        out = [Part(4, ((done, "text"),))]
        if paused:
            out.append(Part(3, (("paused", "warn"),)))
        elif transfer.phase is Phase.VERIFYING:
            out.append(Part(3, (("verifying", "busy"),)))
        elif transfer.phase is Phase.WAITING:
            out.append(Part(3, (("waiting", "warn"),)))
        else:
            if transfer.bytes_per_s is not None:
                out.append(Part(5, ((human_rate(transfer.bytes_per_s), "text"),)))
            if transfer.eta_s is not None:
                out.append(Part(3, ((human_duration(transfer.eta_s), "text"),)))
        return out

    def _reason(self, tall: bool, reason: str, role: str) -> list[_Row]:
        """Why it waits or failed: two lines on a tall card, the last one beside the action."""
        action = self._action_width(True)
        if not tall or width_of(reason) <= self.space - action - 2:

            def only(line: Line, at: int) -> None:
                self._with_action(line, at, [], shrink=(reason, role))

            return [self._tags_only, only] if tall else [only]
        first = wrap(reason, self.space, 2, "")[0]
        rest = reason[len(first) :].lstrip()

        def upper(line: Line, _at: int) -> None:
            line.add(first, self.style(role))

        def lower(line: Line, at: int) -> None:
            self._with_action(line, at, [], shrink=(rest, role))

        return [upper, lower]

    def _tags_only(self, line: Line, _at: int) -> None:
        tags = [Part(3 + rank, ((tag, "tag"),)) for rank, tag in enumerate(self.model.tags)]
        self._spread(line, tags, [], separator="  ")

    # Pieces

    def _action_width(self, full: bool) -> int:
        found = self.offered
        return 0 if found is None else len(found[0]) + (1 + len(found[1]) if full else 0)

    def _with_action(
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
        full = self.end - start - self._action_width(True) >= min(wanted, 14) + 2
        action = self._action_width(full)
        room = self.end - start - action - (2 if action else 0)
        separator = f" {self.glyphs.dot} " if separator is None else separator
        if bar is not None:
            least = 6
            kept = _kept(parts, max(room - least - 1, 0), len(separator))
            used = sum(each.width for each in kept) + len(separator) * max(len(kept) - 1, 0)
            size = min(room - used - 1, 60)
            if size >= 3:
                self._bar(line, bar[0], size, bar[1])
                line.add(" ", self.look.text)
                room -= size + 1
            parts = kept
        self._pieces(line, _kept(parts, room, len(separator)), separator)
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

    def _spread(self, line: Line, left: Sequence[Part], right: Sequence[Part], separator: str | None = None) -> None:
        """Left parts with separators, right parts at the right end; parts go by rank until all fits."""
        separator = f" {self.glyphs.dot} " if separator is None else separator
        parts = [*left, *right]
        # A part on the right costs two cells of distance where one on the left costs its separator.
        kept = _kept(parts, self.space, len(separator))
        on_right = [each for each in right if each in kept]
        self._pieces(line, [each for each in left if each in kept], separator)
        if on_right:
            width = sum(each.width for each in on_right) + 2 * (len(on_right) - 1)
            line.pad(self.end - width, self.look.text)
            self._pieces(line, on_right, "  ")

    def _pieces(self, line: Line, parts: Iterable[Part], separator: str) -> None:
        for rank, part in enumerate(parts):
            if rank:
                line.add(separator, self.style("muted"))
            for text, role in part.pieces:
                line.add(text, self.style(role))

    def _bar(self, line: Line, fraction: float | None, size: int, role: str) -> None:
        done, rest = bar_cells(fraction, size, self.glyphs)
        line.add(done, self.style(role)).add(rest, self.style("rest"))


def bar_cells(fraction: float | None, size: int, glyphs: Glyphs) -> tuple[str, str]:
    """The two parts of a bar of `size` cells. Told apart by their marks, so that they show without colour."""
    if size <= 0:
        return "", ""
    halves = int((fraction or 0.0) * size * 2)
    full, half = divmod(max(0, min(halves, size * 2)), 2)
    done = glyphs.bar_done * full + (glyphs.bar_half if half else "")
    return done, glyphs.bar_rest * (size - len(done))


def of_total(done: int, total: int | None) -> str:
    """`2.2 / 5.8 GB`: the unit once where both have the same; without a total `2.2 GB`."""
    if not total:
        return human_size(done)
    (value, unit), whole = human_size(done).split(" "), human_size(total)
    return f"{value} / {whole}" if whole.endswith(f" {unit}") else f"{value} {unit} / {whole}"


@lru_cache(maxsize=256)
def _names_of(nodes: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(nodes))


def _names(model: Model) -> str:
    """Nodes that hold it, each once."""
    return _names_of(tuple(each.node for each in model.placements))


def _percent(fraction: float | None) -> str:
    """Rounded down: 100 % means all of it."""
    return "" if fraction is None else f"{int(fraction * 100)}%"


def _retry(transfer: Transfer) -> str:
    count = f" ({transfer.attempt}/{transfer.max_attempts})" if transfer.max_attempts else ""
    return f"retrying{count}" + (f" in {transfer.retry_in_s:.0f} s" if transfer.retry_in_s else "")


def _kept(parts: Sequence[Part], room: int, gap: int) -> list[Part]:
    """Drop parts, highest rank first, until the rest fits `room` cells with `gap` cells between two."""
    kept = list(parts)
    total = sum(each.width for each in kept) + gap * max(len(kept) - 1, 0)
    while kept and total > room:
        # The last of equals goes.
        worst = max(range(len(kept)), key=lambda at: (kept[at].rank, at))
        total -= kept.pop(worst).width + (gap if kept else 0)
    return kept
