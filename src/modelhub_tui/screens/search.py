"""The search line: what is looked for, how many models are left, and in which order they stand."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import Reactive, var
from textual.widgets import Input, Static

from modelhub_tui.filtering import SortKey
from modelhub_tui.values import dataclass

SORT_WORDS = {
    SortKey.CATALOG: "catalog order",
    SortKey.NAME: "by name",
    SortKey.SIZE: "smallest first",
    SortKey.LARGEST: "largest first",
    SortKey.MEMORY: "least memory first",
    SortKey.DOWNLOADS: "most downloaded first",
    SortKey.LIKES: "most liked first",
    SortKey.STATE: "by state",
}


class SearchInput(Input):
    """One line to type a search into."""

    DEFAULT_CSS = """
    SearchInput, SearchInput:focus { background: transparent; background-tint: transparent; width: 1fr; }
    """

    virtual_size = Reactive(Size(0, 0), layout=False)
    """How long the text is. Its width is fixed: a layout pass on every key is a fifth of what the key costs."""

    def __init__(self) -> None:
        # `valid_empty` and friends stay at their defaults: any text is a search.
        super().__init__(placeholder="Search", compact=True, select_on_focus=False, id="search", max_length=100)
        # A blinking cursor costs 2.5 kB/s on the wire, for ever.
        self.cursor_blink = False
        # Whoever wants to know watches the value: the message would come a frame later, to every container around.
        self.disable_messages(Input.Changed)


class ClickableText(Static):
    """A short text that reacts to the mouse."""

    ALLOW_SELECT = False

    @dataclass
    class Clicked(Message):
        """It was clicked."""

        text: ClickableText

        @property
        def control(self) -> ClickableText:
            return self.text

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Clicked(self))


class SearchBar(Horizontal):
    """Search input, match count and order."""

    DEFAULT_CSS = """
    SearchBar {
        height: 1;
        padding: 0 1;
        & #search-icon { width: 2; color: $text-muted; }
        &:focus-within #search-icon { color: $primary; text-style: bold; }
        & #search-count { width: 26; text-align: right; color: $text-muted; }
        & #search-sort { width: 24; text-align: right; color: $text-muted; }
    }
    """
    CHOICES_WORD: ClassVar[str] = "filtered"

    shown_count: var[int] = var(0)
    total_count: var[int] = var(0)
    choices: var[int] = var(0)
    """How many filter choices are on."""
    sort: var[SortKey] = var(SortKey.CATALOG)

    def compose(self) -> ComposeResult:
        yield ClickableText("/", id="search-icon", markup=False)
        yield SearchInput()
        yield ClickableText("", id="search-count", markup=False)
        yield ClickableText("", id="search-sort", markup=False)

    def watch_shown_count(self) -> None:
        self._write_count()

    def watch_total_count(self) -> None:
        self._write_count()

    def watch_choices(self) -> None:
        self._write_count()

    def watch_sort(self, sort: SortKey) -> None:
        """Say the order in words."""
        for text in self.query("#search-sort").results(Static):
            text.update(Content(SORT_WORDS[sort]), layout=False)

    def _write_count(self) -> None:
        # The widths are fixed, so a new number needs no new layout: half the cost of a key press.
        for text in self.query("#search-count").results(Static):
            text.update(Content(self.count_text()), layout=False)

    def count_text(self) -> str:
        """`139 models`, or `12 of 139`, with a mark when a filter is on."""
        shown, total = self.shown_count, self.total_count
        count = f"{total} model{'' if total == 1 else 's'}" if shown == total else f"{shown} of {total}"
        return f"{count}, {self.CHOICES_WORD}" if self.choices else count

    def on_mount(self) -> None:
        """Write the texts that were set before there were widgets to hold them."""
        self._write_count()
        self.watch_sort(self.sort)
