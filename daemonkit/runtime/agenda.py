"""What is due next, of many things."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Agenda(Generic[T]):
    """Items, each noted once, for the earliest of the times that it was noted for.

    Whoever takes an item asks it whether it is due, and notes it again if not; so a later time
    needs no change of what was noted.
    """

    def __init__(self) -> None:
        self._noted: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        # Items can't be compared.
        self._numbers = itertools.count()

    def note(self, item: T, at: float) -> bool:
        """Have an item taken at `at`, monotonic seconds, unless it is taken earlier anyway; returns
        whether it was noted."""
        if not at < self._noted.get(item, math.inf):
            return False
        self._noted[item] = at
        heapq.heappush(self._heap, (at, next(self._numbers), item))
        return True

    def drop(self, item: T) -> None:
        """Have an item not taken any more, and keep no reference to it for long."""
        if self._noted.pop(item, None) is None:
            return
        # To find one in the heap would take long; so once it is worth it, all are sorted out.
        if len(self._heap) > 2 * len(self._noted):
            self._heap = [(at, next(self._numbers), item) for item, at in self._noted.items()]
            heapq.heapify(self._heap)

    def take(self, now: float) -> Iterator[T]:
        """Yield the items that were noted for `now` or earlier, each of them once."""
        while self._heap and self._heap[0][0] <= now:
            at, _, item = heapq.heappop(self._heap)
            # Otherwise it was dropped, or has been taken at an earlier time, which was noted later.
            if self._noted.get(item) == at:
                del self._noted[item]
                yield item

    @property
    def next(self) -> float:
        """When to take again; infinity if nothing is noted."""
        return self._heap[0][0] if self._heap else math.inf
