"""Taking figures: repeated, interleaved, with their spread, and as ratios within one run."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.tty import Terminal

YARDSTICK = "yardstick: a fixed piece of Python"
"""What times that have nothing beside them are divided by when two runs are compared."""
_BUDGET = re.compile(r"(?:p(?P<share>\d+) )?(?P<sign><=|>=|) ?(?P<limit>[\d.,]+)(?P<x>x?)")


@dataclass
class Figure:
    """One thing measured several times."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    budget: str = ""
    """What is asked for: `<= 60` of the median, `p95 <= 25`, `<= 1.5x` of the ratio; other words are words."""
    beside: str = ""
    """Name of the figure of the same run that this one is divided by."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return min(self.values), max(self.values)

    def share(self, percent: int) -> float:
        """The smallest value that at least so many of a hundred do not exceed."""
        ordered = sorted(self.values)
        return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]

    def judged(self, ratio: float | None) -> tuple[float | None, bool | None]:
        """What the budget is about, and whether it is met; None when it cannot be told."""
        found = _BUDGET.fullmatch(self.budget)
        if found is None:
            return None, None
        value = ratio if found["x"] else self.share(int(found["share"])) if found["share"] else self.median
        if value is None:
            return None, None
        limit = float(found["limit"].replace(",", ""))
        return value, value >= limit if found["sign"] == ">=" else value <= limit

    def as_json(self, ratio: float | None) -> dict[str, object]:
        """The figure as it is kept."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(self.median, 3),
            "min": round(self.spread[0], 3),
            "max": round(self.spread[1], 3),
            "runs": len(self.values),
            "beside": self.beside or None,
            "ratio": None if ratio is None else round(ratio, 3),
            "budget": self.budget or None,
            "met": self.judged(ratio)[1],
        }


class Figures:
    """All figures of a run."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    def add(self, name: str, unit: str, value: float, *, budget: str = "", beside: str = "") -> None:
        """Note one value."""
        self._figures.setdefault(name, Figure(name, unit, budget=budget, beside=beside)).values.append(value)

    def ratio(self, figure: Figure) -> float | None:
        """The figure divided by the one it is compared with: medians of the same, interleaved runs."""
        other = self._figures.get(figure.beside)
        return figure.median / other.median if other and other.median else None

    def as_json(self) -> list[dict[str, object]]:
        """All figures, in the order in which they were first noted."""
        return [each.as_json(self.ratio(each)) for each in self._figures.values()]

    def rows(self) -> list[tuple[str, ...]]:
        """All figures as a table, its head first."""
        rows: list[tuple[str, ...]] = [("", "median", "min", "max", "runs", "ratio", "beside", "budget", "")]
        for each in self._figures.values():
            ratio = self.ratio(each)
            digits = 0 if each.unit == "B" else 2 if each.unit in ("s", "%") else 1
            numbers = [f"{value:,.{digits}f}" for value in (each.median, *each.spread)]
            value, met = each.judged(ratio)
            verdict = "" if met is None else "met" if met else "MISSED"
            if met is not None and each.budget.startswith("p"):
                verdict += f" ({value:,.{digits}f})"
            rows.append(
                (
                    f"{each.name} ({each.unit})",
                    *numbers,
                    str(len(each.values)),
                    "" if ratio is None else f"{ratio:.2f}x",
                    each.beside if ratio is not None else "",
                    each.budget,
                    verdict,
                )
            )
        return rows

    def markdown(self) -> str:
        """The table for docs/performance.md."""
        head, *rest = self.rows()
        rule = ["---", *["---:"] * 5, "---", "---", "---"]
        return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rest))

    def table(self) -> str:
        """The table for people."""
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column in (0, 6, 7, 8) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


_EXACT = {"B": 1.05, "B/s": 1.15, "MiB": 1.1}
"""Units that do not depend on how busy or fast the machine is, and by how much a figure may exceed the baseline's."""
_NOISY = 1.2
"""The same for times, which must also be outside what the runs of the baseline spread over."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside the baseline."""

    worse: tuple[str, ...]
    """What has become worse, in words."""
    compared: int
    """How many figures both have."""
    without: tuple[str, ...]
    """Names of figures that the baseline does not have: nothing can be said of them."""


def compare(baseline: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Comparison:
    """Say what is worse than in the baseline.

    By the ratio to the figure it was measured beside where there is one. Other times are divided by the yardstick of
    their own run, so that another machine, or a busy one, is no regression.
    """
    before = {each["name"]: each for each in baseline}
    pace = _pace(before, {each["name"]: each for each in now})
    references = {YARDSTICK, *(each["beside"] for each in now)}
    found, without, compared = [], [], 0
    for each in now:
        was = before.get(each["name"])
        if was is None:
            without.append(each["name"])
        elif each["name"] not in references:
            compared += 1
            if said := _worse(was, each, pace):
                found.append(f"{each['name']}: {said}")
    return Comparison(tuple(found), compared, tuple(without))


def _pace(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> float:
    """How much longer the same work takes now than it did for the baseline; at least 1.

    The yardstick may have had a quiet moment that other figures did not have: that makes none of them worse.
    """
    if YARDSTICK not in before or YARDSTICK not in now or not before[YARDSTICK]["median"]:
        return 1.0
    return max(1.0, float(now[YARDSTICK]["median"] / before[YARDSTICK]["median"]))


def _worse(was: Mapping[str, Any], each: Mapping[str, Any], pace: float) -> str:
    """How a figure is worse, or nothing."""
    if each["unit"] == "MB/s":  # more is better; only beside another program does it say anything
        slower = was["ratio"] and each["ratio"] and each["ratio"] < was["ratio"] / max(_NOISY, _spread(was))
        return f"{was['ratio']:.2f}x -> {each['ratio']:.2f}x" if slower else ""
    exact = _EXACT.get(each["unit"])
    if exact is not None:
        # A median of runs that differ in kind (the last page is short) hides a longer one: compare the largest, too.
        for by in ("median", "max"):
            if each[by] > was[by] * exact + 0.5:
                return f"{by} {was[by]:,g} -> {each[by]:,g} {each['unit']}"
        return f"its budget {each['budget']} was met and is not any more" if was["met"] and each["met"] is False else ""
    if was["ratio"] and each["ratio"]:
        limit = was["ratio"] * max(_NOISY, _spread(was))
        return f"{was['ratio']:.2f}x -> {each['ratio']:.2f}x" if each["ratio"] > limit else ""
    limit = max(was["median"] * _NOISY, was["max"]) * pace
    if each["median"] > limit and each["min"] > was["median"] * pace:
        return f"{was['median'] * pace:,.3g} expected at the pace of this run -> {each['median']:,.3g} {each['unit']}"
    return ""


def _spread(was: Mapping[str, Any]) -> float:
    """How far the runs of the baseline lay from their median."""
    return float(was["max"] / was["median"]) if was["median"] else 1.0


@dataclass
class Sandbox:
    """Folders of its own for what is measured."""

    folder: Path

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a program that lives in it."""
        return {
            "HOME": str(self.folder),
            "MODELHUB_STATE_DIR": str(self.folder / "state"),
            "MODELHUB_CACHE_DIR": str(self.folder / "cache"),
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "NO_COLOR": "",
            # As installed. With byte code switched off, each start would compile what was edited last.
            "PYTHONDONTWRITEBYTECODE": "",
            **more,
        }


def yardstick_ms() -> float:
    """Wall milliseconds of a fixed piece of work: dictionaries, strings and sorting, as in most of what is measured."""
    begin = time.perf_counter()
    texts = {at: f"model-{at * 7919 % 10007}" for at in range(40_000)}
    if len(sorted(texts.values())) != len(texts):
        raise RuntimeError("the yardstick broke")
    return (time.perf_counter() - begin) * 1000


def process_ms(argv: Sequence[str | Path], env: Mapping[str, str]) -> float:
    """Wall milliseconds from exec to exit of a process without a terminal."""
    begin = time.monotonic()
    nowhere = subprocess.DEVNULL
    subprocess.run([str(each) for each in argv], env={**os.environ, **env}, check=True, stdout=nowhere, stderr=nowhere)
    return (time.monotonic() - begin) * 1000


def until_ms(argv: Sequence[str | Path], marker: bytes, env: Mapping[str, str], cwd: Path, *, leave: str = "") -> float:
    """Wall milliseconds from exec until `marker` has come out of the terminal.

    The program is then killed, or left by the key `leave` when it is to keep its state.
    """
    with Terminal(argv, env=env, cwd=cwd, emulate=False) as terminal:
        at = terminal.wait_for_bytes(marker, 60)
        if leave:
            terminal.settle(0.5)
            terminal.send(leave)
            terminal.wait(60)
        return (at - terminal.started_at) * 1000


def paint_ms(terminal: Terminal, act: Callable[[], None], quiet_s: float = 0.25) -> tuple[float, int]:
    """Milliseconds from an action to the last byte it causes, and the number of bytes."""
    before, begin = terminal.bytes_written, time.monotonic()
    act()
    after = terminal.settle(quiet_s)
    if after == before:
        return 0.0, 0
    return (terminal.reads[-1][0] - begin) * 1000, after - before


_BETWEEN_FRAMES_S = 0.005
"""A frame is one write, which arrives within a millisecond; before the next one the program has had time to rest."""


def frames_ms(terminal: Terminal, act: Callable[[], None], quiet_s: float = 0.25) -> tuple[float, float]:
    """Milliseconds from an action to the end of the first frame it causes, and to the end of the last."""
    known, begin = len(terminal.reads), time.monotonic()
    act()
    terminal.settle(quiet_s)
    times = [when for when, _ in terminal.reads[known:]]
    if not times:
        return 0.0, 0.0
    first = next((a for a, b in pairwise(times) if b - a > _BETWEEN_FRAMES_S), times[-1])
    return (first - begin) * 1000, (times[-1] - begin) * 1000
