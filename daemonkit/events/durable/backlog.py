"""What waits in a durable queue's file: the first of it in memory too, the rest read when due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

from ...exceptions import InvalidEvent
from ...types import Event
from ..codec import decode, decode_each
from ..entry import LONGEST_BACKOFF, Batch, Entry, failure_of, meta_of
from ..waiting import Waiting
from .in_flight import InFlight, Row
from .store import STRIDE, Store, StoredBatch, numbers_in

READY_EVENTS = 10_000
READY_BYTES = 16 * 1024 * 1024
"""What is kept in memory at most of those that wait."""
AT_ONCE = 1000
"""Events read from the file before others get their turn."""


class Backlog:
    """Not for several threads at once, but for `len`, `waiting` and `dropped`.

    with_meta: tells whether takers want the circumstances of each event.
    """

    def __init__(
        self,
        store: Store,
        waiting: Waiting,
        in_flight: InFlight,
        with_meta: Callable[[], bool],
    ) -> None:
        self.waiting = waiting
        self._with_meta = with_meta
        self.dropped: set[int] = set()
        """Events that takers are still given, and which another process has dropped."""
        self.dead = 0
        self.retried = 0
        self.next_id = 0
        self._store = store
        self._in_flight = in_flight
        self._cold = 0
        """Events that wait in the file only."""
        self.is_loaded = True
        """Whether nothing has to be read from the file."""
        self._loaded = 0
        """The last batch of which takers may have had something."""
        self._version = self._version_now()
        self.catch_up()

    def __len__(self) -> int:
        return self._cold + self.waiting.ready - len(self.dropped) + len(self._in_flight.due)

    @property
    def retrying(self) -> int:
        """How many of them are to be tried again."""
        return len(self._in_flight.due)

    def hand_over(self, batch: Batch, stored: StoredBatch) -> None:
        """Let takers have what is on the disk now."""
        waiting, in_flight = self.waiting, self._in_flight
        if (
            not self.is_loaded
            or waiting.ready >= READY_EVENTS
            or in_flight.bytes >= READY_BYTES
            or not self._add_direct(batch, stored)
        ):
            self.is_loaded = False
            self._cold += stored.events
            if not waiting.ready:
                waiting.look_again()

    def _add_direct(self, batch: Batch, stored: StoredBatch) -> bool:
        ids = range(stored.id, stored.id + stored.events)
        row = Row(stored.events, len(stored.lines), stored.received)
        # Before: it may be handled before we come back.
        self._in_flight.add_row(stored.id, row)
        if self._add(batch.events, stored, batch.peers, ids):
            self._loaded = stored.id
            return True
        self._in_flight.forget_row(stored.id)
        return False

    def keep(self) -> None:
        """Let takers have nothing more."""
        # They are in the file, all of them.
        ready = self.waiting.ready
        self.waiting.close(drain=False)
        self._cold += ready

    def load(self) -> None:
        """Read some of those that wait in the file only."""
        marked = dict(self._store.handled(self._loaded))
        taken = 0
        for stored in self._store.batches(self._loaded):
            taken += self._load_batch(stored, numbers_in(marked.get(stored.id, [])))
            if taken >= AT_ONCE or self._in_flight.bytes >= READY_BYTES:
                return
        self.is_loaded, self._cold = True, 0

    def _load_batch(self, stored: StoredBatch, gone: set[int]) -> int:
        damaged: dict[int, InvalidEvent] = {}

        def otherwise(number: int, line: bytes) -> list[Event]:
            try:
                return [decode(line)]
            except InvalidEvent as error:
                damaged[number] = error
                return [None]

        events = decode_each(stored.texts(), otherwise)
        count = len(events) - len(gone)
        row = Row(len(events), len(stored.lines), stored.received)
        row.left = count
        row.handled |= gone
        self._in_flight.add_row(stored.id, row)
        self._loaded = stored.id
        # Before they count as waiting for a taker: rather too few for a moment than too many.
        self._cold = max(0, self._cold - count)
        # Somebody has edited the file, or the disk has.
        for number, error in damaged.items():
            entry = Entry(None, None, stored.id + number)
            self._in_flight.failed([(entry, failure_of(error, entry, str), None)])
        numbers = [n for n in range(len(events)) if n not in gone and n not in damaged]
        senders = stored.senders() if self._with_meta() else None
        self._add(
            [events[n] for n in numbers],
            stored,
            None if senders is None else [senders[n] for n in numbers],
            [stored.id + n for n in numbers],
        )
        return count

    def _add(
        self,
        events: Sequence[Event],
        stored: StoredBatch,
        peers: Sequence[str | None] | None,
        ids: Sequence[int],
    ) -> bool:
        metas: Iterable[Any] = repeat(None)
        if self._with_meta():
            metas = (
                meta_of(stored.source, peer, stored.received)
                for peer in peers or [None] * len(events)
            )
        # As `Entry(event, meta, id)` does, but three times as fast.
        fields = zip(events, metas, ids, repeat(1), repeat(None), repeat(None))
        return self.waiting.add(map(tuple.__new__, repeat(Entry), fields), len(events))

    def read_again(self, entry: Entry) -> Entry | None:
        """An event that is due again, by what `_try_again` has noted of it; None if it isn't any
        more."""
        due, trying = self._in_flight.due, self._in_flight.trying
        if due.get(entry.id) != entry.event:
            return None
        event = self._store.failed(entry.id)
        del due[entry.id]
        if event is None or event.due is None:
            return None
        trying.add(entry.id)
        try:
            again = decode(event.line)
        except InvalidEvent as error:
            self._in_flight.failed([(entry, failure_of(error, Entry(None), str), None)])
            return None
        attempt = event.attempts + 1
        meta = meta_of(event.source, event.peer, event.received, attempt)
        return Entry(
            again,
            meta if self._with_meta() else None,
            event.id,
            attempt,
            None,
            event.first_failed,
        )

    def failed(self, failures: Iterable[tuple[Entry, float | None]]) -> None:
        """Take note of events that have failed, and of when each is due again, if ever."""
        for entry, due in failures:
            if due is None:
                self.dead += 1
            else:
                self.retried += 1
                self._try_again(entry.id, due)

    def _try_again(self, id: int, due: float) -> None:
        self._in_flight.due[id] = due
        # The clock may have been set back since.
        delay = min(max(0.0, due - time.time()), LONGEST_BACKOFF)
        self.waiting.put_back(Entry(due, None, id), delay)

    def catch_up_if_changed(self) -> None:
        """Catch up if another process has changed the file since."""
        version = self._version_now()
        if version != self._version:
            self._version = version
            self.catch_up()

    def _version_now(self) -> Any:
        # It is another after each change that isn't ours.
        return self._store.value("PRAGMA data_version")

    def catch_up(self) -> None:
        """Take note of what another process has added, dropped, or wants tried again."""
        store, in_flight = self._store, self._in_flight
        present = store.ids(self._loaded)
        # What comes before it has been taken.
        head = self.waiting.head()
        waits_from = self._loaded + STRIDE if head is None else head.id
        gone: set[int] = set()
        for id, row in list(in_flight.rows.items()):
            if id not in present:
                gone |= {id + n for n in range(row.count) if n not in row.handled}
                in_flight.forget_row(id)
        for id, ranges in store.handled():
            if id in in_flight.rows:
                in_flight.note_marks(id)
                gone |= {id + n for n in numbers_in(ranges) if in_flight.settle([id + n])}
        self.dropped |= {id for id in gone if id >= waits_from}
        due = dict(store.due())
        for id in in_flight.due.keys() - due.keys():
            del in_flight.due[id]
        for id, when in due.items():
            if id not in in_flight.trying and in_flight.due.get(id) != when:
                self._try_again(id, when)
        self.dead = store.dead()
        self._cold = store.count(self._loaded)
        self.is_loaded = not self._cold
        self.next_id = max(self.next_id, store.next_id())
        self.waiting.look_again()

    def oldest(self) -> float | None:
        """When the oldest event in memory that waits for its first attempt was received, in Unix
        seconds."""
        head = self.waiting.head()
        row = None if head is None else self._in_flight.rows.get(head.id - head.id % STRIDE)
        return None if row is None else row.received

    def oldest_in_file(self) -> float | None:
        """The same, of those that wait in the file only."""
        return self._store.oldest(self._loaded) if self._cold else None
