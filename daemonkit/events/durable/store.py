"""What a durable queue reads and writes in its file, statement by statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...text import plain
from ...types import Source
from ..entry import FailedAttempt
from .database import Database

STRIDE = 1000
"""Events of a batch at most. Ids of batches are multiples of it, and those of their events follow,
so that ids of two writers never overlap."""
LATEST = 253_370_764_800
"""The year 9999 in Unix seconds: after that Python has no dates."""
MOST_ATTEMPTS = 10**9


def seconds(column: str) -> str:
    """SQL for a column with a time; what was edited by hand may be anything."""
    return f"max(0.0, min(CAST({column} AS REAL), {LATEST}.0))"


ATTEMPTS = f"max(0, min(CAST(attempts AS INTEGER), {MOST_ATTEMPTS}))"
"""SQL for the number of attempts; likewise."""
BATCH = (
    f"id, CAST(count AS INTEGER), {seconds('received')}, CAST(source AS TEXT), "
    "CAST(peers AS TEXT), CAST(lines AS BLOB)"
)
"""The columns of a StoredBatch; likewise."""

Ranges = list[tuple[int, int]]


class StoredBatch(NamedTuple):
    """A row of `batches`."""

    id: int
    events: int
    received: float
    source: Source
    peers: str | None
    lines: bytes

    def texts(self) -> list[bytes]:
        """The JSON of each event."""
        return self.lines.split(b"\n")[: self.events]

    def senders(self) -> list[str | None]:
        """Who sent each event, None where that isn't known."""
        try:
            found = json.loads(self.peers or "null")
        # The disk, or somebody, has changed it.
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or len(found) != self.events:
            return [None] * self.events
        return [plain(peer) if isinstance(peer, str) else None for peer in found]


class StoredFailure(NamedTuple):
    """A row of `failed`, without `error` and `traceback`."""

    id: int
    due: float | None
    attempts: int
    received: float
    source: Source
    peer: str | None
    first_failed: float
    line: bytes


class Store(Database):
    """The events in a file. Parameters: those of Database."""

    def touch(self) -> None:
        """Write something, so that the transaction leads to the disk."""
        self.db.execute("UPDATE last SET id = id")

    # Batches

    def next_id(self) -> int:
        """The id for the next batch."""
        top = self.value("SELECT max((SELECT id FROM last), ifnull(max(id), 0)) FROM batches")
        failed = self.value("SELECT ifnull(max(id), 0) FROM failed")
        return (max(int(top), int(failed)) // STRIDE + 1) * STRIDE

    def add(self, batch: StoredBatch) -> None:
        """Add a batch; raises sqlite3.IntegrityError when there is one with its id."""
        self.db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", batch)

    def batches(self, after: int = -1) -> Iterator[StoredBatch]:
        """The batches with ids over `after`, in order."""
        statement = f"SELECT {BATCH} FROM batches WHERE id > ? ORDER BY id"
        for row in self.db.execute(statement, (after,)):
            yield StoredBatch(*row)

    def ids(self, until: int) -> set[int]:
        """Those of the batches up to `until`."""
        return {id for (id,) in self.db.execute("SELECT id FROM batches WHERE id <= ?", (until,))}

    def batch(self, id: int) -> StoredBatch | None:
        """One batch."""
        row = self.db.execute(f"SELECT {BATCH} FROM batches WHERE id = ?", (id,)).fetchone()
        return None if row is None else StoredBatch(*row)

    def count(self, after: int = -1) -> int:
        """How many events wait in the batches with ids over `after`, but for those to be tried
        again."""
        total = self.value("SELECT ifnull(sum(count), 0) FROM batches WHERE id > ?", after)
        done = sum(last - first + 1 for _, ranges in self.handled(after) for first, last in ranges)
        return int(total) - done

    def handled(self, after: int = -1) -> list[tuple[int, Ranges]]:
        """What is marked as handled, by batch."""
        # CROSS: there are few of them, and SQLite would go through all batches instead.
        rows = self.db.execute(
            "SELECT id, ranges FROM handled CROSS JOIN batches USING (id) WHERE id > ?", (after,)
        )
        return [(id, _ranges_in(text)) for id, text in rows]

    def handled_of(self, id: int) -> set[int]:
        """The numbers, from 0, of the events of a batch that are handled."""
        text = self.value("SELECT ranges FROM handled WHERE id = ?", id)
        return set() if text is None else numbers_in(_ranges_in(text))

    def mark_handled(self, id: int, numbers: Iterable[int]) -> None:
        """Have these events of a batch not handled any more, besides those that are marked, maybe
        by another process, which has dropped them; the batch goes with the last one."""
        count = self.value("SELECT count FROM batches WHERE id = ?", id)
        if count is None:
            return
        marked = self.handled_of(id).union(numbers)
        if len(marked) >= count:
            self.remove([id])
            self.unmark([id])
        else:
            self.set_handled(id, marked)

    def set_handled(self, id: int, numbers: Iterable[int]) -> None:
        """The same in place of what is marked."""
        text = json.dumps(ranges_of(numbers))
        self.db.execute("INSERT OR REPLACE INTO handled VALUES (?, ?)", (id, text))

    def remove(self, ids: Sequence[int], *, with_last: bool = True) -> None:
        """Remove whole batches; with_last: one of them may have the largest id of all."""
        self._remove("batches", ids)
        if with_last:
            self.db.execute("UPDATE last SET id = max(id, ?)", (max(ids),))

    def unmark(self, ids: Sequence[int]) -> None:
        """Forget what of these batches was marked as handled."""
        self._remove("handled", ids)

    def _remove(self, table: str, ids: Sequence[int]) -> None:
        # Faster for few; for many it would have to get the interpreter's lock for each.
        if len(ids) <= 8:
            self.db.executemany(f"DELETE FROM {table} WHERE id = ?", [(id,) for id in ids])
            return
        self.db.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
        )

    def oldest(self, after: int) -> float | None:
        """When the first batch with an id over `after` was received."""
        found = self.value(
            f"SELECT {seconds('received')} FROM batches WHERE id > ? ORDER BY id LIMIT 1", after
        )
        return None if found is None else float(found)

    # Failed events

    def add_failed(self, event: StoredFailure, failure: FailedAttempt, due: float | None) -> None:
        """Note that an event has failed: it is due again, or else a dead letter."""
        self.db.execute(
            "INSERT OR REPLACE INTO failed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.id,
                due,
                failure.attempts,
                event.received,
                event.source,
                event.peer,
                event.first_failed,
                failure.last_failed,
                plain(failure.error),
                plain(failure.traceback),
                event.line,
            ),
        )

    def failed(self, id: int) -> StoredFailure | None:
        """An event that has failed."""
        row = self.db.execute(
            f"SELECT id, {seconds('due')}, {ATTEMPTS}, {seconds('received')}, "
            f"CAST(source AS TEXT), CAST(peer AS TEXT), {seconds('first_failed')}, "
            "CAST(line AS BLOB) FROM failed WHERE id = ?",
            (id,),
        ).fetchone()
        return None if row is None else StoredFailure(*row)

    def due(self) -> list[tuple[int, float]]:
        """The events to be tried again, and when."""
        return list(
            self.db.execute(
                f"SELECT id, {seconds('due')} FROM failed WHERE due IS NOT NULL ORDER BY 2, id"
            )
        )

    def dead(self) -> int:
        """How many dead letters there are."""
        return int(self.value("SELECT count(*) FROM failed WHERE due IS NULL"))

    def remove_failed(self, ids: Sequence[int]) -> None:
        """Remove events that had failed."""
        self._remove("failed", ids)


def _ranges_in(text: str) -> Ranges:
    try:
        return [(max(0, int(a)), min(STRIDE, int(b))) for a, b in json.loads(text)]
    # The disk, or somebody, has changed it: better twice than not at all.
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def numbers_in(ranges: Ranges) -> set[int]:
    """The whole numbers that ranges stand for."""
    return {number for first, last in ranges for number in range(first, last + 1)}


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Whole numbers as [first, last] of those that follow each other."""
    ordered = sorted(set(numbers))
    # Mostly so, and this is done for every `ack_batch` events.
    if ordered and ordered[-1] - ordered[0] < len(ordered):
        return [(ordered[0], ordered[-1])]
    ranges: Ranges = []
    for number in ordered:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ranges
