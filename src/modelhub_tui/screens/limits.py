"""What transfers and trash may take: shown as it is in force, changed while they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input, Static

from modelhub_tui.domain import Limits
from modelhub_tui.identifiers import whole_number
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.units import human_size, parse_duration, parse_size
from modelhub_tui.values import dataclass

MOST_PARALLEL, LEAST_BPS = 16, 1024
"""What a service accepts; see docs/wire.md."""
_NONE, _DEFAULT = "no limit", "automatic"


@dataclass(frozen=True, slots=True)
class Line:
    """One limit: how it is called, shown and read."""

    id: str
    """The member of `Limits`."""
    label: str
    hint: str
    show: Callable[[Limits], str]
    read: Callable[[str], int | None]
    """Raises ValueError with a sentence."""


def _exact_size(count: int) -> str:
    """A size as it will be read again: rounded only if nothing is lost."""
    for unit, size in (("GiB", 1024**3), ("GB", 10**9), ("MiB", 1024**2), ("MB", 10**6), ("kB", 10**3)):
        if count and count % size == 0:
            return f"{count // size} {unit}"
    said = human_size(count)
    return said if parse_size(said) == count else str(count)


def _exact_time(seconds: int) -> str:
    """A duration as it will be read again."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return str(seconds)


def _parallel(text: str) -> int:
    count = whole_number(text, MOST_PARALLEL)
    if not count:
        raise ValueError(f"Transfers at a time: a number from 1 to {MOST_PARALLEL}.")
    return count


def _bandwidth(text: str) -> int:
    if text.lower() in ("", _NONE, "none", "unlimited"):
        return 0
    bps = parse_size(text)
    if 0 < bps < LEAST_BPS:
        raise ValueError("Bandwidth: at least 1.1 kB/s, or 0 for no limit.")
    return bps


def _floor(text: str) -> int | None:
    return None if text.lower() in ("", _DEFAULT, "auto") else parse_size(text)


LINES = (
    Line(
        "parallel_transfers",
        "Transfers at a time",
        "1 to 16, on each node",
        lambda it: str(it.parallel_transfers),
        _parallel,
    ),
    Line(
        "bandwidth_bps",
        "Bandwidth",
        "such as 20 MB/s; 0: no limit",
        lambda it: f"{_exact_size(it.bandwidth_bps)}/s" if it.bandwidth_bps else _NONE,
        _bandwidth,
    ),
    Line(
        "disk_floor_bytes",
        "Leave free on disk",
        "such as 10 GB, or automatic",
        lambda it: _DEFAULT if it.disk_floor_bytes is None else _exact_size(it.disk_floor_bytes),
        _floor,
    ),
    Line(
        "trash_seconds",
        "Deletions undone for",
        "such as 1h or 2d; 0: no trash",
        lambda it: _exact_time(it.trash_seconds),
        parse_duration,
    ),
    Line("trash_bytes", "Trash holds", "such as 64 GB", lambda it: _exact_size(it.trash_bytes), parse_size),
)


class LimitsScreen(Dialog[None]):
    """One line for each limit. Stays open until the router has taken them, or the user leaves."""

    AUTO_FOCUS = "#parallel_transfers"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]
    DEFAULT_CSS = """
    LimitsScreen .dialog { width: 76; }
    LimitsScreen .limit { height: 1; }
    LimitsScreen .limit-label { width: 22; }
    LimitsScreen .limit-hint { width: 1fr; margin-left: 1; color: $text-muted; }
    LimitsScreen Input { width: 16; }
    """

    @dataclass
    class Submitted(Message):
        """The user wants these limits in force."""

        screen: LimitsScreen
        limits: Limits

    def __init__(self) -> None:
        super().__init__()
        self.known: Limits | None = None
        """What is in force; None until the router has said so."""
        self._problem = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Limits"
            for line in LINES:
                with Horizontal(classes="limit"):
                    yield Static(line.label, classes="limit-label", markup=False)
                    field = Input(id=line.id, compact=True, select_on_focus=False, max_length=24, disabled=True)
                    field.cursor_blink = False
                    yield field
                    yield Static(line.hint, classes="limit-hint", markup=False)
            yield Static("Asking what is in force ...", classes="dialog-hint", id="limits-said", markup=False)
            yield Static("", classes="dialog-problem", id="limits-problem", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Close (esc)", id="limits-close", compact=True)
                yield Button("Use these (enter)", id="limits-use", compact=True)

    def on_mount(self) -> None:
        """Show what may have been said before there were widgets."""
        if self.known is not None:
            self.show(self.known)
        elif self._problem:
            self.fail(self._problem)

    def show(self, limits: Limits) -> None:
        """Fill in what is in force."""
        self.known = limits
        if not self.query("#limits-close"):
            return
        for line in LINES:
            field = self.query_one(f"#{line.id}", Input)
            field.disabled = False
            field.value = line.show(limits)
        self.query_one("#limits-said", Static).update("In force now. They change at once, also for what is running.")
        self.set_focus(self.query_one(f"#{LINES[0].id}"))

    def fail(self, why: str) -> None:
        """Say why it did not work; what was typed stays."""
        self._problem = why
        if not self.query("#limits-close"):
            return
        self.query_one("#limits-problem", Static).update(Content(why))
        if self.known is None:
            self.query_one("#limits-said", Static).update("")

    @on(Input.Changed)
    def _judge(self) -> None:
        """Say what is wrong while it is being typed."""
        if self.known is not None:
            self._read()

    def _read(self) -> Limits | None:
        """What was typed; None if something of it cannot be used, which is then shown."""
        told: dict[str, int | None] = {}
        for line in LINES:
            try:
                told[line.id] = line.read(self.query_one(f"#{line.id}", Input).value.strip())
            except ValueError as error:
                self.fail(str(error))
                return None
        self.fail("")
        return Limits(**told)  # type: ignore[arg-type]

    @on(Input.Submitted)
    @on(Button.Pressed, "#limits-use")
    def _use(self) -> None:
        if self.known is None:
            return
        limits = self._read()
        if limits is not None:
            self.post_message(self.Submitted(self, limits))

    @on(Button.Pressed, "#limits-close")
    def _close(self) -> None:
        self.dismiss(None)
