"""How many events are taken, and how fast: while the HTTP loop has no time to spare, accepting
comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...runtime.clock import monotonic
from ..durable.rows import STRIDE
from .records import fields_of

BUSY, WINDOW = 0.9, 0.1
"""The share of its time, and the seconds over which it is taken, from which the loop is busy."""
PAUSE, MOST = 0.02, 250
"""Seconds between two reads then, and how many events are read."""
MOST_ENTRIES = 64
"""Entries that are read at once."""
FADING = 0.8
"""What is left of a large entry's weight with each read."""


class Portions:
    """How many entries to read at once: how large they are, nobody knows before.

    largest: the bytes that are expected of an entry as long as none was read.
    """

    def __init__(self, largest: int) -> None:
        self._events, self._size = float(STRIDE), float(largest)
        """What is expected of each."""

    def note(self, entries: Sequence[Any]) -> None:
        """Learn from entries that were read, of which there is at least one."""
        parts = [flat or () for _, flat in entries]
        events = sum(int(fields_of(flat).get(b"n", 1)) for flat in parts)
        size = sum(len(value) for flat in parts for value in flat)
        self._events = max(events / len(parts), FADING * self._events)
        self._size = max(size / len(parts), FADING * self._size, 1.0)

    def most(self, events: int, size: int) -> int:
        """How many to read, with room for so many events and bytes."""
        return max(1, min(MOST_ENTRIES, int(events / self._events), int(size / self._size)))


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
