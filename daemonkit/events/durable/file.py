"""The file of a durable queue as its daemon uses it: locked, bounded, with reserved disk space."""

from __future__ import annotations

import logging
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime

from ...exceptions import StartError
from .database import Broken, check_path
from .lock import FileLock
from .reserve import Reserve, free_bytes, probe_space
from .store import Store

BUSY_TIMEOUT = 0.25
"""Seconds to wait while another process writes to the file."""
WAL_BYTES = 4 * 1024 * 1024
"""The size at which the write-ahead log is checkpointed."""
RESERVE_BYTES = WAL_BYTES + 1024 * 1024
"""Pages in the log may all be new to the file, and must fit into it before space is freed."""
OPENING_BYTES = 150_000
"""Roughly what opening a new file needs."""
FULL = "database or disk is full"
SPARE_PAGES = 16
"""A file with no more free pages than this counts as full."""


class FileIdentity:
    """The identity of a queue's files when they were opened."""

    def __init__(self, path: str) -> None:
        self._identities = {name: _identity(name) for name in (path, f"{path}-wal")}

    def problem(self, *, with_log: bool = True) -> str:
        """Says which file was removed or replaced, "" if none was; with_log: check the write-ahead
        log, too."""
        for name, identity in self._identities.items():
            if (now := _identity(name)) != identity:
                return f"{name} was {'removed' if now is None else 'replaced'}"
            if not with_log:
                break
        return ""


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class File:
    """An open file. What isn't a database, or is damaged, is moved aside.

    path: the file; name: of this daemon, for the error message of a second one; disk: the most
    bytes the file may have. Raises StartError if it can't be used.
    """

    def __init__(self, path: str, name: str, disk: int, logger: logging.Logger) -> None:
        # The working directory may change, and SQLite follows links to place its log.
        path = os.path.realpath(path)
        self.path = path
        self.is_closed = False
        self._logger = logger
        self._is_doubtful = False
        """The disk has failed, and may lack a part of the log that memory still has."""
        check_path(path, create=True)
        self._opened = ExitStack()
        lock = FileLock(path, name)
        self._opened.callback(lock.release)
        try:
            self.reserve = Reserve(path, RESERVE_BYTES)
            self._opened.callback(self.reserve.close)
            # Opening the database may need the space.
            self.reserve.release()
            self.store = self._open_store()
            self._opened.callback(self.store.close)
            self._set_limits(disk)
            self.identity = FileIdentity(path)
            self.reserve.take()
        except BaseException as error:
            self._opened.close()
            # SQLite reports some full disks as I/O errors.
            if is_io_error(error) and not probe_space(path, OPENING_BYTES):
                error = sqlite3.OperationalError(FULL)
            if isinstance(error, sqlite3.Error):
                raise StartError(f"cannot open the event queue {path}: {error}") from None
            raise

    def close(self) -> None:
        """Close the file and unlock it."""
        self.is_closed = True
        self._opened.close()

    def _open_store(self) -> Store:
        try:
            store = Store(self.path, create=True, busy_timeout=BUSY_TIMEOUT)
        except Broken as error:
            self._logger.critical(
                "The event queue %s can't be read (%s): moved it to %s and started an empty one",
                self.path,
                error,
                _move_aside(self.path),
            )
            store = Store(self.path, create=True, busy_timeout=BUSY_TIMEOUT)
        if store.migrated_from is not None:
            self._logger.info(
                "Migrated the event queue %s from format %d", self.path, store.migrated_from
            )
        return store

    def _set_limits(self, disk: int) -> None:
        self._page = self.store.page_size()
        self.limit = f"queue_max_disk, {disk} bytes"
        # SQLite would notice only when it copies the log into the file.
        largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if largest != resource.RLIM_INFINITY and largest - self.reserve.size < disk:
            disk = largest - self.reserve.size
            self.limit = f"ulimit -f, {largest} bytes"
        self._pages = max(SPARE_PAGES, disk // self._page)
        self.store.limit_pages(self._pages)
        self._wal_bytes = self._allocate_log()
        self.store.checkpoint_every(max(SPARE_PAGES, self._wal_bytes // (self._page + 24)))

    def _allocate_log(self) -> int:
        """Allocate disk space for the write-ahead log; returns its bytes."""
        size = free_bytes(self.path, WAL_BYTES * 8) // 8
        # The first write creates it.
        with self.store.transaction():
            self.store.touch()
        fd = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, size)
        # SQLite will report it.
        except OSError:
            pass
        finally:
            os.close(fd)
        return size

    def is_out_of_space(self, error: Exception, size: int = 0) -> bool:
        """Whether an error means that there is no space; size: bytes of the events, if known."""
        if not isinstance(error, sqlite3.Error):
            return False
        # Python 3.10 has no error codes.
        if FULL in str(error):
            return True
        # SQLite recognizes ENOSPC only. The file needs space for the log's pages, too.
        return is_io_error(error) and not probe_space(self.path, self._wal_bytes + size)

    def is_at_limit(self, size: int) -> bool:
        """Whether `size` more bytes would exceed the file's limit."""
        return (self._pages - self.store.pages() - SPARE_PAGES) * self._page < size

    def ensure_reserve(self) -> bool:
        """Reserve space for acknowledging events, on the disk or as free pages of the file; False
        if there is none."""
        return self.reserve.take() or self._unused() >= self.reserve.size

    def ensure_room(self) -> bool:
        """The same, with room for more events, too."""
        more = SPARE_PAGES * self._page
        return self.reserve.take_with(more) or self._unused() >= self.reserve.size + more

    def _unused(self) -> int:
        return self.store.unused_pages() * self._page

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the file if possible."""
        try:
            self.store.checkpoint()
        # The log grows then.
        except sqlite3.Error:
            pass

    def distrust_log(self) -> None:
        """Have the log restarted before the next write: the disk may lack parts of it."""
        self._is_doubtful = True

    def restart_log_if_doubtful(self) -> None:
        """Restart the log: everything written after missing parts would be lost with them.

        May raise sqlite3.Error.
        """
        # The kernel reports a failed sync once; the next one succeeds without the lost pages.
        if self._is_doubtful:
            self.store.restart_log()
            self._is_doubtful = False

    def write_even_if_full(self, write: Callable[[], None], *, synced: bool) -> None:
        """Call `write` in a transaction (see there), using the reserve if the disk is full."""
        try:
            self.restart_log_if_doubtful()
            with self.store.transaction(synced=synced):
                write()
        except sqlite3.OperationalError as error:
            if not self.is_out_of_space(error):
                raise
            self.reserve.release()
            self.store.limit_pages(2**31)
            try:
                self.checkpoint()
                self.restart_log_if_doubtful()
                with self.store.transaction(synced=synced):
                    write()
            finally:
                self.store.limit_pages(self._pages)


def is_io_error(error: BaseException) -> bool:
    """Whether SQLite reports an error of the disk."""
    return isinstance(error, sqlite3.Error | StartError) and "disk I/O error" in str(error)


def _move_aside(path: str) -> str:
    """Rename the files; returns the new name."""
    aside = f"{path}.broken-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{aside.removesuffix(f'_{number - 1}')}_{number}"
    # The log first, or SQLite would take it for the new file's.
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside
