from __future__ import annotations

from daemonkit.monitoring.health import (
    DRAINING,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    Health,
)
from daemonkit.types import Problem


def test_phases_only_advance_and_each_is_reported() -> None:
    health = Health()
    reported: list[str] = []
    health.add_listener(lambda: reported.append(health.phase))
    for phase in (STARTING, RUNNING, DRAINING, RUNNING, STOPPING, DRAINING, STOPPED):
        health.enter(phase)

    assert reported == [RUNNING, DRAINING, STOPPING, STOPPED]
    assert health.begun.is_set()


def test_the_daemon_is_ready_only_while_running() -> None:
    health = Health()
    ready = []
    for phase in (STARTING, RUNNING, DRAINING, STOPPING, STOPPED):
        health.enter(phase)
        ready.append(health.is_ready)

    assert ready == [False, True, False, False, False]


def test_the_summary_is_one_line_of_phase_waits_and_problems() -> None:
    health = Health()
    assert health.summary() == "starting"
    health.waiting_for = lambda: ["slaves (a)", "run()"]
    health.add_source(lambda: [Problem("one"), Problem("two", tolerable=True)])

    assert health.progress() == "starting: waiting for slaves (a), run()"
    assert health.summary() == "starting: waiting for slaves (a), run(); one; two"
    assert health.shown() == {
        "phase": "starting",
        "waiting_for": ["slaves (a)", "run()"],
        "problems": ["one", "two"],
    }
