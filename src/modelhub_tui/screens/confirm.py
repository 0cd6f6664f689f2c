"""Ask before something is lost."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from modelhub_tui.screens.dialog import Dialog


class ConfirmScreen(Dialog[bool]):
    """A question with two answers. The result is True only for an explicit yes; the focus starts on no."""

    AUTO_FOCUS = "#no"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", show=False),
        Binding("n", "answer(False)", "No", show=False),
        Binding("left,right,h,l,tab", "swap", "Other answer", show=False),
    ]
    DEFAULT_CSS = """
    ConfirmScreen .dialog { width: 64; border: round $error; border-title-color: $text-error; }
    """

    def __init__(self, question: str, lines: tuple[str, ...], *, yes: str, no: str = "Keep") -> None:
        """Prepare the question.

        Args:
            question: One line, such as `Delete Qwen2.5 7B Instruct?`.
            lines: What will be lost, and what not. Plain text.
            yes: The verb of the first answer.
            no: The other answer.
        """
        super().__init__()
        self._question, self._lines, self._yes, self._no = question, lines, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self._question)
            yield Static("\n".join(self._lines), classes="dialog-text", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button(Content(f"{self._no} (n)"), id="no", compact=True)
                yield Button(Content(f"{self._yes} (y)"), id="yes", classes="danger", compact=True)

    @on(Button.Pressed)
    def _answer_by_button(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer by key."""
        self.dismiss(yes)

    def action_swap(self) -> None:
        """Move the focus to the other answer."""
        self.set_focus(self.query_one("#no" if self.focused and self.focused.id == "yes" else "#yes"))
