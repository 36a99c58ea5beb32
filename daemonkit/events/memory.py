"""The event queue in memory: bounded, for many producers and consumers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..exceptions import BatchTooLarge, QueueFull

STOPPING = "The daemon is stopping"


class QueueClosed(Exception):
    """The queue is closed and empty: there will be nothing more to take."""


class MemoryQueue:
    """A bounded first-in-first-out queue.

    size: how many entries may wait; it may be changed.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: deque[Any] = deque()
        self._not_empty = threading.Condition(threading.Lock())
        self._waiting = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put_many(self, items: Sequence[Any]) -> None:
        """Add all entries or none; raises QueueFull, also once closed, or BatchTooLarge when they
        never fit."""
        if len(items) > self.size:
            raise BatchTooLarge(
                f"{len(items)} events at once are more than the queue holds "
                f"(queue_size is {self.size})"
            )
        with self._not_empty:
            if self._room() < len(items):
                raise self._refusal()
            self._add(items)

    def put_some(self, items: Sequence[Any]) -> tuple[int, QueueFull | None]:
        """Add as many entries as there is room for, the first ones; returns how many that were,
        and what refuses the others."""
        with self._not_empty:
            count = min(self._room(), len(items))
            if count:
                self._add(items[:count])
            return count, self._refusal() if count < len(items) else None

    # All under the lock, or an event could slip in behind the last taker.

    def _room(self) -> int:
        return 0 if self._closed else max(0, self.size - len(self._items))

    def _refusal(self) -> QueueFull:
        if self._closed:
            return QueueFull(STOPPING, retry_after=5)
        return QueueFull(f"The event queue is full ({self.size} events)")

    def _add(self, items: Sequence[Any]) -> None:
        self._items.extend(items)
        if self._waiting:
            self._not_empty.notify(len(items))

    def get(self) -> Any:
        """Take the oldest entry, waiting for one; raises QueueClosed once closed and empty."""
        try:
            # deque.popleft is atomic: a taker that needn't wait needs no lock either.
            return self._items.popleft()
        except IndexError:
            return self._wait(None)

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit` entries, at the latest `linger` seconds after the first.

        Raises QueueClosed once closed and empty.
        """
        batch = [self.get()]
        until = time.monotonic() + linger
        while len(batch) < limit:
            try:
                batch.append(self._items.popleft())
            except IndexError:
                try:
                    batch.append(self._wait(until))
                except (TimeoutError, QueueClosed):
                    break
        return batch

    def _wait(self, until: float | None) -> Any:
        with self._not_empty:
            while True:
                try:
                    return self._items.popleft()
                except IndexError:
                    if self._closed:
                        raise QueueClosed from None
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._waiting += 1
                try:
                    self._not_empty.wait(left)
                finally:
                    self._waiting -= 1

    def close(self) -> None:
        """Let takers run the queue empty, and wake those that wait."""
        with self._not_empty:
            self._closed = True
            self._not_empty.notify_all()
