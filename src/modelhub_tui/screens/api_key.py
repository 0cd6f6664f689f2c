"""Ask for the key a router wants."""

from __future__ import annotations

from dataclasses import field

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, Static

from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class GivenKey:
    """What the user typed. Never logged: the key is left out of the representation."""

    key: str = field(repr=False)
    remember: bool = False


class ApiKeyScreen(Dialog[GivenKey]):
    """One hidden line for the key, and whether to keep it."""

    AUTO_FOCUS = "#api-key"
    DEFAULT_CSS = """
    ApiKeyScreen #api-key { margin-top: 1; }
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
            text = f"Give a key for {self._router}. It is sent to this router only."
            yield Static(Content(text), classes="dialog-text")
            key = Input(placeholder="key", password=True, id="api-key", compact=True, select_on_focus=False)
            key.cursor_blink = False
            yield key
            yield Static("Remembered, it goes into a file that only you can read.", classes="dialog-hint")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel (esc)", id="api-key-cancel", compact=True)
                yield Button("Use once (enter)", id="api-key-use", compact=True)
                yield Button("Use and remember", id="api-key-remember", compact=True)

    @on(Input.Submitted)
    @on(Button.Pressed, "#api-key-use")
    def _use(self) -> None:
        self._give(remember=False)

    @on(Button.Pressed, "#api-key-remember")
    def _use_and_remember(self) -> None:
        self._give(remember=True)

    def _give(self, *, remember: bool) -> None:
        key = self.query_one("#api-key", Input).value.strip()
        if key:
            self.dismiss(GivenKey(key, remember))

    @on(Button.Pressed, "#api-key-cancel")
    def _cancel(self) -> None:
        self.dismiss(None)
