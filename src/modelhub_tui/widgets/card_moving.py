"""The last lines of a card while its model is on its way: bar, figures, what it waits for, action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter

from modelhub_tui.actions import orphaned, waits_for_room
from modelhub_tui.domain import Model, ModelState, Phase, Transfer
from modelhub_tui.units import human_duration, human_rate
from modelhub_tui.widgets.card_parts import LinePen, Part, half_cells, of_total, percent, tag_parts
from modelhub_tui.widgets.cells import Line, width_of, wrap
from modelhub_tui.widgets.progress import doing, file_of, standing, troubled, why_paused

Row = Callable[[Line, int], None]
"""Draws one line of a card, whose number it is told."""


_FIGURES = ("bytes_done", "bytes_per_s", "eta_s")
_but_figures = attrgetter(*(each.name for each in fields(Transfer) if each.name not in _FIGURES))


def shows_the_same(was: Transfer, now: Transfer, bar: int) -> bool:
    """Whether a transfer has moved on by too little to show in a card whose bar has so many cells."""
    return bool(_but_figures(was) == _but_figures(now)) and _figures(was, bar) == _figures(now, bar)


def _figures(transfer: Transfer, bar: int) -> tuple[object, ...]:
    """All that a card shows of the figures that change with every report."""
    fraction = transfer.fraction
    return (
        half_cells(fraction, bar),
        percent(fraction),
        of_total(transfer.bytes_done, transfer.bytes_total),
        human_rate(transfer.bytes_per_s),
        human_duration(transfer.eta_s),
    )


class MovingPen(LinePen):
    """Draws what moves, waits or failed."""

    model: Model

    def moving(self, tall: bool) -> list[Row]:
        """The lines: two on a tall card, else one."""
        model = self.model
        transfer = model.transfer
        lost = orphaned(model)
        if model.state is ModelState.FAILED and not lost:
            return self._reason(tall, model.reason or "failed", "bad")
        if model.state is ModelState.QUEUED or transfer is None:
            if model.state is ModelState.PAUSED:
                return self._reason(tall, why_paused(model) or "paused", "warn")
            role = "warn" if model.state is ModelState.QUEUED else "text"
            return self._reason(tall, standing(model) or "waiting", role)
        paused = model.state is ModelState.PAUSED
        role = "bad" if lost else "warn" if paused or troubled(transfer) else "busy"
        figures, note = self._figures(transfer, paused), None
        if lost or troubled(transfer):
            said = doing(transfer, model)
            note = (f"{said}: {transfer.error}" if transfer.error and not lost else said, "bad" if lost else "warn")
        elif waits_for_room(model):
            note = (why_paused(model), "warn")
        if tall:

            def full_bar(line: Line, _at: int) -> None:
                self.bar(line, transfer.fraction, self.end - line.width - 6, role)
                line.add(percent(transfer.fraction).rjust(6), self.style("text"))

            def below(line: Line, at: int) -> None:
                self.with_action(line, at, [] if note else figures, shrink=note)

            return [full_bar, below]

        def one_line(line: Line, at: int) -> None:
            if note and self.space >= 44:
                # The bar stays, short: how far it came matters while it tries again.
                self.bar(line, transfer.fraction, 8, role)
                line.add(f" {percent(transfer.fraction)}  ", self.style("text"))
                self.with_action(line, at, [], shrink=note)
            elif note:
                self.with_action(line, at, [], shrink=note)
            else:
                done = Part(0, ((percent(transfer.fraction).rjust(4), "text"),))
                self.with_action(line, at, [done, *figures], bar=(transfer.fraction, role), separator="  ")

        return [one_line]

    def _figures(self, transfer: Transfer, paused: bool) -> list[Part]:
        """Bytes, speed and time left; or what is done instead of fetching."""
        done = of_total(transfer.bytes_done, transfer.bytes_total)
        out = [Part(4, ((done, "text"),))]
        if paused:
            out.append(Part(3, ((why_paused(self.model) or "paused", "warn"),)))
        elif transfer.phase is Phase.VERIFYING:
            out.append(Part(3, (("verifying", "busy"),)))
        elif transfer.phase is Phase.WAITING:
            out.append(Part(3, (("waiting", "warn"),)))
        else:
            if transfer.bytes_per_s is not None:
                out.append(Part(5, ((human_rate(transfer.bytes_per_s), "text"),)))
            if transfer.eta_s is not None:
                out.append(Part(3, ((human_duration(transfer.eta_s), "text"),)))
        if file := file_of(transfer):
            out.append(Part(6, ((file, "muted"),)))
        return out

    def _reason(self, tall: bool, reason: str, role: str) -> list[Row]:
        """Why it waits or failed: two lines on a tall card, the last one beside the action."""
        action = self.action_width(True)
        if not tall or width_of(reason) <= self.space - action - 2:

            def only(line: Line, at: int) -> None:
                self.with_action(line, at, [], shrink=(reason, role))

            return [self.tags_only, only] if tall else [only]
        first = wrap(reason, self.space, 2, "")[0]
        rest = reason[len(first) :].lstrip()

        def upper(line: Line, _at: int) -> None:
            line.add(first, self.style(role))

        def lower(line: Line, at: int) -> None:
            self.with_action(line, at, [], shrink=(rest, role))

        return [upper, lower]

    def tags_only(self, line: Line, _at: int) -> None:
        """The tags, and no action."""
        self.spread(line, tag_parts(self.model.tags), [], separator="  ")
