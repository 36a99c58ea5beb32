"""What was answered, counted by status."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from .fast_lane import FastLane


class Answers:
    """What the pool's threads have answered; log: called with each task, None for no log."""

    def __init__(self, log: Callable[[Any], object] | None) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, task: Any) -> None:
        """Count an answer, and log it."""
        with self._lock:
            self._counts[task.status[:3]] += 1
        if self._log is not None:
            self._log(task)

    def counts(self, lane: FastLane | None) -> dict[str, int]:
        """Answers by their status, with those of the fast lane."""
        with self._lock:
            counts = self._counts + Counter({} if lane is None else lane.answers)
        return dict(sorted(counts.items()))
