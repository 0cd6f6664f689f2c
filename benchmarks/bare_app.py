"""The least a Textual app can be: what our start is compared with."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static


class BareApp(App[None]):
    """Says one word."""

    BINDINGS = [("q", "quit")]

    def compose(self) -> ComposeResult:
        yield Static("bare-app-marker")


if __name__ == "__main__":
    BareApp().run()
