"""One line with the keys that work here, now. Drawn as a whole: a widget for each key costs ten times as much."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from modelhub_tui.values import dataclass

KEEP_LAST = 2
"""The last items (help, quit) stay when the line is too narrow for all."""


@dataclass(frozen=True, slots=True)
class FooterItem:
    """One key of the footer."""

    id: str
    """The command's id, handed back when the item is clicked."""
    key: str
    label: str

    @property
    def width(self) -> int:
        """In cells: ` key label `."""
        return len(self.key) + len(self.label) + 3


def fitting(items: tuple[FooterItem, ...], width: int) -> tuple[FooterItem, ...]:
    """The items that fit into `width` cells: the first ones, and always the last `KEEP_LAST`."""
    if sum(item.width for item in items) <= width or len(items) <= KEEP_LAST:
        return items
    first, last = items[:-KEEP_LAST], items[-KEEP_LAST:]
    left = width - sum(item.width for item in last)
    kept: list[FooterItem] = []
    for item in first:
        if item.width > left:
            break
        left -= item.width
        kept.append(item)
    return (*kept, *last)


class KeyFooter(Widget):
    """The keys that work here, now; each is also a mouse target."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"key-footer--key", "key-footer--label"}
    DEFAULT_CSS = """
    KeyFooter {
        height: 1;
        width: 1fr;
        background: $footer-background;
        & > .key-footer--key { color: $footer-key-foreground; text-style: bold; }
        & > .key-footer--label { color: $text-muted; }
    }
    """

    items: reactive[tuple[FooterItem, ...]] = reactive(())
    """What to show, left to right."""

    @dataclass
    class Pressed(Message):
        """An item was clicked."""

        footer: KeyFooter
        command_id: str

        @property
        def control(self) -> KeyFooter:
            return self.footer

    def render(self) -> Content:
        """Draw the items that fit."""
        key_style, label_style = self.get_visual_style("key-footer--key"), self.get_visual_style("key-footer--label")
        parts: list[tuple[str, object]] = []
        for item in fitting(self.items, self.size.width):
            parts += [(f" {item.key}", key_style), (f" {item.label} ", label_style)]
        return Content.assemble(*parts)  # type: ignore[arg-type]

    def item_at(self, x: int) -> FooterItem | None:
        """The item drawn at column `x`, if any."""
        start = 0
        for item in fitting(self.items, self.size.width):
            if start <= x < start + item.width:
                return item
            start += item.width
        return None

    def on_click(self, event: events.Click) -> None:
        """Ask for what the item under the mouse does."""
        item = self.item_at(event.x)
        if item is not None:
            event.stop()
            self.post_message(self.Pressed(self, item.id))
