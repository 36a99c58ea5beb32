"""What has become of the events of a durable queue that were taken, until the file knows it too."""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from ...text import error_text
from ..entry import Entry, FailedAttempt
from .store import STRIDE, Store, StoredBatch, StoredFailure


class Row:
    """A batch that takers are given events of."""

    __slots__ = ("count", "handled", "left", "received", "size")

    def __init__(self, count: int, size: int, received: float) -> None:
        self.count = count
        self.left = count
        self.size = size
        self.received = received
        self.handled: set[int] = set()
        """Numbers of the events that are; counted from 0."""


class InFlight:
    """Events handled and failed, to be written to `store` some at a time.

    Not for several threads at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.rows: dict[int, Row] = {}
        self.bytes = 0
        """Of the rows."""
        self.due: dict[int, float] = {}
        """Events that have failed, and when each is due again, in Unix seconds."""
        self.trying: set[int] = set()
        """Those of them that are in work."""
        self._finished: list[int] = []
        self._partly: set[int] = set()
        self._marked: set[int] = set()
        """Batches of which the file has marks."""
        self._recovered: list[int] = []
        self._failures: list[tuple[Entry, FailedAttempt, float | None]] = []

    def add_row(self, id: int, row: Row) -> None:
        """Take on a batch."""
        self.rows[id] = row
        self.bytes += row.size
        if row.handled:
            self._marked.add(id)

    def handled(self, entries: Iterable[Entry]) -> None:
        """Note that events needn't be handled any more."""
        ids = sorted([entry[2] for entry in entries])
        if self.trying:
            self._recovered += self.trying.intersection(ids)
            ids = [id for id in ids if id not in self.trying]
        # A batch at a time: this is done for each event.
        start = 0
        while start < len(ids):
            end = bisect_left(ids, ids[start] - ids[start] % STRIDE + STRIDE, start)
            self.settle(ids[start:end])
            start = end

    def failed(self, failures: Iterable[tuple[Entry, FailedAttempt, float | None]]) -> None:
        """Note events that have failed, and in how many seconds each is due again, if ever."""
        now = time.time()
        for entry, failure, delay in failures:
            # Unless it was dropped meanwhile, from another process.
            if entry.id in self.trying or self.settle([entry.id]):
                due = None if delay is None else now + delay
                self._failures.append((entry, failure, due))

    def note_marks(self, id: int) -> None:
        """The file has marks of this batch, maybe of another process."""
        self._marked.add(id)

    def settle(self, ids: Sequence[int]) -> int:
        """Note that there is nothing more to do for events of one batch; returns for how many there
        was something: others have been dropped from another process."""
        first = ids[0] - ids[0] % STRIDE
        row = self.rows.get(first)
        if row is None:
            return 0
        before = len(row.handled)
        row.handled.update([id - first for id in ids])
        settled = len(row.handled) - before
        row.left -= settled
        if row.left and settled:
            self._partly.add(first)
        elif not row.left:
            self._finished.append(first)
            self.forget_row(first)
        return settled

    def forget_row(self, id: int) -> None:
        """A batch is done with."""
        self.bytes -= self.rows.pop(id).size
        self._partly.discard(id)

    @property
    def has_news(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._finished or self._partly or self._recovered or self._failures)

    def write(self, newest: int) -> None:
        """Write what was noted, in a transaction of the caller's; may be done again if it fails.

        newest: the largest id of a batch in the file.
        """
        store, finished = self._store, self._finished
        lines: dict[int, tuple[StoredBatch, list[bytes]]] = {}
        for noted in list(self._failures):
            entry, failure, due = noted
            if (event := self._event(entry.id, failure, lines)) is not None:
                self._add_failed(event, failure, due)
            else:
                # Another process has dropped it.
                self._failures.remove(noted)
                self.trying.discard(entry.id)
        if self._recovered:
            store.remove_failed(self._recovered)
        for id in self._partly:
            # It has what others have marked, too.
            store.set_handled(id, self.rows[id].handled)
        if finished:
            # One more page to be written, if there is no need.
            store.remove(finished, with_last=newest in finished)
            if not self._marked.isdisjoint(finished):
                store.unmark(finished)

    def _add_failed(self, event: StoredFailure, failure: FailedAttempt, due: float | None) -> None:
        try:
            self._store.add_failed(event, failure, due)
        # The disk, or another process.
        except sqlite3.OperationalError:
            raise
        # Whatever it is, all others mustn't wait for it.
        except Exception as error:
            now, text = time.time(), f"(the error can't be stored: {error_text(error)})"
            self._store.add_failed(
                StoredFailure(event.id, None, 0, now, "app", None, now, event.line),
                FailedAttempt(text, "", 1, now, now),
                due,
            )

    def _event(
        self, id: int, failure: FailedAttempt, lines: dict[int, tuple[StoredBatch, list[bytes]]]
    ) -> StoredFailure | None:
        if id in self.trying:
            return self._store.failed(id)
        first, number = id - id % STRIDE, id % STRIDE
        if first not in lines:
            batch = self._store.batch(first)
            if batch is None:
                return None
            lines[first] = batch, batch.texts()
        batch, texts = lines[first]
        # Somebody has edited it meanwhile.
        if number >= len(texts):
            return None
        return StoredFailure(
            id,
            None,
            0,
            batch.received,
            batch.source,
            batch.senders()[number],
            failure.first_failed,
            texts[number],
        )

    def written(self) -> Sequence[tuple[Entry, float | None]]:
        """What was written is in the file; returns what has failed, and when it is due again."""
        failures, self._failures = self._failures, []
        self.trying.difference_update(self._recovered, [entry.id for entry, _, _ in failures])
        self._marked |= self._partly
        self._marked.difference_update(self._finished)
        self._finished, self._partly, self._recovered = [], set(), []
        return [(entry, due) for entry, _, due in failures]
