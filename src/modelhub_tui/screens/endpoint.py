"""Choose where: the endpoint to download on, and what to delete from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from modelhub_tui.domain import Model, Node, NodeStatus
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.screens.wording import listed, titles
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.cells import clip, clip_middle, width_of
from modelhub_tui.widgets.fleet_cells import status_of
from modelhub_tui.widgets.glyphs import Glyphs

QUANTIZED = frozenset({"lm_studio"})
"""Software that takes the name of a quantization with an order."""
_STYLES = {"good": "$text-success", "bad": "$text-error", "warn": "$text-warning"}


@dataclass(frozen=True, slots=True)
class EndpointChoice:
    """Where to download, and which quantization; None leaves that to the endpoint."""

    node_id: str
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteChoice:
    """What to delete: the router's registration, and the copies on these nodes."""

    registration: bool
    node_ids: tuple[str, ...] = ()


def candidates(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The endpoints a download can be ordered on, those that are online first."""
    able = [each for each in nodes if each.takes_downloads]
    return tuple(sorted(able, key=lambda each: each.status is not NodeStatus.ONLINE))


def column(text: str, width: int, ellipsis: str) -> str:
    """`text`, cut or filled to `width` cells."""
    cut = clip_middle(text, width, ellipsis)
    return cut + " " * (width - width_of(cut))


class EndpointScreen(Dialog[EndpointChoice]):
    """The endpoints that take downloads; enter orders the download on the highlighted one."""

    AUTO_FOCUS = "#endpoint-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move('down')", show=False),
        Binding("k", "move('up')", show=False),
    ]
    DEFAULT_CSS = """
    EndpointScreen .dialog { width: 78; }
    EndpointScreen #endpoint-list {
        height: auto; max-height: 14; border: none; padding: 0; background: transparent; margin-top: 1;
    }
    EndpointScreen #endpoint-quantization { margin-top: 1; }
    """

    def __init__(
        self,
        models: Sequence[Model],
        nodes: Sequence[Node],
        counts: dict[str, int],
        glyphs: Glyphs,
        *,
        quantization: bool,
    ) -> None:
        """Prepare the list.

        Args:
            models: What is to be downloaded.
            nodes: What `candidates()` returned; at least one.
            counts: How many models each holds, by node id.
            glyphs: Marks this terminal can show.
            quantization: The router passes the name of a quantization on.
        """
        super().__init__()
        self._models, self._endpoints, self._counts = tuple(models), tuple(nodes), counts
        self._glyphs, self._quantization = glyphs, quantization

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"Download {titles(self._models)}")
            box.border_subtitle = f"{len(self._endpoints)} endpoint{'s' if len(self._endpoints) > 1 else ''}"
            yield Static(Content("Where? Only endpoints that take downloads are listed."), classes="dialog-text")
            first = next((at for at, each in enumerate(self._endpoints) if each.status is NodeStatus.ONLINE), None)
            choices = OptionList(
                *(
                    Option(self._prompt(each), disabled=each.status is not NodeStatus.ONLINE)
                    for each in self._endpoints
                ),
                id="endpoint-list",
                compact=True,
                markup=False,
            )
            choices.highlighted = first
            yield choices
            wanted = next((each.quantization for each in self._models if each.quantization), "")
            line = Input(
                wanted,
                placeholder="quantization, such as Q4_K_M (empty: the endpoint chooses)",
                id="endpoint-quantization",
                compact=True,
                select_on_focus=False,
                max_length=40,
            )
            line.cursor_blink = False
            yield line
            yield Static("", classes="dialog-hint", id="endpoint-hint")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel (esc)", id="endpoint-cancel", compact=True)
                yield Button("Download (enter)", id="endpoint-download", compact=True)

    def on_mount(self) -> None:
        """Show what applies to the first endpoint."""
        self._follow()

    def _prompt(self, node: Node) -> Content:
        glyph, role = status_of(node)
        count = self._counts.get(node.id, 0)
        latency = f"{node.latency_ms:.0f} ms" if node.latency_ms is not None else ""
        disk = f"{human_size(node.disk_free_bytes)} free" if node.disk_free_bytes is not None else ""
        tail = f"{count} model{'' if count == 1 else 's'}"
        return Content.assemble(
            (f" {getattr(self._glyphs, glyph)} ", _STYLES[role]),
            (column(node.name, 26, self._glyphs.ellipsis), "bold"),
            f"  {node.status.value:<8}{column(node.software or node.kind, 11, self._glyphs.ellipsis)}",
            f"{latency:>7}  {tail:<10} {disk}",
        )

    @property
    def chosen(self) -> Node | None:
        """The highlighted endpoint."""
        at = self.query_one(OptionList).highlighted
        return None if at is None else self._endpoints[at]

    def _takes_quantization(self) -> bool:
        node = self.chosen
        return self._quantization and node is not None and node.software in QUANTIZED

    @on(OptionList.OptionHighlighted)
    def _follow(self) -> None:
        takes = self._takes_quantization()
        self.query_one("#endpoint-quantization").display = takes
        node = self.chosen
        if node is None:
            said = "None of them is online now."
        elif takes:
            said = "tab goes to the quantization."
        else:
            said = f"{node.software or node.name} chooses the quantization itself."
        self.query_one("#endpoint-hint", Static).update(Content(said))

    def action_move(self, direction: str) -> None:
        """Move like the arrows do."""
        choices = self.query_one(OptionList)
        choices.action_cursor_down() if direction == "down" else choices.action_cursor_up()

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    @on(Button.Pressed, "#endpoint-download")
    def _choose(self) -> None:
        node = self.chosen
        if node is None or node.status is not NodeStatus.ONLINE:
            return
        text = self.query_one("#endpoint-quantization", Input).value.strip()
        self.dismiss(EndpointChoice(node.id, text if text and self._takes_quantization() else None))

    @on(Button.Pressed, "#endpoint-cancel")
    def _cancel(self) -> None:
        self.dismiss(None)


class DeleteScreen(Dialog[DeleteChoice]):
    """What to delete from where: the registration, and the copy on each endpoint that can delete."""

    AUTO_FOCUS = "#delete-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move('down')", show=False),
        Binding("k", "move('up')", show=False),
        Binding("space", "switch", "Switch", show=False),
        Binding("y", "confirm", "Delete", show=False),
        Binding("n", "close", "Keep", show=False),
    ]
    DEFAULT_CSS = """
    DeleteScreen .dialog { width: 72; border: round $error; border-title-color: $text-error; }
    DeleteScreen #delete-list {
        height: auto; max-height: 12; border: none; padding: 0; background: transparent; margin-top: 1;
    }
    """

    def __init__(self, models: Sequence[Model], nodes: Sequence[Node], glyphs: Glyphs, *, registration: bool) -> None:
        """Prepare the list.

        Args:
            models: What is to be deleted.
            nodes: The endpoints that hold a copy and can delete it.
            glyphs: Marks this terminal can show.
            registration: The router has a registration that it can drop.
        """
        super().__init__()
        self._models, self._glyphs = tuple(models), glyphs
        self._lines: list[tuple[str | None, str]] = [(None, "The registration with the router")] if registration else []
        for node in nodes:
            sizes = [
                place.disk_bytes
                for model in models
                for place in model.placements
                if place.disk_bytes is not None and (place.node_id or place.node) in (node.id, node.name)
            ]
            size = f"  {human_size(sum(sizes))}" if sizes else ""
            self._lines.append((node.id, f"{'Copies' if len(models) > 1 else 'The copy'} on {node.name}{size}"))
        # One candidate is what was meant. Several copies: nothing is deleted that was not chosen.
        self.on: set[str | None] = {self._lines[0][0]} if len(self._lines) == 1 else set()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"Delete {titles(self._models)}?")
            text = "\n".join((*listed(self._models), "What is to go? Files can be downloaded again."))
            yield Static(Content(text), classes="dialog-text")
            yield OptionList(
                *(Option(self._prompt(each)) for each in self._lines), id="delete-list", compact=True, markup=False
            )
            yield Static("space or enter chooses, y deletes", classes="dialog-hint", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Keep (n)", id="delete-keep", compact=True)
                yield Button("Delete (y)", id="delete-yes", classes="danger", compact=True)

    def on_mount(self) -> None:
        """Nothing to press while nothing is chosen."""
        self.query_one(OptionList).highlighted = 0
        self._show()

    def _prompt(self, line: tuple[str | None, str]) -> Content:
        is_on = line[0] in self.on
        mark = self._glyphs.downloaded if is_on else " "
        text = clip(line[1], 60, self._glyphs.ellipsis)
        return Content.assemble((f" [{mark}] ", "bold"), (text, "bold" if is_on else ""))

    @on(OptionList.OptionSelected)
    def _toggle(self, event: OptionList.OptionSelected) -> None:
        self.on ^= {self._lines[event.option_index][0]}
        self._show()

    def _show(self) -> None:
        choices = self.query_one(OptionList)
        for at, line in enumerate(self._lines):
            choices.replace_option_prompt_at_index(at, self._prompt(line))
        self.query_one("#delete-yes", Button).disabled = not self.on

    def action_switch(self) -> None:
        """Choose the highlighted line, or not."""
        self.query_one(OptionList).action_select()

    def action_move(self, direction: str) -> None:
        """Move like the arrows do."""
        choices = self.query_one(OptionList)
        choices.action_cursor_down() if direction == "down" else choices.action_cursor_up()

    @on(Button.Pressed, "#delete-yes")
    def action_confirm(self) -> None:
        """Delete what is chosen."""
        if self.on:
            nodes = tuple(id_ for id_, _ in self._lines if id_ is not None and id_ in self.on)
            self.dismiss(DeleteChoice(None in self.on, nodes))

    @on(Button.Pressed, "#delete-keep")
    def _keep(self) -> None:
        self.dismiss(None)
