"""Models x nodes as one drawn grid: fixed name column, columns that scroll, cost bound by the screen.

All that shows is drawn again on every change, a few thousand cells at most, and compared with what showed before: only
lines that differ are painted, and nothing when none does.
"""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from modelhub_tui.domain import Model, Node
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.cells import Line, clip, clip_middle
from modelhub_tui.widgets.drawn import cropped, thumb_lines
from modelhub_tui.widgets.fleet_cells import Mark, cell, headline, mark_on, marks_of, status_of
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs

HEAD = 2
"""Lines above the first model: name of the node, and what it is."""
NARROWEST = 15
"""Cells of a column: a mark, a percentage and a speed."""
WIDEST, WIDEST_ALONE = 30, 84
_THUMB = 1
_ROLES = ("text", "title", "muted", "good", "bad", "warn", "busy", "rest", "mark")


class FleetGrid(Widget, can_focus=True, inherit_bindings=False):
    """One row a model, one column a node, a cursor on one cell."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(0, -1)", "Up", show=False, id="fleet.up"),
        Binding("down,j", "move(0, 1)", "Down", show=False, id="fleet.down"),
        Binding("left,h", "move(-1, 0)", "Left", show=False, id="fleet.left"),
        Binding("right,l", "move(1, 0)", "Right", show=False, id="fleet.right"),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="fleet.pageup"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="fleet.pagedown"),
        Binding("g,home", "edge(-1)", "First model", show=False, id="fleet.first"),
        Binding("G,end", "edge(1)", "Last model", show=False, id="fleet.last"),
        Binding("0,circumflex_accent", "side(-1)", "First node", show=False, id="fleet.leftmost"),
        Binding("dollar_sign", "side(1)", "Last node", show=False, id="fleet.rightmost"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"fleet-grid--{role}" for role in (*_ROLES, "page", "row", "cell", "head")}
    DEFAULT_CSS = """
    FleetGrid {
        height: 1fr;
        background: $background;
        .fleet-grid--page { background: $background; }
        .fleet-grid--row { background: $surface; }
        .fleet-grid--cell { background: $primary 30%; }
        .fleet-grid--head { background: $panel; }
        .fleet-grid--text { color: $foreground 85%; }
        .fleet-grid--title { color: $foreground; text-style: bold; }
        .fleet-grid--muted { color: $foreground 55%; }
        .fleet-grid--good { color: $text-success; }
        .fleet-grid--bad { color: $text-error; }
        .fleet-grid--warn { color: $text-warning; }
        .fleet-grid--busy { color: $text-primary; }
        .fleet-grid--rest { color: $foreground 25%; }
        .fleet-grid--mark { color: $accent; text-style: bold; }
        &:ansi {
            .fleet-grid--cell { background: ansi_default; text-style: reverse; }
            .fleet-grid--text, .fleet-grid--title { color: ansi_default; }
            .fleet-grid--muted, .fleet-grid--rest { color: ansi_default; text-style: dim; }
        }
    }
    """

    models: reactive[tuple[Model, ...]] = reactive((), repaint=False)
    """The rows. The cursor follows `Model.key`."""
    nodes: reactive[tuple[Node, ...]] = reactive((), repaint=False)
    """The columns. The cursor follows `Node.id`."""

    @dataclass
    class Moved(Message):
        """The cursor is on another cell, or what it is on has changed."""

        grid: FleetGrid

        @property
        def control(self) -> FleetGrid:
            """The grid."""
            return self.grid

    @dataclass
    class Opened(Message):
        """A click on the highlighted model."""

        grid: FleetGrid
        model: Model

        @property
        def control(self) -> FleetGrid:
            """The grid."""
            return self.grid

    def __init__(self, *, glyphs: Glyphs = UNICODE, empty: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.glyphs, self.empty = glyphs, empty
        self.row = self.column = 0
        """The cursor."""
        self.top = self.left = 0
        """First row and column that show."""
        self.painted = 0
        """Lines painted because they differed; for tests."""
        self._styles: dict[tuple[str, str], Style] = {}
        self._marks: LRUCache[int, tuple[Model, dict[str, Mark]]] = LRUCache(512)
        self._strips: list[Strip] = []
        self._told: tuple[Model | None, Node | None] = (None, None)

    # What is under the cursor

    @property
    def model(self) -> Model | None:
        """The highlighted model."""
        return self.models[self.row] if self.models else None

    @property
    def node(self) -> Node | None:
        """The highlighted node."""
        return self.nodes[self.column] if self.nodes else None

    def mark(self, model: Model, node: Node) -> Mark | None:
        """How `model` is on `node`."""
        found = self._marks.get(id(model))
        if found is None:
            found = self._marks[id(model)] = (model, marks_of(model))
        return mark_on(found[1], model, node)

    def watch_models(self, old: tuple[Model, ...], new: tuple[Model, ...]) -> None:
        """Stay on the model."""
        if old and self.row < len(old):
            key = old[self.row].key
            if not (self.row < len(new) and new[self.row].key == key):
                self.row = next((at for at, each in enumerate(new) if each.key == key), self.row)
        self.update_lines()

    def watch_nodes(self, old: tuple[Node, ...], new: tuple[Node, ...]) -> None:
        """Stay on the node."""
        if old and self.column < len(old):
            wanted = old[self.column].id
            self.column = next((at for at, each in enumerate(new) if each.id == wanted), self.column)
        self.update_lines()

    # Geometry

    @property
    def name_width(self) -> int:
        """Cells of the column with the names of the models."""
        width = self.size.width
        share, most = (0.4, 44) if len(self.nodes) <= 1 else (0.28, 40)
        return max(min(int(width * share), most), min(18, width))

    @property
    def column_width(self) -> int:
        """Cells of the column of a node."""
        room = max(self.size.width - self.name_width - _THUMB, 1)
        most = WIDEST_ALONE if len(self.nodes) <= 1 else WIDEST
        return min(max(room // max(len(self.nodes), 1), NARROWEST), most, room)

    @property
    def columns_shown(self) -> int:
        """Columns that show whole."""
        return max((self.size.width - self.name_width - _THUMB) // self.column_width, 1)

    @property
    def rows_shown(self) -> int:
        """Models that show."""
        return max(self.size.height - HEAD, 1)

    def _keep_in_view(self) -> None:
        self.row = max(0, min(self.row, len(self.models) - 1))
        self.column = max(0, min(self.column, len(self.nodes) - 1))
        rows, columns = self.rows_shown, self.columns_shown
        self.top = max(0, min(max(min(self.top, self.row), self.row - rows + 1), len(self.models) - rows))
        self.left = max(0, min(max(min(self.left, self.column), self.column - columns + 1), len(self.nodes) - columns))

    def hit(self, x: int, y: int) -> tuple[int, int | None] | None:
        """Row and column at a place; the column is None over the names, the row is -1 over the heads."""
        row = -1 if y < HEAD else self.top + y - HEAD
        if row >= len(self.models) or not (0 <= x < self.size.width and 0 <= y < self.size.height):
            return None
        if x < self.name_width:
            return row, None
        at = (x - self.name_width) // self.column_width
        column = self.left + at
        return (row, column) if at < self.columns_shown and column < len(self.nodes) else None

    # Drawing

    def notify_style_update(self) -> None:
        """Forget styles: the theme has changed."""
        super().notify_style_update()
        self._styles.clear()
        self._strips = []

    def _style(self, ground: str, role: str) -> Style:
        found = self._styles.get((ground, role))
        if found is None:
            names = (f"fleet-grid--{ground}", f"fleet-grid--{role}")
            found = self._styles[ground, role] = self.get_visual_style(*names).rich_style
        return found

    def on_resize(self) -> None:
        """Other columns may fit."""
        self.update_lines()

    def update_lines(self) -> None:
        """Draw again, and have painted what differs."""
        if not self.is_mounted or not self.size:
            return
        self._keep_in_view()
        was, now = self._strips, self._draw()
        self._strips = now
        width = self.size.width
        changed = [y for y, strip in enumerate(now) if y >= len(was) or strip != was[y]]
        if changed:
            self.painted += len(changed)
            self.refresh(*(Region(0, y, width, 1) for y in changed))
        told = (self.model, self.node)
        if told != self._told:
            self._told = told
            self.post_message(self.Moved(self))

    def _draw(self) -> list[Strip]:
        height = self.size.height
        lines = [self._head_line(at) for at in range(min(HEAD, height))]
        thumb = thumb_lines(self.rows_shown, len(self.models), self.top)
        page = self._style("page", "text")
        for y in range(len(lines), height):
            at = self.top + y - HEAD
            if at < len(self.models):
                line = self._model_line(at)
            else:
                line = Line()
                if not self.models and y == min(HEAD + 2, height - 1):
                    line.add(" " + clip(self.empty, self.size.width - 2, self.glyphs.ellipsis), page)
            line.pad(self.size.width - _THUMB, page)
            in_thumb = y - HEAD in thumb
            line.add(self.glyphs.thumb if in_thumb else " ", self._style("page", "rest"))
            lines.append(Strip(line.segments, line.width).simplify())
        return lines

    def _head_line(self, which: int) -> Strip:
        """The names of the nodes, or what each is."""
        glyphs, room = self.glyphs, self.name_width - 2
        count, shown = len(self.nodes), min(self.columns_shown, len(self.nodes))
        if which == 0:
            said = f"{len(self.models):,} model{'' if len(self.models) == 1 else 's'}"
        elif shown < count:
            said = f"columns {self.left + 1}-{self.left + shown} of {count}"
        else:
            said = ""
        line = Line().add(" " + clip(said, room, glyphs.ellipsis), self._style("head", "muted"))
        line.pad(self.name_width, self._style("head", "muted"))
        width = self.column_width
        for at in range(self.left, self.left + shown):
            node = self.nodes[at]
            ground = "cell" if at == self.column else "head"
            end = line.width + width
            if which == 0:
                glyph, role = status_of(node)
                line.add(" ", self._style(ground, role)).add(getattr(glyphs, glyph), self._style(ground, role))
                name = clip_middle(node.name, width - 4, glyphs.ellipsis)
                line.add(f" {name}", self._style(ground, "title"))
            else:
                line.add("   " + clip(headline(node), width - 3, glyphs.ellipsis), self._style(ground, "muted"))
            line.pad(end, self._style(ground, "muted"))
        line.pad(self.size.width, self._style("head", "muted"))
        return Strip(line.segments, line.width).simplify()

    def _model_line(self, at: int) -> Line:
        model, glyphs = self.models[at], self.glyphs
        here = at == self.row
        ground = "row" if here else "page"
        line = Line().add(glyphs.cursor if here else " ", self._style(ground, "mark"))
        name = clip(model.title, self.name_width - 3, glyphs.ellipsis)
        line.add(f" {name}", self._style(ground, "title" if here else "text"))
        line.pad(self.name_width, self._style(ground, "text"))
        width = self.column_width
        for column in range(self.left, min(self.left + self.columns_shown, len(self.nodes))):
            end = line.width + width
            on = here and column == self.column
            floor = "cell" if on else ground
            # Marked without colour, too.
            line.add(glyphs.cursor if on else " ", self._style(floor, "mark"))
            for text, role in cell(self.mark(model, self.nodes[column]), model, width - 2, glyphs):
                line.add(text, self._style(floor, role))
            line.pad(end, self._style(floor, "text"))
        return line.pad(self.size.width - _THUMB, self._style(ground, "text"))

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of a part of the grid."""
        if len(self._strips) != self.size.height or any(
            each.cell_length != self.size.width for each in self._strips[:1]
        ):
            self._keep_in_view()
            self._strips = self._draw()
        return cropped(self, self._strips[crop.y : crop.bottom], crop)

    # Keys and mouse

    def move_to(self, row: int, column: int) -> None:
        """Put the cursor on a cell, as near as there is one."""
        self.row, self.column = row, column
        self.update_lines()

    def action_move(self, right: int, down: int) -> None:
        """Move the cursor by cells."""
        self.move_to(self.row + down, self.column + right)

    def action_page(self, direction: int) -> None:
        """Move the cursor by a screenful of models."""
        self.move_to(self.row + direction * max(self.rows_shown - 1, 1), self.column)

    def action_edge(self, direction: int) -> None:
        """Move the cursor to the first or last model."""
        self.move_to(0 if direction < 0 else len(self.models) - 1, self.column)

    def action_side(self, direction: int) -> None:
        """Move the cursor to the first or last node."""
        self.move_to(self.row, 0 if direction < 0 else len(self.nodes) - 1)

    def on_click(self, event: events.Click) -> None:
        """Move the cursor; open the model that was highlighted."""
        found = self.hit(event.x, event.y)
        if found is None:
            return
        event.stop()
        row, column = found
        before = (self.row, self.column)
        after = (self.row if row < 0 else row, self.column if column is None else column)
        self.move_to(*after)
        if after == before and row >= 0 and self.model is not None:
            self.post_message(self.Opened(self, self.model))

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(0, 3)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(0, -3)
