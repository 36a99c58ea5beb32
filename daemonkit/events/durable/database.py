"""The SQLite database of a durable queue: opening, format, migrations, pragmas, transactions."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...exceptions import StartError
from ...runtime.clock import monotonic
from .private import create_private

APPLICATION = 0x646B6576
"""PRAGMA application_id of our files: "dkev"."""
CHECK_SECONDS = 0.2
"""The most time for checking a file at startup; damage usually shows at once."""
CHECK_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two checks of the clock."""
PAGE_SIZE = 8192

MIGRATIONS = (
    """
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY,   -- of its first event; the others count up from it
        count INTEGER NOT NULL,   -- events
        received REAL NOT NULL,   -- Unix seconds
        source TEXT NOT NULL,     -- http, udp or app
        peers TEXT,               -- JSON: the sender of each event, if the handler asks for it
        lines BLOB NOT NULL       -- NDJSON
    );
    CREATE TABLE handled (        -- handled or dropped events of waiting batches
        id INTEGER PRIMARY KEY,   -- of the batch
        ranges TEXT NOT NULL      -- JSON: [first, last] of each run, counted from 0
    );
    CREATE TABLE failed (         -- events to be retried, and dead letters
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
    CREATE TABLE last (           -- the largest id of a removed batch
        id INTEGER NOT NULL
    );
    INSERT INTO last VALUES (0);
    """,
)
"""MIGRATIONS[n] upgrades format n (PRAGMA user_version) to n + 1; an empty file has format 0."""


class Broken(Exception):
    """The file is not a database, or is damaged."""


class Database:
    """An open file. Every method may raise sqlite3.Error.

    path: the file; create: create it if missing; busy_timeout: seconds to wait while another
    process writes; check: check it for damage first.
    Raises StartError if it can't be opened or isn't a queue, and Broken.
    """

    def __init__(self, path: str, *, create: bool, busy_timeout: float, check: bool = True) -> None:
        self.path = path
        self.migrated_from: int | None = None
        check_path(path, create)
        if create:
            _create_missing(path)
        try:
            self.db = sqlite3.connect(
                f"{Path(path).absolute().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=busy_timeout,
            )
        except sqlite3.Error as error:
            raise StartError(f"cannot open the event queue {path}: {error}") from None
        # Damaged text must not keep the rows after it from being read.
        self.db.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            self._set_up(busy_timeout)
            if check:
                self.check()
        except BaseException as error:
            self.db.close()
            if isinstance(error, sqlite3.Error):
                raise _opening_failed(path, error) from None
            raise

    def _set_up(self, busy_timeout: float) -> None:
        execute = self.db.execute
        # In this order: another process may be creating the file.
        tables, application, version = (
            self.value(f"PRAGMA {name}")
            for name in ("schema_version", "application_id", "user_version")
        )
        if tables and application != APPLICATION:
            raise StartError(f"{self.path} is the database of another program, not an event queue")
        if version > len(MIGRATIONS):
            raise StartError(
                f"the event queue {self.path} has format {version}, and this version of daemonkit "
                f"supports up to {len(MIGRATIONS)}; it was written by a newer version"
            )
        if not tables:
            execute(f"PRAGMA page_size = {PAGE_SIZE}")
        self._use_wal(monotonic() + busy_timeout)
        # FULL: a commit returns once it is on the disk.
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
            # SQLite's busy time-out doesn't apply when several processes do this to a new file.
            except sqlite3.OperationalError as error:
                if not is_locked(error) or monotonic() > until:
                    raise
                time.sleep(0.005)

    def _migrate(self) -> None:
        with self.transaction():
            # Another process may have migrated it meanwhile.
            version = self.value("PRAGMA user_version")
            for script in MIGRATIONS[version:]:
                for statement in script.split(";\n"):
                    self.db.execute(statement)
            self.db.execute(f"PRAGMA application_id = {APPLICATION}")
            self.db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def check(self) -> None:
        """Check the file for damage, for CHECK_SECONDS at most; raises Broken."""
        until = monotonic() + CHECK_SECONDS
        self.db.set_progress_handler(lambda: monotonic() > until, CHECK_STEPS)
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
        """The first column of the first row, None without a row."""
        row = self.db.execute(statement, arguments).fetchone()
        return None if row is None else row[0]

    def data_version(self) -> int:
        """Changes with every commit of another process."""
        return int(self.value("PRAGMA data_version"))

    def page_size(self) -> int:
        """In bytes."""
        return int(self.value("PRAGMA page_size"))

    def pages(self) -> int:
        """How many pages the file has."""
        return int(self.value("PRAGMA page_count"))

    def unused_pages(self) -> int:
        """How many of them are free."""
        return int(self.value("PRAGMA freelist_count"))

    def limit_pages(self, pages: int) -> None:
        """Let the file grow to this many pages."""
        self.db.execute(f"PRAGMA max_page_count = {pages}")

    def checkpoint_every(self, pages: int) -> None:
        """Checkpoint once the write-ahead log has this many pages."""
        self.db.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the file, as far as readers allow."""
        self.db.execute("PRAGMA wal_checkpoint").fetchall()

    def restart_log(self) -> None:
        """Copy all of the write-ahead log into the file, and start over at its beginning."""
        if self.value("PRAGMA wal_checkpoint(RESTART)"):
            raise sqlite3.OperationalError("database is locked")

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[None]:
        """Write everything or nothing; without `synced`, the next synced transaction brings it to
        the disk."""
        if not synced:
            self.db.execute("PRAGMA synchronous = NORMAL")
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite has already rolled back.
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        finally:
            if not synced:
                self.db.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the file as it is at one moment."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            # An error may have ended it.
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")


def is_locked(error: Exception) -> bool:
    """Whether another process holds the file's lock."""
    # Python 3.10 has no error codes.
    return isinstance(error, sqlite3.Error) and "locked" in str(error)


def check_path(path: str, create: bool) -> None:
    """Raise StartError if there can be no queue at this path; SQLite's own messages are vaguer."""
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


def _create_missing(path: str) -> None:
    """Create the file if it is missing; SQLite gives the files that it puts beside it the same
    mode."""
    try:
        fd = create_private(path)
    except FileExistsError:
        return
    except OSError as error:
        raise StartError(f"cannot open the event queue {path}: {error.strerror}") from None
    os.close(fd)


def _opening_failed(path: str, error: sqlite3.Error) -> Exception:
    # The cause of an OperationalError is outside of the file: space, permissions, locks.
    if isinstance(error, sqlite3.OperationalError):
        return StartError(f"cannot open the event queue {path}: {error}")
    return Broken(str(error))
