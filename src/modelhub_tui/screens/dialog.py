"""What all dialogs share: a box in the middle, a title, escape to close."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

Result = TypeVar("Result")


class Dialog(ModalScreen[Result | None]):
    """A modal box. Children go into one container with the class `dialog`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close", show=False)]
    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        & .dialog {
            width: 72;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            padding: 1 2;
            background: $surface;
            border: round $primary;
            border-title-color: $primary;
            border-title-style: bold;
            border-subtitle-color: $text-muted;
        }
        & .dialog-text { width: 100%; height: auto; }
        & .dialog-hint { width: 100%; height: auto; margin-top: 1; color: $text-muted; }
        & .dialog-problem { width: 100%; height: auto; color: $text-error; }
        & .dialog-buttons { width: 100%; height: 1; align-horizontal: right; margin-top: 1; }
        & .dialog-buttons Button { margin-left: 2; background: $panel; color: $foreground; }
        & .dialog-buttons Button.danger { color: $text-error; }
        & .dialog-buttons Button:hover { background: $primary 40%; }
        & .dialog-buttons Button:focus { background: $primary; color: $background; text-style: bold; }
        & .dialog-buttons Button.danger:focus { background: $error; color: $background; }
        & Input.-textual-compact { background: $panel; padding: 0 1; }
        & Input.-textual-compact:focus { background-tint: $primary 20%; }
        & OptionList, & VerticalScroll { scrollbar-size-vertical: 1; }
    }
    """

    def action_close(self) -> None:
        """Close without a result."""
        self.dismiss(None)
