"""A list of cards in one to three columns, drawn and not mounted: its cost depends on the screen, not on the list.

Rows have a fixed height, so any position is arithmetic. Each row of cards is drawn once and kept, under a key that
holds everything that shows in it (`_row`); nothing is invalidated by hand. See docs/performance.md for why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import is_
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from modelhub_tui.actions import deleters
from modelhub_tui.domain import LOCAL_ABILITIES, Ability, Gpu, Model, Node, NodeStatus
from modelhub_tui.states import fit
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.card import LOW, TALL, draw_card
from modelhub_tui.widgets.card_parts import Action, Card, Layout, Look
from modelhub_tui.widgets.cells import Line, clip
from modelhub_tui.widgets.drawn import DrawnStrip, cropped, thumb_lines
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs

_GAP_X, _GAP_Y = 2, 1
"""Cells between columns, lines between rows."""
_BAR = 1
"""Cells at the right for the scroll position."""
_ENDLESS = 10**9
"""Lines of a list whose end is not known yet."""
_REMEMBERED = 64
"""Rows whose last picture is kept: more than are ever on a screen at once."""
_TWO, _THREE = 112, 168
"""Widths from which there are two and three columns: a card wants some 56 cells."""


class _Setting(NamedTuple):
    """All that shows in the cards of a list but their models, the cursor and the marks."""

    width: int
    columns: int
    card_width: int
    card_height: int
    plain: Look
    lit: Look
    """How the card under the cursor looks."""
    glyphs: Glyphs
    best: tuple[Node, ...]
    """Says which models fit."""
    memory: str
    layout: Layout
    dimmed: bool
    abilities: frozenset[Ability]
    deleters: frozenset[str]


class _Row(NamedTuple):
    """One drawn row."""

    how: tuple[object, ...]
    """What else shows in it: cursor and marks."""
    cards: list[Card]
    """They also keep the models alive whose ids are in the row's key, so that no id is used again."""
    strips: list[Strip]
    thumbed: list[Strip | None]
    """The same lines with the scroll mark; made when first needed."""


class CardGrid(ScrollView, can_focus=True, inherit_bindings=False):
    """Models as cards, with a cursor, a selection and the mouse."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(0, -1)", "Up", show=False, id="list.up"),
        Binding("down,j", "move(0, 1)", "Down", show=False, id="list.down"),
        Binding("left,h", "move(-1, 0)", "Left", show=False, id="list.left"),
        Binding("right,l", "move(1, 0)", "Right", show=False, id="list.right"),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="list.pageup"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="list.pagedown"),
        Binding("g,home", "edge(-1)", "First", show=False, id="list.first"),
        Binding("G,end", "edge(1)", "Last", show=False, id="list.last"),
        Binding("space", "mark", "Select", show=False, id="list.select", tooltip="Mark for an action on several"),
        Binding("enter", "activate", "Details", show=False, id="list.open", tooltip="Show everything known"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"card-grid--{role}" for role in Look.roles()} | {
        "card-grid--card",
        "card-grid--cursor",
        "card-grid--thumb",
    }
    # Overflow is hidden and scrolling forced: a scrollbar of Textual's costs as much as all cards together.
    DEFAULT_CSS = """
    CardGrid {
        height: 1fr;
        overflow: hidden hidden;
        background: $background;
        .card-grid--card { background: $surface; }
        .card-grid--cursor { background: $panel; }
        .card-grid--page { background: $background; }
        .card-grid--text { color: $foreground 85%; }
        .card-grid--title { color: $foreground; text-style: bold; }
        .card-grid--muted { color: $foreground 55%; }
        .card-grid--good { color: $text-success; }
        .card-grid--bad { color: $text-error; }
        .card-grid--warn { color: $text-warning; }
        .card-grid--busy { color: $text-primary; }
        .card-grid--tag { color: $foreground 55%; }
        .card-grid--action { color: $text-accent; text-style: bold; }
        .card-grid--selected { color: $text-accent; text-style: bold; }
        .card-grid--rest { color: $foreground 25%; }
        .card-grid--edge { color: $accent; text-style: bold; }
        .card-grid--thumb { color: $foreground 30%; background: $background; }
        &:ansi {
            .card-grid--text { color: ansi_default; }
            .card-grid--title { color: ansi_default; }
            .card-grid--muted { color: ansi_default; text-style: dim; }
            .card-grid--tag { color: ansi_default; text-style: dim; }
            .card-grid--rest { color: ansi_default; text-style: dim; }
            .card-grid--thumb { color: ansi_default; text-style: dim; }
        }
    }
    """

    models: reactive[tuple[Model, ...]] = reactive((), repaint=False)
    """What is listed, already filtered and sorted. Cursor and selection follow `Model.key`."""
    nodes: reactive[tuple[Node, ...]] = reactive((), repaint=False)
    """Decides which models fit."""
    selected: reactive[frozenset[str]] = reactive(frozenset, repaint=False)
    """Keys of the marked models; also of those a filter hides at the moment."""
    abilities: reactive[frozenset[Ability]] = reactive(LOCAL_ABILITIES)
    """What the router can do: cards offer nothing else."""
    dimmed: reactive[bool] = reactive(False)
    """The data is old: draw it without colour."""
    empty: reactive[Content] = reactive(Content, repaint=False)
    """Drawn in the middle while there are no models."""

    @dataclass
    class Highlighted(Message):
        """The cursor is on another model; None when the list is empty. Whoever lists it knows that it changed."""

        grid: CardGrid
        model: Model | None

        @property
        def control(self) -> CardGrid:
            """The list."""
            return self.grid

    @dataclass
    class Activated(Message):
        """Enter, or a click on the highlighted card."""

        grid: CardGrid
        model: Model

        @property
        def control(self) -> CardGrid:
            """The list."""
            return self.grid

    @dataclass
    class ActionRequested(Message):
        """A click on the action that a card shows."""

        grid: CardGrid
        model: Model
        action: Action

        @property
        def control(self) -> CardGrid:
            """The list."""
            return self.grid

    @dataclass
    class SelectionChanged(Message):
        """Other models are marked."""

        grid: CardGrid
        keys: frozenset[str]

        @property
        def control(self) -> CardGrid:
            """The list."""
            return self.grid

    def __init__(
        self,
        models: tuple[Model, ...] = (),
        *,
        nodes: tuple[Node, ...] = (),
        layout: Layout = "hub",
        glyphs: Glyphs = UNICODE,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.card_layout: Layout = layout
        self.glyphs = glyphs
        self.rendered_cards = 0
        """Cards drawn anew so far; for tests."""
        self._cursor = 0
        self._told: str | None = None
        """Key of the model that was highlighted when last somebody was told."""
        self._looks: dict[bool, Look] = {}
        self._thumb_style: Style | None = None
        self._rows: LRUCache[tuple[object, ...], _Row] = LRUCache(256)
        self._last: dict[int, _Row] = {}
        """What each row showed last."""
        self._setting: _Setting | None = None
        """What all of these were drawn in."""
        self._dragging = False
        self._rest: Callable[[], None] | None = None
        """Lists what is missing; None when nothing is."""
        self.set_reactive(CardGrid.nodes, nodes)
        self._know(_best_of(nodes), deleters(nodes))
        self.set_reactive(CardGrid.models, models)

    # What is shown

    @property
    def highlighted(self) -> Model | None:
        """The model under the cursor."""
        return self.models[self._cursor] if self.models else None

    @property
    def cursor(self) -> int:
        """Position of the highlighted model."""
        return self._cursor

    @property
    def selected_models(self) -> tuple[Model, ...]:
        """The marked models that are listed, in the order of the list."""
        return tuple(each for each in self.models if each.key in self.selected) if self.selected else ()

    def show(self, models: tuple[Model, ...], rest: Callable[[], None] | None = None) -> None:
        """List `models` instead.

        Args:
            rest: They are only the first of many; this lists all of them. Called when somebody moves on in the list.
        """
        was, self._rest = self._rest, rest
        self.models = models
        if bool(was) != bool(rest):
            self._repaint_bar()

    def _list_rest(self) -> None:
        if self._rest is not None:
            self._rest()

    def highlight(self, index: int) -> None:
        """Move the cursor to a position, as near as there is one, and scroll it into view."""
        if not self.models:
            return
        index = max(0, min(index, len(self.models) - 1))
        if index != self._cursor:
            self._repaint(self._cursor, index)
            self._cursor = index
        self._scroll_into_view()
        self._tell()

    def watch_models(self, old: tuple[Model, ...], new: tuple[Model, ...]) -> None:
        """Keep the cursor on its model; repaint what shows and differs."""
        before = self._cursor
        seen = before in self._window()
        if old:
            self._cursor = _follow(old[before] if before < len(old) else None, before, new)
        self._fit_content()
        # Who scrolled away with the wheel is left there, and a mere update moves nothing.
        if seen and self._cursor != before:
            self._scroll_into_view()
        self._repaint_changed(old, new, before)
        self._tell()

    def watch_nodes(self) -> None:
        """Repaint if a model may fit, or be deleted, now that did not, or the other way round."""
        known = (_best_of(self.nodes), deleters(self.nodes))
        if known != (self._best, self._deleters):
            self._know(*known)
            self.refresh()

    def _know(self, best: tuple[Node, ...], deleting_nodes: frozenset[str]) -> None:
        self._best, self._deleters = best, deleting_nodes
        self._fit = lru_cache(maxsize=1024)(lambda required_bytes: fit(required_bytes, best))
        """Whether a model that needs so much memory fits."""

    def watch_selected(self, old: frozenset[str], new: frozenset[str]) -> None:
        """Repaint the visible cards whose mark differs."""
        changed = old ^ new
        self._repaint(*(at for at in self._visible() if self.models[at].key in changed))
        if self.is_mounted:
            self.post_message(self.SelectionChanged(self, new))

    def watch_empty(self) -> None:
        """Shows only without models."""
        if not self.models:
            self.refresh()

    def _tell(self) -> None:
        model = self.highlighted
        key = None if model is None else model.key
        if key != self._told:
            self._told = key
            # Not by way of the containers in between: that is a fifth of what moving the cursor costs.
            self.screen.post_message(self.Highlighted(self, model))

    # Geometry

    @property
    def size(self) -> Size:
        """Its cells. There is no border, padding or scroll bar: to find that out anew for every row costs a lot."""
        return self.outer_size

    @property
    def columns(self) -> int:
        """Cards side by side."""
        width = self.size.width
        return 3 if width >= _THREE else 2 if width >= _TWO else 1

    @property
    def card_height(self) -> int:
        """Lines of a card, without the gap below it. Narrow cards get two lines of description."""
        return TALL if self.columns > 1 and self.card_layout == "hub" else LOW

    @property
    def row_height(self) -> int:
        """Lines from one row to the next."""
        return self.card_height + _GAP_Y

    @property
    def card_width(self) -> int:
        """Cells of a card."""
        columns = self.columns
        return max((self.size.width - _BAR - _GAP_X * (columns - 1)) // columns, 1)

    @property
    def row_count(self) -> int:
        """Rows of cards."""
        return -(-len(self.models) // self.columns)

    def card_region(self, index: int) -> Region:
        """Where a card is, from the widget's corner; above or below the widget when scrolled out of view."""
        row, column = divmod(index, self.columns)
        width = self.card_width
        return Region(column * (width + _GAP_X), row * self.row_height - self.scroll_offset.y, width, self.card_height)

    def hit(self, x: int, y: int) -> tuple[int, Action | None] | None:
        """Say which card, and which action on it, is at a place in the widget; None for gaps."""
        if not (0 <= x < self.size.width and 0 <= y < self.size.height):
            return None
        row, line = divmod(y + self.scroll_offset.y, self.row_height)
        column, cell = divmod(x, self.card_width + _GAP_X)
        index = row * self.columns + column
        if line >= self.card_height or cell >= self.card_width or column >= self.columns or index >= len(self.models):
            return None
        for span in self._row(row, self._now()).cards[column].spans:
            if span.line == line and span.start <= cell < span.end:
                return index, span.action
        return index, None

    def _window(self) -> range:
        """Positions that are on screen, partly or wholly, whether or not there are so many models."""
        if not self.size.height:
            return range(0)
        top, height, columns = self.scroll_offset.y, self.row_height, self.columns
        return range(top // height * columns, ((top + self.size.height - 1) // height + 1) * columns)

    def _visible(self) -> range:
        """Positions of the cards on screen."""
        window, count = self._window(), len(self.models)
        return range(min(window.start, count), min(window.stop, count))

    def _on_screen(self, *indices: int) -> bool:
        visible = self._visible()
        return all(index in visible for index in indices)

    def _fit_content(self) -> bool:
        """Let the scrollable height follow the number of rows. True if the scroll position had to move.

        `virtual_size` is set past its reactive: that would ask for a layout pass on every key of a search.
        """
        height = max(self.row_count * self.row_height - _GAP_Y, 0)
        size = Size(self.size.width, height)
        if size == self.virtual_size:
            return False
        self.set_reactive(Widget.virtual_size, size)
        if self.scroll_y > self.max_scroll_y:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)
            return True
        return False

    def _scroll_into_view(self) -> None:
        """Scroll as little as it takes to see the whole highlighted card."""
        if not self.models or not self.size.height:
            return
        region = self.card_region(self._cursor)
        top = self.scroll_offset.y
        if region.y < 0 or region.height > self.size.height:
            top += region.y
        elif region.bottom > self.size.height:
            top += region.bottom - self.size.height
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, force=True)

    def on_resize(self) -> None:
        """Keep the highlighted card in view when columns come or go."""
        self._fit_content()
        self._scroll_into_view()

    # Painting

    def _repaint(self, *indices: int) -> None:
        """Mark the cards that are on screen as dirty."""
        regions = [self.card_region(each) for each in indices if self._on_screen(each)]
        window = Region(0, 0, *self.size)
        if regions := [clipped for each in regions if (clipped := each.intersection(window))]:
            self.refresh(*regions)

    def _repaint_changed(self, old: tuple[Model, ...], new: tuple[Model, ...], cursor: int) -> None:
        """Repaint the lines on screen that differ from before; nothing when none does. `cursor` is where it was."""
        window = self._window()
        was, now = old[window.start : window.stop], new[window.start : window.stop]
        if len(was) != len(now):
            self.refresh()
            return
        changed = {at for at, pair in enumerate(zip(was, now, strict=True), window.start) if not _alike(*pair)}
        if cursor != self._cursor:
            changed |= {cursor, self._cursor}
        if changed:
            setting = self._now()
            rows = {at // setting.columns for at in changed if at in window}
            if dirty := [line for row in rows for line in self._redrawn(row, setting)]:
                self.refresh(*dirty)
        if len(old) != len(new) and now:
            self._repaint_bar()

    def _repaint_bar(self) -> None:
        self.refresh(Region(self.size.width - _BAR, 0, _BAR, self.size.height))

    def _redrawn(self, row: int, now: _Setting) -> list[Region]:
        """Draw a row; return the lines on screen that show something else than last time."""
        last = self._last.get(row)
        strips = self._row(row, now).strips
        before = last.strips if last else [None] * len(strips)
        top, height = row * len(strips) - self.scroll_offset.y, self.size.height
        return [
            Region(0, y, now.width, 1)
            for y, (strip, was) in enumerate(zip(strips, before, strict=True), top)
            if strip is not was and 0 <= y < height
        ]

    def notify_style_update(self) -> None:
        """Forget styles: the theme, or a state such as focus, has changed."""
        super().notify_style_update()
        self._looks.clear()
        self._thumb_style = None

    def _look(self, cursor: bool) -> Look:
        """Styles of a card, from the component classes."""
        look = self._looks.get(cursor)
        if look is None:
            ground = "card-grid--cursor" if cursor else "card-grid--card"
            look = Look(
                **{
                    role: self.get_visual_style(
                        *([f"card-grid--{role}"] if role == "page" else [ground, f"card-grid--{role}"])
                    ).rich_style
                    for role in Look.roles()
                }
            )
            self._looks[cursor] = look
        return look

    def _now(self) -> _Setting:
        """What cards are drawn in now. Rows that were drawn in another setting are forgotten."""
        best, columns = self._best, self.columns
        now = _Setting(
            self.size.width,
            columns,
            self.card_width,
            self.card_height,
            self._look(False),
            self._look(True),
            self.glyphs,
            best,
            "RAM" if best and not best[0].gpu_memory_bytes else "VRAM",
            self.card_layout,
            self.dimmed,
            self.abilities,
            self._deleters,
        )
        if now != self._setting:
            self.forget()
            self._setting = now
        return now

    def forget(self) -> None:
        """Draw everything anew when it is next needed."""
        self._rows.clear()
        self._last.clear()

    def _row(self, row: int, now: _Setting) -> _Row:
        """A row of cards, drawn now or before."""
        columns, selected = now.columns, self.selected
        models = self.models[row * columns : (row + 1) * columns]
        cursor = self._cursor - row * columns
        marks = tuple([each.key in selected for each in models]) if selected else ()
        how = (cursor if 0 <= cursor < columns else -1, marks)
        key = (*map(id, models), how)
        found = self._rows.get(key)
        if found is None:
            found = self._rows[key] = self._draw_row(models, how, self._last.get(row), now)
        if len(self._last) > _REMEMBERED:
            self._last.clear()
        self._last[row] = found
        return found

    def _draw_row(
        self, models: tuple[Model, ...], how: tuple[int, tuple[bool, ...]], last: _Row | None, now: _Setting
    ) -> _Row:
        """Draw a row. Lines that show the same as `last` time stay the same strips, which cost nothing to compare."""
        if last is not None and (last.how != how or len(last.cards) != len(models)):
            last = None
        cursor, marks = how
        cards = [
            self._draw(model, at == cursor, bool(marks) and marks[at], last.cards[at] if last else None, now)
            for at, model in enumerate(models)
        ]
        page, width = now.plain.page, now.width
        used = len(cards) * now.card_width + (len(cards) - 1) * _GAP_X
        gap, rest = Segment(" " * _GAP_X, page), Segment(" " * (width - used), page)
        strips: list[Strip] = []
        thumbed: list[Strip | None] = []
        for line in range(now.card_height):
            pieces = [card.lines[line] for card in cards]
            if last and all(map(is_, pieces, [card.lines[line] for card in last.cards])):
                strips.append(last.strips[line])
                thumbed.append(last.thumbed[line])
                continue
            segments = [*pieces[0]]
            for each in pieces[1:]:
                segments.append(gap)
                segments += each
            segments.append(rest)
            strips.append(DrawnStrip(segments, width))
            thumbed.append(None)
        blank = DrawnStrip([Segment(" " * width, page)], width) if last is None else last.strips[-1]
        return _Row(how, cards, [*strips, *[blank] * _GAP_Y], [*thumbed, *[None] * _GAP_Y])

    def _draw(self, model: Model, cursor: bool, marked: bool, last: Card | None, now: _Setting) -> Card:
        if last is not None and _alike(last.model, model):
            return last
        self.rendered_cards += 1
        return draw_card(
            model,
            width=now.card_width,
            look=now.lit if cursor else now.plain,
            glyphs=now.glyphs,
            nodes_fit=self._fit(model.required_memory_bytes),
            memory=now.memory,
            layout=now.layout,
            height=now.card_height,
            cursor=cursor,
            selected=marked,
            dimmed=now.dimmed,
            abilities=now.abilities,
            deleting_nodes=now.deleters,
            last=last,
        )

    def _thumb(self) -> range:
        """Lines of the widget that carry the scroll mark; as for a long list while the rest is not known."""
        height = self.virtual_size.height if self._rest is None else _ENDLESS
        return thumb_lines(self.size.height, height, self.scroll_offset.y)

    def _thumbed(self, row: _Row, line: int) -> Strip:
        """A line of a row with the scroll mark at its end."""
        strip = row.thumbed[line]
        if strip is None:
            if self._thumb_style is None:
                self._thumb_style = self.get_visual_style("card-grid--thumb").rich_style
            width = self.size.width
            body = row.strips[line].crop(0, width - _BAR)
            strip = row.thumbed[line] = DrawnStrip([*body, Segment(self.glyphs.thumb, self._thumb_style)], width)
        return strip

    def _lines(self, crop: Region) -> list[Strip]:
        """The lines of a part of the screen: row by row, as looking a row up costs more than its lines."""
        top, thumb, height, now = self.scroll_offset.y, self._thumb(), self.row_height, self._now()
        strips: list[Strip] = []
        y = crop.y
        last = min(crop.bottom, self.row_count * height - top)
        while y < last:
            index, first = divmod(top + y, height)
            row = self._row(index, now)
            for line in range(first, min(height, first + last - y)):
                strips.append(self._thumbed(row, line) if y in thumb else row.strips[line])
                y += 1
        if y < crop.bottom:
            strips += [Strip.blank(self.size.width, self._look(False).page)] * (crop.bottom - max(y, crop.y))
        return strips

    def render_lines(self, crop: Region) -> list[Strip]:
        """Draw what is on screen. No styles cache in between: without border or padding it only costs."""
        strips = self._lines(crop) if self.models else self._empty_lines()[crop.y : crop.bottom]
        return cropped(self, strips, crop)

    def _empty_lines(self) -> list[Strip]:
        """The text for an empty list, in the middle."""
        look, (width, height) = self._look(False), self.size
        text, muted = look.title, look.muted
        page = look.page
        texts = self.empty.plain.split("\n") if self.empty.plain else []
        top = max((height - len(texts)) // 2, 0)
        strips: list[Strip] = []
        for y in range(height):
            line = Line()
            if 0 <= y - top < len(texts):
                shown = clip(texts[y - top], width - 2, self.glyphs.ellipsis)
                style = (text if y == top else muted) + Style(bgcolor=page.bgcolor)
                line.pad(max((width - Line().add(shown, page).width) // 2, 0), page).add(shown, style)
            strips.append(Strip(line.pad(width, page).segments, width))
        return strips

    # Keys and mouse

    def action_move(self, right: int, down: int) -> None:
        """Move the cursor by cards; a row at a time it stays in its column."""
        self._list_rest()
        if right:
            self.highlight(self._cursor + right)
            return
        wanted = self._cursor + down * self.columns
        if wanted >= len(self.models):
            # From a full row above a short last row: its last card.
            wanted = len(self.models) - 1 if self._cursor // self.columns < self.row_count - 1 else self._cursor
        self.highlight(wanted if wanted >= 0 else self._cursor)

    def action_page(self, direction: int) -> None:
        """Move the cursor by a screenful of rows."""
        self._list_rest()
        rows = max(self.size.height // self.row_height, 1)
        wanted = self._cursor + direction * rows * self.columns
        column = self._cursor % self.columns
        if wanted < 0:
            wanted = column
        elif wanted >= len(self.models):
            wanted = min((self.row_count - 1) * self.columns + column, len(self.models) - 1)
        self.highlight(wanted)

    def action_edge(self, direction: int) -> None:
        """Move the cursor to the first or last card."""
        self._list_rest()
        self.highlight(0 if direction < 0 else len(self.models) - 1)

    def action_mark(self) -> None:
        """Mark the highlighted model, or unmark it."""
        if (model := self.highlighted) is not None:
            self.selected = self.selected ^ {model.key}

    def action_activate(self) -> None:
        """Open the highlighted model."""
        if (model := self.highlighted) is not None:
            self.post_message(self.Activated(self, model))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor; open what was highlighted; ask for an action."""
        found = self.hit(event.x, event.y)
        if found is None:
            return
        event.stop()
        index, action = found
        model, was = self.models[index], self._cursor
        self.highlight(index)
        if action is not None:
            self.post_message(self.ActionRequested(self, model, action))
        elif index == was:
            self.post_message(self.Activated(self, model))

    def _scroll_rows(self, rows: int) -> None:
        """Scroll by whole rows, so that cards are cut at the bottom only."""
        self._list_rest()
        row = self.row_height
        y = self.scroll_offset.y
        top = (y // row + rows if rows > 0 else -(-y // row) + rows) * row
        self.scroll_to(y=max(0, min(top, self.max_scroll_y)), animate=False, force=True)

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll_rows(1)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll_rows(-1)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take hold of the scroll mark."""
        if event.x == self.size.width - _BAR and self._thumb():
            self._dragging = True
            self.capture_mouse()
            self._drag(event.y)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the scroll mark; a mere hover draws nothing."""
        if self._dragging:
            self._drag(event.y)

    def on_mouse_up(self) -> None:
        """Let go of the scroll mark."""
        if self._dragging:
            self._dragging = False
            self.release_mouse()

    def _drag(self, y: int) -> None:
        self._list_rest()
        thumb = self._thumb()
        free = max(self.size.height - len(thumb), 1)
        where = max(0.0, min((y - len(thumb) / 2) / free, 1.0))
        row = self.row_height
        self.scroll_to(y=round(where * self.max_scroll_y / row) * row, animate=False, force=True)


def _alike(old: Model, new: Model) -> bool:
    # What differs most of the time is asked first.
    return old is new or (old.transfers == new.transfers and old == new)


def _best_of(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """One made-up node with the most memory of each kind: `fit()` says of them what it says of all."""
    gpu = max((each.gpu_memory_bytes for each in nodes), default=0)
    ram = max((each.ram_bytes or 0 for each in nodes), default=0)
    if not gpu and not ram:
        return ()
    cards = (Gpu("", gpu),) if gpu else ()
    return (Node("", "", NodeStatus.ONLINE, gpus=cards, ram_bytes=ram),)


def _follow(model: Model | None, at: int, models: tuple[Model, ...]) -> int:
    """Where the cursor goes in a new list: to its model, else it stays near its place."""
    if not models:
        return 0
    if model is None:
        return min(at, len(models) - 1)
    if at < len(models) and models[at].key == model.key:
        return at
    key = model.key
    return next((index for index, each in enumerate(models) if each.key == key), min(at, len(models) - 1))
