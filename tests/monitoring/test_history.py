from __future__ import annotations

import os
from typing import Any

import pytest

from daemonkit.monitoring import history as history_module
from daemonkit.monitoring.history import SAMPLES, SERIES, History, Sample, memory_used
from daemonkit.runtime.durations import BOUNDS

from ..clock import Clock

CALLS = [0] * (len(BOUNDS) + 1)


class Recorded(History):
    """A history with values that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.sample = Sample(0, 0, 0, 0, 0, None, CALLS)
        monkeypatch.setattr(history_module.time, "time", lambda: 1000.0)
        super().__init__(lambda: self.sample, self.clock)
        self.due = self.run_due(self.clock.now)

    def after(self, seconds: float, **values: Any) -> None:
        self.clock.now += seconds
        self.sample = self.sample._replace(**values)
        self.due = self.run_due(self.clock.now)

    def series(self, name: str, since: float = 0.0) -> list[Any]:
        values: list[Any] = self.shown(since)["series"][name]
        return values


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


def test_counters_become_rates_per_second(history: Recorded) -> None:
    history.after(1, received=10, handled=4, failed=1, refused=2)
    history.after(1, received=15)
    history.after(1)

    assert [history.series(name) for name in ("received", "handled", "failed", "refused")] == [
        [10, 5, 0],
        [4, 0, 0],
        [1, 0, 0],
        [2, 0, 0],
    ]


def test_present_values_are_kept_as_they_are(history: Recorded) -> None:
    history.after(1, waiting=3, oldest_age=0.5)
    history.after(1, waiting=0, oldest_age=None)

    assert (history.series("waiting"), history.series("oldest_age")) == ([3, 0], [0.5, 0])


def test_the_quantiles_are_those_of_the_last_second(history: Recorded) -> None:
    calls = list(CALLS)
    calls[BOUNDS.index(0.01)] += 99
    history.after(1, calls=list(calls))
    calls[BOUNDS.index(1.0)] += 1
    history.after(1, calls=list(calls))
    history.after(1)

    medians, highest = history.series("handler_median"), history.series("handler_p99")
    assert 0.008 < medians[0] <= 0.01
    assert 0.8 < medians[1] <= highest[1] <= 1.0
    assert medians[2] is highest[2] is None


def test_it_is_due_once_a_second_however_late_it_was_called(history: Recorded) -> None:
    began = history.clock.now
    dues = []
    for seconds in (0.5, 0.7, 0.9, 0.9):
        history.after(seconds)
        dues.append(history.due - began)

    assert dues == [1, 2, 3, 4]


def test_samples_that_could_not_be_taken_are_missing(history: Recorded) -> None:
    history.after(1, received=1)
    history.after(3, received=7)

    assert history.series("received") == [1, None, None, 2]


def test_only_the_last_fifteen_minutes_are_kept(history: Recorded) -> None:
    for number in range(SAMPLES + 5):
        history.after(1, waiting=number)
    shown = history.shown()

    assert shown["series"]["waiting"] == list(range(5, SAMPLES + 5))
    assert shown["start"] == 1000.0 + 6
    history.after(2 * SAMPLES, waiting=7)
    assert history.series("waiting") == [None] * (SAMPLES - 1) + [7]


def test_only_later_samples_are_shown_on_request(history: Recorded) -> None:
    for number in range(5):
        history.after(1, waiting=number)
    whole = history.shown()
    times = [whole["start"] + n for n in range(5)]

    for position, time in enumerate(times):
        later = history.shown(time)
        assert later["series"]["waiting"] == list(range(position + 1, 5))
        assert later["start"] == time + 1
    assert history.series("waiting", times[2] + 0.5) == [3, 4]
    assert history.series("waiting", 999.0) == [0, 1, 2, 3, 4]


def test_it_says_whose_it_is_and_has_all_series(history: Recorded) -> None:
    history.after(1)
    shown = history.shown()

    assert (shown["pid"], shown["interval"]) == (os.getpid(), 1.0)
    assert {name: len(values) for name, values in shown["series"].items()} == dict.fromkeys(
        SERIES, 1
    )
    assert shown["series"]["memory"][0] > 1e6
    assert shown["series"]["cpu"][0] >= 0


def test_where_proc_is_missing_the_memory_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr("builtins.open", fail)

    assert memory_used() is None
