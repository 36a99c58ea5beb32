"""Commits events and results to a durable queue's file, and handles failures to do so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...exceptions import QueueFull, Unavailable
from ..bounded import daemon_stopping
from ..entry import Batch
from .backlog import Backlog
from .database import is_locked
from .faults import FileFaults
from .file import File, is_io_error
from .group_commit import Pending, merged
from .in_flight import InFlight
from .rows import STRIDE, StoredBatch, to_row

Written = list[tuple[Batch, StoredBatch]]


@dataclass(eq=False)
class Writer:
    """For the thread that holds the queue's lock.

    ack_batch: the most results that the file need not have; publish: called with what was written,
    once it is on the disk.
    """

    _file: File
    _faults: FileFaults
    _backlog: Backlog
    _in_flight: InFlight
    _ack_batch: int
    _publish: Callable[[Sequence[Pending], Written], None]
    _needs_sync: bool = False
    """Whether the last commit failed, or may not be on the disk."""

    @property
    def has_unsaved(self) -> bool:
        """Whether there is anything to save."""
        return self._needs_sync or self._in_flight.has_unsaved

    def write(self, puts: Sequence[Pending]) -> Unavailable | None:
        """Write and publish events; returns the refusal if that isn't possible."""
        try:
            refusal = self._try_to_write(puts)
        # A bug of our own must not end a thread that writes for others.
        except Exception as error:
            refusal = self._failed(error)
        if refusal is not None and self._faults.unwritable.problem:
            # The queue's thread retries, since there may be no further puts that would.
            self._needs_sync = True
        return refusal

    def _try_to_write(self, puts: Sequence[Pending]) -> Unavailable | None:
        if self._file.is_closed:
            return daemon_stopping()
        if (refusal := self._faults.lost.refusal) is not None:
            return refusal
        if not self._file.ensure_reserve():
            return self._faults.disk_is_full()
        try:
            self._file.restart_log_if_doubtful()
            written = self._insert(merged(puts))
        except sqlite3.Error as error:
            return self._failed(error, sum(len(line) for put in puts for line in put.batch.lines))
        # A file that was removed or replaced accepts writes, but the next start won't find them.
        if (refusal := self.check_identity(with_log=False)) is not None:
            return refusal
        self._publish(puts, written)
        self._faults.unwritable.end()
        self._faults.disk_full.end()
        return None

    def _insert(self, batches: Sequence[Batch]) -> Written:
        # Almost free as a part of this commit.
        with_results = self._in_flight.unsaved * 4 >= self._ack_batch * 3
        store, first = self._file.store, self._backlog.next_id
        rows = [to_row(batch, first + STRIDE * n) for n, batch in enumerate(batches)]
        try:
            if len(rows) == 1 and not with_results:
                # A single statement is a transaction.
                store.add(rows[0])
            else:
                with store.transaction():
                    if with_results:
                        # Before the marks of other processes are overwritten.
                        self._backlog.catch_up_if_changed()
                    for row in rows:
                        store.add(row)
                    if with_results:
                        self._in_flight.collect()
                        self._in_flight.write(rows[-1].id)
        except sqlite3.IntegrityError:
            # Another process has used the id.
            self._backlog.catch_up()
            if self._backlog.next_id == first:
                raise
            return self._insert(batches)
        self._backlog.next_id = rows[-1].id + STRIDE
        self._needs_sync = False
        if with_results:
            self._backlog.note_failed(self._in_flight.written())
        return list(zip(batches, rows, strict=True))

    def save(self, *, synced: bool) -> bool:
        """Write the results; returns whether that was possible. Without `synced`, a power cut may
        undo it."""

        def write() -> None:
            self._backlog.catch_up_if_changed()
            self._in_flight.collect()
            self._in_flight.write(self._backlog.next_id - STRIDE, touch=synced)

        try:
            self._file.write_even_if_full(write, synced=synced)
        # Any error means that events may be handled twice.
        except Exception as error:
            self._failed(error)
            return False
        self._needs_sync = not synced
        self._faults.unwritable.end()
        self._backlog.note_failed(self._in_flight.written())
        return True

    def _failed(self, error: Exception, size: int = 0) -> Unavailable:
        """Handle a failed write; returns the refusal of the events.

        size: their bytes, if known.
        """
        is_full = self._file.is_out_of_space(error, size)
        # A full disk and another process lose nothing.
        if is_io_error(error) or not (is_full or is_locked(error)):
            self._file.distrust_log()
        if not is_full:
            return self._faults.write_failed(error)
        if self._file.is_at_limit(size):
            return QueueFull(f"The event queue is full ({self._file.limit})")
        return self._faults.disk_is_full()

    def check(self) -> None:
        """Check the file for changes by others, and the disk for space; may raise sqlite3.Error."""
        self.check_identity(with_log=True)
        if self._faults.disk_full.problem and self._file.ensure_room():
            self._faults.disk_full.end()
        elif not self._file.ensure_reserve():
            self._faults.disk_is_full()
        self._backlog.catch_up_if_changed()

    def check_identity(self, *, with_log: bool) -> Unavailable | None:
        """Check that the file was neither removed nor replaced; returns the refusal if it was."""
        problem = self._file.identity.problem(with_log=with_log)
        if not problem:
            return None
        if self._faults.lost.problem is None:
            # A moved file lacks what is only in its log.
            self._file.checkpoint()
        return self._faults.file_is_lost(problem)
