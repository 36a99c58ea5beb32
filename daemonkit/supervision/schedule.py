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

    def delay(self, ahead: int = 0) -> float:
        """Seconds until the next call is due; ahead: so many calls after that."""
        return max(0.0, self._due + ahead * self._every - self._clock())

    def advance(self) -> None:
        """Go on to the next call that isn't missed already."""
        self._due += self._every
        self.skip_missed()

    def skip_missed(self) -> None:
        """Go on to the next call that isn't missed already, if this one is."""
        now = self._clock()
        if self._due < now:
            missed = math.ceil((now - self._due) / self._every)
            self._due += missed * self._every
