"""Keeps a repeated message from flooding the log."""

from __future__ import annotations

from collections.abc import Callable

from .clock import monotonic


class RateLimit:
    """Lets one message through every `interval` seconds and counts those it suppresses."""

    def __init__(self, interval: float, clock: Callable[[], float] = monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self._suppressed = 0

    def allow(self) -> int | None:
        """How many messages were suppressed since the last one; None to suppress this one too."""
        now = self._clock()
        if now < self._next:
            self._suppressed += 1
            return None
        self._next = now + self._interval
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
