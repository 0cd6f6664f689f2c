"""The trash: what was deleted, and how long it can be had back."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, OptionList, Static
from textual.widgets.option_list import Option

from modelhub_tui.domain import Trashed
from modelhub_tui.screens.confirm import ConfirmScreen
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.screens.wording import freed_for_good
from modelhub_tui.units import human_size
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.cells import clip, width_of
from modelhub_tui.widgets.glyphs import Glyphs
from modelhub_tui.widgets.moments import moment

WIDTH = 78
_AROUND = 6
"""Border and padding of a dialog."""
_SIZE, _TIME = 9, 13


class TrashScreen(Dialog[None]):
    """The deleted models, the newest first; enter brings one back."""

    AUTO_FOCUS = "#trash-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "restore", "Bring back", show=False),
        Binding("d", "free", "Free for good", show=False),
        Binding("e", "empty", "Empty", show=False),
        Binding("t,q", "close", "Close", show=False),
        Binding("j", "move('down')", show=False),
        Binding("k", "move('up')", show=False),
    ]
    DEFAULT_CSS = f"""
    TrashScreen .dialog {{ width: {WIDTH}; }}
    TrashScreen .dialog-buttons Button {{ min-width: 4; margin-left: 1; }}
    TrashScreen #trash-list {{
        height: auto; max-height: 14; border: none; padding: 0; background: transparent;
    }}
    """

    @dataclass
    class RestoreRequested(Message):
        """The user wants this model back."""

        screen: TrashScreen
        item: Trashed

    @dataclass
    class FreeRequested(Message):
        """The user wants this model, or with None all of them, gone for good."""

        screen: TrashScreen
        item: Trashed | None

    def __init__(self, glyphs: Glyphs, clock: Callable[[], float]) -> None:
        """Prepare an empty dialog; `show()` fills it.

        Args:
            glyphs: Marks this terminal can show.
            clock: Seconds since the epoch.
        """
        super().__init__()
        self._glyphs, self._clock = glyphs, clock
        self.items: tuple[Trashed, ...] = ()
        """What is listed."""
        self._said = "Asking what is in it ..."

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Trash"
            yield Static(self._said, classes="dialog-text", id="trash-said", markup=False)
            yield OptionList(id="trash-list", compact=True, markup=False)
            yield Static("", classes="dialog-hint", id="trash-hint", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Close (esc)", id="trash-close", compact=True)
                yield Button("Empty (e)", id="trash-empty", classes="danger", compact=True)
                yield Button("Free (d)", id="trash-free", classes="danger", compact=True)
                yield Button("Bring back (u)", id="trash-restore", compact=True)

    def on_mount(self) -> None:
        """Show what may have been said before there were widgets."""
        self._draw()

    def show(self, items: tuple[Trashed, ...]) -> None:
        """List these."""
        self.items = tuple(sorted(items, key=lambda each: -each.deleted_at))
        self._said = "" if items else "It is empty. What is deleted comes here for a while; L says for how long."
        self._draw()

    def fail(self, why: str) -> None:
        """The router did not say what is in it."""
        self.items, self._said = (), why
        self._draw()

    def on_resize(self) -> None:
        """Names get the room there is."""
        self._draw()

    def _draw(self) -> None:
        if not self.query("#trash-close"):
            return
        items, choices = self.items, self.query_one("#trash-list", OptionList)
        at = choices.highlighted or 0
        choices.clear_options()
        choices.add_options([Option(self._prompt(each)) for each in items])
        choices.display = bool(items)
        if items:
            choices.highlighted = min(at, len(items) - 1)
        room = self._room
        head = f" {'deleted model':<{room}}{'size':>{_SIZE}}{'deleted':>{_TIME}}{'kept until':>{_TIME}}"
        self.query_one("#trash-said", Static).update(Content(self._said if self._said else head))
        self._follow()
        for button in self.query("#trash-empty, #trash-free, #trash-restore"):
            button.display = bool(items)

    @property
    def _room(self) -> int:
        """Cells for a name."""
        return max(min(self.app.size.width, WIDTH) - _AROUND - _SIZE - 2 * _TIME - 2, 8)

    def _prompt(self, item: Trashed) -> Content:
        name, now = clip(item.title or item.name, self._room - 1, self._glyphs.ellipsis), self._clock()
        return Content.assemble(
            " ",
            (name + " " * (self._room - width_of(name)), "bold"),
            f"{human_size(item.bytes):>{_SIZE}}",
            f"{moment(item.deleted_at, now):>{_TIME}}{moment(item.expires_at, now):>{_TIME}}",
        )

    @property
    def chosen(self) -> Trashed | None:
        """The highlighted model."""
        at = self.query_one(OptionList).highlighted
        return self.items[at] if at is not None and at < len(self.items) else None

    @on(OptionList.OptionHighlighted)
    def _follow(self) -> None:
        """Say where the highlighted one is, and what emptying gives."""
        item, total = self.chosen, sum(each.bytes for each in self.items)
        said = f"{human_size(total)} in all; freed by themselves when a transfer needs the room." if item else ""
        if item is not None and item.nodes:
            said = f"{item.name} on {', '.join(item.nodes)}\n{said}"
        self.query_one("#trash-hint", Static).update(Content(said))

    @on(OptionList.OptionSelected)
    @on(Button.Pressed, "#trash-restore")
    def action_restore(self) -> None:
        """Bring the highlighted model back."""
        if (item := self.chosen) is not None:
            self.post_message(self.RestoreRequested(self, item))

    @on(Button.Pressed, "#trash-free")
    def action_free(self) -> None:
        """Free the highlighted model's space, after asking."""
        if (item := self.chosen) is not None:
            self._ask(item, f"Free {item.title or item.name} for good?", item.bytes)

    @on(Button.Pressed, "#trash-empty")
    def action_empty(self) -> None:
        """Free all, after asking."""
        if self.items:
            self._ask(None, "Empty the trash?", sum(each.bytes for each in self.items))

    def _ask(self, item: Trashed | None, question: str, size: int) -> None:
        def answered(answer: bool | None) -> None:
            if answer:
                self.post_message(self.FreeRequested(self, item))

        self.app.push_screen(ConfirmScreen(question, freed_for_good(size), yes="Free", no="Keep"), answered)

    @on(Button.Pressed, "#trash-close")
    def _close(self) -> None:
        self.dismiss(None)

    def action_move(self, direction: str) -> None:
        """Move like the arrows do."""
        choices = self.query_one(OptionList)
        choices.action_cursor_down() if direction == "down" else choices.action_cursor_up()
