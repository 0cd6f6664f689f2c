"""Frames as differences, in a real pseudo-terminal: the screen always equals a full repaint, and costs few bytes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tty import Terminal

ROOT = Path(__file__).parents[2]
ACTIONS = (
    "down",
    "up",
    "pagedown",
    "pageup",
    "home",
    "end",
    "wheel_down",
    "wheel_up",
    "e",
    "d",
    "escape",
    "t",
    "n",
    "/",
    "x",
    "backspace",
    "resize",
)


def sample(size: tuple[int, int] = (80, 24), **env: str) -> Terminal:
    return Terminal([sys.executable, "-m", "tests.tty.sample_app"], size=size, env=env, cwd=ROOT)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with sample() as terminal:
        terminal.wait_for("ready")
        terminal.settle()
        yield terminal


def test_any_actions_leave_what_a_full_repaint_shows() -> None:
    choose = random.Random(1)
    with sample() as terminal:
        terminal.wait_for("ready")
        terminal.settle()
        done: list[str] = []
        for _ in range(12):
            for _ in range(choose.randint(1, 4)):
                action = choose.choice(ACTIONS)
                done.append(action)
                if action == "resize":
                    terminal.resize(choose.randint(30, 110), choose.randint(12, 40))
                else:
                    terminal.send(action)
            terminal.settle(0.2)
            shown = terminal.looks()
            terminal.send("ctrl+l")
            terminal.settle(0.2)
            assert shown == terminal.looks(), f"differs after {done}"


def test_shows_what_stock_painting_shows() -> None:
    """The same actions with and without; without text that terminals disagree about, where stock goes astray."""
    screens = []
    for wire in ("delta", "plain"):
        with sample(MODELHUB_WIRE=wire, SAMPLE_WORDS="plain") as terminal:
            terminal.wait_for("ready")
            terminal.settle()
            for action in ("pagedown", "wheel_down", "e", "d", "escape", "t", "/", "abc", "n", "down"):
                terminal.send(action)
                terminal.settle(0.2)
                screens.append(terminal.looks())
    half = len(screens) // 2
    assert screens[:half] == screens[half:]


def test_a_full_repaint_mends_a_damaged_screen(terminal: Terminal) -> None:
    whole = terminal.looks()
    terminal.emulator.feed(b"\x1b[2J\x1b[5;5Hnoise")
    assert terminal.looks() != whole
    terminal.send("ctrl+l")
    terminal.wait_for("ready")
    terminal.settle()
    assert terminal.looks() == whole


def test_the_focus_coming_back_repaints(terminal: Terminal) -> None:
    whole = terminal.looks()
    terminal.send("\x1b[O")
    terminal.settle()
    terminal.emulator.feed(b"\x1b[2J")
    terminal.send("\x1b[I")
    terminal.wait_for("ready")
    terminal.settle()
    assert terminal.looks() == whole


def test_text_that_would_not_simply_show_is_left_to_stock(terminal: Terminal) -> None:
    terminal.send("z")
    terminal.wait_for("ab")
    start = terminal.settle()
    assert b"\x07" in terminal.output
    # And afterwards differences again.
    terminal.send("ctrl+l")
    terminal.settle()
    before = terminal.bytes_written
    terminal.send("/")
    terminal.settle()
    terminal.send("q")
    terminal.wait_for("typed: q")
    assert terminal.settle() - before < 3000
    assert before > start


def test_resizing_there_and_back_leaves_the_right_picture(terminal: Terminal) -> None:
    whole = terminal.looks()
    terminal.resize(50, 12)
    terminal.resize(80, 24)
    terminal.settle(0.5)
    assert terminal.looks() == whole


def test_a_wheel_tick_costs_little(terminal: Terminal) -> None:
    terminal.send("pagedown", "pagedown")
    start = terminal.settle()
    terminal.send("wheel_down")
    assert 0 < terminal.settle() - start < 2000


def test_nothing_is_written_while_nothing_happens(terminal: Terminal) -> None:
    terminal.send("/")
    start = terminal.settle(0.5)
    assert terminal.settle(1.0) == start


def test_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.send("ctrl+q")
    assert terminal.wait() == 0
    assert not terminal.emulator.screen.in_alternate
    assert "ready" not in terminal.text()
