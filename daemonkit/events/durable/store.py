"""All SQL of a durable queue: what it reads from its file and writes to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from sqlite3 import DatabaseError
from typing import Any, Literal

from .database import Database
from .rows import (
    STRIDE,
    Due,
    Ranges,
    StoredBatch,
    StoredFailure,
    numbers_in,
    ranges_in,
    ranges_of,
)

LATEST = 253_370_764_800
"""The year 9999 in Unix seconds, the last one that Python's dates support."""
MOST_ATTEMPTS = 10**9
MAX_ID = 2**63 - 1
"""The largest id that SQLite can store."""

State = Literal["waiting", "retrying", "dead"]
STATES: tuple[State, ...] = ("waiting", "retrying", "dead")
"""Not attempted yet; failed and to be retried; a dead letter."""


def _seconds(column: str) -> str:
    return f"max(0.0, min(CAST({column} AS REAL), {LATEST}.0))"


# How each field of a row is read: what was edited by hand may be of any type.
_READ = {
    "id": "id",
    "events": "CAST(count AS INTEGER)",
    "attempts": f"max(0, min(CAST(attempts AS INTEGER), {MOST_ATTEMPTS}))",
    **{name: _seconds(name) for name in ("received", "due", "first_failed", "last_failed")},
    **{name: f"CAST({name} AS TEXT)" for name in ("source", "peers", "peer", "error", "traceback")},
    **{name: f"CAST({name} AS BLOB)" for name in ("lines", "line")},
}
_BATCH, _FAILED = (
    ", ".join(_READ[name] for name in row._fields) for row in (StoredBatch, StoredFailure)
)
_ADD, _PUT_FAILED = (
    f"INSERT {conflict} INTO {table} VALUES ({', '.join('?' * len(row._fields))})"
    for conflict, table, row in (
        ("", "batches", StoredBatch),
        ("OR REPLACE", "failed", StoredFailure),
    )
)
_IN_LIST = "id IN (SELECT value FROM json_each(?))"


def _condition(states: Collection[State]) -> str:
    """Matches the rows of `failed` in one of these states."""
    if "dead" in states:
        return "1" if "retrying" in states else "due IS NULL"
    return "due IS NOT NULL" if "retrying" in states else "0"


def _contains(*, whole: bool) -> str:
    """Matches a failed event's error, or only its type, with a text in any case of its letters."""
    error = _READ["error"]
    text = error if whole else f"substr({error}, 1, instr({error} || ':', ':') - 1)"
    return f"instr(lower({text}), lower(?))"


class Store(Database):
    """The events in a file. Parameters: see Database."""

    def touch(self) -> None:
        """Write something, so that the transaction ends with a sync."""
        self.db.execute("UPDATE last SET id = id")

    # Ids

    def next_id(self) -> int:
        """A batch id larger than any that was ever used."""
        # AUTOINCREMENT would do without the table `last`, but write one more page per commit.
        top = self.value("SELECT max((SELECT id FROM last), ifnull(max(id), 0)) FROM batches")
        failed = self.value("SELECT ifnull(max(id), 0) FROM failed")
        return (max(int(top), int(failed)) // STRIDE + 1) * STRIDE

    def newest(self) -> int:
        """The largest id of an event in the file, -1 if there is none."""
        batch = self.value("SELECT max(id) FROM batches")
        failed = self.value("SELECT max(id) FROM failed")
        return max(-1 if batch is None else batch + STRIDE - 1, -1 if failed is None else failed)

    # Waiting batches

    def add(self, batch: StoredBatch) -> None:
        """Add a batch; raises sqlite3.IntegrityError if its id is taken."""
        self.db.execute(_ADD, batch)

    def batches(self, after: int = -1, last: int = MAX_ID) -> Iterator[StoredBatch]:
        """The batches with ids over `after` and up to `last`, in order."""
        statement = f"SELECT {_BATCH} FROM batches WHERE id > ? AND id <= ? ORDER BY id"
        with closing(self.db.execute(statement, (after, last))) as rows:
            for row in rows:
                yield StoredBatch(*row)

    def batch(self, id: int) -> StoredBatch | None:
        """One batch."""
        return next(self.batches(id - 1, id), None)

    def ids(self, last: int) -> set[int]:
        """The ids of the batches up to `last`."""
        return {id for (id,) in self.db.execute("SELECT id FROM batches WHERE id <= ?", (last,))}

    def size_of(self, id: int) -> int:
        """How many events a batch has, 0 if it is gone."""
        return int(self.value("SELECT count FROM batches WHERE id = ?", id) or 0)

    def sizes(self, after: int, last: int, limit: int) -> list[tuple[int, int]]:
        """The id and number of events of up to `limit` batches, in order."""
        return self.db.execute(
            "SELECT id, count FROM batches WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (after, last, limit),
        ).fetchall()

    def count(self, after: int = -1) -> int:
        """How many events wait in the batches with ids over `after`, not counting retries."""
        total = self.value("SELECT ifnull(sum(count), 0) FROM batches WHERE id > ?", after)
        done = sum(last - first + 1 for _, ranges in self.handled(after) for first, last in ranges)
        return int(total) - done

    def oldest(self, after: int) -> float | None:
        """When the first batch with an id over `after` was received."""
        statement = f"SELECT {_READ['received']} FROM batches WHERE id > ? ORDER BY id LIMIT 1"
        found = self.value(statement, after)
        return None if found is None else float(found)

    def remove(self, ids: Sequence[int], *, with_newest: bool = True) -> None:
        """Remove batches; with_newest: the largest id in the file may be among them."""
        self._remove("batches", ids)
        if with_newest:
            self.db.execute("UPDATE last SET id = max(id, ?)", (max(ids),))

    # Handled events of waiting batches

    def handled(self, after: int = -1) -> list[tuple[int, Ranges]]:
        """The handled events of each batch with an id over `after`."""
        # CROSS: `handled` is small, and SQLite would scan all batches instead.
        rows = self.db.execute(
            "SELECT id, ranges FROM handled CROSS JOIN batches USING (id) WHERE id > ?", (after,)
        )
        return [(id, ranges_in(text)) for id, text in rows]

    def handled_of(self, id: int) -> set[int]:
        """The numbers, from 0, of the handled events of a batch."""
        text = self.value("SELECT ranges FROM handled WHERE id = ?", id)
        return set() if text is None else numbers_in(ranges_in(text))

    def mark_handled(self, id: int, numbers: Iterable[int]) -> None:
        """Mark more events of a batch as handled; the batch is removed with the last one."""
        if not (size := self.size_of(id)):
            return
        marked = self.handled_of(id).union(numbers)
        if len(marked) >= size:
            self.remove([id])
            self.unmark([id])
        else:
            self.set_handled(id, marked)

    def set_handled(self, id: int, numbers: Iterable[int]) -> None:
        """Mark these events of a batch as handled, and no others."""
        text = json.dumps(ranges_of(numbers))
        self.db.execute("INSERT OR REPLACE INTO handled VALUES (?, ?)", (id, text))

    def unmark(self, ids: Sequence[int]) -> None:
        """Remove the marks of these batches."""
        self._remove("handled", ids)

    # Failed events

    def put_failed(self, event: StoredFailure) -> None:
        """Add or replace a failed event."""
        self.db.execute(_PUT_FAILED, event)

    def failures(
        self, after: int, last: int, states: Collection[State] = STATES
    ) -> Iterator[StoredFailure]:
        """The failed events in these states with ids over `after` and up to `last`, in order."""
        condition = f"id > ? AND id <= ? AND {_condition(states)}"
        statement = f"SELECT {_FAILED} FROM failed WHERE {condition} ORDER BY id"
        with closing(self.db.execute(statement, (after, last))) as rows:
            for row in rows:
                yield StoredFailure(*row)

    def failed(self, id: int) -> StoredFailure | None:
        """One failed event."""
        return next(self.failures(id - 1, id), None)

    def latest_failures(
        self, states: Collection[State], error: str, before: int, limit: int, *, whole: bool
    ) -> list[StoredFailure]:
        """Up to `limit` failed events with ids under `before` and this text in their error, the
        newest first; whole: in all of it, and otherwise in its type."""
        condition = f"id < ? AND {_condition(states)} AND {_contains(whole=whole)}"
        statement = f"SELECT {_FAILED} FROM failed WHERE {condition} ORDER BY id DESC LIMIT ?"
        with closing(self.db.execute(statement, (before, error, limit))) as rows:
            return [StoredFailure(*row) for row in rows]

    def count_failures(self, states: Collection[State], error: str, *, whole: bool) -> int:
        """How many there are of those, whatever their ids."""
        condition = f"{_condition(states)} AND {_contains(whole=whole)}"
        return int(self.value(f"SELECT count(*) FROM failed WHERE {condition}", error))

    def failed_ids(
        self, after: int, last: int, states: Collection[State], error: str, limit: int
    ) -> list[int]:
        """The ids of up to `limit` failed events with this text in their error, in order."""
        condition = f"id > ? AND id <= ? AND {_condition(states)} AND {_contains(whole=True)}"
        return self._failed_where(f"{condition} ORDER BY id LIMIT ?", after, last, error, limit)

    def failed_among(self, ids: Sequence[int]) -> list[int]:
        """Which of these ids are failed events."""
        return self._failed_where(_IN_LIST, json.dumps(ids))

    def count_failed(self, states: Collection[State]) -> int:
        """How many failed events are in these states."""
        return int(self.value(f"SELECT count(*) FROM failed WHERE {_condition(states)}"))

    def due(self) -> list[Due]:
        """The events to be retried, the next one first."""
        due, last_failed = _READ["due"], _READ["last_failed"]
        rows = self.db.execute(
            f"SELECT id, {due}, {due} - {last_failed} FROM failed WHERE due IS NOT NULL "
            "ORDER BY 2, id"
        )
        return [Due(*row) for row in rows]

    def retry(self, ids: Sequence[int], due: float) -> None:
        """Schedule failed events for `due`, as if never attempted."""
        self.db.execute(
            f"UPDATE failed SET due = ?, attempts = 0 WHERE {_IN_LIST}", (due, json.dumps(ids))
        )

    def remove_failed(self, ids: Sequence[int]) -> None:
        """Remove failed events."""
        self._remove("failed", ids)

    # Any table

    def reachable(self, table: Literal["batches", "failed"]) -> set[int]:
        """The ids of the rows before the first damaged page and after the last one."""
        found: set[int] = set()
        for order in ("ASC", "DESC"):
            try:
                for (id,) in self.db.execute(f"SELECT id FROM {table} ORDER BY id {order}"):
                    found.add(id)
                break
            except DatabaseError:
                continue
        return found

    def _failed_where(self, condition: str, *arguments: Any) -> list[int]:
        rows = self.db.execute(f"SELECT id FROM failed WHERE {condition}", arguments)
        return [id for (id,) in rows]

    def _remove(self, table: str, ids: Sequence[int]) -> None:
        # Faster for a few ids; with many, it would reacquire the interpreter lock for each.
        if len(ids) <= 8:
            self.db.executemany(f"DELETE FROM {table} WHERE id = ?", [(id,) for id in ids])
        else:
            self.db.execute(f"DELETE FROM {table} WHERE {_IN_LIST}", (json.dumps(ids),))
