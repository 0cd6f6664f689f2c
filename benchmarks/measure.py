"""Taking figures: repeated, interleaved, with their spread, and as ratios within one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.tty import Terminal


@dataclass
class Figure:
    """One thing measured several times."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    budget: str = ""
    """What perf budgets ask for, in words."""
    beside: str = ""
    """Name of the figure of the same run that this one is divided by."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return min(self.values), max(self.values)

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

    def table(self) -> str:
        """All figures as a table for people."""
        rows = [("", "median", "min", "max", "runs", "ratio", "beside", "budget")]
        for each in self._figures.values():
            ratio = self.ratio(each)
            digits = 0 if each.unit == "B" else 1
            numbers = [f"{value:,.{digits}f}" for value in (each.median, *each.spread)]
            rows.append(
                (
                    f"{each.name} ({each.unit})",
                    *numbers,
                    str(len(each.values)),
                    "" if ratio is None else f"{ratio:.2f}x",
                    each.beside if ratio is not None else "",
                    each.budget,
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column in (0, 6, 7) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


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
            **more,
        }


def process_ms(argv: Sequence[str | Path], env: Mapping[str, str]) -> float:
    """Wall milliseconds from exec to exit of a process without a terminal."""
    begin = time.monotonic()
    subprocess.run([str(each) for each in argv], env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)
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
