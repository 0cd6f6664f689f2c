"""What a transfer says of itself: totals that never go back, stalls that are said, a history, and clocks that jump."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui.domain import Phase
from modelhub_tui.service.node import faults, progress
from modelhub_tui.service.node.progress import MAX_EVENTS, History, Progress
from modelhub_tui.service.node.record import Entry, Record
from tests.hub import MIB, LoopbackHub
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of
from tests.node.test_download import NAME, tiny
from tests.node.test_parts import Clock


def fetching(clock: Clock, *sizes: int, **more: object) -> Progress:
    """A progress in the middle of its first file."""
    made = Progress("m", clock=clock, **more)  # type: ignore[arg-type]
    made.plan([(f"f{number}", size, 0) for number, size in enumerate(sizes)])
    made.phase(Phase.FETCHING)
    made.begin_file(0, sizes[0], 0)
    return made


def test_wrong_bytes_are_fetched_again_in_the_open_and_the_total_waits_for_them() -> None:
    clock = Clock()
    told = fetching(clock, 1000, 1000)
    told.advanced(0, 1000)
    told.dropped_file(0)
    seen = told.snapshot()
    assert (seen.bytes_done, seen.refetched_bytes, told.missing_bytes()) == (1000, 0, 2000)
    told.begin_file(0, 1000, 0)
    clock.now += 1
    told.advanced(0, 400)
    clock.now += 1
    seen = told.snapshot()
    assert (seen.bytes_done, seen.refetched_bytes) == (1000, 400)
    assert seen.bytes_per_s == 700.0, "what arrives is speed, for the first time or again"
    assert seen.eta_s == pytest.approx(1600 / 700), "and has to arrive before it is done"
    told.advanced(0, 600)
    told.begin_file(1, 1000, 0)
    told.advanced(1, 5)
    seen = told.snapshot()
    assert (seen.bytes_done, seen.refetched_bytes, told.missing_bytes()) == (1005, 1000, 995)
    assert told.history[-1][1] == "f0 was damaged: all of it has to be fetched again."


def test_what_a_crash_of_the_machine_took_is_no_progress_twice() -> None:
    told = fetching(Clock(), 1000)
    told.advanced(0, 600)
    told.plan([("f0", 1000, 500)])  # the next attempt finds less on the disk
    told.begin_file(0, 1000, 500)
    assert (told.bytes_done, told.missing_bytes()) == (600, 500)
    told.advanced(0, 200)
    seen = told.snapshot()
    assert (seen.bytes_done, seen.refetched_bytes) == (700, 100)


def test_a_failed_transfer_tells_what_is_really_there() -> None:
    told = fetching(Clock(), 1000)
    told.advanced(0, 1000)
    told.dropped_file(0)
    told.phase(Phase.FAILED, faults.checksum("f0"))
    assert told.snapshot().bytes_done == 0


@given(st.lists(st.tuples(st.sampled_from(["advance", "drop", "lose", "next", "retry"]), st.integers(0, 500))))
def test_a_total_never_goes_back_and_every_byte_is_counted_once(steps: list[tuple[str, int]]) -> None:
    told, at, have, arrived = fetching(Clock(), 1000, 1000), 0, [0, 0], 0
    done = 0
    for step, count in steps:
        if step == "advance":
            count = min(count, 1000 - have[at])
            told.advanced(at, count)
            have[at] += count
            arrived += count
        elif step == "drop":
            told.dropped_file(at)
            have[at] = 0
        elif step == "lose":
            have[at] = max(have[at] - count, 0)
            told.begin_file(at, 1000, have[at])
        elif step == "next":
            at = 1 - at
            told.begin_file(at, 1000, have[at])
        else:
            told.phase(Phase.RETRYING, faults.stalled("cdn", 1), attempt=1, retry_in_s=1)
            told.phase(Phase.FETCHING)
        seen = told.snapshot()
        assert done <= seen.bytes_done <= 2000
        assert seen.bytes_done + seen.refetched_bytes == arrived
        assert told.missing_bytes() == 2000 - sum(have)
        done = seen.bytes_done


def test_a_silence_is_told_from_the_last_byte_on_through_every_retry() -> None:
    clock = Clock()
    told = fetching(clock, 1000)
    told.advanced(0, 10)
    clock.now += 2.9
    assert told.snapshot().stalled_s is None
    clock.now += 9.1
    assert told.snapshot().as_wire()["stalled_s"] == 12.0
    assert told.snapshot().bytes_per_s == 0.0 and told.snapshot().eta_s is None
    told.phase(Phase.RETRYING, faults.stalled("cdn", 12), attempt=2, retry_in_s=4)
    clock.now += 1
    seen = told.snapshot()
    assert (seen.stalled_s, seen.retry_in_s) == (13.0, 3.0)
    told.phase(Phase.FETCHING)
    clock.now += 2
    assert told.snapshot().stalled_s == 15.0, "asking again brings no byte yet"
    told.advanced(0, 1)
    assert told.snapshot().stalled_s is None
    for quiet in (Phase.VERIFYING, Phase.PAUSED, Phase.WAITING, Phase.FAILED):
        told.phase(Phase.FETCHING)
        clock.now += 100
        assert told.snapshot().stalled_s is not None
        told.phase(quiet)
        assert told.snapshot().stalled_s is None, quiet


def test_a_clock_that_jumps_changes_nothing_but_the_times_that_are_shown() -> None:
    clock, wall = Clock(), Clock()
    told = fetching(clock, 1000, wall_clock=wall)
    told.advanced(0, 100)
    clock.now += 1
    before = told.snapshot()
    told.phase(Phase.RETRYING, faults.stalled("cdn", 12), attempt=1, retry_in_s=4)
    for jump in (3600, -7200):
        wall.now += jump
        seen = told.snapshot()
        assert (seen.retry_in_s, seen.stalled_s, seen.bytes_done) == (4, None, before.bytes_done)
    told.note("It went on.")
    assert [at for at, _ in told.history] == [100.0, 100.0 - 3600]


# -- history


def test_the_last_events_are_kept_and_one_cause_in_a_row_is_one_event() -> None:
    written: list[History] = []
    told = fetching(Clock(), 10**9)
    told.on_event = written.append
    told.note("Started.")
    for _ in range(50):
        told.phase(Phase.RETRYING, faults.connection_lost("cdn", "reset"), attempt=1, retry_in_s=0.1)
        told.phase(Phase.FETCHING)
        told.advanced(0, 10_000_000)
    assert [what for _, what in told.history] == [
        "Started.",
        "The connection to cdn broke (reset). Tried again 50 times, last at 490 MB.",
    ]
    told.phase(Phase.RETRYING, faults.status("cdn", 503), attempt=1, retry_in_s=0.1)
    assert told.history[-1][1] == "cdn answers with error 503. Tried again at 500 MB."
    for number in range(20):
        told.note(f"Event {number}.")
    assert len(told.history) == MAX_EVENTS and told.history[-1][1] == "Event 19."
    assert written[-1] == told.history


def test_the_record_keeps_history_pause_and_place(tmp_path: Path) -> None:
    entry = Entry("m", "s", paused=True, queue=3.0, history=((1.5, "Started."), (2.5, "Paused at 1.2 GB.")))
    record = Record(tmp_path / "node.db")
    record.put(entry)
    record.set_setting("limits", "{}")
    record.close()
    again = Record(tmp_path / "node.db")
    assert again.entries() == [entry]
    assert (again.setting("limits"), again.setting("other")) == ("{}", None)
    again.close()


# -- against the hub


def test_a_stalled_line_is_said_while_it_lasts_and_remembered(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STALLED_S", 0.2)
    repo = tiny(empty_hub, 4 * MIB)
    stall = empty_hub.fault(server="cdn", stall_after=MIB, times=1)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=1.0, backoff_base_s=1.0, backoff_cap_s=1.0):
        assert stall.stalled.wait(30)
        still = router.wait(
            lambda: (t := router.transfer(NAME)) and t["bytes_done"] and t["stalled_s"] is not None and t
        )
        assert still["phase"] == "fetching" and still["bytes_done"] == MIB
        again = router.wait_phase(NAME, "retrying")
        assert again["stalled_s"] >= 1.0 and again["error_code"] == "stalled" and again["retry_in_s"] is not None
        router.wait_whole(NAME)
    history = [what for _, what in Record(tmp_path / "state" / "node" / "node.db").entries()[0].history]
    assert history[0] == "Started." and history[-1] == "Verified: every byte is there."
    assert any(each.endswith("Tried again at 1.0 MB.") for each in history), history


def test_damage_on_the_way_is_told_as_bytes_fetched_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = tiny(empty_hub, 3 * MIB)
    empty_hub.fault(server="cdn", flip_at=MIB // 2)
    empty_hub.throttle_bps = 6e6
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
    told = [each for beat in router.heartbeats for each in beat["transfers"]]
    done = [each["bytes_done"] for each in told]
    assert done == sorted(done), "a total went backwards"
    assert max(each["refetched_bytes"] for each in told) > MIB
