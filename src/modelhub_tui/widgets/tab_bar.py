"""The tabs of the app: one drawn line, so that switching costs one repaint and no animation."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from modelhub_tui.values import dataclass
from modelhub_tui.widgets.cells import width_of
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab: `1 Model Hub (139)`."""

    id: str
    label: str
    key: str
    """What the user presses for it."""
    count: int | None = None


class TabBar(Widget):
    """A line of tabs. The active one stands out with and without colour."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    TabBar { height: 1; background: $background; }
    """

    tabs: reactive[tuple[Tab, ...]] = reactive(())
    """In order."""
    active: reactive[str] = reactive("")
    """`Tab.id` of the one that is open."""
    notes: reactive[tuple[str, ...]] = reactive(())
    """What to say at the right end: the first of these for which there is room."""

    @dataclass
    class Activated(Message):
        """The user clicked a tab."""

        bar: TabBar
        tab: str

        @property
        def control(self) -> TabBar:
            """The bar."""
            return self.bar

    def __init__(
        self,
        tabs: tuple[Tab, ...] = (),
        *,
        active: str = "",
        glyphs: Glyphs = UNICODE,
        notes: tuple[str, ...] = (),
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """Make the bar.

        Args:
            tabs: In order.
            active: The open one; the first if empty.
            glyphs: Marks this terminal can show.
            notes: What to say at the right end, the first that fits.
            id: Of the widget.
            classes: Of the widget.
        """
        super().__init__(id=id, classes=classes)
        self.glyphs = glyphs
        self.set_reactive(TabBar.notes, notes)
        self.set_reactive(TabBar.tabs, tabs)
        self.set_reactive(TabBar.active, active or (tabs[0].id if tabs else ""))

    def set_counts(self, **counts: int | None) -> None:
        """Change the numbers behind labels, by tab id."""
        self.tabs = tuple(Tab(each.id, each.label, each.key, counts.get(each.id, each.count)) for each in self.tabs)

    def tab_at(self, x: int) -> str | None:
        """Id of the tab drawn at a cell."""
        start = 0
        for tab in self.tabs:
            end = start + width_of(self._text(tab))
            if start <= x < end:
                return tab.id
            start = end + 1
        return None

    def _text(self, tab: Tab) -> str:
        count = "" if tab.count is None else f" ({tab.count})"
        # The brackets tell which one is open where there is no colour.
        left, right = ("[", "]") if tab.id == self.active and self.app.no_color else (" ", " ")
        return f"{left}{tab.key} {tab.label}{count}{right}"

    def render(self) -> Content:
        """Draw the line."""
        pieces: list[Content | str | tuple[str, str]] = []
        width = 0
        for tab in self.tabs:
            text = self._text(tab)
            if tab.id == self.active:
                pieces.append((text, "bold $text on $primary-muted" if not self.app.native_ansi_color else "reverse"))
            else:
                head = f" {tab.key} "
                pieces += [(head, "bold $text-accent"), (text[len(head) :], "$foreground 70%")]
            pieces.append(" ")
            width += width_of(text) + 1
        room = self.size.width - width - 1
        note = next((each for each in self.notes if width_of(each) <= room), "")
        if note:
            pieces += [" " * (room - width_of(note)), (note, "$foreground 45%")]
        return Content.assemble(*pieces)

    def on_click(self, event: events.Click) -> None:
        """Say which tab was clicked."""
        if (tab := self.tab_at(event.x)) is not None:
            event.stop()
            self.post_message(self.Activated(self, tab))
