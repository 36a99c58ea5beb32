"""The durable event queue: every accepted event is on the disk, in one SQLite file."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ...exceptions import StartError, Unavailable
from ...runtime.clock import monotonic
from ...runtime.failures import FailureLog
from ...runtime.forks import ForkFlag
from ...runtime.part import ThreadedPart
from ...types import Problem
from ..bounded import Bounded
from ..entry import Batch, Entry, FailedAttempt, Load
from ..waiting import Waiting
from .backlog import Backlog
from .failed import StoredFailures
from .faults import FileFaults
from .file import File
from .group_commit import GroupCommit, OwnedLock, Pending
from .in_flight import InFlight
from .writer import Writer, Written

ACK_DELAY = 0.04
"""Seconds until results are saved, together with those that arrive meanwhile."""
CHECK_INTERVAL = 0.5
"""Seconds between two checks for changes of the file by others."""
STATUS_TIMEOUT = 0.1
"""Seconds that `/status` waits for the file."""
AFTER_FAILURE = 1.0
"""Seconds until a failed read or write is tried again."""

R = TypeVar("R")


class DurableQueue(Bounded, ThreadedPart):
    """A first-in-first-out queue in a file, which outlives the process.

    path: the file; name: of the daemon, for the error message of a second one; size: the most
    events that may wait; disk: the most bytes of the file; ack_batch: the most results of handlers
    that the file need not have; changed: called when there may be a new problem.
    Raises StartError if the file can't be used.

    Concurrent puts share a commit.
    """

    is_durable = gathers = True

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
        Bounded.__init__(self, size, Waiting(self._read_again, self._refill))
        ThreadedPart.__init__(self, self.name, "the event queue")
        self._failures = FailureLog(logger)
        self._ack_batch = ack_batch
        self._lock = OwnedLock()
        """For the file, and for what is known of it; held during disk access."""
        self._group = GroupCommit(self._write, self._lock)
        self._forked = ForkFlag()
        self._dirty = threading.Event()
        self._is_dirty = False
        """Whether a save was requested; cheaper to read than the event."""
        self._closing = threading.Event()
        self._file = File(path, name, disk, logger)
        self.failed_events = StoredFailures(self._file.path)
        self._faults = FileFaults(self._file.path, logger, changed)
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
        self._writer = Writer(
            self._file, self._faults, self._backlog, self._in_flight, ack_batch, self._publish
        )
        if len(self):
            logger.info("%d events wait in %s", len(self), path)

    def close(self) -> None:
        """Hand out nothing more; waiting events stay in the file for the next start."""
        self._closing.set()
        with self._group.lock:
            self._backlog.close()

    def request_stop(self) -> None:
        """Save the results, then close the file."""
        self.close()
        super().request_stop()
        self._dirty.set()

    def join(self, timeout: float) -> bool:
        until = monotonic() + timeout
        super().join(timeout)
        # Another thread may be using the disk.
        if not self._lock.acquire(timeout=max(0.0, until - monotonic())):
            return False
        try:
            if not self._file.is_closed:
                self._writer.save(synced=True)
                self._file.close()
        finally:
            self._lock.release()
        return not self.running_threads()

    # Putting

    def __len__(self) -> int:
        return len(self._backlog) + self._group.announced

    def put_many(self, batch: Batch) -> None:
        """Write all events or none, and return once they are on the disk; raises Unavailable, or
        BatchTooLarge if they never fit."""
        count = len(batch.events)
        self._check_thread()
        with self._group.lock:
            self._check_room(Load(count))
            put = self._group.announce(batch, count)
        self._group.commit(put)
        if put.refusal is not None:
            raise put.refusal

    def put_some(self, batch: Batch) -> tuple[int, Unavailable | None]:
        """Write the first events, as many as there is room for, and return once they are on the
        disk; returns how many, and the refusal of the others."""
        count = len(batch.events)
        self._check_thread()
        with self._group.lock:
            fits, refusal = self._room_for_some(batch)
            if not fits:
                return 0, refusal
            put = self._group.announce(batch if fits == count else batch.part(0, fits), fits)
        self._group.commit(put)
        return (fits, refusal) if put.refusal is None else (0, put.refusal)

    def _check_thread(self) -> None:
        # A forked child can use neither SQLite connections nor locks that other threads held.
        if self._forked.is_child:
            raise Unavailable("A forked child can't put events on a durable queue")
        # A log handler, for instance, that puts an event for each logged error.
        if self._lock.is_mine:
            raise Unavailable("This thread is already writing to the event queue")

    def _write(self, puts: Sequence[Pending]) -> None:
        refusal = self._writer.write(puts)
        if refusal is not None:
            if self._writer.has_unsaved:
                self._dirty.set()
            with self._group.lock:
                self._group.settle(puts, refusal)

    def _publish(self, puts: Sequence[Pending], written: Written) -> None:
        # Both at once, or the events would be counted twice for a moment.
        with self._group.lock:
            for batch, row in written:
                self._backlog.hand_over(batch, row)
                self.accepted += len(batch.events)
            self._group.settle(puts, None)

    # Taking

    def get(self) -> Any:
        return self._backlog.get()

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        return self._backlog.get_batch(limit, linger)

    def _refill(self) -> bool:
        """Load more events from the file; returns whether there were any."""
        if self._backlog.is_loaded:
            return False
        self._read(self._backlog.load_if_needed)
        return True

    def _read_again(self, entry: Entry) -> Entry | None:
        return self._read(lambda: self._backlog.read_again(entry))

    def _read(self, read: Callable[[], R]) -> R | None:
        """Call `read` until it works; returns None if the queue is closed before."""
        while True:
            with self._lock:
                try:
                    if self._file.is_closed:
                        return None
                    result = read()
                    self._faults.unreadable.end()
                    return result
                # Any error: otherwise it would be retried at once, forever.
                except Exception as error:
                    self._faults.read_failed(error)
                finally:
                    # Damaged events became dead letters.
                    if self._in_flight.has_unsaved:
                        self._dirty.set()
            if self._closing.wait(AFTER_FAILURE):
                return None

    # Results

    def done(self, entries: Sequence[Entry]) -> None:
        """Have handled events removed from the file soon.

        Waits for that once `ack_batch` results are unsaved.
        """
        # Appending is atomic. This runs for each event, so it calls as little as possible.
        in_flight = self._in_flight
        handled = in_flight.handled
        handled += entries
        if not self._is_dirty or in_flight.collected + len(handled) >= self._ack_batch:
            self._have_saved()

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> bool:
        """Have an event retried in `delay` seconds, or kept as a dead letter; returns whether it is
        a dead letter."""
        self._in_flight.fail(entry, failure, delay)
        self._have_saved()
        return delay is None

    def flush(self) -> bool:
        """Write all results to the disk, retrying until that is possible; returns False if the
        queue is closed before."""
        while True:
            with self._lock:
                if self._file.is_closed:
                    return not self._in_flight.unsaved
                if self._writer.save(synced=True):
                    return True
            if self._closing.wait(AFTER_FAILURE):
                return False

    def _have_saved(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._dirty.set()
        if self._in_flight.unsaved >= self._ack_batch:
            began = monotonic()
            self._save_before_more()
            self._waiting.idle.seconds += monotonic() - began

    def _save_before_more(self) -> None:
        while self._in_flight.unsaved >= self._ack_batch:
            with self._lock:
                if self._file.is_closed or self._in_flight.unsaved < self._ack_batch:
                    return
                # A power cut may undo it, so the thread syncs it soon.
                if self._writer.save(synced=False):
                    return
            # Going on would let more events be handled twice.
            if self._closing.wait(AFTER_FAILURE):
                return

    def _run(self) -> None:
        check = monotonic() + CHECK_INTERVAL
        while not self._stop_requested.is_set():
            self._dirty.wait(max(0.0, check - monotonic()))
            try:
                if self._dirty.is_set() and not self._stop_requested.wait(ACK_DELAY):
                    self._save()
                if monotonic() >= check:
                    check = monotonic() + CHECK_INTERVAL
                    self._check_file()
            # Nothing may end this thread.
            except Exception as error:
                self._failures.log(error, "The event queue failed", then=" and continues")
                self._stop_requested.wait(AFTER_FAILURE)

    def _save(self) -> None:
        # First, and in this order: later results are either saved now or set them again.
        self._dirty.clear()
        self._is_dirty = False
        with self._lock:
            if self._file.is_closed or not self._writer.has_unsaved:
                return
            if self._writer.save(synced=True):
                return
        self._dirty.set()
        self._stop_requested.wait(AFTER_FAILURE)

    def _check_file(self) -> None:
        with self._lock:
            if self._file.is_closed:
                return
            try:
                self._writer.check()
                self._faults.unreadable.end()
            except Exception as error:
                self._faults.read_failed(error)

    # Status

    def problems(self) -> list[Problem]:
        """For the health check."""
        return [
            *super().problems(),
            *self._faults.problems(),
        ]

    def lost_at_exit(self) -> int:
        """None: they are in the file."""
        return 0

    def counters(self, *, quick: bool = False) -> dict[str, Any]:
        """Counts of received and waiting events, scheduled and past retries and dead letters, and
        the age of the oldest waiting event in seconds."""
        oldest = self._backlog.oldest()
        # The disk may hang.
        if oldest is None and not quick and self._lock.acquire(timeout=STATUS_TIMEOUT):
            try:
                if not self._file.is_closed:
                    oldest = self._backlog.oldest_on_disk()
            # Whoever reads from it next reports that.
            except sqlite3.Error:
                pass
            finally:
                self._lock.release()
        # Both of one moment, and without the events whose commit is under way: they may be refused.
        with self._group.lock:
            received, waiting = self.accepted, len(self._backlog)
        return {
            "received": received,
            "waiting": waiting,
            "retrying": self._backlog.retrying,
            "retried": self._backlog.retried,
            "dead": self._backlog.dead,
            "dead_now": self._backlog.dead,
            "oldest_age": None if oldest is None else round(max(0.0, time.time() - oldest), 3),
        }
