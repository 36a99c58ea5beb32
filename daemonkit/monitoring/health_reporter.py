"""Reports each change of the daemon's health to the program."""

from __future__ import annotations

from collections.abc import Callable

from ..types import Problem
from .health import DRAINING, RUNNING, Health

CHECK_INTERVAL = 1.0
"""Seconds between two checks of the health, for changes that nothing announces."""


class HealthReporter:
    """Calls `report` with the problems when they differ from those reported last.

    At first the daemon counts as healthy; problems while it starts or stops aren't reported.
    report: must not raise.
    """

    def __init__(self, health: Health, report: Callable[[list[Problem]], object]) -> None:
        self._health = health
        self._report = report
        self._reported: list[Problem] = []

    def run_due(self, now: float) -> float:
        """Report a change; returns when to call this again, in monotonic seconds."""
        if self._health.phase in (RUNNING, DRAINING):
            problems = self._health.problems()
            if problems != self._reported:
                self._reported = problems
                self._report(list(problems))
        return now + CHECK_INTERVAL
