"""The conditions of the daemon itself that raise alerts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...config.alerts import When
from ...types import Problem
from .alert import OK

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""


class Limits(NamedTuple):
    """What the event queue can hold: how many events, and how many bytes of memory."""

    size: int
    memory: int


class Conditions:
    """Reports whether each of the conditions is met, while the daemon runs.

    when: the conditions; is_running: whether the daemon neither starts nor stops; problems: returns
    what is wrong with it; counters: returns those of the event queue; limits: of the event queue;
    gap: for how many seconds a daemon may be healthy in between and still count as unhealthy since
    the beginning; report: takes a service, a status and a description.
    """

    def __init__(
        self,
        when: When,
        is_running: Callable[[], bool],
        problems: Callable[[], list[Problem]],
        counters: Callable[[], Mapping[str, Any]],
        limits: Limits,
        gap: float,
        report: Callable[[str, str, str], object],
    ) -> None:
        self._when = when
        self._is_running = is_running
        self._problems = problems
        self._counters = counters
        self._limits = limits
        self._gap = gap
        self._report = report
        self._unhealthy_since = self._unhealthy_last = -math.inf

    def run_due(self, now: float) -> float:
        """Report all conditions; returns when to call this again, in monotonic seconds."""
        if self._is_running():
            checked = list(self._checked(now))
            # A slave may fail because of a stop that has begun meanwhile.
            if self._is_running():
                for service, status, description in checked:
                    met = description is not None
                    self._report(service, status if met else OK, description or "OK")
        return now + CHECK_INTERVAL

    def _checked(self, now: float) -> Iterator[tuple[str, str, str | None]]:
        """The service of each condition, its status and what is wrong, or None."""
        when = self._when
        if when.unhealthy is not None:
            problems = self._lasting_problems(now, when.unhealthy)
            text = "; ".join(problem.text for problem in problems)
            yield "unhealthy", "CRIT", text or None
        if (when.oldest_age, when.dead_letters, when.queue_full) == (None, None, None):
            return
        counters = self._counters()
        if when.oldest_age is not None:
            age = counters["oldest_age"] or 0
            text = f"the oldest event has waited for {age:.0f} s"
            yield "oldest_age", "WARN", text if age >= when.oldest_age else None
        if when.dead_letters is not None:
            dead = counters["dead_now"]
            text = f"{dead} dead letter{'s' * (dead > 1)}"
            yield "dead_letters", "WARN", text if dead >= when.dead_letters else None
        if when.queue_full is not None:
            used = self._used(counters)
            text = f"the event queue is {used:.0%} full"
            yield "queue_full", "WARN", text if used >= when.queue_full else None

    def _lasting_problems(self, now: float, after: float) -> Sequence[Problem]:
        """What is wrong, once something has been for `after` seconds."""
        problems = self._problems()
        if not problems:
            return []
        # A slave that keeps failing runs for a moment between two restarts.
        if now - self._unhealthy_last > max(self._gap, 2 * CHECK_INTERVAL):
            self._unhealthy_since = now
        self._unhealthy_last = now
        return problems if now - self._unhealthy_since >= after else []

    def _used(self, counters: Mapping[str, Any]) -> float:
        by_number: float = counters["waiting"] / self._limits.size
        # A durable queue has no limit of memory.
        by_memory: float = counters.get("memory", 0) / self._limits.memory
        return max(by_number, by_memory)
