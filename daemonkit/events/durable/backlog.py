"""The waiting events of a durable queue: the first of them in memory, the rest read when needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ...exceptions import InvalidEvent
from ..entry import Batch, Entry
from ..waiting import Waiting
from .in_flight import Failed, InFlight
from .rows import STRIDE, Due, StoredBatch, numbers_in
from .store import Store
from .unpacking import entries_of, retry_of, unpack

READY_EVENTS = 10_000
READY_MEMORY = 64 * 1024 * 1024
"""The most events that wait in memory, and the most bytes that they use."""
LONGEST_WAIT = 366 * 86_400.0
"""Seconds, for a file in which somebody has edited the time of a retry."""
AT_ONCE = 1000
"""Events read from the file before other threads get their turn."""


class Backlog:
    """Not thread-safe, except for `len`, `get`, `get_batch`, `waiting` and `dropped`.

    with_meta: returns whether the handler wants each event's metadata.
    """

    def __init__(
        self,
        store: Store,
        waiting: Waiting,
        in_flight: InFlight,
        with_meta: Callable[[], bool],
    ) -> None:
        self.waiting = waiting
        self._with_meta = with_meta
        self.dropped: set[int] = set()
        """Events in memory that another process has dropped."""
        self.dead = 0
        self.retried = 0
        self.next_id = 0
        self._store = store
        self._in_flight = in_flight
        self._on_disk = 0
        """How many events wait in the file only."""
        self.is_loaded = True
        """Whether all waiting events are in memory."""
        self._loaded = 0
        """The last batch that was loaded."""
        self._version = store.data_version()
        self.catch_up()

    def __len__(self) -> int:
        in_memory = self.waiting.ready - len(self.dropped) + self._in_flight.scheduled
        return self._on_disk + in_memory

    @property
    def retrying(self) -> int:
        """How many of them are scheduled for a retry."""
        return self._in_flight.scheduled

    def hand_over(self, batch: Batch, stored: StoredBatch) -> None:
        """Make a batch that was just written available to consumers."""
        waiting, in_flight = self.waiting, self._in_flight
        if (
            not self.is_loaded
            or waiting.ready >= READY_EVENTS
            or in_flight.memory >= READY_MEMORY
            or not self._add_batch(batch, stored)
        ):
            self.is_loaded = False
            self._on_disk += stored.events
            if not waiting.ready:
                waiting.request_load()

    def _add_batch(self, batch: Batch, stored: StoredBatch) -> bool:
        # First: a consumer may be done with it before we return.
        self._in_flight.add_batch(stored, stored.events, set())
        ids = range(stored.id, stored.id + stored.events)
        entries = entries_of(batch.events, stored, batch.origins, ids, with_meta=self._with_meta())
        if self.waiting.add(entries, len(batch.events)):
            self._loaded = stored.id
            return True
        self._in_flight.remove_batch(stored.id)
        return False

    def get(self) -> Any:
        """Wait for the oldest entry and take it; raises QueueClosed."""
        while True:
            entry = self.waiting.get()
            # `dropped` is about first attempts only.
            if not self.dropped or entry.failed is not None or entry.id not in self.dropped:
                return entry
            self.dropped.discard(entry.id)
            self.waiting.forget(1)

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit` entries, see `Waiting.get_batch`."""
        while True:
            entries = self.waiting.get_batch(limit, linger)
            if self.dropped and entries[0].failed is None:
                gone = self.dropped.intersection(entry.id for entry in entries)
                entries = [entry for entry in entries if entry.id not in gone]
                self.dropped.difference_update(gone)
                self.waiting.forget(len(gone))
            if entries:
                return entries

    def close(self) -> None:
        """Hand out nothing more; the events stay in the file."""
        ready = self.waiting.ready
        self.waiting.close(drain=False)
        self._on_disk += ready

    def load_if_needed(self) -> None:
        """Load the next events from the file, unless some are ready or the queue is closed."""
        if self.waiting.ready or self.waiting.closed:
            return
        handled = dict(self._store.handled(self._loaded))
        taken = 0
        for stored in self._store.batches(self._loaded):
            taken += self._load_batch(stored, numbers_in(handled.get(stored.id, [])))
            if taken >= AT_ONCE or self._in_flight.memory >= READY_MEMORY:
                return
        self.is_loaded, self._on_disk = True, 0

    def _load_batch(self, stored: StoredBatch, handled: set[int]) -> int:
        size, entries, damaged = unpack(stored, handled, with_meta=self._with_meta())
        # Copied, because it grows.
        self._in_flight.add_batch(stored, size, set(handled))
        self._loaded = stored.id
        # Before they count as ready: a brief undercount is harmless.
        self._on_disk = max(0, self._on_disk - (size - len(handled)))
        for number, error in damaged.items():
            self._in_flight.note_damaged(stored.id + number, error)
        self.waiting.add(entries, len(entries))
        return size - len(handled)

    def read_again(self, entry: Entry) -> Entry | None:
        """The event of an entry that `_schedule` made; None if it isn't due any more."""
        id, in_flight = entry.id, self._in_flight
        if not in_flight.is_scheduled(id, entry.event):
            return None
        event = self._store.failed(id)
        if event is None or event.due is None:
            in_flight.unschedule(id)
            return None
        in_flight.begin_retry(id)
        try:
            return retry_of(event, with_meta=self._with_meta())
        except InvalidEvent as error:
            in_flight.note_damaged(id, error)
            return None

    def note_failed(self, events: Iterable[Failed]) -> None:
        """Note failed events that were written."""
        for failed in events:
            id, failure, due = failed
            if due is None:
                self.dead += 1
            else:
                self.retried += 1
                self._schedule(Due(id, due, due - failure.last_failed))
                # Last: a brief overcount is harmless, an undercount hides an event.
                self._in_flight.count_scheduled(failed)

    def _schedule(self, event: Due) -> None:
        id, due, backoff = event
        self._in_flight.schedule(id, due)
        # No longer than planned: the clock may have been set back.
        delay = max(0.0, min(due - time.time(), backoff, LONGEST_WAIT))
        self.waiting.put_back(Entry(due, None, id), delay)

    def catch_up_if_changed(self) -> None:
        """Catch up if another process has changed the file."""
        version = self._store.data_version()
        if version != self._version:
            self._version = version
            self.catch_up()

    def catch_up(self) -> None:
        """Note what another process has added, dropped or scheduled for a retry."""
        store, in_flight = self._store, self._in_flight
        # Everything before it has been taken.
        head = self.waiting.head()
        waits_from = self._loaded + STRIDE if head is None else head.id
        gone = in_flight.drop_missing(store.ids(self._loaded))
        for id, ranges in store.handled():
            gone |= in_flight.apply_marks(id, numbers_in(ranges))
        self.dropped |= {id for id in gone if id >= waits_from}
        for event in in_flight.reschedule(store.due()):
            self._schedule(event)
        self.dead = store.count_failed(["dead"])
        self._on_disk = store.count(self._loaded)
        self.is_loaded = not self._on_disk
        self.next_id = max(self.next_id, store.next_id())
        self.waiting.request_load()

    def oldest(self) -> float | None:
        """When the oldest event that waits in memory was received, in Unix seconds; without
        retries."""
        head = self.waiting.head()
        return None if head is None else self._in_flight.received(head.id)

    def oldest_on_disk(self) -> float | None:
        """The same for events that wait in the file only."""
        return self._store.oldest(self._loaded) if self._on_disk else None
