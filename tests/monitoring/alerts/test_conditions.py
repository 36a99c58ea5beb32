from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from daemonkit.config.alerts import When
from daemonkit.monitoring.alerts.conditions import CHECK_INTERVAL, Conditions, Limits
from daemonkit.types import Problem

QUIET: Mapping[str, Any] = {"waiting": 0, "memory": 0, "oldest_age": None, "dead_now": 0}


class Checked:
    """Conditions of a daemon that runs; reports: what was reported at the last check."""

    def __init__(self, when: When, gap: float = 10) -> None:
        self.is_running = True
        self.problems: list[Problem] = []
        self.counters: Mapping[str, Any] = QUIET
        self.reports: list[tuple[str, str, str]] = []
        self.calls = 0

        def counters() -> Mapping[str, Any]:
            self.calls += 1
            return self.counters

        self.conditions = Conditions(
            when,
            lambda: self.is_running,
            lambda: self.problems,
            counters,
            Limits(size=1000, memory=2000),
            gap,
            lambda *report: self.reports.append(report),
        )

    def at(self, now: float, **counters: Any) -> list[tuple[str, str, str]]:
        self.reports.clear()
        self.counters = {**QUIET, **counters}
        self.conditions.run_due(now)
        return self.reports


# Unhealthy


def test_a_daemon_that_is_unhealthy_for_long_enough_is_critical() -> None:
    checked = Checked(When(unhealthy=60))
    checked.problems = [Problem("sweep has failed"), Problem("the disk is full")]

    assert checked.at(100) == [("unhealthy", "OK", "OK")]
    for second in range(101, 160):
        assert checked.at(second) == [("unhealthy", "OK", "OK")]
    assert checked.at(160) == [("unhealthy", "CRIT", "sweep has failed; the disk is full")]
    checked.problems = []
    assert checked.at(161) == [("unhealthy", "OK", "OK")]


def test_at_zero_seconds_it_is_critical_at_once() -> None:
    checked = Checked(When(unhealthy=0))
    checked.problems = [Problem("sweep has failed")]

    assert checked.at(100) == [("unhealthy", "CRIT", "sweep has failed")]


@pytest.mark.parametrize(("healthy_for", "status"), [(9, "CRIT"), (12, "OK")])
def test_a_slave_that_keeps_failing_is_not_healthy_in_between(
    healthy_for: int, status: str
) -> None:
    checked = Checked(When(unhealthy=60), gap=10)
    for start in range(0, 90, 20):
        checked.problems = [Problem("sweep is backing off")]
        for second in range(start, start + 20 - healthy_for + 1):
            reports = list(checked.at(second))
        checked.problems = []
        for second in range(start + 20 - healthy_for + 1, start + 20):
            assert checked.at(second) == [("unhealthy", "OK", "OK")]

    assert [report[1] for report in reports] == [status]


# The queue


def test_the_age_of_the_oldest_event() -> None:
    checked = Checked(When(oldest_age=300))

    assert checked.at(1, oldest_age=None) == [("oldest_age", "OK", "OK")]
    assert checked.at(2, oldest_age=299.9) == [("oldest_age", "OK", "OK")]
    assert checked.at(3, oldest_age=300.0) == [
        ("oldest_age", "WARN", "the oldest event has waited for 300 s")
    ]


def test_dead_letters_as_many_as_there_are_now() -> None:
    checked = Checked(When(dead_letters=2))

    assert checked.at(1, dead_now=1) == [("dead_letters", "OK", "OK")]
    assert checked.at(2, dead_now=2) == [("dead_letters", "WARN", "2 dead letters")]
    assert checked.at(3, dead_now=1) == [("dead_letters", "OK", "OK")]


def test_one_dead_letter_is_not_dead_letters() -> None:
    assert Checked(When(dead_letters=1)).at(1, dead_now=1) == [
        ("dead_letters", "WARN", "1 dead letter")
    ]


def test_the_queue_is_full_by_number_or_by_memory() -> None:
    checked = Checked(When(queue_full=0.8))

    assert checked.at(1, waiting=799, memory=1599) == [("queue_full", "OK", "OK")]
    full = [("queue_full", "WARN", "the event queue is 80% full")]
    assert checked.at(2, waiting=800) == full
    assert checked.at(3, memory=1600) == full


def test_a_durable_queue_is_full_by_number() -> None:
    checked = Checked(When(queue_full=1))
    durable = {name: value for name, value in QUIET.items() if name != "memory"}

    checked.conditions._counters = lambda: {**durable, "waiting": 1000}
    checked.conditions.run_due(1)

    assert checked.reports == [("queue_full", "WARN", "the event queue is 100% full")]


# All


def test_all_conditions_are_checked_every_second_with_one_look_at_the_queue() -> None:
    checked = Checked(When(60, 300, 1, 0.8))

    assert [service for service, *_ in checked.at(1)] == [
        "unhealthy",
        "oldest_age",
        "dead_letters",
        "queue_full",
    ]
    assert checked.calls == 1
    assert checked.conditions.run_due(5.0) == 5.0 + CHECK_INTERVAL


def test_without_a_condition_of_the_queue_it_is_not_looked_at() -> None:
    checked = Checked(When(unhealthy=60))
    checked.at(1)

    assert checked.calls == 0


def test_nothing_is_reported_while_the_daemon_starts_or_stops() -> None:
    checked = Checked(When(unhealthy=0))
    checked.problems = [Problem("sweep has failed")]
    checked.is_running = False

    assert checked.at(1) == []


def test_nothing_is_reported_if_the_stop_begins_during_the_check() -> None:
    checked = Checked(When(unhealthy=0))

    def failed_by_the_stop() -> list[Problem]:
        checked.is_running = False
        return [Problem("sweep has failed")]

    checked.conditions._problems = failed_by_the_stop

    assert checked.at(1) == []
