from __future__ import annotations

import random
from statistics import quantiles

import pytest

from daemonkit.runtime.durations import BOUNDS, Durations, added, quantile


def test_the_bounds_rise_from_a_microsecond_to_minutes() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert (BOUNDS[0], BOUNDS[-1]) == (1e-6, 800.0)


def test_calls_are_counted_in_the_bucket_that_they_fit_into() -> None:
    durations = Durations()
    durations.add(0.001)
    durations.add(0.0010001, 2)
    durations.add(1e6)

    assert [n for n, count in enumerate(durations.counts) if count] == [
        BOUNDS.index(0.001),
        BOUNDS.index(0.00125),
        len(BOUNDS),
    ]
    assert sum(durations.counts) == 4
    assert durations.total == 1_000_000.0030002


def test_quantiles_are_right_within_a_bucket_s_width() -> None:
    random_times = random.Random(1)
    times = [random_times.lognormvariate(-6, 1.5) for _ in range(5000)]
    durations = Durations()
    for time in times:
        durations.add(time)
    exact = quantiles(times, n=100)

    for share in (0.5, 0.99):
        assert quantile(durations.counts, share) == pytest.approx(exact[int(share * 100) - 1], 0.26)


def test_without_calls_there_is_no_quantile_and_beyond_the_last_bound_it_is_that() -> None:
    durations = Durations()

    assert quantile(durations.counts, 0.5) is None
    durations.add(1e9)
    assert quantile(durations.counts, 0.5) == BOUNDS[-1]


def test_counts_of_several_threads_add_up() -> None:
    assert added([[1, 2], [3, 4]]) == [4, 6]
