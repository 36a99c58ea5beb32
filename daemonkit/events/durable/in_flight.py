"""Events of a durable queue in memory or in work, and their results until the file has them."""

from __future__ import annotations

import sqlite3
import threading
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ...exceptions import InvalidEvent
from ...text import error_text
from ..entry import Entry, FailedAttempt, failure_of
from ..footprint import RECORD, footprint
from .rows import STRIDE, Due, StoredBatch, StoredFailure, batch_of, to_failure
from .store import Store


class Failed(NamedTuple):
    """A failed event. due: when it is retried, in Unix seconds; None for a dead letter."""

    id: int
    failure: FailedAttempt
    due: float | None


class _Loaded:
    """A batch in memory. handled: numbers of its handled events, from 0; left: how many aren't."""

    __slots__ = ("events", "handled", "left", "memory", "received")

    def __init__(self, batch: StoredBatch, events: int, handled: set[int]) -> None:
        self.events = events
        self.left = events - len(handled)
        self.memory = footprint([batch.lines]) + events * RECORD
        self.received = batch.received
        self.handled = handled


class InFlight:
    """The state of each event between the file and its handler.

    Only `handled` and `fail` may be used by several threads at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.handled: list[Entry] = []
        """Handled events, for threads to append to: a call for each event would cost too much."""
        self._new_failures: list[Failed] = []
        self.collected = 0
        """Results that were collected from these two and aren't written yet."""
        self._batches: dict[int, _Loaded] = {}
        self.memory = 0
        """Bytes that the batches in memory use, about."""
        """The JSON of the batches in memory."""
        self._due: dict[int, float] = {}
        """Events scheduled for a retry, in Unix seconds."""
        self._unscheduled = 0
        """Events to be scheduled for a retry once the file has their failure."""
        self._counting = threading.Lock()
        self._in_retry: set[int] = set()
        """Events whose retry is in work."""
        self._finished: list[int] = []
        self._partly: set[int] = set()
        self._marked: set[int] = set()
        """Batches with marks in the file."""
        self._recovered: list[int] = []
        self._failures: list[Failed] = []

    # Results, from any thread

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> None:
        """Note a failed event to be retried in `delay` seconds, or never."""
        if delay is not None:
            with self._counting:
                self._unscheduled += 1
        due = None if delay is None else time.time() + delay
        self._new_failures.append(Failed(entry.id, failure, due))

    @property
    def unsaved(self) -> int:
        """How many results the file doesn't have."""
        return self.collected + len(self.handled) + len(self._new_failures)

    # Batches

    def add_batch(self, batch: StoredBatch, events: int, handled: set[int]) -> None:
        """Note that a batch is in memory."""
        self._batches[batch.id] = loaded = _Loaded(batch, events, handled)
        self.memory += loaded.memory
        if handled:
            self._marked.add(batch.id)

    def remove_batch(self, id: int) -> None:
        """Note that a batch isn't in memory any more."""
        self.memory -= self._batches.pop(id).memory
        self._partly.discard(id)

    def received(self, id: int) -> float | None:
        """When the batch of an event was received, None if it isn't in memory."""
        loaded = self._batches.get(batch_of(id))
        return None if loaded is None else loaded.received

    def drop_missing(self, present: Collection[int]) -> set[int]:
        """Remove the batches that aren't `present` in the file; returns their unhandled events."""
        gone: set[int] = set()
        for id in [id for id in self._batches if id not in present]:
            loaded = self._batches[id]
            gone |= {id + n for n in range(loaded.events) if n not in loaded.handled}
            self.remove_batch(id)
        return gone

    def apply_marks(self, id: int, numbers: Iterable[int]) -> set[int]:
        """Note that the file marks these events of a batch as handled; returns those that weren't
        in memory."""
        if id not in self._batches:
            return set()
        self._marked.add(id)
        return {id + n for n in numbers if self._settle([id + n])}

    def _settle(self, ids: Sequence[int]) -> int:
        """Note that events of one batch are handled; returns how many were not, or not dropped by
        another process."""
        first = ids[0] - ids[0] % STRIDE
        loaded = self._batches.get(first)
        if loaded is None:
            return 0
        before = len(loaded.handled)
        loaded.handled.update([id - first for id in ids])
        settled = len(loaded.handled) - before
        loaded.left -= settled
        if loaded.left and settled:
            self._partly.add(first)
        elif not loaded.left:
            self._finished.append(first)
            self.remove_batch(first)
        return settled

    # Retries

    @property
    def scheduled(self) -> int:
        """How many events are scheduled for a retry, or are to be."""
        # In this order: a brief overcount is harmless, an undercount hides an event.
        unscheduled = self._unscheduled
        return unscheduled + len(self._due)

    def schedule(self, id: int, due: float) -> None:
        """Schedule a retry, or reschedule it."""
        self._due[id] = due

    def count_scheduled(self, failed: Failed) -> None:
        """A failed event is scheduled now, or was dropped."""
        if failed.due is not None:
            with self._counting:
                self._unscheduled -= 1

    def is_scheduled(self, id: int, due: float) -> bool:
        """Whether an event is scheduled for just this time."""
        return self._due.get(id) == due

    def unschedule(self, id: int) -> None:
        """Drop a scheduled retry."""
        del self._due[id]

    def begin_retry(self, id: int) -> None:
        """A scheduled event is handed to its handler."""
        del self._due[id]
        self._in_retry.add(id)

    def reschedule(self, events: Sequence[Due]) -> list[Due]:
        """Drop the retries of other events; returns those that are new or have changed, except
        those in work."""
        for id in self._due.keys() - {event.id for event in events}:
            del self._due[id]
        return [
            event
            for event in events
            if event.id not in self._in_retry and self._due.get(event.id) != event.due
        ]

    # Saving

    @property
    def has_unsaved(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.unsaved or self._has_collected())

    def _has_collected(self) -> bool:
        return bool(self._finished or self._partly or self._recovered or self._failures)

    def note_damaged(self, id: int, error: InvalidEvent) -> None:
        """Note that the JSON of an event is invalid, which makes it a dead letter."""
        self._note_failed(Failed(id, failure_of(error, Entry(None), str), None))

    def collect(self) -> None:
        """Collect the results that threads have recorded so far."""
        # They may append more meanwhile.
        handled = self.handled[: len(self.handled)]
        failures = self._new_failures[: len(self._new_failures)]
        self.collected += len(handled) + len(failures)
        del self.handled[: len(handled)], self._new_failures[: len(failures)]
        self._note_handled(handled)
        for failed in failures:
            self._note_failed(failed)

    def _note_handled(self, entries: Sequence[Entry]) -> None:
        ids = sorted([entry[2] for entry in entries])
        if self._in_retry:
            self._recovered += self._in_retry.intersection(ids)
            ids = [id for id in ids if id not in self._in_retry]
        # By batch, not by event: this is a hot path.
        start = 0
        while start < len(ids):
            end = bisect_left(ids, ids[start] - ids[start] % STRIDE + STRIDE, start)
            self._settle(ids[start:end])
            start = end

    def _note_failed(self, failed: Failed) -> None:
        if failed.id in self._in_retry or self._settle([failed.id]):
            self._failures.append(failed)
        else:
            # Another process has dropped it.
            self.count_scheduled(failed)

    def write(self, newest: int, *, touch: bool = False) -> None:
        """Write the collected results, in the caller's transaction; repeatable if that fails.

        newest: the largest batch id in the file; touch: write something in any case.
        """
        store, finished = self._store, self._finished
        if touch and not self._has_collected():
            store.touch()
        self._write_failures()
        if self._recovered:
            store.remove_failed(self._recovered)
        for id in self._partly:
            # This includes the marks of other processes.
            store.set_handled(id, self._batches[id].handled)
        if finished:
            # Otherwise one more page would be written.
            store.remove(finished, with_newest=newest in finished)
            if not self._marked.isdisjoint(finished):
                store.unmark(finished)

    def _write_failures(self) -> None:
        batches: dict[int, tuple[StoredBatch | None, list[bytes]]] = {}
        for failed in list(self._failures):
            row = self._row_of(failed, batches)
            if row is None:
                # Another process has dropped it.
                self._failures.remove(failed)
                self._in_retry.discard(failed.id)
                self.count_scheduled(failed)
            else:
                self._put_failed(row)

    def _row_of(
        self, failed: Failed, batches: dict[int, tuple[StoredBatch | None, list[bytes]]]
    ) -> StoredFailure | None:
        id, failure, due = failed
        if id in self._in_retry:
            row = self._store.failed(id)
            return None if row is None else row.failed_again(failure, due)
        first = batch_of(id)
        if first not in batches:
            batch = self._store.batch(first)
            batches[first] = batch, [] if batch is None else batch.texts()
        batch, texts = batches[first]
        # The batch is gone, or was edited.
        if batch is None or id - first >= len(texts):
            return None
        return to_failure(batch, id - first, texts[id - first], failure, due)

    def _put_failed(self, row: StoredFailure) -> None:
        try:
            self._store.put_failed(row)
        # The disk, or another process.
        except sqlite3.OperationalError:
            raise
        # A value that SQLite can't store must not block all other results.
        except Exception as error:
            now, text = time.time(), f"(the error can't be stored: {error_text(error)})"
            plainest = row._replace(attempts=1, received=now, source="app", peer=None, error=text)
            plainest = plainest._replace(first_failed=now, last_failed=now, traceback="")
            self._store.put_failed(plainest)

    def written(self) -> list[Failed]:
        """Note that the results are in the file; returns the failed events."""
        failures, self._failures = self._failures, []
        self._in_retry.difference_update(self._recovered, [failed.id for failed in failures])
        self._marked |= self._partly
        self._marked.difference_update(self._finished)
        self._finished, self._partly, self._recovered = [], set(), []
        self.collected = 0
        return failures
