from __future__ import annotations

from daemonkit.events.stopwatch import BLOCK, Stopwatch
from daemonkit.events.waiting import Idle
from daemonkit.runtime.durations import BOUNDS

from ..clock import Clock

SHORT = 5e-6


class Timed:
    """A thread whose calls take as long as the test says."""

    def __init__(self) -> None:
        self.clock, self.idle = Clock(), Idle()
        self.watch = Stopwatch(self.idle, self.clock)
        self.block, self.made = 1, 0
        self.readings = 0

    def call(self, *seconds: float) -> None:
        for taken in seconds:
            self.clock.now += taken
            self.made += 1
            if self.made == self.block:
                self.end()

    def end(self) -> None:
        self.block, self.made = self.watch.end(self.made), 0
        self.readings += 1

    def wait(self, seconds: float) -> None:
        self.end()
        self.clock.now += seconds
        self.idle.seconds += seconds

    @property
    def counted(self) -> dict[float, int]:
        """How many calls took at most so many seconds."""
        counts = self.watch.durations.counts
        return {bound: count for bound, count in zip(BOUNDS, counts, strict=False) if count}


def test_slow_calls_are_timed_one_by_one() -> None:
    timed = Timed()
    for seconds in (0.009, 0.9, 0.009, 0.049):
        timed.call(seconds)
        timed.wait(100)

    assert timed.counted == {0.01: 2, 0.05: 1, 1.0: 1}
    assert round(timed.watch.durations.total, 6) == 0.967


def test_short_calls_that_follow_one_another_are_timed_in_blocks() -> None:
    timed = Timed()
    timed.call(*[SHORT] * (1 + 4 * BLOCK))

    assert timed.readings == 1 + 4
    assert sum(timed.counted.values()) == 1 + 4 * BLOCK
    assert max(timed.counted) <= 6.3e-6
    assert abs(timed.watch.durations.total - SHORT * (1 + 4 * BLOCK)) < 1e-9


def test_a_slow_call_among_short_ones_is_seen() -> None:
    timed = Timed()
    timed.call(*[SHORT] * (1 + BLOCK + 3), 1.99, *[SHORT] * (BLOCK - 4))
    assert timed.block == 1, "the next one is timed alone"
    timed.call(SHORT)

    assert timed.counted[2.0] == 1
    assert sum(timed.counted.values()) == 2 + 2 * BLOCK


def test_calls_are_counted_before_a_wait_and_the_wait_is_not() -> None:
    timed = Timed()
    timed.call(*[SHORT] * 3)
    timed.wait(60)

    assert sum(timed.counted.values()) == 3
    timed.call(*[SHORT] * 5)
    timed.end()
    assert max(timed.counted) <= 6.3e-6
    assert sum(timed.counted.values()) == 8


def test_calls_that_get_slower_together_are_soon_timed_one_by_one() -> None:
    timed = Timed()
    timed.call(*[SHORT] * (1 + BLOCK), *[0.0019] * (BLOCK + 10))

    assert timed.counted[0.002] == BLOCK + 10, "the whole block was slow, as the next one shows"
    assert timed.block == 1


def test_a_slow_block_before_a_wait_has_one_slow_call() -> None:
    timed = Timed()
    timed.call(*[SHORT] * (1 + BLOCK), *[SHORT] * 9, 0.5)
    timed.wait(60)
    timed.call(SHORT)

    assert max(timed.counted) == 0.5
    assert timed.counted[0.5] == 1


def test_what_is_done_without_a_call_is_not_counted() -> None:
    timed = Timed()
    timed.clock.now += 5
    timed.end()
    timed.call(0.009)
    timed.end()

    assert timed.counted == {0.01: 1}
