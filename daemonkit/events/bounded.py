"""What the event queues have in common: a bound on what may wait, and consumers."""

from __future__ import annotations

from typing import Any

from ..exceptions import BatchTooLarge, QueueFull, Unavailable
from .waiting import Waiting


def daemon_stopping() -> Unavailable:
    """The error that refuses events while the daemon is stopping."""
    return Unavailable("The daemon is stopping", retry_after=5)


class Bounded:
    """The base of the event queues.

    size: the most events that may wait; it may be changed. with_meta, keep_lines: whether the event
    processor needs each event's circumstances, and its text for retries.
    """

    name = "event queue"

    def __init__(self, size: int, waiting: Waiting) -> None:
        self.size = size
        self.with_meta = False
        self.keep_lines = False
        self._waiting = waiting

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """How many events consumers have taken to handle, retries included."""
        return self._waiting.taken

    def get(self) -> Any:
        """Wait for the oldest entry and take it; raises QueueClosed."""
        return self._waiting.get()

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit` entries, waiting at most `linger` seconds after the first; a retry
        is handed out alone. Raises QueueClosed."""
        return self._waiting.get_batch(limit, linger)

    def room(self) -> int:
        """How many events can be added now."""
        return 0 if self._waiting.closed else max(0, self.size - len(self))

    def refusal_of(self, count: int) -> Unavailable | BatchTooLarge:
        """The error that refuses `count` events for lack of room."""
        if count > self.size:
            return BatchTooLarge(
                f"{count} events at once are more than the queue holds (queue_size is {self.size})"
            )
        return self._refusal()

    def _refusal(self) -> Unavailable:
        if self._waiting.closed:
            return daemon_stopping()
        return QueueFull(f"The event queue is full ({self.size} events)")

    def _check_room(self, count: int) -> None:
        if self.room() < count:
            raise self.refusal_of(count)

    def _room_for_some(self, count: int) -> tuple[int, Unavailable | None]:
        """How many of `count` events can be added, and the refusal of the others."""
        fits = min(self.room(), count)
        return fits, self._refusal() if fits < count else None
