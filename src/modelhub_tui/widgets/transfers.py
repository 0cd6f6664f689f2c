"""What is moving right now: a few lines with a bar each, shown only while there is something to show."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from modelhub_tui.domain import Model, Phase
from modelhub_tui.units import human_duration, human_rate
from modelhub_tui.widgets.card_parts import bar_cells, of_total, percent
from modelhub_tui.widgets.cells import clip, width_of
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs
from modelhub_tui.widgets.progress import in_short, troubled

_MOVING = (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)


class TransfersStrip(Widget):
    """One line per moving transfer, at most `limit`; then how many more."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    TransfersStrip { height: 1; background: $background; }
    """

    models: reactive[tuple[Model, ...]] = reactive((), repaint=False)
    """Any models; those that move are drawn."""

    def __init__(
        self, *, limit: int = 3, glyphs: Glyphs = UNICODE, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.limit, self.glyphs = limit, glyphs
        self._moving: tuple[Model, ...] = ()
        self.display = False

    def watch_models(self, models: tuple[Model, ...]) -> None:
        """Show, hide, or repaint; nothing when what moves is the same."""
        moving = tuple(each for each in models if each.transfer is not None and each.transfer.phase in _MOVING)
        if moving == self._moving:
            return
        before, self._moving = self._lines(self._moving), moving
        after = self._lines(moving)
        self.display = bool(moving)
        if before != after:
            self.styles.height = after
        self.refresh()

    def _lines(self, moving: tuple[Model, ...]) -> int:
        return min(len(moving), self.limit) + (len(moving) > self.limit)

    def render(self) -> Content:
        """Draw the lines."""
        width = self.size.width
        lines = [self._line(each, width) for each in self._moving[: self.limit]]
        more = self._moving[self.limit :]
        if more:
            rate = sum(each.bytes_per_s or 0.0 for model in more for each in model.transfers)
            speed = f" {self.glyphs.dot} {human_rate(rate)}" if rate else ""
            lines.append(Content.assemble((f" +{len(more)} more{speed}"[:width], "$foreground 55%")))
        return Content("\n").join(lines)

    def _line(self, model: Model, width: int) -> Content:
        """`title  bar  38%  2.2 / 5.8 GB  112 MB/s  0:32`; figures go from the right on narrow screens."""
        transfer = model.transfer
        assert transfer is not None
        trouble = troubled(transfer)
        # Every column has one width, so that the bars of all lines end at the same cell.
        figures = [f"{percent(transfer.fraction):>4}"]
        if width >= 90:
            figures.append(f"{of_total(transfer.bytes_done, transfer.bytes_total):>18}")
        word = in_short(transfer)
        if width >= 50:
            rate, left = human_rate(transfer.bytes_per_s), human_duration(transfer.eta_s)
            figures.append(word.rjust(17) if word else f"{rate:>9}  {left:>6}")
        name_width = max(min(width // 3, 32), 8)
        right = "  ".join(figures)
        name = clip(model.title, name_width, self.glyphs.ellipsis)
        size = width - 2 - name_width - width_of(right) - 3
        done, rest = bar_cells(transfer.fraction, max(size, 0), self.glyphs)
        return Content.assemble(
            " ",
            (name + " " * (name_width - width_of(name)), "$foreground 85%"),
            " ",
            (done, "$text-warning" if trouble else "$text-primary"),
            # Terminal palettes know no shades: `dim` is the nearest.
            (rest, "dim" if self.app.native_ansi_color else "$foreground 25%"),
            (f"  {right}", "$text-warning" if trouble else "$foreground 85%"),
        )
