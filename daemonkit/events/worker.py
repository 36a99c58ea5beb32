"""A thread of the event processor, and what it is handling."""

from __future__ import annotations

import threading
from typing import Any

from ..runtime.heartbeat import Heartbeat
from ..system.handling import Handled, Handling
from .entry import Entry
from .stopwatch import Stopwatch
from .waiting import Idle

IDLE = object()
"""The events of a worker that has none."""


class Worker(Handling):
    """One thread and its counts, which only that thread writes.

    number, of: that of the worker, from 1, and how many there are; is_batch: whether it takes
    lists.
    """

    thread: threading.Thread
    heartbeat: Heartbeat
    watch: Stopwatch | None = None

    def __init__(self, name: str, number: int, of: int, *, is_batch: bool) -> None:
        self.name = name
        self._number, self._of = number, of
        self._is_batch = is_batch
        self._described: tuple[Any, Handled] | None = None
        self.handled = 0
        self.failed = 0
        self.events: Any = IDLE
        self._noted = 0
        self.block: list[None] = []
        """As long as the calls until they are noted: a loop over it ends when it is cut."""

    def begin(self, idle: Idle) -> None:
        """The thread begins; idle: how long it waits for the queue."""
        self.attach()
        self.watch = Stopwatch(idle)
        idle.before = self.note_calls

    def note_calls(self) -> int:
        """Note how long the calls took since the last time; returns after how many more to do so
        again."""
        assert self.watch is not None
        made, self._noted = self.handled + self.failed - self._noted, self.handled + self.failed
        return self.watch.end(min(made, 1) if self._is_batch else made)

    def cut_block(self) -> None:
        """Have the calls noted after the present one; by any thread."""
        del self.block[1:]

    def entries(self) -> list[Entry]:
        """The events that are being handled, with ids."""
        return [
            item._replace(id=self._id(item, place))
            if type(item) is Entry
            else Entry(item, id=self._id(item, place))
            for place, item in enumerate(self._items())
        ]

    def _items(self) -> list[Any]:
        taken: list[Any] = self.taken if self._is_batch else [self.taken]
        return taken

    def _id(self, item: Any, place: int) -> int:
        """The id of an event: the queue's, or else the number of events before it on this thread,
        made different from those of the other threads."""
        if type(item) is Entry and item.id:
            return item.id
        return (self.handled + self.failed + place) * self._of + self._number

    def pause(self) -> None:
        super().pause()
        self._described = None

    def describe(self) -> Handled:
        # A batch may be long, and the handler may log a line for each event.
        if self._described is not None and self._described[0] is self.taken:
            return self._described[1]
        items = self._items()
        senders = {
            item.meta.sender if type(item) is Entry and item.meta is not None else None
            for item in items
        }
        handled = Handled(
            self._id(items[0], 0),
            self._id(items[-1], len(items) - 1),
            senders.pop() if len(senders) == 1 else None,
        )
        if self._is_batch:
            self._described = self.taken, handled
        return handled
