"""The event queue in memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from itertools import repeat
from typing import Any, TypeVar

from ..exceptions import Unavailable
from ..runtime.clock import monotonic
from ..types import Event, EventMeta, Problem
from .bounded import Bounded
from .codec import decode
from .entry import Batch, Entry, FailedAttempt, Load
from .footprint import SMALL, Arrivals, footprint
from .memory_failures import MemoryFailures
from .waiting import Waiting

T = TypeVar("T")


class MemoryQueue(Bounded):
    """A bounded first-in-first-out queue for many producers and consumers.

    size: the most events that may wait; memory_limit: the most bytes that they may use; both may be
    changed.
    """

    is_durable = False

    def __init__(self, size: int, memory_limit: float = math.inf) -> None:
        super().__init__(size, Waiting(self._prepare_retry), memory_limit)
        self._lock = threading.Lock()
        self._arrivals = Arrivals()
        self.failed_events = self._failures = MemoryFailures(self._waiting, self._lock)

    def put_many(self, batch: Batch) -> None:
        """Add all events or none; raises Unavailable, or BatchTooLarge if they can never fit."""
        count, size = len(batch.events), sum(map(len, batch.lines))
        # Under the lock, or an event could be added after the last consumer has left.
        with self._lock:
            if size >= SMALL or not self._has_plenty(count):
                self._check_room(self.load_of(batch))
            self._add(batch, count, size)

    def _has_plenty(self, count: int) -> bool:
        """Whether there is certainly room; quicker than to look how much there is."""
        waiting = self._waiting
        used = self._arrivals.memory + self._failures.memory
        return (
            used <= self.memory_limit and not waiting.closed and len(waiting) + count <= self.size
        )

    def put_some(self, batch: Batch) -> tuple[int, Unavailable | None]:
        """Add the first events, as many as there is room for; returns their number and the refusal
        of the others."""
        count = len(batch.events)
        with self._lock:
            fits, refusal = self._room_for_some(batch)
            if fits:
                fitting = batch if fits == count else batch.part(0, fits)
                self._add(fitting, fits, sum(map(len, fitting.lines)))
            return fits, refusal

    def _add(self, batch: Batch, count: int, size: int) -> None:
        waiting, now = self._waiting, monotonic()
        # With an idle consumer, nothing of a moment ago waits any more.
        if waiting.ready or size >= SMALL or now >= self._arrivals.over_at:
            self._note_arrival(batch, now)
        waiting.add(self._entries(batch), count)
        self.accepted += count

    def _note_arrival(self, batch: Batch, now: float) -> None:
        if now >= self._arrivals.over_at:
            self._drop_taken()
        keeps_texts = self.with_meta or self.keep_lines
        self._arrivals.add(self._waiting.added, batch.lines, now, keeps_texts=keeps_texts)

    def load_of(self, batch: Batch) -> Load:
        """What events would take."""
        size = sum(map(len, batch.lines))
        return Load(len(batch.events), footprint(batch.lines) if size >= SMALL else 0)

    def _memory_used(self) -> int:
        self._drop_taken()
        return self._arrivals.memory + self._failures.memory

    def _drop_taken(self) -> None:
        added = self._waiting.added
        self._arrivals.drop_taken(added - self._waiting.ready, added)

    def _entries(self, batch: Batch) -> Sequence[Any]:
        lines = batch.lines if self.keep_lines else repeat(None)
        if self.with_meta:
            now = datetime.now(timezone.utc)
            peers, senders = (
                zip(*batch.origins, strict=True) if batch.origins else (repeat(None), repeat(None))
            )
            facts = zip(repeat(batch.source), peers, repeat(now), repeat(1), senders)
            return _entries(batch.events, _made(EventMeta, facts), lines)
        return _entries(batch.events, repeat(None), lines) if self.keep_lines else batch.events

    def done(self, entries: Sequence[Entry]) -> None:
        """Nothing to do: a taken entry is no longer in the queue."""

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> bool:
        """Retry an event in `delay` seconds, or add it to the dead letters; returns whether it is
        a dead letter now."""
        with self._lock:
            return self._failures.fail(entry, failure, delay)

    def flush(self) -> bool:
        """Nothing to do."""
        return True

    def drained(self) -> list[Entry]:
        """Take everything that is waiting; for a queue that keeps lines and has no consumers."""
        return [self.get() for _ in range(len(self))]

    def counters(self, *, quick: bool = False) -> dict[str, Any]:
        """Events received, waiting, waiting for a retry, retried and dead, the age of the oldest in
        seconds, and the dead letters."""
        with self._lock:
            return {
                "received": self.accepted,
                "waiting": len(self),
                "retrying": self._waiting.retrying,
                "retried": self._failures.retried,
                "dead": self._failures.dead,
                "dead_now": self._failures.dead_now,
                "memory": self._memory_used(),
                "oldest_age": self._oldest_age(),
                **({} if quick else {"dead_letters": self._failures.listed()}),
            }

    def _oldest_age(self) -> float | None:
        oldest = self._arrivals.oldest
        return None if oldest is None else round(monotonic() - oldest, 3)

    def lost_at_exit(self) -> int:
        """How many waiting events would be lost if the process ended now."""
        return len(self)

    def close(self) -> None:
        """Let consumers drain the queue, then raise QueueClosed."""
        with self._lock:
            self._waiting.close(drain=True)

    def _prepare_retry(self, entry: Entry) -> Entry:
        event = entry.event
        self._failures.begin_retry(entry)
        if entry.line is not None:
            event = decode(entry.line)
        meta = None if entry.meta is None else entry.meta.of_attempt(entry.attempt)
        return entry._replace(event=event, meta=meta)

    # It has no thread and no file.

    def start(self) -> None: ...

    def request_stop(self) -> None: ...

    def join(self, timeout: float) -> bool:  # noqa: ARG002
        return True

    def running_threads(self) -> list[threading.Thread]:
        return []

    def problems(self) -> list[Problem]:
        return []


def _entries(
    events: Sequence[Event], metas: Iterable[EventMeta | None], lines: Iterable[bytes | None]
) -> list[Entry]:
    fields = zip(events, metas, repeat(0), repeat(1), lines, repeat(None))
    return list(_made(Entry, fields))


def _made(kind: type[T], fields: Iterable[tuple[Any, ...]]) -> Iterable[T]:
    """Named tuples of these fields; three times as fast as calling their class."""
    return map(tuple.__new__, repeat(kind), fields)  # type: ignore[arg-type]
