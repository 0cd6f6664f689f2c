"""What drawn lists share: the scroll mark at their right edge, and the last step before their lines are shown."""

from __future__ import annotations

from typing import Any

from rich.segment import Segment
from textual.cache import FIFOCache
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class DrawnStrip(Strip):
    """A strip that makes its seven caches when they are needed, which is never unless something covers the list.

    To make them for each line takes 2 % of a page.
    """

    __slots__ = ()

    def __init__(self, segments: list[Segment], cell_length: int) -> None:
        self._segments, self._cell_length = segments, cell_length
        self._render_cache = self._link_ids = self._cell_count = None

    def __getattr__(self, name: str) -> Any:
        if not name.endswith("_cache"):
            raise AttributeError(name)
        made: FIFOCache[Any, Any] = FIFOCache(4)
        setattr(self, name, made)
        return made


def thumb_lines(shown: int, total: int, top: int) -> range:
    """Lines of a window that carry the scroll mark.

    Args:
        shown: Height of the window.
        total: Height of all there is, in the same unit; nothing to scroll if it fits.
        top: What is above the window, in that unit.
    """
    if total <= shown or shown <= 0:
        return range(0)
    size = max(1, shown * shown // total)
    start = round((shown - size) * top / max(total - shown, 1))
    return range(start, start + size)


def cropped(widget: Widget, strips: list[Strip], crop: Region) -> list[Strip]:
    """`strips`, cut to the columns asked for, and without colour where there is to be none."""
    if crop.x or crop.width < widget.size.width:
        strips = [strip.crop(crop.x, crop.right) for strip in strips]
    if widget.app.no_color:
        # NO_COLOR takes effect in the styles cache, which these lines do not pass.
        ground = widget.styles.background
        for each in widget.app.get_line_filters():
            strips = [strip.apply_filter(each, ground) for strip in strips]
    return strips
