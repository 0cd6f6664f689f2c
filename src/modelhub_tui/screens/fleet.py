"""Models x nodes: which model is where, and how each node is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget

from modelhub_tui.commands import FLEET_COMMANDS, Situation, footer
from modelhub_tui.domain import Ability, Fleet, Link, Model, Node, NodeStatus
from modelhub_tui.filtering import Filter, ModelView, SortKey
from modelhub_tui.terminal.compositing import quicken
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.cells import clip, width_of
from modelhub_tui.widgets.fleet_cells import counted, in_fleet, in_words, node_facts, status_of
from modelhub_tui.widgets.fleet_grid import FleetGrid
from modelhub_tui.widgets.footer import FooterItem, KeyFooter
from modelhub_tui.widgets.glyphs import Glyphs
from modelhub_tui.widgets.status_line import StatusLine

BY_ACTION = {each.action_name: each for each in FLEET_COMMANDS}
BY_ID = {each.id: each for each in FLEET_COMMANDS}
_STYLES = {"good": "$text-success", "bad": "$text-error", "warn": "$text-warning"}


class FleetHead(Widget):
    """The title line: what this is, and how much of it."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "FleetHead { height: 1; background: $background; }"

    text: reactive[str] = reactive("")
    """After the title."""

    def render(self) -> Content:
        """Draw the line."""
        room = self.size.width - 8
        return Content.assemble((" Nodes", "bold $primary"), (f"  {clip(self.text, room)}", "$foreground 70%"))


class NodePane(Widget):
    """All about the highlighted node, in four lines, the last one about the highlighted cell."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "NodePane { height: 4; background: $surface; }"

    lines: reactive[tuple[Content, ...]] = reactive(())
    """What to show."""

    def render(self) -> Content:
        """Draw the lines."""
        return Content("\n").join(self.lines)


class FleetGridOnScreen(FleetGrid, inherit_bindings=False):
    """The grid, whose keys the app handles in the order typed, like all keys of the main screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        replace(each, priority=True) for each in FleetGrid.BINDINGS if isinstance(each, Binding)
    ]


class FleetScreen(Screen[str]):
    """The whole fleet. The result is the key of the model to show, or None."""

    AUTO_FOCUS = "#fleet-grid"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(each.keys, each.action, each.label, tooltip=each.help, id=each.id, show=False, priority=True)
        for each in FLEET_COMMANDS
    ]
    DEFAULT_CSS = "FleetScreen { background: $background; color: $foreground; layout: vertical; }"

    fleet: reactive[Fleet] = reactive(Fleet, repaint=False)
    """What to show; set by whoever opened the screen."""

    @dataclass
    class ApproveRequested(Message):
        """The user wants to let this node in."""

        node: Node

    class RefreshRequested(Message):
        """The user wants fresh data now."""

    def __init__(self, fleet: Fleet, glyphs: Glyphs, clock: Callable[[], float], *, text: str = "") -> None:
        """Prepare the screen.

        Args:
            fleet: The first thing to show.
            glyphs: Marks this terminal can show.
            clock: Seconds since the epoch.
            text: Search text: only models that match it have rows.
        """
        super().__init__()
        quicken(self)
        self._glyphs, self._clock, self._text = glyphs, clock, text
        self._view = ModelView()
        self._models: tuple[Model, ...] = ()
        self.set_reactive(FleetScreen.fleet, fleet)

    def compose(self) -> ComposeResult:
        yield FleetHead()
        yield FleetGridOnScreen(glyphs=self._glyphs, id="fleet-grid")
        yield NodePane()
        yield StatusLine(glyphs=self._glyphs, clock=self._clock).data_bind(FleetScreen.fleet)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show what was given; start on a node that needs somebody."""
        self.show_fleet()
        waiting = next((at for at, each in enumerate(self.fleet.nodes) if self._approvable(each)), 0)
        if waiting:
            self.grid.move_to(0, waiting)

    @property
    def grid(self) -> FleetGrid:
        """The grid."""
        return self.query_one(FleetGrid)

    def watch_fleet(self) -> None:
        """New data."""
        if self.is_mounted:
            self.show_fleet()

    def show_fleet(self) -> None:
        """Bring all widgets up to date."""
        fleet, grid = self.fleet, self.grid
        shown = self._view.show(fleet.models, Filter(text=self._text), SortKey.CATALOG, fleet.nodes)
        models = tuple(each for each in shown if in_fleet(each))
        if len(models) == len(self._models) and all(a is b for a, b in zip(models, self._models, strict=True)):
            models = self._models
        self._models = models
        grid.empty = self._empty_text()
        grid.nodes, grid.models = fleet.nodes, models
        said = [counted(fleet.nodes)] if fleet.nodes else ["none has reported yet"]
        pending = sum(each.status is NodeStatus.PENDING for each in fleet.nodes)
        if pending:
            said.append(f"{pending} waiting for approval")
        if self._text:
            said.append(f"models matching {self._text}")
        self.query_one(FleetHead).text = f" {self._glyphs.dot} ".join(said)
        self.show_cell()

    def _empty_text(self) -> str:
        if self._text:
            return f"No registered model matches {self._text}."
        if self.fleet.connection.link is Link.CONNECTING:
            return "The router has not answered so far."
        return "No model is registered, placed or moving yet. Press n, choose one, press p."

    @on(FleetGrid.Moved)
    def show_cell(self) -> None:
        """Bring pane and footer up to date with the cursor."""
        grid, width = self.grid, self.size.width - 2
        node, model = grid.node, grid.model
        lines: list[Content] = []
        if node is not None:
            glyph, role = status_of(node)
            who, has = node_facts(node, self._clock())
            dot = f" {self._glyphs.dot} "
            head = Content.assemble(
                (f" {getattr(self._glyphs, glyph)} ", _STYLES[role]),
                (clip(node.name, width // 2, self._glyphs.ellipsis), "bold"),
                (f"  {node.status.value}", _STYLES[role]),
            )
            room = width - width_of(head.plain)
            lines.append(
                Content.assemble(head, (clip(dot + dot.join(who), room, self._glyphs.ellipsis), "$foreground 70%"))
            )
            facts = dot.join(has) or "It has not told what hardware it has."
            lines.append(Content.styled(" " + clip(facts, width, self._glyphs.ellipsis), "$foreground 85%"))
            lines.append(Content.styled(" " + clip(self._problem(node), width, self._glyphs.ellipsis), "$text-warning"))
            if model is not None:
                said = in_words(grid.mark(model, node), model, node)
                lines.append(Content.styled(" " + clip(said, width, self._glyphs.ellipsis), "$foreground 85%"))
        self.query_one(NodePane).lines = tuple(lines)
        self.query_one(KeyFooter).items = tuple(
            FooterItem(each.id, each.shown, label) for each, label in footer(self.situation(), FLEET_COMMANDS)
        )

    def _problem(self, node: Node) -> str:
        if self._approvable(node):
            return "It waits to be let in: press a."
        return node.problem

    def on_resize(self) -> None:
        """Other facts may fit."""
        if self.is_mounted:
            self.show_cell()

    def _approvable(self, node: Node) -> bool:
        return node.status is NodeStatus.PENDING and Ability.APPROVE in self.fleet.router.abilities

    def situation(self) -> Situation:
        """What decides which commands apply now."""
        node = self.grid.node
        return Situation(model=self.grid.model, approvable=node is not None and self._approvable(node))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does something here and now. `a` answers even when it cannot do anything."""
        found = BY_ACTION.get(action)
        return True if found is None or action == "approve" else found.when(self.situation())

    def action_approve(self) -> None:
        """Ask to let the highlighted node in, or say why that cannot be."""
        node = self.grid.node
        if node is None:
            return
        if self._approvable(node):
            self.post_message(self.ApproveRequested(node))
        elif Ability.APPROVE not in self.fleet.router.abilities:
            who = self.fleet.router.label or "This router"
            self.notify(f"{who} lets nodes in by itself.", markup=False)
        else:
            self.notify(f"{node.name} is {node.status.value} and does not wait to be let in.", markup=False)

    def action_open(self) -> None:
        """Show the highlighted model among all models."""
        model = self.grid.model
        if model is not None:
            self.dismiss(model.key)

    @on(FleetGrid.Opened)
    def _open_clicked(self) -> None:
        self.action_open()

    def action_close(self) -> None:
        """Back to the models."""
        self.dismiss(None)

    def action_refresh(self) -> None:
        self.post_message(self.RefreshRequested())

    @on(KeyFooter.Pressed)
    async def _press(self, event: KeyFooter.Pressed) -> None:
        await self.run_command(event.command_id)

    async def run_command(self, command_id: str) -> None:
        """Do what a command's key would do."""
        await self.app.run_action(BY_ID[command_id].action, default_namespace=self)
