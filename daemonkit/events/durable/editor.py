"""What an operator may see and change in a durable queue's file, even while a daemon uses it.

Each step is a short transaction: a daemon never waits long, and its write-ahead log can be
checkpointed no matter how slowly the output is consumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ...types import Origin, Source
from .rows import STRIDE, StoredBatch, StoredFailure, batch_of
from .store import STATES, State, Store

BUSY_TIMEOUT = 10.0
"""Seconds to wait while another process writes."""
AT_ONCE = 1000
"""Events in a transaction."""
BYTES_AT_ONCE = 1024 * 1024
BATCHES_AT_ONCE = 100
DEAD: tuple[State, ...] = ("dead",)


class Stored(NamedTuple):
    """An event in the file.

    attempts: since it was last retried by hand; due: when it is retried. All times are Unix
    seconds.
    """

    id: int
    state: State
    received: float
    source: Source
    origin: Origin
    line: bytes
    attempts: int = 0
    due: float | None = None
    first_failed: float | None = None
    last_failed: float | None = None
    error: str = ""
    traceback: str = ""


class Editor:
    """An open file. Every method may raise sqlite3.Error.

    path: the file; create: create it if missing; busy_timeout: seconds to wait while another
    process writes; check: check it for damage first.
    Raises StartError if it can't be opened or isn't a queue, and Broken.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool = False,
        busy_timeout: float = BUSY_TIMEOUT,
        check: bool = True,
    ) -> None:
        self._store = Store(path, create=create, busy_timeout=busy_timeout, check=check)

    def close(self) -> None:
        self._store.close()

    # Reading

    def count(self, states: Collection[State]) -> int:
        """How many events are in these states."""
        waiting = self._store.count() if "waiting" in states else 0
        return self._store.count_failed(states) + waiting

    def find(self, id: int) -> Stored | None:
        """The event with this id, None if there is none."""
        with self._store.snapshot():
            found, _ = self._window(id - 1, id, STATES)
        return found[0] if found else None

    def latest(
        self, states: Collection[State], error: str, before: int, limit: int, whole: bool
    ) -> tuple[list[Stored], int]:
        """Some failed events, see `Store.latest_failures`, and how many there are in all."""
        with self._store.snapshot():
            rows = self._store.latest_failures(states, error, before, limit, whole=whole)
            total = self._store.count_failures(states, error, whole=whole)
        return list(map(failed_event, rows)), total

    def events(self, states: Collection[State]) -> Iterator[Stored]:
        """The events in these states, oldest first, without those added meanwhile.

        Each event is listed once, in the state that it has when it is read.
        """
        after, last = -1, self._store.newest()
        while after < last:
            with self._store.snapshot():
                found, after = self._window(after, last, states)
            yield from found

    def _window(self, after: int, last: int, states: Collection[State]) -> tuple[list[Stored], int]:
        """Some of the events with ids over `after` and up to `last`, and the id up to which they
        are complete."""
        waiting, through = self._waiting(after, last) if "waiting" in states else ([], last)
        failed, failed_through = self._failed(after, last, states)
        through = min(through, failed_through)
        found = [event for event in waiting + failed if event.id <= through]
        return sorted(found, key=lambda event: event.id), through

    def _waiting(self, after: int, last: int) -> tuple[list[Stored], int]:
        found: list[Stored] = []
        size = 0
        # The events of earlier batches all come before `after`.
        for batch in self._store.batches(after - STRIDE + 1, last):
            found += (e for e in split(batch, self._store.handled_of(batch.id)) if e.id > after)
            size += len(batch.lines)
            if len(found) >= AT_ONCE or size >= BYTES_AT_ONCE:
                return found, min(last, batch.id + STRIDE - 1)
        return [event for event in found if event.id <= last], last

    def _failed(self, after: int, last: int, states: Collection[State]) -> tuple[list[Stored], int]:
        found: list[Stored] = []
        size = 0
        for row in self._store.failures(after, last, states):
            found.append(failed_event(row))
            size += len(row.line) + len(row.traceback)
            if len(found) >= AT_ONCE or size >= BYTES_AT_ONCE:
                return found, row.id
        return found, last

    # Changing

    def add(self, lines: Sequence[bytes]) -> None:
        """Add up to STRIDE events, given as lines of NDJSON."""
        with self._store.transaction():
            id, text = self._store.next_id(), b"\n".join(lines)
            self._store.add(StoredBatch(id, len(lines), time.time(), "app", None, text))

    def retry(self, ids: Sequence[int]) -> set[int]:
        """Have failed events retried now, as if never attempted; returns those that exist."""
        with self._store.transaction():
            found = self._store.failed_among(ids)
            self._retry(found)
        return set(found)

    def retry_all(self, states: Collection[State] = DEAD, error: str = "") -> int:
        """Have all failed events in these states retried that have this text in their error;
        returns how many."""
        return self._for_each_failed(states, error, self._retry)

    def _retry(self, ids: Sequence[int]) -> None:
        self._store.retry(ids, time.time())

    def drop(self, ids: Sequence[int]) -> set[int]:
        """Remove events; returns those that existed."""
        by_batch: dict[int, set[int]] = {}
        for id in ids:
            by_batch.setdefault(batch_of(id), set()).add(id % STRIDE)
        with self._store.transaction():
            failed = self._store.failed_among(ids)
            self._store.remove_failed(failed)
            dropped = set(failed)
            for batch, numbers in by_batch.items():
                dropped |= {batch + number for number in self._drop_of(batch, numbers)}
        return dropped

    def drop_failed(self, ids: Sequence[int]) -> set[int]:
        """Remove failed events; returns those that existed."""
        with self._store.transaction():
            found = self._store.failed_among(ids)
            self._store.remove_failed(found)
        return set(found)

    def _drop_of(self, batch: int, numbers: set[int]) -> set[int]:
        existing = numbers.intersection(range(self._store.size_of(batch)))
        dropped = existing - self._store.handled_of(batch)
        if dropped:
            self._store.mark_handled(batch, dropped)
        return dropped

    def drop_all(self, states: Collection[State], error: str = "") -> int:
        """Remove all events in these states, of the failed ones those with this text in their
        error; returns how many."""
        # In this order: an event that fails meanwhile is found among the failed ones.
        dropped = self._drop_waiting() if "waiting" in states else 0
        return dropped + self._for_each_failed(states, error, self._store.remove_failed)

    def _drop_waiting(self) -> int:
        dropped, after, last = 0, -1, self._store.newest()
        while True:
            with self._store.transaction():
                sizes = self._store.sizes(after, last, BATCHES_AT_ONCE)
                if not sizes:
                    return dropped
                dropped += sum(size - len(self._store.handled_of(id)) for id, size in sizes)
                batches = [id for id, _ in sizes]
                self._store.remove(batches)
                self._store.unmark(batches)
            after = batches[-1]

    def _for_each_failed(
        self, states: Collection[State], error: str, change: Callable[[Sequence[int]], None]
    ) -> int:
        # By id, since a retried event may become a dead letter again at once.
        changed, after, last = 0, -1, self._store.newest()
        while True:
            with self._store.transaction():
                ids = self._store.failed_ids(after, last, states, error, AT_ONCE)
                if not ids:
                    return changed
                change(ids)
            changed, after = changed + len(ids), ids[-1]


def failed_event(row: StoredFailure) -> Stored:
    """A failed event."""
    fields = row._asdict()
    del fields["peer"]
    return Stored(state="dead" if row.due is None else "retrying", origin=row.origin, **fields)


def split(batch: StoredBatch, handled: Collection[int]) -> Iterable[Stored]:
    """The unhandled events of a batch."""
    for number, (line, origin) in enumerate(zip(batch.texts(), batch.origins(), strict=False)):
        if number not in handled:
            yield Stored(batch.id + number, "waiting", batch.received, batch.source, origin, line)
