"""The durable event queue: what it has taken is on the disk, in one SQLite file."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ...exceptions import StartError, Unavailable
from ...runtime.forks import ForkFlag
from ...runtime.part import thread_died
from ...types import Problem
from ..bounded import Bounded, daemon_stopping
from ..entry import Batch, Entry, FailedAttempt
from ..waiting import Waiting
from .backlog import Backlog
from .faults import FileFaults
from .file import File
from .group_commit import GroupCommit, OwnedLock, Put, merged, stored
from .in_flight import InFlight
from .store import STRIDE, StoredBatch

ACK_DELAY = 0.04
"""Seconds after which it is written that an event was handled, together with those meanwhile."""
LOOK_INTERVAL = 0.5
"""Seconds between two looks at what others have done to the file."""
LONGEST_LOOK = 0.1
"""Seconds that `/status` waits for the file."""
AFTER_FAILURE = 1.0
"""Seconds until what the disk has refused is tried again."""


R = TypeVar("R")


class DurableQueue(Bounded):
    """A first-in-first-out queue in a file, which outlives the process.

    path: the file; name: the daemon's, told to a second one that wants it; size: how many events
    may wait; disk: bytes that the file may have; ack_batch: handled events that the file need not
    know of yet, at most; changed: called when there may be a new problem.
    Raises StartError when the file can't be used.

    Threads that put at the same time share a commit.
    """

    is_durable = True

    def __init__(
        self,
        path: str,
        logger: logging.Logger,
        *,
        name: str = "daemonkit",
        size: int = 100_000,
        disk: int = 2**30,
        ack_batch: int = 100,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(size, Waiting(self._read_again, self._refill))
        self._logger = logger
        self._ack_batch = ack_batch
        self._writing = OwnedLock()
        """For the file and what is known of it; held while the disk is at work."""
        self._group = GroupCommit(self._write, self._writing)
        self._forked = ForkFlag()
        self._is_unsynced = False
        self._handled: list[Entry] = []
        self._failures: list[tuple[Entry, FailedAttempt, float | None]] = []
        self._noted = 0
        self._closed = False
        self._dirty = threading.Event()
        self._is_dirty = False
        self._closing, self._stopping = threading.Event(), threading.Event()
        self._file = File(path, name, disk, logger)
        self._faults = FileFaults(self._file, logger, changed)
        self._in_flight = InFlight(self._file.store)
        try:
            self._backlog = Backlog(
                self._file.store, self._waiting, self._in_flight, lambda: self.with_meta
            )
        except BaseException as error:
            self._file.close()
            if isinstance(error, sqlite3.Error):
                raise StartError(f"cannot read the event queue {path}: {error}") from None
            raise
        self._thread = threading.Thread(target=self._keep, name=self.name, daemon=True)
        if len(self):
            logger.info("%d events wait in %s", len(self), path)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Give nothing more to takers: what waits is kept for the next start."""
        self._closing.set()
        with self._group.lock:
            self._backlog.keep()

    def request_stop(self) -> None:
        """Write what is to be written, then close the file."""
        self.close()
        self._stopping.set()
        self._dirty.set()

    def join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        if self._thread.ident is not None:
            self._thread.join(timeout)
        # Another thread may still be at the disk.
        if not self._writing.acquire(timeout=max(0.0, until - time.monotonic())):
            return False
        try:
            if not self._closed:
                self._closed = True
                self._save_if_possible(synced=True)
                self._file.close()
        finally:
            self._writing.release()
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    # Putting

    def __len__(self) -> int:
        return len(self._backlog) + self._group.announced

    def put_many(self, batch: Batch) -> None:
        """Write all events or none, and return when they are on the disk; raises Unavailable or
        BatchTooLarge when they never fit."""
        count = len(batch.events)
        self._check_thread()
        with self._group.lock:
            self._check_room(count)
            put = self._group.announce(batch, count)
        self._group.commit(put)
        if put.refusal is not None:
            raise put.refusal

    def put_some(self, batch: Batch) -> tuple[int, Unavailable | None]:
        """Write as many events as there is room for, the first ones, and return when they are on
        the disk; returns how many that were, and what refuses the others."""
        count = len(batch.events)
        self._check_thread()
        with self._group.lock:
            fits, refusal = self._room_for_some(count)
            if not fits:
                return 0, refusal
            put = self._group.announce(batch if fits == count else batch.part(0, fits), fits)
        self._group.commit(put)
        return (fits, refusal) if put.refusal is None else (0, put.refusal)

    def _check_thread(self) -> None:
        # SQLite's connections don't survive a fork, nor do locks that other threads hold.
        if self._forked.is_child:
            raise Unavailable("A forked child can't put events on a durable queue")
        # A log handler, for instance, that puts an event for each error that is logged.
        if self._writing.is_mine:
            raise Unavailable("The event queue is at work in this very thread")

    def _write(self, puts: Sequence[Put]) -> None:
        try:
            refusal = self._try_to_write(puts)
        # The thread that writes for the others isn't to blame.
        except Exception as error:
            refusal = self._faults.write_failed(error)
        if refusal is not None:
            if self._faults.is_unwritten:
                # The keeper tries it again: maybe nobody puts anything while there is a problem.
                self._is_unsynced = True
                self._dirty.set()
            with self._group.lock:
                self._group.settle(puts, refusal)

    def _try_to_write(self, puts: Sequence[Put]) -> Unavailable | None:
        """Write them and settle them, or return what refuses them."""
        if self._closed:
            return daemon_stopping()
        if (refusal := self._faults.refusal_if_lost()) is not None:
            return refusal
        if not self._file.ensure_reserve():
            return self._faults.room_is_gone()
        try:
            self._file.settle_doubt()
            written = self._insert(merged(puts))
        except sqlite3.Error as error:
            size = sum(len(line) for put in puts for line in put.batch.lines)
            return self._faults.write_failed(error, size)
        # It takes events even when it is no longer where the next start looks for it.
        if (refusal := self._faults.look_for_file(with_log=False)) is not None:
            return refusal
        # Together, or they would count twice for a moment.
        with self._group.lock:
            for batch, row in written:
                self._backlog.hand_over(batch, row)
            self._group.settle(puts, None)
        self._faults.write_worked()
        self._faults.room_is_there()
        return None

    def _insert(self, batches: Sequence[Batch]) -> list[tuple[Batch, StoredBatch]]:
        """Commit them, and return them with what the file has of them."""
        # Without a commit of its own it costs little.
        with_outcomes = self._unsaved * 4 >= self._ack_batch * 3
        store, first = self._file.store, self._backlog.next_id
        rows = [stored(batch, first + STRIDE * n) for n, batch in enumerate(batches)]
        try:
            if len(rows) == 1 and not with_outcomes:
                # A statement alone is a transaction.
                store.add(rows[0])
            else:
                with store.transaction():
                    if with_outcomes:
                        # Before what we have noted is taken for all there is.
                        self._backlog.catch_up_if_changed()
                    for row in rows:
                        store.add(row)
                    if with_outcomes:
                        self._note_outcomes()
                        self._in_flight.write(rows[-1].id)
        except sqlite3.IntegrityError:
            # Another process has used the id.
            self._backlog.catch_up()
            if self._backlog.next_id == first:
                raise
            return self._insert(batches)
        self._backlog.next_id = rows[-1].id + STRIDE
        self._is_unsynced = False
        if with_outcomes:
            self._outcomes_written()
        return list(zip(batches, rows, strict=True))

    # Taking

    def get(self) -> Any:
        dropped = self._backlog.dropped
        while True:
            entry = self._waiting.get()
            # One that failed isn't of those that wait for the first time.
            if not dropped or entry.failed is not None or entry.id not in dropped:
                return entry
            dropped.discard(entry.id)
            self._waiting.forget(1)

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        dropped = self._backlog.dropped
        while True:
            entries = self._waiting.get_batch(limit, linger)
            if dropped and entries[0].failed is None:
                gone = dropped.intersection(entry.id for entry in entries)
                entries = [entry for entry in entries if entry.id not in gone]
                dropped.difference_update(gone)
                self._waiting.forget(len(gone))
            if entries:
                return entries

    def _refill(self) -> bool:
        """Read some of those that wait in the file only; whether there were any."""
        if self._backlog.is_loaded:
            return False

        def load() -> None:
            if not self._waiting.ready and not self._waiting.closed:
                self._backlog.load()

        self._read(load)
        return True

    def _read_again(self, entry: Entry) -> Entry | None:
        return self._read(lambda: self._backlog.read_again(entry))

    def _read(self, read: Callable[[], R]) -> R | None:
        """Read something from the file, however long it takes until that is possible; None if it
        is closed before."""
        while True:
            with self._writing:
                try:
                    if self._closed:
                        return None
                    result = read()
                    self._faults.read_worked()
                    return result
                # Or it would be read again at once, without end.
                except Exception as error:
                    self._faults.read_failed(error)
                finally:
                    # What is damaged is a dead letter.
                    if self._in_flight.has_news:
                        self._dirty.set()
            if self._closing.wait(AFTER_FAILURE):
                return None

    # What has become of them

    def done(self, entries: Sequence[Entry]) -> None:
        """Have events that were handled removed from the file, soon.

        It waits for that when there are as many as may be handled twice after a crash.
        """
        # Appending is atomic. This is done for each event, so it calls as little as it can.
        handled = self._handled
        handled += entries
        if not self._is_dirty or self._noted + len(handled) >= self._ack_batch:
            self._see_to_saving()

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> bool:
        """Retry an event in `delay` seconds, or keep it as a dead letter; returns whether it is
        a dead letter."""
        self._failures.append((entry, failure, delay))
        self._see_to_saving()
        return delay is None

    def flush(self) -> bool:
        """Write all outcomes to the disk, retrying until that is possible; returns False if the
        queue is closed before."""
        while True:
            with self._writing:
                if self._closed:
                    return not self._unsaved
                if self._save_if_possible(synced=True):
                    return True
            if self._closing.wait(AFTER_FAILURE):
                return False

    @property
    def _unsaved(self) -> int:
        """How many events were handled or have failed without the file knowing."""
        return self._noted + len(self._handled) + len(self._failures)

    def _see_to_saving(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._dirty.set()
        while self._unsaved >= self._ack_batch:
            with self._writing:
                if self._closed or self._unsaved < self._ack_batch:
                    return
                # Nothing is lost if a power cut undoes it; the keeper sees to it that it's little.
                if self._save_if_possible(synced=False):
                    return
            # Going on would have more of them handled twice.
            if self._closing.wait(AFTER_FAILURE):
                return

    def _save_if_possible(self, *, synced: bool) -> bool:
        """Write what has become of events; synced: so that a power cut doesn't undo it."""

        def write() -> None:
            self._backlog.catch_up_if_changed()
            self._note_outcomes()
            if synced and not self._in_flight.has_news:
                self._file.store.touch()
            self._in_flight.write(self._backlog.next_id - STRIDE)

        try:
            self._file.write_even_if_full(write, synced=synced)
        # Whatever it is, events may be handled twice because of it.
        except Exception as error:
            self._faults.write_failed(error)
            return False
        self._is_unsynced = not synced
        self._faults.write_worked()
        self._outcomes_written()
        return True

    def _note_outcomes(self) -> None:
        # Others may append meanwhile.
        handled = self._handled[: len(self._handled)]
        failures = self._failures[: len(self._failures)]
        self._noted += len(handled) + len(failures)
        del self._handled[: len(handled)], self._failures[: len(failures)]
        self._in_flight.handled(handled)
        self._in_flight.failed(failures)

    def _outcomes_written(self) -> None:
        self._noted = 0
        self._backlog.failed(self._in_flight.written())

    # What others do, and what goes wrong

    def _keep(self) -> None:
        look = time.monotonic() + LOOK_INTERVAL
        while not self._stopping.is_set():
            self._dirty.wait(max(0.0, look - time.monotonic()))
            try:
                if self._dirty.is_set() and not self._stopping.wait(ACK_DELAY):
                    self._save_what_is_due()
                if time.monotonic() >= look:
                    look = time.monotonic() + LOOK_INTERVAL
                    with self._writing:
                        if not self._closed:
                            self._look()
            # Nothing may end this thread.
            except Exception:
                self._logger.exception("The event queue failed and goes on")
                self._stopping.wait(AFTER_FAILURE)

    def _save_what_is_due(self) -> None:
        # In this order, and before: what is done from now on is either noted or told.
        self._dirty.clear()
        self._is_dirty = False
        with self._writing:
            news = self._unsaved or self._in_flight.has_news or self._is_unsynced
            if self._closed or not news or self._save_if_possible(synced=True):
                return
        self._dirty.set()
        self._stopping.wait(AFTER_FAILURE)

    def _look(self) -> None:
        """See what others have done to the file, and whether there is room again."""
        try:
            self._faults.look_for_file(with_log=True)
            if self._faults.is_full and self._file.has_room():
                self._faults.room_is_there()
            elif not self._file.ensure_reserve():
                self._faults.room_is_gone()
            self._backlog.catch_up_if_changed()
            self._faults.read_worked()
        except Exception as error:
            self._faults.read_failed(error)

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        return [
            *thread_died("the event queue", self._thread, stopping=self._stopping.is_set()),
            *self._faults.problems(),
        ]

    def lost_at_exit(self) -> int:
        """None: they are in the file."""
        return 0

    def counters(self) -> dict[str, Any]:
        """Events that wait, wait to be tried again, were tried again and are dead letters, and the
        age of the oldest in seconds."""
        oldest = self._backlog.oldest()
        # The disk may be hanging.
        if oldest is None and self._writing.acquire(timeout=LONGEST_LOOK):
            try:
                if not self._closed:
                    oldest = self._backlog.oldest_in_file()
            finally:
                self._writing.release()
        return {
            "waiting": len(self),
            "retrying": self._backlog.retrying,
            "retried": self._backlog.retried,
            "dead": self._backlog.dead,
            "oldest_age": None if oldest is None else round(max(0.0, time.time() - oldest), 3),
        }
