"""The database that a durable queue's file is: opening it, its format, transactions."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...exceptions import StartError

APPLICATION = 0x646B6576
"""By which the file says whose it is (PRAGMA application_id): "dkev"."""
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


class Broken(Exception):
    """The file is no database, or is torn."""


class Database:
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
                if not is_locked(error) or time.monotonic() > until:
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


def is_locked(error: Exception) -> bool:
    """Whether it says that another process is at the file."""
    # Python 3.10 has no error codes.
    return isinstance(error, sqlite3.Error) and "locked" in str(error)


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
