"""What waits in a durable queue's file: the first of it in memory too, the rest read when due."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

from ..exceptions import InvalidEvent
from ..types import Event
from .codec import decode, decode_each
from .entry import Batch, Entry, failure_of, meta_of
from .outcomes import Outcomes, Row
from .store import STRIDE, Store, StoredBatch
from .waiting import Waiting

READY_EVENTS = 10_000
READY_BYTES = 16 * 1024 * 1024
"""What is kept in memory at most of those that wait."""
AT_ONCE = 1000
"""Events read from the file before others get their turn."""


class Backlog:
    """Not for several threads at once, but for `len`, `waiting` and `dropped`."""

    def __init__(self, store: Store, waiting: Waiting, outcomes: Outcomes) -> None:
        self.waiting = waiting
        self.with_meta = False
        self.dropped: set[int] = set()
        """Events that takers may still be given, and which another process has dropped."""
        self.dead = 0
        self.retried = 0
        self.next_id = 0
        self._store = store
        self._outcomes = outcomes
        self._cold = 0
        """Events that wait in the file only."""
        self._loaded = 0
        """The last batch of which that isn't so."""
        self._version = self._version_now()
        self.catch_up()

    def __len__(self) -> int:
        return self._cold + len(self.waiting)

    @property
    def is_loaded(self) -> bool:
        """Whether nothing has to be read from the file."""
        return not self._cold

    def hand_over(self, batch: Batch, stored: StoredBatch) -> None:
        """Let takers have what is on the disk now."""
        waiting, outcomes = self.waiting, self._outcomes
        if (
            self._cold
            or waiting.closed
            or waiting.ready >= READY_EVENTS
            or outcomes.bytes >= READY_BYTES
        ):
            self._cold += stored.events
            if not waiting.ready:
                waiting.look_again()
            return
        self._loaded = stored.id
        outcomes.add_row(stored.id, Row(stored.events, len(stored.lines), stored.received))
        ids = range(stored.id, stored.id + stored.events)
        self._add(batch.events, stored, batch.peers, ids)

    def keep(self) -> None:
        """Let takers have nothing more."""
        # They are in the file, all of them.
        self._cold += len(self.waiting)
        self.waiting.close(drain=False)

    def load(self) -> None:
        """Read some of those that wait in the file only."""
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

        events = decode_each(stored.texts(), otherwise)
        row = Row(len(events) - len(gone), len(stored.lines), stored.received)
        row.handled |= gone
        self._outcomes.add_row(stored.id, row)
        self._loaded = stored.id
        # Somebody has edited the file, or the disk has.
        for number, error in damaged.items():
            entry = Entry(None, None, stored.id + number)
            self._outcomes.failed([(entry, failure_of(error, entry, str), None)])
        numbers = [n for n in range(len(events)) if n not in gone and n not in damaged]
        senders = stored.senders() if self.with_meta else []
        self._add(
            [events[n] for n in numbers],
            stored,
            [senders[n] for n in numbers] if self.with_meta else None,
            [stored.id + n for n in numbers],
        )
        return len(events) - len(gone)

    def _add(
        self,
        events: Sequence[Event],
        stored: StoredBatch,
        peers: Sequence[str | None] | None,
        ids: Sequence[int],
    ) -> None:
        metas: Iterable[Any] = repeat(None)
        if self.with_meta:
            metas = (
                meta_of(stored.source, peer, stored.received)
                for peer in peers or [None] * len(events)
            )
        # As `Entry(event, meta, id)` does, but three times as fast.
        fields = zip(events, metas, ids, repeat(1), repeat(None), repeat(None))
        self.waiting.add(map(tuple.__new__, repeat(Entry), fields), len(events))

    def read_again(self, entry: Entry) -> Entry | None:
        """An event that is due again; None if it isn't any more."""
        tried = self._outcomes.tried
        if tried.get(entry.id) != entry.failed:
            return None
        event = self._store.failed(entry.id)
        if event is None or event.due is None:
            tried.pop(entry.id, None)
            return None
        tried[entry.id] = None
        try:
            again = decode(event.line)
        except InvalidEvent as error:
            self._outcomes.failed([(entry, failure_of(error, Entry(None), str), None)])
            return None
        attempt = event.attempts + 1
        meta = meta_of(event.source, event.peer, event.received, attempt)
        return Entry(
            again,
            meta if self.with_meta else None,
            event.id,
            attempt,
            None,
            event.first_failed,
        )

    def failed(self, failures: Iterable[tuple[Entry, float | None]]) -> None:
        """Take note of events that have failed, and of when each is due again, if ever."""
        for entry, due in failures:
            if due is None:
                self._outcomes.tried.pop(entry.id, None)
                self.dead += 1
            else:
                self.retried += 1
                self._try_again(entry.id, due)

    def _try_again(self, id: int, due: float) -> None:
        self._outcomes.tried[id] = due
        self.waiting.put_back(Entry(None, None, id, failed=due), due - time.time())

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
        store, outcomes = self._store, self._outcomes
        present = store.ids(self._loaded)
        for id in [id for id in outcomes.rows if id not in present]:
            self.dropped.update(range(id, id + STRIDE))
            outcomes.forget_row(id)
        for id, ranges in store.handled():
            if id in outcomes.rows:
                outcomes.has_marks(id)
                for first, last in ranges:
                    for number in range(first, last + 1):
                        if outcomes.settle(id + number):
                            self.dropped.add(id + number)
        for id, due in store.due():
            known = outcomes.tried.get(id, 0.0)
            # None: it is in work.
            if known is not None and known != due:
                self._try_again(id, due)
        self.dead = store.dead()
        self._cold = store.count(self._loaded)
        self.next_id = max(self.next_id, store.next_id())
        self.waiting.look_again()

    def oldest(self) -> float | None:
        """When the oldest event in memory that waits for its first attempt was received, in Unix
        seconds."""
        head = self.waiting.head()
        row = None if head is None else self._outcomes.rows.get(head.id - head.id % STRIDE)
        return None if row is None else row.received

    def oldest_in_file(self) -> float | None:
        """The same, of those that wait in the file only."""
        return self._store.oldest(self._loaded) if self._cold else None
