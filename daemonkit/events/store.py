"""The file of the durable queue: an SQLite database, its format and its statements."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..exceptions import StartError
from ..types import Source
from .entry import Failure

APPLICATION = 0x646B6576
"""By which the file says whose it is (PRAGMA application_id): "dkev"."""
STRIDE = 1000
"""Events of a batch at most. Ids of batches are multiples of it, and those of their events follow,
so that ids of two writers never overlap."""
CHECK_SECONDS = 0.2
"""How long a file may be looked through at the start; what is torn shows at once, as a rule."""
PAGE_SIZE = 8192

MIGRATIONS = (
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY,   -- its first event's; the next one's is one more, and so on
        count INTEGER NOT NULL,   -- events
        received REAL NOT NULL,   -- Unix seconds
        source TEXT NOT NULL,     -- http, udp or app
        peers TEXT,               -- JSON: the sender of each, if the handler wants to know
        lines BLOB NOT NULL       -- NDJSON
    );
    CREATE TABLE handled (        -- what of a batch needn't be handled any more
        id INTEGER PRIMARY KEY,   -- the batch's
        ranges TEXT NOT NULL      -- JSON: [first, last] of them, counted from 0
    );
    CREATE TABLE failed (         -- events that are to be tried again, and dead letters
        id INTEGER PRIMARY KEY,
        due REAL,                 -- Unix seconds; NULL for a dead letter
        attempts INTEGER NOT NULL,
        received REAL NOT NULL,
        source TEXT NOT NULL,
        peer TEXT,
        first_failed REAL NOT NULL,
        last_failed REAL NOT NULL,
        error TEXT NOT NULL,
        traceback TEXT NOT NULL,
        line BLOB NOT NULL
    );
    CREATE INDEX failed_due ON failed (due);
    CREATE TABLE last (           -- the last batch that was removed
        id INTEGER NOT NULL
    );
    INSERT INTO last VALUES (0);
    """,
)
"""MIGRATIONS[n] leads from format n (PRAGMA user_version) to n + 1; an empty file has format 0."""

BATCH = "id, count, CAST(received AS REAL), source, peers, CAST(lines AS BLOB)"
"""The columns of a StoredBatch. What was edited by hand may be text."""

Ranges = list[tuple[int, int]]


class Broken(Exception):
    """The file is no database, or is torn."""


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
        except ValueError:
            found = None
        if not isinstance(found, list) or len(found) != self.events:
            return [None] * self.events
        return found


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


class Store:
    """An open file. Every method may raise sqlite3.Error.

    path: the file; create: make it if it isn't there; patience: seconds to wait while another
    process writes; check: look through it first.
    Raises StartError when it can't be opened or isn't ours, Broken.
    """

    def __init__(self, path: str, *, create: bool, patience: float, check: bool = True) -> None:
        self.path = path
        self.migrated_from: int | None = None
        check_place(path, create)
        mode = "rwc" if create else "rw"
        try:
            self.db = sqlite3.connect(
                f"{Path(path).absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=patience,
            )
        except sqlite3.Error as error:
            raise StartError(f"cannot open the event queue {path}: {error}") from None
        # Text that the disk has changed must not keep all that comes after it from being read.
        self.db.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            self._set_up(patience)
            if check:
                self.check()
        except BaseException as error:
            self.db.close()
            if isinstance(error, sqlite3.Error):
                raise _opening_failed(path, error) from None
            raise

    def _set_up(self, patience: float) -> None:
        execute = self.db.execute
        # In this order: another process may be making the file.
        tables, application, version = (
            self.value(f"PRAGMA {name}")
            for name in ("schema_version", "application_id", "user_version")
        )
        if tables and application != APPLICATION:
            raise StartError(f"{self.path} is the database of another program, not an event queue")
        if version > len(MIGRATIONS):
            raise StartError(
                f"the event queue {self.path} has format {version}, and this daemonkit knows "
                f"{len(MIGRATIONS)} at most; it was made by a newer one"
            )
        if not tables:
            execute(f"PRAGMA page_size = {PAGE_SIZE}")
        self._use_wal(time.monotonic() + patience)
        # FULL: a commit returns when it is on the disk.
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA secure_delete = OFF")
        if version < len(MIGRATIONS):
            self._migrate()
            self.migrated_from = version or None

    def _use_wal(self, until: float) -> None:
        while True:
            try:
                self.db.execute("PRAGMA journal_mode = WAL")
                return
            # Unlike elsewhere, SQLite doesn't wait when several processes do this to a new file.
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.005)

    def _migrate(self) -> None:
        with self.transaction():
            # Another process may have done it since.
            version = self.value("PRAGMA user_version")
            for script in MIGRATIONS[version:]:
                for statement in script.split(";\n"):
                    self.db.execute(statement)
            self.db.execute(f"PRAGMA application_id = {APPLICATION}")
            self.db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def check(self) -> None:
        """Look through the file, for a moment; raises Broken."""
        until = time.monotonic() + CHECK_SECONDS
        self.db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            found = self.value("PRAGMA quick_check(1)")
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                return
            raise
        finally:
            self.db.set_progress_handler(None, 0)
        if found != "ok":
            raise Broken(" ".join(str(found).split()))

    def close(self) -> None:
        self.db.close()

    def value(self, statement: str, *arguments: Any) -> Any:
        """The first value of the first row, None if there is none."""
        row = self.db.execute(statement, arguments).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[None]:
        """All of it is written, or nothing; synced: on the disk in the end, else with the next one
        that is."""
        if not synced:
            self.db.execute("PRAGMA synchronous = NORMAL")
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                # A full disk has ended it already.
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        finally:
            if not synced:
                self.db.execute("PRAGMA synchronous = FULL")

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
        found = self.value("SELECT received FROM batches WHERE id > ? ORDER BY id LIMIT 1", after)
        return None if found is None else float(found)

    # Failed events

    def add_failed(self, event: StoredFailure, failure: Failure, due: float | None) -> None:
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
                failure.last,
                failure.error,
                failure.traceback,
                event.line,
            ),
        )

    def failed(self, id: int) -> StoredFailure | None:
        """An event that has failed."""
        row = self.db.execute(
            "SELECT id, CAST(due AS REAL), CAST(attempts AS INTEGER), CAST(received AS REAL), "
            "source, peer, CAST(first_failed AS REAL), CAST(line AS BLOB) FROM failed "
            "WHERE id = ?",
            (id,),
        ).fetchone()
        return None if row is None else StoredFailure(*row)

    def due(self) -> list[tuple[int, float]]:
        """The events to be tried again, and when."""
        return list(
            self.db.execute(
                "SELECT id, CAST(due AS REAL) FROM failed WHERE due IS NOT NULL ORDER BY 2, id"
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
    except (ValueError, TypeError):
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


def check_place(path: str, create: bool) -> None:
    """Say it better than SQLite does: raises StartError."""
    folder = os.path.dirname(os.path.abspath(path))
    what = f"cannot open the event queue {path}: "
    if not os.path.isdir(folder):
        raise StartError(f"{what}there is no folder {folder}")
    if os.path.isdir(path):
        raise StartError(f"{what}it is a folder")
    exists = os.path.exists(path)
    if not exists and not create:
        raise StartError(f"{what}there is no such file")
    # SQLite keeps two more files beside it.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(f"{what}the folder {folder} can't be written to")
    if exists and not os.access(path, os.R_OK | os.W_OK):
        raise StartError(f"{what}the file can't be read and written")


def _opening_failed(path: str, error: sqlite3.Error) -> Exception:
    # OperationalErrors come from outside the file: no room, no permission, somebody else at it.
    if isinstance(error, sqlite3.OperationalError):
        return StartError(f"cannot open the event queue {path}: {error}")
    return Broken(str(error))
