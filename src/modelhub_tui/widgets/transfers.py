"""What is moving right now: a few lines with a bar each, shown only while there is something to show."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.geometry import Region
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from modelhub_tui.domain import Model, Phase
from modelhub_tui.units import human_duration, human_rate
from modelhub_tui.widgets.card_parts import bar_cells, of_total, percent
from modelhub_tui.widgets.cells import Line, clip, width_of
from modelhub_tui.widgets.drawn import DrawnStrip, cropped
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs
from modelhub_tui.widgets.progress import in_short, troubled

_MOVING = (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)


_ROLES = ("text", "busy", "warn", "rest", "muted")


class TransfersStrip(Widget):
    """One line per moving transfer, at most `limit`; then how many more.

    Drawn as lines of styled pieces: as `Content`, whose colours are read anew each time, it cost more than all cards.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"transfers-strip--{role}" for role in _ROLES}
    DEFAULT_CSS = """
    TransfersStrip {
        height: 1;
        background: $background;
        .transfers-strip--text { color: $foreground 85%; }
        .transfers-strip--busy { color: $text-primary; }
        .transfers-strip--warn { color: $text-warning; }
        .transfers-strip--rest { color: $foreground 25%; }
        .transfers-strip--muted { color: $foreground 55%; }
        &:ansi {
            .transfers-strip--text { color: ansi_default; }
            /* Terminal palettes know no shades: `dim` is the nearest. */
            .transfers-strip--rest, .transfers-strip--muted { color: ansi_default; text-style: dim; }
        }
    }
    """

    models: reactive[tuple[Model, ...]] = reactive((), repaint=False)
    """Any models; those that move are drawn."""

    def __init__(
        self, *, limit: int = 3, glyphs: Glyphs = UNICODE, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.limit, self.glyphs = limit, glyphs
        self._moving: tuple[Model, ...] = ()
        self._looks: dict[str, Style] = {}
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

    def notify_style_update(self) -> None:
        """Forget styles: the theme has changed."""
        super().notify_style_update()
        self._looks.clear()

    def _look(self, role: str) -> Style:
        look = self._looks.get(role)
        if look is None:
            look = self._looks[role] = self.get_visual_style(f"transfers-strip--{role}").rich_style
        return look

    def render_lines(self, crop: Region) -> list[Strip]:
        """Draw the lines."""
        width = self.size.width
        lines = [self._line(each, width) for each in self._moving[: self.limit]]
        more = self._moving[self.limit :]
        if more:
            rate = sum(each.bytes_per_s or 0.0 for model in more for each in model.transfers)
            speed = f" {self.glyphs.dot} {human_rate(rate)}" if rate else ""
            lines.append(Line().add(f" +{len(more)} more{speed}"[:width], self._look("muted")))
        lines += [Line() for _ in range(len(lines), self.size.height)]
        strips: list[Strip] = [DrawnStrip(each.pad(width, self._look("text")).segments, width) for each in lines]
        return cropped(self, strips[crop.y : crop.bottom], crop)

    def _line(self, model: Model, width: int) -> Line:
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
        text = self._look("text")
        line = Line().add(f" {name}", text).pad(name_width + 2, text)
        line.add(done, self._look("warn" if trouble else "busy")).add(rest, self._look("rest"))
        return line.add(f"  {right}", self._look("warn") if trouble else text)
