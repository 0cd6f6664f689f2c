"""Ask for the key a router wants."""

from __future__ import annotations

from dataclasses import dataclass, field

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Checkbox, Input, Static

from modelhub_tui.screens.dialog import Dialog


@dataclass(frozen=True, slots=True)
class GivenKey:
    """What the user typed. Never logged: the key is left out of the representation."""

    key: str = field(repr=False)
    remember: bool = False


class ApiKeyScreen(Dialog[GivenKey]):
    """One hidden line for the key, and whether to keep it."""

    AUTO_FOCUS = "#api-key"
    DEFAULT_CSS = """
    ApiKeyScreen {
        & #api-key { margin-top: 1; }
        & Checkbox, & Checkbox:focus { margin-top: 1; border: none; padding: 0; background: transparent; }
    }
    """

    def __init__(self, router: str, problem: str) -> None:
        """Prepare the dialog.

        Args:
            router: Its label or URL, plain text.
            problem: What the router said, one sentence.
        """
        super().__init__()
        self._router, self._problem = router, problem

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "API key"
            yield Static(Content(self._problem), classes="dialog-problem")
            yield Static(
                Content(f"Give a key for {self._router}. It is sent to this router only."), classes="dialog-text"
            )
            key = Input(placeholder="key", password=True, id="api-key", compact=True, select_on_focus=False)
            key.cursor_blink = False
            yield key
            yield Checkbox("Remember it in a file only you can read", id="api-key-remember", compact=True)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel (esc)", id="api-key-cancel", compact=True)
                yield Button("Use it (enter)", id="api-key-use", variant="primary", compact=True)

    @on(Input.Submitted)
    @on(Button.Pressed, "#api-key-use")
    def _use(self) -> None:
        key = self.query_one("#api-key", Input).value.strip()
        if key:
            self.dismiss(GivenKey(key, self.query_one(Checkbox).value))

    @on(Button.Pressed, "#api-key-cancel")
    def _cancel(self) -> None:
        self.dismiss(None)
