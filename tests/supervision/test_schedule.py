from __future__ import annotations

from daemonkit.supervision.schedule import Schedule

from ..clock import Clock


def test_the_rate_is_fixed_however_long_a_call_takes() -> None:
    clock = Clock()
    schedule = Schedule(10, clock)
    delays = []
    for duration in (0, 3, 9.5):
        clock.now += duration
        schedule.advance()
        delays.append(schedule.delay())
        clock.now += delays[-1]

    assert delays == [10, 7, 0.5]


def test_missed_calls_are_skipped() -> None:
    clock = Clock()
    schedule = Schedule(10, clock)
    clock.now += 34

    schedule.advance()

    assert schedule.delay() == 6


def test_a_call_of_exactly_one_period_misses_none() -> None:
    clock = Clock()
    schedule = Schedule(10, clock)
    clock.now += 10

    schedule.advance()

    assert schedule.delay() == 0
