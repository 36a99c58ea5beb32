"""How fast events are taken: while the HTTP loop has no time to spare, accepting comes first."""

from __future__ import annotations

from collections.abc import Callable

from ...runtime.clock import monotonic

BUSY, WINDOW = 0.9, 0.1
"""The share of its time, and the seconds over which it is taken, from which the loop is busy."""
PAUSE, MOST = 0.02, 250
"""Seconds between two reads then, and how many events are read."""


class Pacing:
    """For the thread that takes events.

    yields_to: returns how long the loop was busy so far, in seconds; None if events can't wait.
    """

    def __init__(self) -> None:
        self.yields_to: Callable[[], float | None] = lambda: None
        self._is_yielding = False
        self._looked_at = self._busy = 0.0

    def pause(self) -> float:
        """Seconds to wait before the next read."""
        now, busy = monotonic(), self.yields_to()
        if busy is None:
            self._is_yielding = False
        elif now - self._looked_at >= WINDOW:
            self._is_yielding = busy - self._busy > BUSY * (now - self._looked_at)
            self._looked_at, self._busy = now, busy
        return PAUSE if self._is_yielding else 0.0

    def most(self, room: int) -> int:
        """How many events to read at once, of those for which there is room."""
        return min(room, MOST) if self._is_yielding else room
