"""The bandwidth cap by itself; on real transfers it is tested with the queue and with several connections."""

from __future__ import annotations

import threading
import time

from modelhub_tui.service.node.throttle import Throttle


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Waits(threading.Event):
    """A stop that is never set; waiting for it moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._clock.now += timeout
        return self.is_set()


def test_what_is_read_never_runs_ahead_of_the_cap() -> None:
    clock = Clock()
    throttle, stop = Throttle(1_000_000, clock), Waits(clock)
    for _ in range(200):
        throttle.spend(50_000, stop)
    assert 9.8 <= clock.now <= 10.0  # 10 MB at 1 MB/s, less the slice one may be ahead


def test_a_pause_saves_up_no_more_than_a_moment() -> None:
    clock = Clock()
    throttle, stop = Throttle(1_000_000, clock), Waits(clock)
    clock.now = 3600.0
    for _ in range(20):
        throttle.spend(50_000, stop)
    assert clock.now >= 3600.85


def test_without_a_cap_nothing_waits_and_blocks_stay_large() -> None:
    throttle = Throttle()
    never = threading.Event()
    throttle.spend(10**12, never)
    assert throttle.block(1 << 20) == 1 << 20
    throttle.set(100_000)
    assert throttle.block(1 << 20) == 10_000
    assert throttle.block(100) == 100


def test_several_readers_share_one_cap() -> None:
    throttle, stop = Throttle(4_000_000), threading.Event()
    moved = [0] * 4
    begin = time.monotonic()

    def read(index: int) -> None:
        while time.monotonic() - begin < 0.6:
            throttle.spend(20_000, stop)
            moved[index] += 20_000

    threads = [threading.Thread(target=read, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    took = time.monotonic() - begin
    assert sum(moved) <= 4_000_000 * (took + 0.1) + 80_000
    assert all(moved)


def test_lifting_the_cap_frees_who_waits_and_stop_frees_them_at_once() -> None:
    for end in ("lift", "stop"):
        throttle, stop = Throttle(1), threading.Event()
        waiting = threading.Thread(target=throttle.spend, args=(10**9, stop), daemon=True)
        waiting.start()
        while throttle._owed < 10**8:
            assert waiting.is_alive()
        begin = time.monotonic()
        throttle.set(0) if end == "lift" else stop.set()
        waiting.join(30)
        assert not waiting.is_alive()
        assert time.monotonic() - begin < 5
