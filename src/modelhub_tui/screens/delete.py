"""Ask before a model goes to the trash: how much that frees, and for how long it can be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from modelhub_tui.actions import running
from modelhub_tui.domain import Limits, Model
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.screens.wording import can_be_undone, delete_question

DeleteAnswer = Literal["trash", "free"]
"""Into the trash, or gone at once."""


class DeleteModelsScreen(Dialog[DeleteAnswer]):
    """The question. The focus starts on no; the result is None for anything but an explicit yes."""

    AUTO_FOCUS = "#no"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer('trash')", "Delete", show=False),
        Binding("f", "answer('free')", "Free at once", show=False),
        Binding("n", "close", "Keep", show=False),
        Binding("right,l", "app.focus_next", "Next answer", show=False),
        Binding("left,h", "app.focus_previous", "Previous answer", show=False),
    ]
    DEFAULT_CSS = """
    DeleteModelsScreen .dialog { width: 68; border: round $error; border-title-color: $text-error; }
    DeleteModelsScreen .dialog-buttons Button { min-width: 4; }
    """

    def __init__(self, models: Sequence[Model], limits: Limits | None) -> None:
        """Prepare the question.

        Args:
            models: What is to be deleted.
            limits: What is known about the trash; None if nothing is, so far.
        """
        super().__init__()
        self._models, self._limits = tuple(models), limits
        self._moving = any(running(each) for each in models)

    @property
    def can_free(self) -> bool:
        """Whether there are two ways to delete: with a trash, and when nothing has to be stopped first."""
        return not self._moving and can_be_undone(self._models, self._limits)

    def compose(self) -> ComposeResult:
        question, _ = delete_question(self._models)
        with Vertical(classes="dialog") as box:
            box.border_title = Content(question)
            yield Static("", classes="dialog-text", id="delete-text", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Keep (n)", id="no", compact=True)
                verb = "Stop and delete" if self._moving else "Delete"
                yield Button(f"{verb} (y)", id="yes", classes="danger", compact=True)
                yield Button("Free at once (f)", id="free", classes="danger", compact=True)

    def show_limits(self, limits: Limits) -> None:
        """Say what is true of the trash now."""
        self._limits = limits
        if self.is_mounted:
            self.on_mount()

    def on_mount(self) -> None:
        """Write what is known by now."""
        _, lines = delete_question(self._models, trash=True, limits=self._limits)
        self.query_one("#delete-text", Static).update(Content("\n".join(lines)))
        self.query_one("#free").display = self.can_free

    @on(Button.Pressed, "#no")
    def _keep(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed, "#yes")
    def _delete(self) -> None:
        self.action_answer("trash")

    @on(Button.Pressed, "#free")
    def _free(self) -> None:
        self.action_answer("free")

    def action_answer(self, answer: DeleteAnswer) -> None:
        """Answer by key."""
        if answer == "trash" or self.can_free:
            self.dismiss(answer)
