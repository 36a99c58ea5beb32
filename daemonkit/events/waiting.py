"""Events waiting in memory for consumers: new ones in order, and failed ones until their retry."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

from ..runtime.clock import monotonic
from ..system.handling import pause
from .entry import Entry


class QueueClosed(Exception):
    """The queue is closed and has nothing more for consumers."""


class Retry(NamedTuple):
    """A failed event that waits for its next attempt; sorts by its time.

    due: monotonic seconds; number: makes each one unique, since entries have no order.
    """

    due: float
    number: int
    entry: Entry


class Idle(threading.local):
    """How long the thread that asks has waited for a queue so far, or for its disk.

    before: called before a wait for entries.
    """

    seconds = 0.0
    before: Callable[[], object] | None = None


class Waiting:
    """Entries for any number of consumers.

    prepare: called with an entry whose retry is due; returns the entry to hand out, or None to drop
    it. load: called when nothing is left in memory; returns whether it has added anything.
    """

    def __init__(
        self,
        prepare: Callable[[Entry], Entry | None],
        load: Callable[[], bool] | None = None,
    ) -> None:
        self._prepare = prepare
        self._load = load
        self._items: deque[Any] = deque()
        self._retries: list[Retry] = []
        self._numbers = count()
        self._changed = threading.Condition(threading.Lock())
        self.consumers = 0
        """How many are waiting."""
        self._load_requests = 0
        """How often `request_load` was called."""
        self.idle = Idle()
        self._discards = False
        self.closed = False
        self.is_paused = False
        """Whether nothing is handed out; set by `pause` and `resume`."""
        self.added = 0
        """New entries so far."""
        self._taken_besides = 0
        """Retries taken, less the entries that were forgotten."""

    def __len__(self) -> int:
        return len(self._items) + len(self._retries)

    @property
    def ready(self) -> int:
        """How many new entries are waiting."""
        return len(self._items)

    @property
    def retrying(self) -> int:
        """How many failed events are waiting for their retry."""
        return len(self._retries)

    @property
    def taken(self) -> int:
        """How many entries consumers have taken to handle, retries included."""
        # In this order: a brief overcount is harmless, an undercount hides an event.
        ready = len(self._items)
        return self.added + self._taken_besides - ready

    def head(self) -> Any:
        """The next new entry, None if there is none."""
        try:
            return self._items[0]
        except IndexError:
            return None

    def add(self, items: Iterable[Any], how_many: int) -> bool:
        """Append new entries; the caller serializes calls to keep their order. Returns False if
        the queue was closed without draining."""
        with self._changed:
            if self._discards:
                return False
            self.added += how_many
            self._items.extend(items)
            if self.consumers and not self.is_paused:
                self._changed.notify(how_many)
            return True

    def put_back(self, entry: Entry, delay: float) -> None:
        """Hand out a failed event again in `delay` seconds."""
        with self._changed:
            if self._discards:
                return
            retry = Retry(monotonic() + delay, next(self._numbers), entry)
            heapq.heappush(self._retries, retry)
            # It may be due before the time that consumers are waiting for.
            self._changed.notify_all()

    def withdraw(self, ids: Collection[int]) -> set[int]:
        """Remove failed events that wait for their retry; returns the ids of those that did."""
        with self._changed:
            found = {retry.entry.id for retry in self._retries if retry.entry.id in ids}
            if found:
                kept = [retry for retry in self._retries if retry.entry.id not in found]
                heapq.heapify(kept)
                # In place: consumers look at it without the lock.
                self._retries[:] = kept
            return found

    def forget(self, count: int) -> None:
        """Leave entries out of `taken`: consumers took them, but don't handle them."""
        with self._changed:
            self._taken_besides -= count

    def request_load(self) -> None:
        """Make waiting consumers call `load` again."""
        with self._changed:
            self._load_requests += 1
            self._changed.notify_all()

    def get(self) -> Any:
        """Wait for the next entry and take it; raises QueueClosed once closed and empty."""
        if not self._retries and not self.is_paused:
            try:
                # deque.popleft is atomic: without a wait, no lock is needed.
                return self._items.popleft()
            except IndexError:
                pass
        return self._wait(None)

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit` entries, waiting at most `linger` seconds after the first.

        A retry is handed out alone: it may have made the rest of its batch fail. Raises QueueClosed
        once closed and empty.
        """
        batch = [self.get()]
        if type(batch[0]) is Entry and batch[0].failed is not None:
            return batch
        until = monotonic() + linger
        while len(batch) < limit and not self.is_paused:
            try:
                batch.append(self._items.popleft())
            except IndexError:
                try:
                    batch.append(self._wait(until, with_retries=False))
                except (TimeoutError, QueueClosed):
                    break
        return batch

    def pause(self) -> None:
        """Hand out nothing until `resume` or `close`."""
        with self._changed:
            self.is_paused = not self.closed

    def resume(self) -> None:
        """Hand out entries again."""
        with self._changed:
            self.is_paused = False
            self._changed.notify_all()

    def close(self, *, drain: bool) -> None:
        """Let consumers drain the queue, retries included and without their wait, even if it is
        paused; without `drain`, hand out nothing more."""
        with self._changed:
            self.is_paused = False
            if not drain:
                self._discards = True
                self._discard()
            self.closed = True
            self._changed.notify_all()

    def discard(self) -> list[Any]:
        """Hand out nothing of what waits now; returns the new entries among it."""
        with self._changed:
            return self._discard()

    def _discard(self) -> list[Any]:
        self._retries.clear()
        discarded: list[Any] = []
        # From the end, one at a time: a consumer takes entries without the lock, and must not get
        # one whose predecessors were discarded.
        with suppress(IndexError):
            while True:
                discarded.append(self._items.pop())
                self.added -= 1
        return discarded[::-1]

    def _wait(self, until: float | None, *, with_retries: bool = True) -> Any:
        pause()
        idle = self.idle
        if idle.before is not None:
            idle.before()
        began = monotonic()
        try:
            return self._next(until, with_retries=with_retries)
        finally:
            idle.seconds += monotonic() - began

    def _next(self, until: float | None, *, with_retries: bool) -> Any:
        exhausted = -1
        """The count of load requests for which `load` had nothing."""
        while True:
            with self._changed:
                if self.is_paused:
                    self._wait_for_change(until, with_retries=False)
                    continue
                if with_retries and self._is_retry_due():
                    entry = heapq.heappop(self._retries).entry
                    self._taken_besides += 1
                else:
                    try:
                        return self._items.popleft()
                    except IndexError:
                        if self.closed:
                            raise QueueClosed from None
                    if self._load is None or exhausted == self._load_requests:
                        self._wait_for_change(until, with_retries)
                        exhausted = -1
                        continue
                    entry, requests = None, self._load_requests
            if entry is not None:
                prepared = None
                try:
                    prepared = self._prepare(entry)
                finally:
                    if prepared is None:
                        self.forget(1)
                if prepared is not None:
                    return prepared
            elif self._load is not None and not self._load():
                exhausted = requests

    def _is_retry_due(self) -> bool:
        retries = self._retries
        return bool(retries) and (self.closed or retries[0].due <= monotonic())

    def _wait_for_change(self, until: float | None, with_retries: bool) -> None:
        now = monotonic()
        if until is not None and until <= now:
            raise TimeoutError
        ends = [] if until is None else [until]
        if with_retries and self._retries:
            ends.append(self._retries[0].due)
        self.consumers += 1
        try:
            self._changed.wait(max(0.0, min(ends) - now) if ends else None)
        finally:
            self.consumers -= 1
