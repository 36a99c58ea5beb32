"""How long each slave has for stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..runtime.clock import monotonic

LONGEST_RESERVE = 0.5
"""Seconds that a slave which doesn't stop leaves, at most, to each one that waits for it."""
RESERVED = 0.5
"""Part of the time that is reserved for them together, at most."""


class StopLimits:
    """When slaves that were asked to stop are to have stopped; after that, others don't wait.

    default: seconds for one without a `stop_timeout`, while the daemon runs; clock: monotonic
    seconds.
    """

    def __init__(self, default: float, clock: Callable[[], float] = monotonic) -> None:
        self._default = default
        self._clock = clock
        self._until = math.inf
        self._reserve = 0.0
        self._depths: Mapping[str, int] = {}

    def stop_all(self, timeout: float, depths: Mapping[str, int]) -> None:
        """From now on all slaves are to stop within `timeout` seconds.

        depths: of each slave the length of the longest chain of others that stop after it. Each of
        these is left a reserve; apart from that, the order is kept up to the end.
        """
        levels = 1 + max(depths.values(), default=0)
        self._until = self._clock() + timeout
        self._reserve = min(LONGEST_RESERVE, RESERVED * timeout / levels)
        self._depths = depths

    @property
    def is_stopping_all(self) -> bool:
        """Whether the time of all slaves together is limited."""
        return self._until < math.inf

    def limit(self, name: str, stop_timeout: float | None) -> float:
        """When a slave that is asked to stop now is to have stopped, monotonic seconds."""
        now = self._clock()
        if not self.is_stopping_all:
            return now + (self._default if stop_timeout is None else stop_timeout)
        own = math.inf if stop_timeout is None else now + stop_timeout
        return max(now, min(self.end(name), own))

    def end(self, name: str) -> float:
        """When a slave has to have stopped at the latest, because all are to."""
        return self._until - self._reserve * self._depths.get(name, 0)
