from __future__ import annotations

from typing import Any

import pytest

from daemonkit import RegistrationError
from daemonkit.supervision.restart import (
    KEPT_RESTARTS,
    Intensity,
    RestartHistory,
    RestartPolicy,
    Restarts,
    check_backoff,
)

from ..clock import Clock


def crash_loop(
    policy: RestartPolicy, chance: float, seconds: float, lasts: float = 0
) -> list[float]:
    """The delays of a slave that fails again and again, `lasts` seconds after each start."""
    clock = Clock()
    restarts = Restarts(policy, clock, lambda: chance)
    delays: list[float] = []
    restarts.started()
    while clock.now < 100 + seconds:
        clock.now += lasts
        if restarts.intensity.is_exhausted:
            break
        delays.append(restarts.next_delay())
        clock.now += delays[-1]
        restarts.started()
    return delays


@pytest.mark.parametrize(
    ("chance", "delays"),
    [(0, [1, 2, 4, 8, 16]), (1, [1.5, 3, 6, 12, 24]), (0.5, [1.25, 2.5, 5, 10, 20])],
)
def test_by_default_a_crash_loop_gives_up_after_five_restarts_and_at_most_46_and_a_half_seconds(
    chance: float, delays: list[float]
) -> None:
    assert crash_loop(RestartPolicy(), chance, 1000) == delays
    assert sum(delays) <= 46.5


def test_without_a_limit_the_delay_grows_to_the_longest_and_still_differs() -> None:
    policy = RestartPolicy(max_restarts=None)

    assert crash_loop(policy, 0, 300)[4:8] == [16, 32, 40, 40]
    assert crash_loop(policy, 1, 300)[4:8] == [24, 48, 60, 60]


@pytest.mark.parametrize("backoff", [(1, 60), (0, 0), (5, 5), (1, 1.2), (0, 10)])
@pytest.mark.parametrize("chance", [0, 1])
def test_every_delay_is_within_the_bounds(backoff: tuple[float, float], chance: float) -> None:
    delays = crash_loop(RestartPolicy(backoff=backoff, max_restarts=50), chance, 10_000)

    assert len(delays) == 50 or backoff[1] > 1
    assert all(backoff[0] <= delay <= backoff[1] for delay in delays)


def test_a_long_back_off_does_not_hide_a_crash_loop() -> None:
    assert len(crash_loop(RestartPolicy(backoff=(2, 60)), 1, 1000)) == 5
    assert len(crash_loop(RestartPolicy(backoff=(60, 600)), 1, 10_000)) == 5


def test_restarts_further_apart_than_the_window_are_not_limited() -> None:
    policy = RestartPolicy(backoff=(1, 1), max_restarts=2, within=10)

    assert len(crash_loop(policy, 0, 1000, lasts=4.9)) == 2
    assert len(crash_loop(policy, 0, 1000, lasts=5)) > 100


def test_asking_whether_restarts_are_exhausted_counts_none() -> None:
    restarts = Restarts(RestartPolicy(max_restarts=1), Clock(), lambda: 0)

    assert [restarts.intensity.is_exhausted for _ in range(3)] == [False] * 3
    restarts.next_delay()
    assert restarts.intensity.is_exhausted


def test_the_back_off_starts_over_once_a_run_lasts_longer_than_the_longest_wait() -> None:
    policy = RestartPolicy(backoff=(1, 8), max_restarts=None)

    assert set(crash_loop(policy, 0, 1000, lasts=8.1)) == {1}
    assert max(crash_loop(policy, 0, 1000, lasts=7.9)) > 5


def test_thousands_of_restarts_do_not_overflow() -> None:
    assert len(crash_loop(RestartPolicy(backoff=(1e-9, 1), max_restarts=None), 0, 2000)) > 2000


@pytest.mark.parametrize(
    ("restart", "failed", "expected"),
    [
        ("on-failure", True, True),
        ("on-failure", False, False),
        ("always", True, True),
        ("always", False, True),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_the_policy_says_what_is_restarted(restart: Any, failed: bool, expected: bool) -> None:
    assert RestartPolicy(restart).restarts_after(failed) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, (5, 60)),
        (0, (0, 60)),
        (0.5, (0.5, 60)),
        (90, (90, 90)),
        ((1, 10), (1, 10)),
        ([2, 2], (2, 2)),
    ],
)
def test_a_back_off_is_the_first_wait_or_the_first_and_the_longest(
    value: Any, expected: tuple[float, float]
) -> None:
    assert check_backoff("backoff", value) == expected


def test_the_longest_wait_beside_a_number_is_the_caller_s() -> None:
    assert check_backoff("backoff", 5, 3600) == (5, 3600)


@pytest.mark.parametrize(
    "value", [-1, True, "5", None, float("nan"), float("inf"), (5, 1), (1,), (1, 2, 3), (1, "2")]
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        check_backoff("backoff", value)

    assert str(caught.value) == (
        "backoff must be a number of seconds, or the first and the longest wait, "
        f"as in (1, 60), not {value!r} ({type(value).__name__})"
    )


def test_no_more_times_are_kept_than_restarts_are_allowed() -> None:
    for most, kept in ((None, 0), (0, 0), (3, 3)):
        intensity = Intensity(most, 1e8, Clock())
        for _ in range(10):
            intensity.count()

        assert len(intensity._recent) == kept
        assert intensity.is_exhausted == (most is not None)


def test_the_restarts_of_all_are_limited_within_the_period() -> None:
    clock = Clock(100)
    intensity = Intensity(2, 10, clock)
    exhausted = []
    for now in (100, 105, 106, 110, 111):
        clock.now = now
        exhausted.append(intensity.is_exhausted)
        if not exhausted[-1]:
            intensity.count()

    assert exhausted == [False, False, True, False, True]
    assert intensity.exceeded(" of all") == "2 restarts within 10 s of all were not enough"
    assert Intensity(1, 10).exceeded() == "1 restart within 10 s was not enough"
    assert Intensity(0, 10).exceeded() == "no restart within 10 s is allowed"
    intensity.reset()
    assert not intensity.is_exhausted


def test_the_history_has_the_last_reasons_and_counts_what_is_to_count() -> None:
    history = RestartHistory()
    counted = [history.started()]
    for number in range(2 * KEPT_RESTARTS):
        history.plan(str(number), counted=number % 2 == 0)
        counted.append(history.started())
    counted.append(history.started())

    assert counted == [False, *[True, False] * KEPT_RESTARTS, False]
    assert history.counted == KEPT_RESTARTS
    assert [each["reason"] for each in history.shown()] == [
        str(number) for number in range(KEPT_RESTARTS, 2 * KEPT_RESTARTS)
    ]
