"""Keeps a message that comes in a flood from filling the log."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """Lets one message through each `interval` seconds, and counts those held back."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self._held = 0

    def allow(self) -> int | None:
        """None to stay silent, else how many were held back since the last one."""
        now = self._clock()
        if now < self._next:
            self._held += 1
            return None
        self._next = now + self._interval
        held, self._held = self._held, 0
        return held
