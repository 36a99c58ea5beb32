"""When the calls of a periodic slave are due."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..runtime.clock import monotonic


class Schedule:
    """Fixed-rate schedule: the first call is due at once, and missed calls are skipped.

    every: seconds between the starts of two calls; clock: monotonic seconds.
    """

    def __init__(self, every: float, clock: Callable[[], float] = monotonic) -> None:
        self._every = every
        self._clock = clock
        self._due = clock()

    def next_delay(self) -> float:
        """Advance to the next call; returns the seconds until it is due."""
        now = self._clock()
        self._due += self._every
        if self._due < now:
            missed = math.ceil((now - self._due) / self._every)
            self._due += missed * self._every
        return max(0.0, self._due - now)
