"""A small app with what makes painting hard: a long list, an input, wide characters, a dialog.

`python -m tests.tty.sample_app` runs it. Keys: see BINDINGS.
"""

from __future__ import annotations

import os
import random
import sys

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static

from modelhub_tui.terminal import instant
from modelhub_tui.terminal.delta import DeltaOutput
from modelhub_tui.terminal.driver import HandoverDriver

WORDS = ("alpha", "beta", "模型", "gamma", "大きい", "delta", "éé", "🙂", "ε", "──", "한국어", "👩‍💻", "e\u0301")
if os.environ.get("SAMPLE_WORDS") == "plain":
    WORDS = ("alpha", "beta", "模型", "gamma", "大きい", "delta", "éé", "ε", "──", "한국어")


class Rows(ScrollView, can_focus=True):
    """Rows of random words, each drawn when it is seen."""

    DEFAULT_CSS = "Rows { scrollbar-size-vertical: 1; height: 1fr; }"

    def __init__(self, count: int, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.rows = [self._words() for _ in range(count)]
        self.virtual_size = Size(60, count)

    def _words(self) -> list[tuple[str, str]]:
        colors = ("red", "#12ab34", "bright_blue", "default", "bold white on #222244", "reverse", "underline #aa5500")
        return [(self.random.choice(WORDS), self.random.choice(colors)) for _ in range(self.random.randint(1, 9))]

    def render_line(self, y: int) -> Strip:
        at = y + self.scroll_offset.y
        if at >= len(self.rows):
            return Strip.blank(self.size.width)
        segments = [Segment(f"{at:5} ", Style.parse("dim"))]
        for word, color in self.rows[at]:
            segments += [Segment(word, Style.parse(color)), Segment(" ")]
        return Strip(segments).adjust_cell_length(self.size.width)

    def edit(self, changes: int) -> None:
        """Change a few rows."""
        for _ in range(changes):
            self.rows[self.random.randrange(len(self.rows))] = self._words()
        self.refresh()


class Dialog(ModalScreen[None]):
    """Half over everything."""

    CSS = "Dialog { align: center middle; } #box { width: 41; height: 9; border: round red; background: blue; }"
    BINDINGS = [Binding("escape", "dismiss")]

    def compose(self) -> ComposeResult:
        yield Static("Really delete 模型?\nesc to close", id="box")


class SampleApp(DeltaOutput, App[None]):
    """See the module."""

    CSS = "#state { height: 1; } Input { height: 3; }"
    AUTO_FOCUS = "Rows"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("slash", "search", priority=False),
        Binding("d", "dialog"),
        Binding("e", "edit"),
        Binding("t", "flip"),
        Binding("n", "toast"),
        Binding("z", "doubt"),
        Binding("ctrl+q", "quit", priority=True),
    ]

    def __init__(self, count: int = 500, seed: int = 1) -> None:
        super().__init__(driver_class=HandoverDriver)
        self.count, self.seed = count, seed
        self.animation_level = "none"

    def compose(self) -> ComposeResult:
        search = Input(id="search")
        search.cursor_blink = False
        yield search
        yield Static("ready", id="state", markup=False)
        yield Rows(self.count, self.seed)

    def action_search(self) -> None:
        self.screen.set_focus(self.query_one(Input))

    def action_dialog(self) -> None:
        self.push_screen(Dialog())

    def action_edit(self) -> None:
        self.query_one(Rows).edit(40)

    def action_flip(self) -> None:
        self.theme = "textual-light" if self.theme != "textual-light" else "textual-dark"

    def action_toast(self) -> None:
        self.notify("a toast", timeout=600, markup=False)

    def action_doubt(self) -> None:
        """Show text that would not simply show: painting has to fall back."""
        self.query_one("#state", Static).update(Content("a\x07b"))

    def on_input_changed(self, event: Input.Changed) -> None:
        self.query_one("#state", Static).update(Content(f"typed: {event.value}"))


def main() -> None:
    """Run it; with a folder as argument, with an instant frame kept there."""
    app = SampleApp()
    held = instant.current()
    if held is not None and held.drawn:
        app.adopt_picture(held.picture, *held.size)
    app.run()


if __name__ == "__main__":
    os.environ.setdefault("TEXTUAL_FPS", "240")
    sys.exit(main())
