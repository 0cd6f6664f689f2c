"""All keys on one page, made from the table of commands."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from modelhub_tui.commands import ALL_BY_GROUP, GROUPS, MOVES
from modelhub_tui.screens.dialog import Dialog


def keys_by_group() -> dict[str, tuple[tuple[str, str], ...]]:
    """Keys and explanations for each group of commands, and for moving about."""
    groups: dict[str, tuple[tuple[str, str], ...]] = {"Move": MOVES}
    for group in GROUPS:
        groups[group] = tuple(
            (each.shown, each.help) for each in ALL_BY_GROUP if each.group == group and each.id != "find.leave"
        )
    return groups


class HelpScreen(Dialog[None]):
    """The keys, by group; two columns where there is room."""

    AUTO_FOCUS = "#help-scroll"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-normal")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,q,enter", "close", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]
    DEFAULT_CSS = """
    HelpScreen .dialog { width: 116; }
    HelpScreen.-narrow .dialog { width: 74; }
    HelpScreen #help-scroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    HelpScreen #help-columns { height: auto; layout: horizontal; }
    HelpScreen.-narrow #help-columns { layout: vertical; }
    HelpScreen .help-column { width: 1fr; height: auto; }
    HelpScreen.-narrow .help-column { width: 100%; }
    HelpScreen .help-group { height: auto; margin-bottom: 1; }
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self._version = version

    def compose(self) -> ComposeResult:
        groups = [(title, rows) for title, rows in keys_by_group().items()]
        with Vertical(classes="dialog") as box:
            box.border_title = "Keys"
            box.border_subtitle = Content(f"modelhub {self._version}")
            with VerticalScroll(id="help-scroll"), Horizontal(id="help-columns"):
                for column in (groups[:3], groups[3:]):
                    with Vertical(classes="help-column"):
                        for title, rows in column:
                            yield Static(self._group(title, rows), classes="help-group")

    def _group(self, title: str, rows: tuple[tuple[str, str], ...]) -> Content:
        lines: list[Content] = [Content.styled(title, "bold $text-muted")]
        lines += [Content.assemble((f"{keys:>9}", "bold $text-primary"), "  ", help) for keys, help in rows]
        return Content("\n").join(lines)

    def action_scroll(self, direction: str) -> None:
        """Scroll like the arrows do."""
        scroll = self.query_one("#help-scroll")
        scroll.scroll_down(animate=False) if direction == "down" else scroll.scroll_up(animate=False)
