from __future__ import annotations

from daemonkit.monitoring.health import DRAINING, RUNNING, STOPPING, Health
from daemonkit.monitoring.health_reporter import CHECK_INTERVAL, HealthReporter
from daemonkit.types import Problem

BROKEN = Problem("broken")


def test_only_changes_are_reported_and_only_while_the_daemon_runs() -> None:
    health, reports = Health(), []
    problems = [BROKEN]
    health.add_source(lambda: problems)
    reporter = HealthReporter(health, reports.append)

    assert reporter.run_due(5.0) == 5.0 + CHECK_INTERVAL
    assert reports == []
    health.enter(RUNNING)
    reporter.run_due(6.0)
    reporter.run_due(7.0)
    assert reports == [[BROKEN]]
    health.enter(DRAINING)
    problems.clear()
    reporter.run_due(8.0)
    assert reports == [[BROKEN], []]
    health.enter(STOPPING)
    problems.append(BROKEN)
    reporter.run_due(9.0)
    assert reports == [[BROKEN], []]


def test_a_healthy_daemon_reports_nothing() -> None:
    health, reports = Health(), []
    health.enter(RUNNING)

    HealthReporter(health, reports.append).run_due(1.0)

    assert reports == []
