"""Where entries wait in memory to be taken: in order, and those to be tried again when due."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from .entry import Entry


class QueueClosed(Exception):
    """The queue is closed and empty: there will be nothing more to take."""


class Waiting:
    """Entries for many takers.

    revive: makes an entry that is tried again fit to be handled, or returns None if it is not to be
    any more; refill: called when there is nothing left; returns whether it has added something.
    """

    def __init__(
        self,
        revive: Callable[[Entry], Entry | None],
        refill: Callable[[], bool] | None = None,
    ) -> None:
        self._revive = revive
        self._refill = refill
        self._items: deque[Any] = deque()
        self._retries: list[tuple[float, int, Entry]] = []
        self._numbers = count()
        self._changed = threading.Condition(threading.Lock())
        self.takers = 0
        self._news = 0
        """Counts the times that there may have been more to be had by `refill`."""
        self._kept = False
        self.closed = False

    def __len__(self) -> int:
        return len(self._items) + len(self._retries)

    @property
    def ready(self) -> int:
        """How many wait for nothing but a taker."""
        return len(self._items)

    @property
    def retrying(self) -> int:
        """How many wait to be tried again."""
        return len(self._retries)

    def head(self) -> Any:
        """The next one, None if there is none."""
        try:
            return self._items[0]
        except IndexError:
            return None

    def add(self, items: Iterable[Any], how_many: int) -> bool:
        """Add some at the end; for one thread at a time, or none could tell the order. False if
        takers have nothing more."""
        with self._changed:
            if self._kept:
                return False
            self._items.extend(items)
            if self.takers:
                self._changed.notify(how_many)
            return True

    def put_back(self, entry: Entry, delay: float) -> None:
        """Have an entry taken again in `delay` seconds."""
        with self._changed:
            if self._kept:
                return
            heapq.heappush(self._retries, (time.monotonic() + delay, next(self._numbers), entry))
            # They have to wait for less long than they do, maybe.
            self._changed.notify_all()

    def look_again(self) -> None:
        """Have those who wait ask for more: there may be some."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def get(self) -> Any:
        """Take the next one, waiting for it; raises QueueClosed once closed and empty."""
        if not self._retries:
            try:
                # deque.popleft is atomic: a taker that needn't wait needs no lock either.
                return self._items.popleft()
            except IndexError:
                pass
        return self._wait(None)

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit`, at the latest `linger` seconds after the first; one that is tried
        again comes alone, for it may be what the others failed with.

        Raises QueueClosed once closed and empty.
        """
        batch = [self.get()]
        if type(batch[0]) is Entry and batch[0].failed is not None:
            return batch
        until = time.monotonic() + linger
        while len(batch) < limit:
            try:
                batch.append(self._items.popleft())
            except IndexError:
                try:
                    batch.append(self._wait(until, tried_again=False))
                except (TimeoutError, QueueClosed):
                    break
        return batch

    def close(self, *, drain: bool) -> None:
        """Let takers run it empty, those to be tried again included, at once; or, without `drain`,
        let them take nothing more."""
        with self._changed:
            if not drain:
                self._kept = True
                self._items.clear()
                self._retries.clear()
            self.closed = True
            self._changed.notify_all()

    def _wait(self, until: float | None, *, tried_again: bool = True) -> Any:
        answered = -1
        """By the news until then, `refill` has nothing."""
        while True:
            with self._changed:
                if tried_again and self._is_due():
                    entry = heapq.heappop(self._retries)[-1]
                else:
                    try:
                        return self._items.popleft()
                    except IndexError:
                        if self.closed:
                            raise QueueClosed from None
                    if self._refill is None or answered == self._news:
                        self._wait_for_change(until, tried_again)
                        answered = -1
                        continue
                    entry, news = None, self._news
            if entry is not None:
                if (revived := self._revive(entry)) is not None:
                    return revived
            elif self._refill is not None and not self._refill():
                answered = news

    def _is_due(self) -> bool:
        retries = self._retries
        return bool(retries) and (self.closed or retries[0][0] <= time.monotonic())

    def _wait_for_change(self, until: float | None, tried_again: bool) -> None:
        now = time.monotonic()
        if until is not None and until <= now:
            raise TimeoutError
        ends = [] if until is None else [until]
        if tried_again and self._retries:
            ends.append(self._retries[0][0])
        self.takers += 1
        try:
            self._changed.wait(max(0.0, min(ends) - now) if ends else None)
        finally:
            self.takers -= 1
