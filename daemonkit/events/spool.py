"""The durable event queue: what it has taken is on the disk, in one SQLite file."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any

from ..calls import error_text
from ..exceptions import InvalidEvent, QueueFull
from ..log import RateLimit
from ..types import Event, Problem, lost
from .bounded import Bounded
from .codec import decode, decode_each
from .entry import Batch, Entry, Failure, failure_of, meta_of
from .outcomes import Outcomes, Row
from .owner import Owner, Place, Reserve
from .store import STRIDE, Broken, Store, StoredBatch, check_place
from .waiting import Waiting

READY_EVENTS = 10_000
READY_BYTES = 16 * 1024 * 1024
"""What is kept in memory of those that wait; the rest is read from the file when it is due."""
AT_ONCE = 1000
"""Events read from the file before others get their turn."""
ACK_DELAY = 0.04
"""Seconds after which it is written that an event was handled, together with those meanwhile."""
LOOK_INTERVAL = 0.5
"""Seconds between two looks at what others have done to the file."""
PATIENCE = 0.25
"""Seconds to wait for another process that writes to the file."""
LOG_INTERVAL = 10.0
WAL_BYTES = 4 * 1024 * 1024
RESERVE_BYTES = 1024 * 1024


class Spool(Bounded):
    """A first-in-first-out queue in a file, which outlives the process.

    path: the file; name: the daemon's, told to a second one that wants it; size: how many events
    may wait; disk: bytes that the file may have; ack_batch: handled events that are removed from
    the file together, at most; changed: called when there may be a new problem.
    Raises StartError when the file can't be used.

    Threads that put at the same time share a commit: the first one writes for all that have come
    meanwhile (group commit).
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
        super().__init__(size, Waiting(self._revived, self._refill))
        self.path = path
        self._logger = logger
        self._disk = disk
        self._ack_batch = ack_batch
        self._changed = changed
        self._lock = threading.Lock()
        """For what puts, takers and the keeper tell each other; held for moments only."""
        self._writing = threading.Lock()
        """For the file and for what is known of it; held while the disk is at work."""
        self._puts: list[_Put] = []
        self._reserved = 0
        self._handled: list[Entry] = []
        self._failures: list[tuple[Entry, Failure, float | None]] = []
        self._unsaved = 0
        self._noted = 0
        self._cold = 0
        """Events that wait in the file only."""
        self._loaded = 0
        """The last batch of which that isn't so."""
        self._dropped: set[int] = set()
        self._retried = 0
        self._trouble = ""
        self._is_lost = False
        self._limit = RateLimit(LOG_INTERVAL)
        self._dirty, self._stopping = threading.Event(), threading.Event()
        self._closed = False
        self._open(name)
        self._thread = threading.Thread(target=self._keep, name=self.name, daemon=True)

    # Opening and closing

    def _open(self, name: str) -> None:
        check_place(self.path, create=True)
        self._owner = Owner(self.path, name)
        try:
            self._reserve = Reserve(self.path, RESERVE_BYTES)
            # Opening the file needs some room itself.
            self._reserve.release()
            self._store = self._open_store()
            execute = self._store.db.execute
            self._page_size = self._store.value("PRAGMA page_size")
            self._pages = max(16, self._disk // self._page_size)
            self._limit_pages(self._pages)
            wal = self._reserve_wal()
            execute(f"PRAGMA wal_autocheckpoint = {max(16, wal // (self._page_size + 24))}")
            self._place = Place(self.path)
            self._reserve.take()
            self._outcomes = Outcomes(self._store)
            self._version = self._store.value("PRAGMA data_version")
            self._cold, self._next, self._dead = 0, 0, 0
            self._catch_up()
        except BaseException:
            self._owner.release()
            raise
        if len(self):
            self._logger.info("%d events wait in %s", len(self), self.path)

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
        free = os.statvfs(os.path.dirname(os.path.abspath(self.path)))
        size = min(WAL_BYTES, free.f_bavail * free.f_frsize // 4)
        # It is made with the first write.
        with self._store.transaction():
            self._store.db.execute("UPDATE last SET id = id")
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
        self._store.db.execute(f"PRAGMA max_page_count = {pages}")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Give nothing more to takers: what waits is kept for the next start."""
        self._waiting.close(drain=False)

    def request_stop(self) -> None:
        """Write what is to be written, then close the file."""
        self.close()
        self._stopping.set()
        self._dirty.set()

    def join(self, timeout: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        # It may still be at the disk.
        if not self._writing.acquire(timeout=max(0.1, timeout)):
            return False
        try:
            if not self._closed:
                self._closed = True
                self._save_if_possible()
                self._store.close()
                self._reserve.close()
                self._owner.release()
        finally:
            self._writing.release()
        return True

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    # Putting

    def __len__(self) -> int:
        return self._cold + len(self._waiting) + self._reserved

    def put_many(self, batch: Batch) -> None:
        """Write all events or none, and return when they are on the disk; raises QueueFull or
        BatchTooLarge when they never fit."""
        count = len(batch.events)
        self._check_size(count)
        with self._lock:
            if self._room() < count:
                raise self._refusal()
            put = self._announce(batch, count)
        self._commit(put)
        if put.refusal is not None:
            raise put.refusal

    def put_some(self, batch: Batch) -> tuple[int, QueueFull | None]:
        """Write as many events as there is room for, the first ones, and return when they are on
        the disk; returns how many that were, and what refuses the others."""
        count = len(batch.events)
        with self._lock:
            fits = min(self._room(), count)
            refusal = self._refusal() if fits < count else None
            if not fits:
                return 0, refusal
            put = self._announce(batch if fits == count else batch.part(0, fits), fits)
        self._commit(put)
        return (fits, refusal) if put.refusal is None else (0, put.refusal)

    def _announce(self, batch: Batch, count: int) -> _Put:
        put = _Put(batch, count)
        self._reserved += count
        self._puts.append(put)
        return put

    def _commit(self, put: _Put) -> None:
        with self._writing:
            # Whoever had it before may have done it too.
            if not put.is_settled:
                self._write(with_outcomes=self._unsaved * 2 >= self._ack_batch)

    def _write(self, *, with_outcomes: bool) -> None:
        with self._lock:
            puts, self._puts = self._puts, []
        try:
            refusal = self._refusal_of_disk()
            if refusal is None:
                batches = self._insert(puts, with_outcomes)
                refusal = self._refusal_of_disk()
        except sqlite3.Error as error:
            refusal = self._failed_to("take events", error)
        except Exception as error:
            self._logger.exception("The event queue failed and goes on")
            refusal = QueueFull(f"The event queue failed: {error_text(error)}")
        if refusal is None:
            for batch, stored in batches:
                self._hand_over(batch, stored)
        with self._lock:
            for put in puts:
                put.is_settled, put.refusal = True, refusal
                self._reserved -= put.count

    def _refusal_of_disk(self) -> QueueFull | None:
        if self._closed:
            return self._refusal()
        if not self._is_lost and (problem := self._place.problem()):
            self._is_lost = True
            self._tell_trouble(f"the event queue's file {problem}: start the daemon anew")
        if self._is_lost:
            return QueueFull(f"{self._trouble[0].upper()}{self._trouble[1:]}", retry_after=5)
        if not self._reserve.is_there and not self._reserve.take():
            return self._no_room()
        return None

    def _insert(self, puts: Sequence[_Put], with_outcomes: bool) -> list[tuple[Batch, StoredBatch]]:
        """Commit them, and return them as they are in the file."""
        store, batches = self._store, _merged(puts)
        while True:
            stored = [_stored(batch, self._next + STRIDE * n) for n, batch in enumerate(batches)]
            try:
                if len(stored) == 1 and not with_outcomes:
                    # A statement alone is a transaction.
                    store.add(stored[0])
                else:
                    with store.transaction():
                        for one in stored:
                            store.add(one)
                        if with_outcomes:
                            self._note_outcomes()
                            self._outcomes.write()
            except sqlite3.IntegrityError:
                # Another process has used the id.
                self._catch_up()
                continue
            break
        self._next = stored[-1].id + STRIDE
        if with_outcomes:
            self._outcomes_written()
        self._works_again()
        return list(zip(batches, stored, strict=True))

    def _hand_over(self, batch: Batch, stored: StoredBatch) -> None:
        """Let takers have what is on the disk."""
        waiting = self._waiting
        if (
            self._cold
            or waiting.ready >= READY_EVENTS
            or self._outcomes.bytes >= READY_BYTES
            or waiting.closed
        ):
            self._cold += stored.events
            return
        self._loaded = stored.id
        self._outcomes.add_row(stored.id, Row(stored.events, len(stored.lines), stored.received))
        ids = range(stored.id, stored.id + stored.events)
        peers = repeat(None) if batch.peers is None else batch.peers
        waiting.add(self._entries(batch.events, stored, peers, ids), stored.events)

    def _entries(
        self, events: Sequence[Event], stored: StoredBatch, peers: Any, ids: Sequence[int]
    ) -> list[Entry]:
        if not self.with_meta:
            return list(map(Entry, events, repeat(None), ids))
        return [
            Entry(event, meta_of(stored.source, peer, stored.received), id)
            for event, peer, id in zip(events, peers, ids)  # noqa: B905
        ]

    # Taking

    def get(self) -> Any:
        while True:
            entry = self._waiting.get()
            if not self._dropped or entry.id not in self._dropped:
                return entry

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        while True:
            entries = self._waiting.get_batch(limit, linger)
            if self._dropped:
                entries = [entry for entry in entries if entry.id not in self._dropped]
            if entries:
                return entries

    def _refill(self) -> bool:
        """Read some of those that wait in the file only; whether a taker should look again."""
        if not self._cold:
            return False
        with self._writing:
            if self._closed or not self._cold or self._waiting.ready:
                return True
            try:
                self._load()
                return True
            except sqlite3.Error as error:
                self._failed_to("read events", error)
        self._stopping.wait(1.0)
        return True

    def _load(self) -> None:
        marked = dict(self._store.handled(self._loaded))
        taken = 0
        for stored in self._store.batches(self._loaded):
            gone = {n for first, last in marked.get(stored.id, ()) for n in range(first, last + 1)}
            taken += self._load_batch(stored, gone)
            if taken >= AT_ONCE:
                self._cold = max(1, self._cold - taken)
                return
        self._cold = 0

    def _load_batch(self, stored: StoredBatch, gone: set[int]) -> int:
        damaged: dict[int, InvalidEvent] = {}

        def otherwise(number: int, line: bytes) -> list[Event]:
            try:
                return [decode(line)]
            except InvalidEvent as error:
                damaged[number] = error
                return [None]

        events = decode_each(stored.lines.split(b"\n"), otherwise)
        numbers = [n for n in range(len(events)) if n not in gone and n not in damaged]
        row = Row(len(events) - len(gone), len(stored.lines), stored.received)
        row.handled |= gone
        self._outcomes.add_row(stored.id, row)
        self._loaded = stored.id
        for number, error in damaged.items():
            entry = Entry(None, None, stored.id + number)
            self._fail_later(entry, failure_of(error, entry, str), None)
        peers = [None] * len(events) if stored.peers is None else json.loads(stored.peers)
        entries = self._entries(
            [events[n] for n in numbers],
            stored,
            [peers[n] for n in numbers],
            [stored.id + n for n in numbers],
        )
        self._waiting.add(entries, len(entries))
        return row.left

    def _revived(self, entry: Entry) -> Entry | None:
        """Read an event that is due again; None if it isn't any more."""
        while not self._waiting.closed:
            try:
                with self._writing:
                    if self._closed or self._outcomes.tried.get(entry.id) != entry.failed:
                        return None
                    event = self._store.failed(entry.id)
                    if event is None or event.due is None:
                        self._outcomes.tried.pop(entry.id, None)
                        return None
                    self._outcomes.tried[entry.id] = None
            except sqlite3.Error as error:
                self._failed_to("read events", error)
                self._stopping.wait(1.0)
                continue
            attempt = event.attempts + 1
            meta = (
                meta_of(event.source, event.peer, event.received, attempt)
                if self.with_meta
                else None
            )
            return Entry(decode(event.line), meta, event.id, attempt, None, event.first_failed)
        return None

    # What has become of them

    def done(self, entries: Sequence[Entry]) -> None:
        """Have events that were handled removed from the file, soon.

        It waits for that when there are as many as may be handled twice after a crash.
        """
        with self._lock:
            self._handled += entries
            self._unsaved += len(entries)
        self._have_saved()

    def fail(self, entry: Entry, failure: Failure, delay: float | None) -> None:
        """Have an event tried again in `delay` seconds, or kept as a dead letter."""
        self._fail_later(entry, failure, delay)
        self._have_saved()

    def _fail_later(self, entry: Entry, failure: Failure, delay: float | None) -> None:
        with self._lock:
            self._failures.append((entry, failure, delay))
            self._unsaved += 1

    def _have_saved(self) -> None:
        if not self._dirty.is_set():
            self._dirty.set()
        while self._unsaved >= self._ack_batch:
            with self._writing:
                if self._closed or self._unsaved < self._ack_batch or self._save_if_possible():
                    return
            # Going on would have more of them handled twice.
            if self._stopping.wait(1.0):
                return

    def _save_if_possible(self) -> bool:
        try:
            self._save()
            return True
        except sqlite3.Error as error:
            self._failed_to("note what was handled", error)
            return False

    def _save(self) -> None:
        """Write what has become of events; with the room that is kept for it if there is none."""
        self._note_outcomes()
        try:
            with self._store.transaction():
                self._outcomes.write()
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
            self._reserve.release()
            self._limit_pages(2**31)
            try:
                with self._store.transaction():
                    self._outcomes.write()
            finally:
                self._limit_pages(self._pages)
        self._outcomes_written()

    def _note_outcomes(self) -> None:
        with self._lock:
            handled, self._handled = self._handled, []
            failures, self._failures = self._failures, []
        self._outcomes.handled(handled)
        self._outcomes.failed(failures)
        self._noted += len(handled) + len(failures)

    def _outcomes_written(self) -> None:
        with self._lock:
            self._unsaved -= self._noted
            self._noted = 0
        for entry, delay in self._outcomes.written():
            if delay is None:
                self._outcomes.tried.pop(entry.id, None)
                self._dead += 1
            else:
                self._retried += 1
                self._try_again(entry.id, time.time() + delay)

    def _try_again(self, id: int, due: float) -> None:
        self._outcomes.tried[id] = due
        self._waiting.put_back(Entry(None, None, id, failed=due), due - time.time())

    # What others do, and what goes wrong

    def _keep(self) -> None:
        look = time.monotonic() + LOOK_INTERVAL
        while not self._stopping.is_set():
            self._dirty.wait(max(0.0, look - time.monotonic()))
            try:
                if self._dirty.is_set() and not self._stopping.wait(ACK_DELAY):
                    self._dirty.clear()
                    with self._writing:
                        if self._unsaved and not self._save_if_possible():
                            self._dirty.set()
                if time.monotonic() >= look:
                    look = time.monotonic() + LOOK_INTERVAL
                    with self._writing:
                        self._look()
            # Nothing may end this thread.
            except Exception:
                self._logger.exception("The event queue failed and goes on")

    def _look(self) -> None:
        """See what others have done to the file, and whether there is room again."""
        if self._refusal_of_disk() is None and self._trouble:
            self._works_again()
        version = self._store.value("PRAGMA data_version")
        if version != self._version:
            self._catch_up()
            self._version = version

    def _catch_up(self) -> None:
        """Take note of what another process has added, dropped, or wants tried again."""
        store, outcomes = self._store, self._outcomes
        present = {id for (id,) in store.db.execute("SELECT id FROM batches")}
        for id in [id for id in outcomes.rows if id not in present]:
            self._dropped.update(range(id, id + STRIDE))
            outcomes.forget_row(id)
        for id, ranges in store.handled():
            if id in outcomes.rows:
                for first, last in ranges:
                    for number in range(first, last + 1):
                        if outcomes.settle(id + number):
                            self._dropped.add(id + number)
        for id, due in store.due():
            known = outcomes.tried.get(id, 0.0)
            if known is not None and known != due:
                self._try_again(id, due)
        self._dead = store.dead()
        self._cold = store.count(self._loaded)
        self._next = max(self._next, store.next_id())

    def _failed_to(self, what: str, error: sqlite3.Error) -> QueueFull:
        if _is_full(error):
            if self._store.value("PRAGMA page_count") >= self._pages - 16:
                return QueueFull(f"The event queue is full (queue_disk, {self._disk} bytes)")
            return self._no_room()
        self._tell_trouble(f"the event queue can't {what}: {error} ({self.path})")
        return QueueFull(f"{self._trouble[0].upper()}{self._trouble[1:]}")

    def _no_room(self) -> QueueFull:
        self._tell_trouble(f"the disk of the event queue is full ({self.path})")
        return QueueFull("The disk of the event queue is full", retry_after=5)

    def _tell_trouble(self, text: str) -> None:
        news, self._trouble = text != self._trouble, text
        if news:
            self._changed()
        if self._limit.allow() is not None or news:
            self._logger.error("%s%s", text[0].upper(), text[1:])

    def _works_again(self) -> None:
        if self._trouble:
            self._trouble = ""
            self._changed()
            self._logger.info("The event queue works again")

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        found = lost("the event queue", self._thread, stopping=self._stopping.is_set())
        if self._trouble:
            # A new start would find the disk just as full.
            found.append(Problem(self._trouble, bearable="disk" in self._trouble))
        return found

    def lost_at_exit(self) -> int:
        """None: they are in the file."""
        return 0

    def counters(self) -> dict[str, Any]:
        """Events that wait, wait to be tried again, were tried again and are dead letters, the
        age of the oldest in seconds, and bytes of the file."""
        return {
            "waiting": len(self),
            "retrying": self._waiting.retrying,
            "retried": self._retried,
            "dead": self._dead,
            "oldest_age": self._oldest_age(),
        }

    def _oldest_age(self) -> float | None:
        head = self._waiting.head()
        row = None if head is None else self._outcomes.rows.get(head.id - head.id % STRIDE)
        if row is not None:
            received: float | None = row.received
        elif self._cold:
            with self._writing:
                received = None if self._closed else self._store.oldest(self._loaded)
        else:
            return None
        return None if received is None else round(max(0.0, time.time() - received), 3)


class _Put:
    """Events that a thread wants written, and what has become of that."""

    __slots__ = ("batch", "count", "is_settled", "refusal")

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch = batch
        self.count = count
        self.is_settled = False
        self.refusal: QueueFull | None = None


def _merged(puts: Sequence[_Put]) -> list[Batch]:
    """The same events in as few batches as can be."""
    merged: list[Batch] = []
    for put in puts:
        batch = put.batch
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.source == batch.source
            and (last.peers is None) == (batch.peers is None)
            and len(last.events) + put.count <= STRIDE
        ):
            peers = None if last.peers is None else [*last.peers, *(batch.peers or ())]
            merged[-1] = Batch(
                [*last.events, *batch.events], [*last.lines, *batch.lines], last.source, peers
            )
        elif put.count <= STRIDE:
            merged.append(batch)
        else:
            merged += [batch.part(n, n + STRIDE) for n in range(0, put.count, STRIDE)]
    return merged


def _stored(batch: Batch, id: int) -> StoredBatch:
    lines = b"\n".join(batch.lines)
    if lines.count(b"\n") != len(batch.lines) - 1 or b"\xef\xbb\xbf" in lines:
        # In JSON a line break is space, if it is anywhere; and a mark may stand at its beginning.
        lines = b"\n".join(
            line.removeprefix(b"\xef\xbb\xbf").replace(b"\n", b" ") for line in batch.lines
        )
    peers = None if batch.peers is None else json.dumps(batch.peers)
    return StoredBatch(id, len(batch.lines), time.time(), batch.source, peers, lines)


def _is_full(error: sqlite3.Error) -> bool:
    # Python 3.10 has no error codes.
    return "database or disk is full" in str(error)


def _move_aside(path: str) -> str:
    """Rename the files, and return the new name."""
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    aside = f"{path}.broken-{stamp}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.broken-{stamp}-{number}"
    # The log first: alone, an old one would be taken for the new file's.
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside
