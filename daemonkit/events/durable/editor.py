"""What an operator may see and change of a durable queue's file, also while a daemon works with it.

Each step is a short transaction, so that a daemon never waits for long, and its write-ahead log can
begin anew however slowly a reader's output goes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Literal, NamedTuple

from ...types import Source
from .store import ATTEMPTS, BATCH, STRIDE, Store, StoredBatch, seconds

State = Literal["waiting", "retrying", "dead"]
STATES: tuple[State, ...] = ("waiting", "retrying", "dead")
"""Not tried yet; failed and to be tried again; a dead letter."""

PATIENCE = 10.0
"""Seconds to wait while another process writes."""
AT_ONCE = 1000
"""Events in a transaction."""
BYTES_AT_ONCE = 1024 * 1024
BATCHES_AT_ONCE = 100
TOP = 2**63 - 1
"""The largest id there can be."""


class Stored(NamedTuple):
    """An event in the file.

    attempts: how many there were, since it was last retried by hand; due: when it is tried again;
    received, due and the times when it failed first and last are Unix seconds.
    """

    id: int
    state: State
    received: float
    source: Source
    peer: str | None
    line: bytes
    attempts: int = 0
    due: float | None = None
    first_failed: float | None = None
    last_failed: float | None = None
    error: str = ""
    traceback: str = ""


class Editor:
    """An open file. Every method may raise sqlite3.Error.

    path: the file; create: make it if it isn't there.
    Raises StartError when it can't be opened or isn't a queue, Broken.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        self._store = Store(path, create=create, patience=PATIENCE)

    def close(self) -> None:
        self._store.close()

    # Looking

    def count(self, states: Collection[State]) -> int:
        """How many events are in one of these states."""
        failed = self._store.value(f"SELECT count(*) FROM failed WHERE {_condition(states)}")
        return int(failed) + (self._store.count() if "waiting" in states else 0)

    def find(self, id: int) -> Stored | None:
        """The event with this id, None if there is none any more."""
        with self._reading():
            found, _ = self._window(id - 1, id, STATES)
        return found[0] if found else None

    def events(self, states: Collection[State]) -> Iterator[Stored]:
        """The events that are in one of these states and were there at the beginning, oldest first.

        An event is given once, with what is known of it when its turn comes.
        """
        after, last = -1, self._last()
        while after < last:
            with self._reading():
                found, after = self._window(after, last, states)
            yield from found

    def _window(self, after: int, last: int, states: Collection[State]) -> tuple[list[Stored], int]:
        """Some events with ids over `after` and up to `last`, and the id up to which they are all
        there are."""
        waiting, through = self._waiting(after, last) if "waiting" in states else ([], last)
        failed, failed_through = self._failed(after, last, states)
        through = min(through, failed_through)
        found = [event for event in waiting + failed if event.id <= through]
        return sorted(found, key=lambda event: event.id), through

    def _waiting(self, after: int, last: int) -> tuple[list[Stored], int]:
        found: list[Stored] = []
        size = 0
        # Of an earlier one no event comes after.
        between = after - STRIDE + 1, last
        statement = f"SELECT {BATCH} FROM batches WHERE id > ? AND id <= ? ORDER BY id"
        with closing(self._store.db.execute(statement, between)) as rows:
            for row in rows:
                batch = StoredBatch(*row)
                found += (e for e in split(batch, self._store.handled_of(batch.id)) if e.id > after)
                size += len(batch.lines)
                if len(found) >= AT_ONCE or size >= BYTES_AT_ONCE:
                    return found, min(last, batch.id + STRIDE - 1)
        return [event for event in found if event.id <= last], last

    def _failed(self, after: int, last: int, states: Collection[State]) -> tuple[list[Stored], int]:
        found: list[Stored] = []
        size = 0
        statement = (
            f"SELECT {FAILED} FROM failed "
            f"WHERE id > ? AND id <= ? AND {_condition(states)} ORDER BY id"
        )
        with closing(self._store.db.execute(statement, (after, last))) as rows:
            for row in rows:
                event = failed_event(row)
                found.append(event)
                size += len(event.line) + len(event.traceback)
                if len(found) >= AT_ONCE or size >= BYTES_AT_ONCE:
                    return found, event.id
        return found, last

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """See the file as it is at one moment."""
        self._store.db.execute("BEGIN")
        try:
            yield
        finally:
            # An error may have ended it.
            if self._store.db.in_transaction:
                self._store.db.execute("ROLLBACK")

    def _last(self) -> int:
        """The largest id an event has now."""
        batch = self._store.value("SELECT max(id) FROM batches")
        failed = self._store.value("SELECT max(id) FROM failed")
        return max(-1 if batch is None else batch + STRIDE - 1, -1 if failed is None else failed)

    # Changing

    def add(self, lines: Sequence[bytes]) -> None:
        """Add up to STRIDE events, given as lines of NDJSON."""
        with self._store.transaction():
            id = self._store.next_id()
            text = b"\n".join(lines)
            self._store.add(StoredBatch(id, len(lines), time.time(), "app", None, text))

    def retry(self, ids: Sequence[int]) -> set[int]:
        """Have events that failed tried again now, as if for the first time; returns those that
        there are."""
        with self._store.transaction():
            found = self._ids_in_failed("id IN (SELECT value FROM json_each(?))", json.dumps(ids))
            self._retry(found)
        return set(found)

    def retry_all(self) -> int:
        """Have all dead letters tried again; returns how many."""
        return self._for_each_failed(["dead"], self._retry)

    def _retry(self, ids: Sequence[int]) -> None:
        self._store.db.execute(
            "UPDATE failed SET due = ?, attempts = 0 WHERE id IN (SELECT value FROM json_each(?))",
            (time.time(), json.dumps(ids)),
        )

    def drop(self, ids: Sequence[int]) -> set[int]:
        """Remove events; returns those that there were."""
        by_batch: dict[int, set[int]] = {}
        for id in ids:
            by_batch.setdefault(id - id % STRIDE, set()).add(id % STRIDE)
        with self._store.transaction():
            dropped = set(
                self._ids_in_failed("id IN (SELECT value FROM json_each(?))", json.dumps(ids))
            )
            self._store.remove_failed(list(dropped))
            for batch, numbers in by_batch.items():
                dropped |= {batch + number for number in self._drop_of(batch, numbers)}
        return dropped

    def _drop_of(self, batch: int, numbers: set[int]) -> set[int]:
        count = self._store.value("SELECT count FROM batches WHERE id = ?", batch)
        dropped = numbers.intersection(range(count or 0)) - self._store.handled_of(batch)
        if dropped:
            self._store.mark_handled(batch, dropped)
        return dropped

    def drop_all(self, states: Collection[State]) -> int:
        """Remove all events that are in one of these states; returns how many."""
        # In this order: one that fails meanwhile is found among the failed ones.
        dropped = self._drop_waiting() if "waiting" in states else 0
        return dropped + self._for_each_failed(states, self._store.remove_failed)

    def _drop_waiting(self) -> int:
        dropped, after, last = 0, -1, self._last()
        while True:
            with self._store.transaction():
                rows = self._store.db.execute(
                    "SELECT id, count FROM batches WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                    (after, last, BATCHES_AT_ONCE),
                ).fetchall()
                if not rows:
                    return dropped
                dropped += sum(count - len(self._store.handled_of(id)) for id, count in rows)
                batches = [id for id, _ in rows]
                self._store.remove(batches)
                self._store.unmark(batches)
            after = rows[-1][0]

    def _for_each_failed(
        self, states: Collection[State], change: Callable[[Sequence[int]], None]
    ) -> int:
        # By id, for what is tried again may be a dead letter again at once.
        changed, after, last = 0, -1, self._last()
        condition = f"{_condition(states)} AND id > ? AND id <= ? ORDER BY id LIMIT {AT_ONCE}"
        while True:
            with self._store.transaction():
                ids = self._ids_in_failed(condition, after, last)
                if not ids:
                    return changed
                change(ids)
            changed, after = changed + len(ids), ids[-1]

    def _ids_in_failed(self, condition: str, *arguments: Any) -> list[int]:
        rows = self._store.db.execute(f"SELECT id FROM failed WHERE {condition}", arguments)
        return [id for (id,) in rows]


FAILED = (
    f"id, {seconds('received')}, CAST(source AS TEXT), CAST(peer AS TEXT), CAST(line AS BLOB), "
    f"{ATTEMPTS}, {seconds('due')}, {seconds('first_failed')}, {seconds('last_failed')}, "
    "CAST(error AS TEXT), CAST(traceback AS TEXT)"
)
"""The columns of a Stored that has failed. What was edited by hand may be of another type."""


def _condition(states: Collection[State]) -> str:
    """What rows of `failed` in one of these states fulfil."""
    if "dead" in states:
        return "1" if "retrying" in states else "due IS NULL"
    return "due IS NOT NULL" if "retrying" in states else "0"


def failed_event(row: Sequence[Any]) -> Stored:
    """A row of FAILED."""
    id, received, source, peer, line, attempts, due, *rest = row
    state: State = "dead" if due is None else "retrying"
    return Stored(id, state, received, source, peer, line, attempts, due, *rest)


def split(batch: StoredBatch, handled: set[int]) -> Iterator[Stored]:
    """The events of a batch that are to be handled yet."""
    for number, (line, peer) in enumerate(zip(batch.texts(), batch.senders(), strict=False)):
        if number not in handled:
            yield Stored(batch.id + number, "waiting", batch.received, batch.source, peer, line)
