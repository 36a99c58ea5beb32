"""Puts that wait to be sent to the engine."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from .put import Put

MAX_UNSENT = 64 * 1024 * 1024
"""Bytes of events that may wait to be put."""
MAX_TOGETHER = 4000
"""Events that are put together."""


class Backlog:
    """Any thread adds to it, and the loop takes from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._puts: deque[Put] = deque()
        self._size = 0
        """Bytes of their events."""

    def __bool__(self) -> bool:
        return bool(self._puts)

    def is_full(self, put: Put) -> bool:
        """Whether there is no room for another put."""
        return self._size + put.size > MAX_UNSENT

    def add(self, put: Put) -> None:
        """Add a put at the end."""
        with self._lock:
            self._puts.append(put)
            self._size += put.size

    def put_back(self, puts: Sequence[Put]) -> None:
        """Add puts at the beginning, in this order."""
        with self._lock:
            for put in reversed(puts):
                self._puts.appendleft(put)
                self._size += put.size

    def take(self) -> list[Put]:
        """Take the first ones, as many as are put together."""
        taken: list[Put] = []
        count = 0
        with self._lock:
            while self._puts and (not taken or count + self._puts[0].count <= MAX_TOGETHER):
                put = self._puts.popleft()
                self._size -= put.size
                count += put.count
                taken.append(put)
        return taken

    def take_late(self, now: float) -> list[Put]:
        """Take those whose deadline is over."""
        with self._lock:
            late = [put for put in self._puts if put.deadline <= now]
            for put in late:
                self._puts.remove(put)
                self._size -= put.size
        return late

    def take_all(self) -> list[Put]:
        """Take all of them."""
        with self._lock:
            puts, self._size = list(self._puts), 0
            self._puts.clear()
        return puts

    def next_deadline(self, flying: Iterator[Put]) -> float:
        """When the oldest one is late, in monotonic seconds; flying: those that were sent before.

        All have the same time, so it is the first one.
        """
        with self._lock:
            for put in chain(flying, self._puts):
                if put.done is not None and put.deadline < math.inf:
                    return put.deadline
        return math.inf
