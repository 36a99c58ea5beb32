"""The file of the durable queue as a daemon holds it: alone, and with room kept on the disk."""

from __future__ import annotations

import logging
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime

from ...exceptions import StartError
from .database import Broken, check_place
from .lock import Owner, Place, Reserve, free_bytes, lacks
from .store import Store

PATIENCE = 0.25
"""Seconds to wait for another process that writes to the file."""
WAL_BYTES = 4 * 1024 * 1024
"""Of the write-ahead log: so much is written to it before it goes to its place in the file."""
RESERVE_BYTES = WAL_BYTES + 1024 * 1024
"""What the log holds may all be new to the file, and must find a place there to make room."""
OPENING_BYTES = 150_000
"""About what opening a new file needs."""
FULL = "database or disk is full"
NEARLY_FULL = 16
"""Pages."""


class File:
    """An open file.

    path: where it is; name: told to a second daemon that wants it; disk: bytes that it may have.
    Raises StartError when it can't be used. What isn't a database, or is torn, is moved aside.
    """

    def __init__(self, path: str, name: str, disk: int, logger: logging.Logger) -> None:
        # The folder may be changed, and SQLite keeps its log where links lead.
        path = os.path.realpath(path)
        self.path = path
        self._logger = logger
        check_place(path, create=True)
        opened = ExitStack()
        self._owner = Owner(path, name)
        opened.callback(self._owner.release)
        try:
            self.reserve = Reserve(path, RESERVE_BYTES)
            opened.callback(self.reserve.close)
            # Opening needs some room itself.
            self.reserve.release()
            self.store = self._open_store()
            opened.callback(self.store.close)
            self._page: int = self.store.value("PRAGMA page_size")
            self.limit = f"queue_max_disk, {disk} bytes"
            # SQLite would find that out only with the log's way to the file.
            largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            if largest != resource.RLIM_INFINITY and largest - self.reserve.size < disk:
                disk = largest - self.reserve.size
                self.limit = f"ulimit -f, {largest} bytes"
            self._pages: int = max(NEARLY_FULL, disk // self._page)
            self._limit_pages(self._pages)
            self._wal_bytes = self._reserve_wal()
            pages = max(NEARLY_FULL, self._wal_bytes // (self._page + 24))
            self.store.db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self.place = Place(path)
            self.is_doubtful = False
            """Whether the disk has failed: of the log, it may lack some that memory still has."""
            self.reserve.take()
        except BaseException as error:
            opened.close()
            # See `is_full`.
            if is_io_error(error) and lacks(path, OPENING_BYTES):
                error = sqlite3.OperationalError(FULL)
            if isinstance(error, sqlite3.Error):
                raise StartError(f"cannot open the event queue {path}: {error}") from None
            raise
        self.close = opened.close
        """Leave it to others."""

    def _open_store(self) -> Store:
        try:
            store = Store(self.path, create=True, patience=PATIENCE)
        except Broken as error:
            aside = _move_aside(self.path)
            self._logger.critical(
                "The event queue %s can't be read (%s): it was moved to %s, and an empty one is "
                "begun",
                self.path,
                error,
                aside,
            )
            store = Store(self.path, create=True, patience=PATIENCE)
        if store.migrated_from is not None:
            self._logger.info(
                "The event queue %s had format %d and was brought to the present one",
                self.path,
                store.migrated_from,
            )
        return store

    def _reserve_wal(self) -> int:
        """Have room for the write-ahead log, also when there is no other; returns its bytes."""
        size = free_bytes(self.path, WAL_BYTES * 8) // 8
        # It is made with the first write.
        with self.store.transaction():
            self.store.touch()
        fd = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, size)
        # SQLite will find out itself.
        except OSError:
            pass
        finally:
            os.close(fd)
        return size

    def _limit_pages(self, pages: int) -> None:
        self.store.db.execute(f"PRAGMA max_page_count = {pages}")

    def is_full(self, error: Exception, size: int = 0) -> bool:
        """Whether it says that there is no room, for so many bytes of events if that is known."""
        if not isinstance(error, sqlite3.Error):
            return False
        # Python 3.10 has no error codes.
        if FULL in str(error):
            return True
        # SQLite takes only ENOSPC for that. What the log holds must find a place in the file, too.
        return is_io_error(error) and lacks(self.path, self._wal_bytes + size)

    def is_at_limit(self, size: int) -> bool:
        """Whether with so many bytes more it would have more than it may have."""
        pages = int(self.store.value("PRAGMA page_count"))
        return (self._pages - pages - NEARLY_FULL) * self._page < size

    def has_room(self) -> bool:
        """Whether there is room for more events, and some that is reserved."""
        more = NEARLY_FULL * self._page
        return self.reserve.has_more(more) or self._unused() >= self.reserve.size + more

    def ensure_reserve(self) -> bool:
        """Whether there is room to acknowledge events, on the disk or in the file itself: what it
        has once used, it keeps."""
        return self.reserve.take() or self._unused() >= self.reserve.size

    def _unused(self) -> int:
        return int(self.store.value("PRAGMA freelist_count")) * self._page

    def save_log(self) -> None:
        """Write what is only in the log to its place in the file."""
        try:
            self.store.db.execute("PRAGMA wal_checkpoint").fetchall()
        # Then the log grows.
        except sqlite3.Error:
            pass

    def settle_doubt(self) -> None:
        """Begin the log again if the disk may lack some of it: all that came behind would be lost
        with that. May raise sqlite3.Error."""
        # A sync that fails is told of once, and the next one succeeds without what it lacked.
        if self.is_doubtful:
            if self.store.value("PRAGMA wal_checkpoint(RESTART)"):
                raise sqlite3.OperationalError("database is locked")
            self.is_doubtful = False

    def write_even_if_full(self, write: Callable[[], None], *, synced: bool) -> None:
        """Call `write` in a transaction, see there; in the room that is reserved if there is no
        other."""
        try:
            self.settle_doubt()
            with self.store.transaction(synced=synced):
                write()
        except sqlite3.OperationalError as error:
            if not self.is_full(error):
                raise
            self.reserve.release()
            self._limit_pages(2**31)
            try:
                self.save_log()
                self.settle_doubt()
                with self.store.transaction(synced=synced):
                    write()
            finally:
                self._limit_pages(self._pages)


def is_io_error(error: BaseException) -> bool:
    """Whether it says that the disk has failed, for whatever reason."""
    return isinstance(error, sqlite3.Error | StartError) and "disk I/O error" in str(error)


def _move_aside(path: str) -> str:
    """Rename the files, and return the new name."""
    aside = f"{path}.broken-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{aside.removesuffix(f'_{number - 1}')}_{number}"
    # The log first: an old one would be taken for the new file's.
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside
