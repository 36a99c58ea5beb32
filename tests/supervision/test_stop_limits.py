from __future__ import annotations

from daemonkit.supervision.stop_limits import StopLimits

from ..clock import Clock


def test_while_the_daemon_runs_a_slave_has_its_own_time_or_the_default() -> None:
    limits = StopLimits(25, Clock(100))

    assert limits.limit("a", None) == 125
    assert limits.limit("a", 2) == 102
    assert not limits.is_stopping_all


def test_a_slave_that_others_wait_for_leaves_each_of_them_half_a_second() -> None:
    clock = Clock(100)
    limits = StopLimits(25, clock)
    limits.stop_all(20, {"a": 0, "b": 1, "c": 2})
    clock.now = 105

    assert [limits.limit(name, None) for name in "abc"] == [120, 119.5, 119]
    assert limits.limit("c", 2) == 107
    assert limits.limit("c", 60) == 119
    assert limits.is_stopping_all


def test_all_that_is_left_to_others_is_half_of_the_time_at_most() -> None:
    limits = StopLimits(25, Clock(100))
    limits.stop_all(2, {str(depth): depth for depth in range(10)})

    assert round(limits.limit("9", None), 6) == 101.1
    assert limits.limit("0", None) == 102


def test_a_limit_that_has_passed_is_now() -> None:
    clock = Clock(100)
    limits = StopLimits(25, clock)
    limits.stop_all(2, {"a": 0, "b": 1})
    clock.now = 103

    assert limits.limit("b", None) == 103
