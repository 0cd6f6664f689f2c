"""How figures grow with the number of models, nodes or cells: a line fitted to what was measured, and its fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import YARDSTICK

_SIZED = re.compile(r"(?P<what>.+), (?P<count>[\d,]+) (?P<of>models|nodes|cells)")
_FEWEST = 3
_FITS = 0.25
"""A line further than this from a measured point says nothing about what lies beyond."""


@dataclass(frozen=True, slots=True)
class Growth:
    """`fixed + per_thousand * N / 1000`, in the figure's unit."""

    what: str
    of: str
    unit: str
    points: tuple[tuple[int, float], ...]
    """How many, and the median measured at so many."""
    fixed: float
    per_thousand: float
    worst: float
    """The largest distance of a measured point from the line, as a share of the point."""

    def at(self, count: int) -> float:
        """What the line says at `count`."""
        return self.fixed + self.per_thousand * count / 1000

    def row(self) -> tuple[str, ...]:
        """A row of the table: what, points, line, how far off, and ten times the largest point."""
        points = ", ".join(f"{count:,}: {value:,.3g}" for count, value in self.points)
        line = f"{self.fixed:.2g} + {self.per_thousand:.2g} N"
        beyond = self.points[-1][0] * 10
        return (
            f"{self.what} ({self.unit})",
            points,
            line,
            f"{self.worst:.0%}",
            f"{beyond:,} {self.of}: {self.at(beyond):,.3g}" if self.worst <= _FITS else "no line fits",
        )


def growths(figures: Iterable[Mapping[str, Any]]) -> list[Growth]:
    """The lines of all figures that were measured at three sizes or more and are not nought everywhere.

    Args:
        figures: As `Figures.as_json` gives them.
    """
    points: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for each in figures:
        if not each["name"].startswith(YARDSTICK) and (found := _SIZED.fullmatch(each["name"])):
            key = (found["what"], found["of"], each["unit"])
            points.setdefault(key, []).append((int(found["count"].replace(",", "")), each["median"]))
    return [
        Growth(*key, tuple(sorted(found)), *_line(found))
        for key, found in points.items()
        if len(found) >= _FEWEST and all(value > 0 for _, value in found)
    ]


def _line(points: list[tuple[int, float]]) -> tuple[float, float, float]:
    """Least squares of relative errors, or else the largest point alone would decide; no cost starts below nought."""
    total = [0.0] * 5
    for count, value in points:
        one, size = 1 / value, count / 1000 / value  # the line divided by the value is to be 1
        for at, each in enumerate((one * one, one * size, size * size, one, size)):
            total[at] += each
    ones, mixed, sizes, one, size = total
    scale = ones * sizes - mixed * mixed
    fixed, slope = (one * sizes - size * mixed) / scale, (size * ones - one * mixed) / scale
    if fixed < 0:
        fixed, slope = 0.0, size / sizes
    elif slope < 0:
        fixed, slope = one / ones, 0.0
    worst = max(abs(fixed + slope * count / 1000 - value) / value for count, value in points)
    return fixed, slope, worst


def markdown(found: Iterable[Growth]) -> str:
    """The table for docs/performance.md."""
    rows = [("", "measured", "line, N in thousands", "worst", "ten times as many"), ("---",) * 5]
    return "\n".join("| " + " | ".join(row) + " |" for row in (*rows, *(each.row() for each in found)))
