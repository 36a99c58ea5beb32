"""What both event queues share: room for so many events, and takers."""

from __future__ import annotations

from typing import Any

from ..exceptions import BatchTooLarge, QueueFull
from .waiting import Waiting

STOPPING = "The daemon is stopping"


class NoRoom(QueueFull):
    """As many events wait as may; fewer at once may find room."""


class Bounded:
    """size: how many events may wait; it may be changed. with_meta, keep_lines: whether the event
    processor wants the circumstances of each event, and its text to try it again."""

    name = "event queue"

    def __init__(self, size: int, waiting: Waiting) -> None:
        self.size = size
        self.with_meta = False
        self.keep_lines = False
        self._waiting = waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self) -> Any:
        """Take the oldest entry, waiting for one; raises QueueClosed."""
        return self._waiting.get()

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit` entries, at the latest `linger` seconds after the first one; one that
        is tried again comes alone. Raises QueueClosed."""
        return self._waiting.get_batch(limit, linger)

    def room(self) -> int:
        """For how many events there is room just now."""
        return 0 if self._waiting.closed else max(0, self.size - len(self))

    def refusal_of(self, count: int) -> QueueFull | BatchTooLarge:
        """What refuses so many events, for lack of room."""
        if count > self.size:
            return BatchTooLarge(
                f"{count} events at once are more than the queue holds (queue_size is {self.size})"
            )
        if self._waiting.closed:
            return QueueFull(STOPPING, retry_after=5)
        return NoRoom(f"The event queue is full ({self.size} events)")

    def _check_room(self, count: int) -> None:
        if self.room() < count:
            raise self.refusal_of(count)

    def _room_for_some(self, count: int) -> tuple[int, QueueFull | None]:
        """How many of so many events find room, and what refuses the others."""
        fits = min(self.room(), count)
        refusal = self.refusal_of(0) if fits < count else None
        assert not isinstance(refusal, BatchTooLarge)
        return fits, refusal
