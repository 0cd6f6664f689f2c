"""Draw one model as a card: pure functions from a `Model` to lines of styled segments.

A card has a fixed height, so that a list finds any row by arithmetic. What does not fit the width goes, the least
important first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from functools import lru_cache, partial
from operator import attrgetter

from rich.segment import Segment
from rich.style import Style

from modelhub_tui.actions import can, orphaned
from modelhub_tui.domain import IN_FLIGHT, LOCAL_ABILITIES, Ability, Model, ModelState
from modelhub_tui.states import Fit, FitKind
from modelhub_tui.units import human_context, human_count, human_size
from modelhub_tui.widgets.card_moving import MovingPen, Row, shows_the_same
from modelhub_tui.widgets.card_parts import EDGE, RIGHT, Action, Card, Layout, Look, Part, Span, tag_parts
from modelhub_tui.widgets.cells import Line, clip, clip_middle, width_of, wrap
from modelhub_tui.widgets.glyphs import Glyphs
from modelhub_tui.widgets.progress import troubled

LOW, TALL = 4, 5
"""Lines of a card: one line of description, or two."""
MIN_WIDTH = 12
"""Below this nothing but the title is drawn."""
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
    "resume": ("[P]", "Resume", "resume"),
    "adopt": ("[p]", "Adopt", "adopt"),
}
_FIRST: dict[ModelState, tuple[Action, ...]] = {
    ModelState.AVAILABLE: ("pull",),
    ModelState.QUEUED: ("cancel", "pull", "delete"),
    ModelState.DOWNLOADING: ("cancel",),
    ModelState.PAUSED: ("resume", "cancel"),
    ModelState.FAILED: ("retry", "pull", "cancel"),
    ModelState.DOWNLOADED: ("adopt", "delete"),
}
"""What a card offers, the first of these that can be done."""


def action_for(
    model: Model, abilities: frozenset[Ability], deleting_nodes: Collection[str] | None = None
) -> tuple[str, str, Action] | None:
    """Key, word and name of the action a card offers; None when nothing can be done."""
    for each in _FIRST.get(model.state, ()):
        if can(each, model, abilities, deleting_nodes):
            return ("[R]", "Restart", "retry") if each == "retry" and orphaned(model) else _WORDS[each]
    return None


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
    deleting_nodes: Collection[str] | None = None,
    last: Card | None = None,
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
        deleting_nodes: Ids and names of the nodes that delete when asked to; None while that is not known.
        last: What was drawn in this place with the same arguments but the model: if that has only moved on since,
            lines that show nothing of it are taken over, the very same objects.
    """
    moved = last is not None and _only_moved(last.model, model)
    if last is not None and moved and _too_little(last, model):
        return last._replace(model=model)
    pen = _Pen(model, width, look, glyphs, dimmed, memory, nodes_fit, action_for(model, abilities, deleting_nodes))
    about, moving = pen.local() if layout == "local" else pen.hub(height)
    rows = [*about, *moving]
    edge = glyphs.cursor if cursor else glyphs.edge
    kept = last.lines[: last.still] if last is not None and moved else ()
    out: list[list[Segment]] = [*kept]
    start = Line().add(edge, look.edge if cursor else pen.style(_edge_role(model))).add(" ", look.text)
    for at in range(len(kept), height):
        line = Line(start)
        if at == 0:
            pen.title(line, selected)
        elif at - 1 < len(rows):
            rows[at - 1](line, at)
        out.append(_exact(line, width, look.text))
    spans = tuple(each for each in pen.spans if each.end <= width)
    return Card(tuple(out), spans, model, min(1 + len(about), height) if moving else 0, pen.bar_size)


_about = attrgetter(*(each.name for each in fields(Model) if each.name != "transfers"))


def _only_moved(was: Model, now: Model) -> bool:
    """Whether nothing but the figures of its transfers is different."""
    return bool(_about(was) == _about(now)) and _edge_role(was) == _edge_role(now)


def _too_little(last: Card, now: Model) -> bool:
    """Whether its one transfer has moved on by too little to show."""
    was = last.model.transfers
    return len(was) == len(now.transfers) == 1 and shows_the_same(was[0], now.transfers[0], last.bar)


def _edge_role(model: Model) -> str:
    """Colour of the left edge: says which cards need attention."""
    transfer = model.transfer
    if transfer is not None and troubled(transfer) and model.state is ModelState.DOWNLOADING:
        return "warn"
    if model.found and not model.registered:
        return "warn"
    return _BADGE[model.state][1]


def _exact(line: Line, width: int, style: Style) -> list[Segment]:
    """Fill up or, on absurdly narrow screens, cut."""
    if line.width <= width:
        return line.pad(width, style).segments
    cut = Line()
    for text, piece_style, _ in line.segments:
        if piece_style is not None:
            cut.add(clip(text, width - cut.width, "") if cut.width < width else "", piece_style)
    return cut.pad(width, style).segments


class _Pen(MovingPen):
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
        self.model, self.look, self.glyphs = model, look, glyphs
        self.memory, self.fit, self.offered = memory, nodes_fit, offered
        self.end = max(width - RIGHT, EDGE)
        """The cell after the last one for text."""
        self.space = self.end - EDGE
        self.spans: list[Span] = []
        # Old data and models on their way out have one colour only.
        one_colour = dimmed or model.state is ModelState.DELETING
        self.style = (lambda _role: look.muted) if one_colour else partial(getattr, look)

    # Lines

    def title(self, line: Line, selected: bool) -> None:
        """Name on the left; badge on the right."""
        model, glyphs = self.model, self.glyphs
        word, role = _BADGE[model.state]
        badge = f"{getattr(glyphs, word)} {word}"
        if model.found and not model.registered:
            role = "warn"
            long = f"{badge} {glyphs.dot} not registered"
            if self.space >= width_of(long) + MIN_WIDTH:
                badge = long
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

    def hub(self, height: int) -> tuple[list[Row], list[Row]]:
        """Lines below the title of a card in the hub: about the model, and about what moves."""
        model = self.model
        tall = height >= TALL
        moving = self.moving(tall) if model.state in IN_FLIGHT else []
        two = tall and not moving
        rows: list[Row] = [self._description(number, 2 if two else 1) for number in range(2 if two else 1)]
        rows.append(self._facts)
        if not moving:
            rows.append(self._tags if model.state is ModelState.AVAILABLE else self._on_disk)
        return rows, moving

    def local(self) -> tuple[list[Row], list[Row]]:
        """Lines below the title of a card in the list of what is on disk: about the model, and about what moves."""
        if self.model.state in IN_FLIGHT:
            return [self._facts_on_disk, self._path], self.moving(False)
        return [self._facts_on_disk, self._path, self._nodes], []

    def _description(self, number: int, lines: int) -> Row:
        """A line of the description; wrapped only if it has to be drawn."""

        def row(line: Line, _at: int) -> None:
            texts = _wrapped(self.model.description, self.space, lines, self.glyphs.ellipsis)
            line.add(texts[number] if number < len(texts) else "", self.style("text"))

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
        self.spread(line, left, right)

    def _facts_on_disk(self, line: Line, _at: int) -> None:
        model = self.model
        size = model.disk_bytes if model.disk_bytes is not None else model.size_bytes
        left = [Part(1, ((human_size(size), "text"), (" on disk", "muted")))] if size is not None else []
        left += [*self._unverifiable(), *self._memory(), *self._kind()]
        self.spread(line, left, [])

    def _unverifiable(self) -> tuple[Part, ...]:
        return (_UNVERIFIABLE,) if self.model.is_unverifiable else ()

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

    def _kind(self) -> tuple[Part, ...]:
        model = self.model
        return _kind_parts(model.quantization, model.parameters, model.context_length)

    def _tags(self, line: Line, at: int) -> None:
        self.with_action(line, at, tag_parts(self.model.tags), separator="  ")

    def _on_disk(self, line: Line, at: int) -> None:
        model = self.model
        if model.state is ModelState.DELETING:
            self.with_action(line, at, [Part(1, (("being removed from ", "muted"), (_names(model), "muted")))])
            return
        left = []
        if model.disk_bytes is not None:
            left.append(Part(3, ((human_size(model.disk_bytes), "text"), (" on disk", "muted"))))
        if model.placements:
            left.append(Part(2, (("on ", "muted"), (_names(model), "text"))))
        left += self._unverifiable()
        self.with_action(line, at, left)

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
        self.with_action(line, at, [], shrink=(f"on {names}", "muted") if names else None)


_UNVERIFIABLE = Part(2, (("not verifiable", "muted"),))


@lru_cache(maxsize=256)
def _kind_parts(quantization: str, parameters: str, context_length: int | None) -> tuple[Part, ...]:
    """Kept: models are of a few kinds only."""
    out = [Part(4, ((quantization, "text"),)), Part(7, ((parameters, "text"),))]
    if context_length:
        out.append(Part(8, ((human_context(context_length), "text"), (" ctx", "muted"))))
    return tuple(each for each in out if each.pieces[0][0])


_wrapped = lru_cache(maxsize=64)(wrap)
"""Kept from one line of a description to the next."""


@lru_cache(maxsize=256)
def _names_of(nodes: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(nodes))


def _names(model: Model) -> str:
    """Nodes that hold it, each once."""
    return _names_of(tuple(each.node for each in model.placements))
