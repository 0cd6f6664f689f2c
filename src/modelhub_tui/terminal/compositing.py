"""Compose only what has changed.

For any change Textual has every widget draw all of its lines, divides each of them at the edges of all widgets, and
throws most of it away. Where what changed belongs to widgets that nothing covers, which is nearly always, those
widgets alone are asked, for those lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from modelhub_tui.terminal.delta import is_supported


def quicken(screen: Screen[Any]) -> None:
    """Compose this screen so. Before it is mounted; nothing changes with a Textual whose private parts are unknown."""
    if is_supported():
        screen._compositor = QuickCompositor()


class QuickCompositor(Compositor):
    """Textual's, but for partial updates."""

    def render_partial_update(self) -> ChopsUpdate | None:
        """What has changed, as stock says it."""
        regions = {each for dirty in self._dirty_regions if (each := dirty.intersection(self.size.region))}
        owners = self._owners(regions)
        if owners is None:
            return super().render_partial_update()
        self._dirty_regions.clear()
        if not regions:
            return None
        pieces: dict[int, list[tuple[int, int, Strip]]] = {}
        for widget, (visible, lines) in owners.items():
            where = self.visible_widgets[widget][0]
            top = min(lines)
            crop = Region(visible.x - where.x, top - where.y, visible.width, max(lines) + 1 - top)
            strips = widget.render_lines(crop)
            for y in lines:
                pieces.setdefault(y, []).append((visible.x, visible.right, strips[y - top]))
        for line in pieces.values():
            line.sort(key=_left)
        # Stock has a list with something for every line of the screen; only those of the spans are ever looked at.
        chops = {y: {x: strip for x, _, strip in line} for y, line in pieces.items()}
        ends = {y: [end for _, end, _ in line] for y, line in pieces.items()}
        spans = list(self._regions_to_spans(regions))
        return ChopsUpdate(cast("list[dict[int, Strip | None]]", chops), spans, cast("list[list[int]]", ends))

    def _owners(self, regions: Iterable[Region]) -> dict[Widget, tuple[Region, set[int]]] | None:
        """Whose these regions are: by widget the part of it that can be seen, and which lines of that; None when others
        cover some of these lines, or show in them too."""
        on_screen = [(widget, region.intersection(clip)) for widget, (region, clip) in self.visible_widgets.items()]
        owners: dict[Widget, tuple[Region, set[int]]] = {}
        for region in regions:
            owner, visible = next((each for each in on_screen if each[1].overlaps(region)), (None, region))
            if owner is None or not visible.contains_region(region):
                return None
            owners.setdefault(owner, (visible, set()))[1].update(region.line_range)
        for owner, (visible, lines) in owners.items():
            drawn = Region(visible.x, min(lines), visible.width, max(lines) + 1 - min(lines))
            for above, area in on_screen:
                if above is owner:
                    break
                if area.overlaps(drawn):
                    return None
        return owners


def _left(piece: tuple[int, int, Strip]) -> int:
    return piece[0]
