"""Frames wait for the terminal's answers on a slow link, and for nothing on any other."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from modelhub_tui.terminal.pacing import FAST_S, LATEST_S, PROBES, QUERY, WINDOW_BYTES, Pace
from tests.tty.terminal import Link, Terminal

ROOT = Path(__file__).parents[2]
BIG = WINDOW_BYTES


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced() -> tuple[Pace, Clock]:
    """A pace whose terminal has answered once, at once."""
    clock = Clock()
    pace = Pace(clock)
    assert pace.sent(10) == QUERY
    pace.answered()
    return pace, clock


def test_a_terminal_that_never_answers_is_never_waited_for_and_asked_a_few_times() -> None:
    clock = Clock()
    pace = Pace(clock)
    asked = 0
    for _ in range(200):
        assert pace.wait_s() == 0
        asked += pace.sent(BIG) == QUERY
        clock.now += 0.25
    assert asked == PROBES
    assert pace.silent


def test_the_next_frame_waits_for_the_answer_to_a_large_one() -> None:
    pace, clock = paced()
    pace.sent(BIG)
    clock.now += FAST_S
    assert pace.wait_s() > 0
    pace.answered()
    assert pace.wait_s() == 0


def test_small_frames_go_together() -> None:
    pace, clock = paced()
    pace.sent(BIG)
    clock.now += FAST_S
    pace.answered()
    pace.sent(WINDOW_BYTES // 3)
    clock.now += FAST_S
    assert pace.wait_s() == 0
    pace.sent(WINDOW_BYTES)
    assert pace.wait_s() > 0


def test_a_terminal_that_answered_at_once_is_asked_again_after_a_window_only() -> None:
    pace, clock = paced()
    assert pace.sent(WINDOW_BYTES - 200) == ""
    assert not pace.waiting
    assert pace.sent(200) == QUERY
    clock.now += FAST_S
    assert pace.wait_s() > 0, "all of it counts as on its way"
    pace.answered()
    assert pace.sent(10) == QUERY, "it took its time"


def test_a_fast_terminal_is_not_waited_for_within_a_moment() -> None:
    pace, clock = paced()
    pace.sent(BIG)
    clock.now += FAST_S / 2
    assert pace.wait_s() == 0


def test_a_lost_answer_holds_frames_up_once_and_not_for_ever() -> None:
    pace, clock = paced()
    pace.sent(BIG)
    clock.now += FAST_S
    waits_s = pace.wait_s()
    assert waits_s <= LATEST_S
    clock.now += waits_s + 0.01
    assert pace.wait_s() == 0
    assert not pace.silent
    assert pace.sent(BIG) == QUERY


def test_a_terminal_that_stops_answering_is_let_be() -> None:
    pace, clock = paced()
    for _ in range(PROBES):
        pace.sent(BIG)
        clock.now += LATEST_S + 0.1
        assert pace.wait_s() == 0
    assert pace.sent(BIG) == ""
    pace.answered()  # it was only suspended
    assert pace.sent(BIG) == QUERY


def test_slow_is_what_answers_late_again_and_again() -> None:
    pace, clock = paced()
    for number in range(4):
        assert not pace.slow, number
        pace.sent(BIG)
        clock.now += 0.25
        pace.answered()
    assert pace.slow
    pace.sent(300)
    clock.now += 0.01
    pace.answered()
    assert not pace.slow


def test_on_a_slow_link_frames_do_not_queue_up() -> None:
    link = Link(6_250, 0.1)
    with Terminal([sys.executable, "-m", "tests.tty.dashboard"], cwd=ROOT, link=link) as terminal:
        terminal.wait_for("still router", 60)
        terminal.settle(1.5, 60)
        link.most_waiting = 0
        for _ in range(12):
            terminal.send("pagedown")
            time.sleep(0.08)  # as fast as a held key repeats
        terminal.settle(1.5, 60)
        assert link.most_waiting < 6_000, "more than a frame was on its way"
        # On a slow link news are held back for two seconds: what is quiet for longer has nothing left to say.
        terminal.settle(3.5, 90)
        shown = terminal.looks()
        terminal.send("ctrl+l")
        terminal.settle(3.5, 90)
        assert terminal.looks() == shown
        terminal.send("ctrl+q")
        assert terminal.wait() == 0
        assert "[0n" not in terminal.text()
