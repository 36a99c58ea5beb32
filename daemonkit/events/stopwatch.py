"""How long calls of the event handler take, at a small fraction of the cost of a short call."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..runtime.durations import Durations
from .waiting import Idle

FAST = 50e-6
"""Seconds: calls this short are timed together while they follow one another without a wait."""
BLOCK = 256
"""How many, at most."""
OUTLIER = 1e-3
"""Seconds that a block takes longer than the one before if one call of it was slow."""


class Stopwatch:
    """Times the calls of one thread.

    To time each call takes a microsecond or two, longer than a short one takes itself. So short
    calls are timed in blocks. If a block takes long, the next call is timed alone: if it is short,
    one call of the block is taken to have been slow, and otherwise all.

    idle: what the thread does besides, such as waiting for events; clock: seconds.
    """

    def __init__(self, idle: Idle, clock: Callable[[], float] = time.perf_counter) -> None:
        self.durations = Durations()
        self._idle = idle
        self._clock = clock
        self._usual = 0.0
        self._slow: tuple[int, float] | None = None
        """A block that took long: how many calls, and how many seconds."""
        self._began, self._idle_before = clock(), idle.seconds

    def end(self, calls: int) -> int:
        """So many calls have ended since the last time, which was before they began; returns after
        how many more to call this again, or earlier before a wait."""
        now, idle = self._clock(), self._idle.seconds
        took = max(0.0, now - self._began - (idle - self._idle_before))
        self._began, self._idle_before = now, idle
        if self._slow is not None:
            self._add_slow(*self._slow, is_alike=calls == 1 and took > FAST)
            self._slow = None
        if not calls:
            return BLOCK
        if calls > 1 and took - self._usual * calls > OUTLIER:
            self._slow = calls, took
            return 1
        self._usual = took / calls
        self.durations.add(self._usual, calls)
        return BLOCK if self._usual <= FAST else 1

    def _add_slow(self, calls: int, took: float, *, is_alike: bool) -> None:
        if is_alike:
            self.durations.add(took / calls, calls)
        else:
            self.durations.add(self._usual, calls - 1)
            self.durations.add(took - self._usual * (calls - 1))
