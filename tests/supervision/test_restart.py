from __future__ import annotations

from typing import Any

import pytest

from daemonkit.supervision.restart import RestartPolicy, Restarts

from ..clock import Clock


def crash_loop(
    policy: RestartPolicy, chance: float, seconds: float, lasts: float = 0
) -> list[float]:
    """The waits of a slave that fails again and again, `lasts` seconds after each start."""
    clock = Clock()
    restarts = Restarts(policy, clock, lambda: chance)
    waits: list[float] = []
    restarts.began()
    while clock.now < 100 + seconds:
        clock.now += lasts
        wait = restarts.delay()
        if wait is None:
            break
        waits.append(wait)
        clock.now += wait
        restarts.began()
    return waits


@pytest.mark.parametrize(
    ("chance", "waits"),
    [(0, [1, 2, 4, 8, 16]), (1, [1.5, 3, 6, 12, 24]), (0.5, [1.25, 2.5, 5, 10, 20])],
)
def test_by_default_a_crash_loop_gives_up_after_five_restarts_and_at_most_46_and_a_half_seconds(
    chance: float, waits: list[float]
) -> None:
    assert crash_loop(RestartPolicy(), chance, 1000) == waits
    assert sum(waits) <= 46.5


def test_without_a_limit_the_wait_grows_to_the_longest_and_still_differs() -> None:
    policy = RestartPolicy(max_restarts=None)

    assert crash_loop(policy, 0, 300)[4:8] == [16, 32, 40, 40]
    assert crash_loop(policy, 1, 300)[4:8] == [24, 48, 60, 60]


@pytest.mark.parametrize("backoff", [(1, 60), (0, 0), (5, 5), (1, 1.2), (0, 10)])
@pytest.mark.parametrize("chance", [0, 1])
def test_every_wait_is_within_the_bounds(backoff: tuple[float, float], chance: float) -> None:
    waits = crash_loop(RestartPolicy(backoff=backoff, max_restarts=50), chance, 10_000)

    assert len(waits) == 50 or backoff[1] > 1
    assert all(backoff[0] <= wait <= backoff[1] for wait in waits)


def test_a_longer_back_off_does_not_keep_a_crash_loop_from_being_one() -> None:
    assert len(crash_loop(RestartPolicy(backoff=(2, 60)), 1, 1000)) == 5
    assert len(crash_loop(RestartPolicy(backoff=(60, 600)), 1, 10_000)) == 5


def test_restarts_further_apart_than_the_window_go_on_for_ever() -> None:
    policy = RestartPolicy(backoff=(1, 1), max_restarts=2, within=10)

    assert len(crash_loop(policy, 0, 1000, lasts=4.9)) == 2
    assert len(crash_loop(policy, 0, 1000, lasts=5)) > 100


def test_what_ends_a_slave_that_lived_long_is_a_new_trouble() -> None:
    policy = RestartPolicy(backoff=(1, 8), max_restarts=None)

    assert set(crash_loop(policy, 0, 1000, lasts=8.1)) == {1}
    assert max(crash_loop(policy, 0, 1000, lasts=7.9)) > 5


def test_thousands_of_restarts_do_not_overflow() -> None:
    assert len(crash_loop(RestartPolicy(backoff=(1e-9, 1), max_restarts=None), 0, 2000)) > 2000


@pytest.mark.parametrize(
    ("restart", "failed", "wanted"),
    [
        ("on-failure", True, True),
        ("on-failure", False, False),
        ("always", True, True),
        ("always", False, True),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_the_policy_says_what_is_restarted(restart: Any, failed: bool, wanted: bool) -> None:
    assert Restarts(RestartPolicy(restart)).wanted(failed) is wanted
