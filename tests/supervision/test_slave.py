from __future__ import annotations

from daemonkit.supervision.slave import Cadence

from ..clock import Clock


def test_the_cadence_is_kept_whatever_the_work_takes() -> None:
    clock = Clock()
    cadence = Cadence(10, clock)
    delays = []
    for work in (0, 3, 9.5):
        clock.now += work
        delays.append(cadence.delay())
        clock.now += delays[-1]

    assert delays == [10, 7, 0.5]


def test_missed_ticks_are_left_out() -> None:
    clock = Clock()
    cadence = Cadence(10, clock)
    clock.now += 34

    assert cadence.delay() == 6


def test_work_of_exactly_one_period_does_not_lose_a_tick() -> None:
    clock = Clock()
    cadence = Cadence(10, clock)
    clock.now += 10

    assert cadence.delay() == 0
