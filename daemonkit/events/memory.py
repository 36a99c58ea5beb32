"""The event queue in memory: bounded, for many producers and consumers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import repeat
from typing import Any

from ..exceptions import QueueFull
from ..text import timestamp
from ..types import EventMeta, Problem
from .bounded import Bounded
from .codec import beginning, decode
from .entry import Batch, Entry, Failure
from .waiting import Waiting

DEAD_LETTERS = 100
"""How many are kept; then the oldest are dropped."""
LONGEST_EVENT = 10_000
"""Characters of a dead letter's event that are shown."""
AGE_STEP = 0.1
"""Seconds: how exactly the age of the oldest event is known."""


class MemoryQueue(Bounded):
    """A bounded first-in-first-out queue.

    size: how many events may wait; it may be changed.
    """

    is_durable = False

    def __init__(self, size: int) -> None:
        super().__init__(size, Waiting(_revived))
        self._lock = threading.Lock()
        self._added = 0
        self._ages: deque[tuple[int, float]] = deque()
        """How many had been added when, in monotonic seconds, for those that still wait."""
        self._retried = 0
        self._dead = 0
        self._dead_letters: deque[dict[str, Any]] = deque(maxlen=DEAD_LETTERS)

    def put_many(self, batch: Batch) -> None:
        """Add all events or none; raises QueueFull, also once closed, or BatchTooLarge when they
        never fit."""
        count = len(batch.events)
        # Under the lock, or an event could slip in behind the last taker.
        with self._lock:
            self._check_room(count)
            self._add(batch, count)

    def put_some(self, batch: Batch) -> tuple[int, QueueFull | None]:
        """Add as many events as there is room for, the first ones; returns how many that were,
        and what refuses the others."""
        count = len(batch.events)
        with self._lock:
            fits, refusal = self._room_for_some(count)
            if fits:
                self._add(batch if fits == count else batch.part(0, fits), fits)
            return fits, refusal

    def _add(self, batch: Batch, count: int) -> None:
        now = time.monotonic()
        ages, taken = self._ages, self._added - self._waiting.ready
        while ages and ages[0][0] <= taken:
            ages.popleft()
        self._added += count
        if not ages or now - ages[-1][1] >= AGE_STEP:
            ages.append((self._added, now))
        else:
            ages[-1] = self._added, ages[-1][1]
        self._waiting.add(self._entries(batch), count)

    def _entries(self, batch: Batch) -> Sequence[Any]:
        lines = batch.lines if self.keep_lines else repeat(None)
        if self.with_meta:
            now = datetime.now(timezone.utc)
            peers = repeat(None) if batch.peers is None else batch.peers
            return [
                Entry(event, EventMeta(batch.source, peer, now), 0, 1, line)
                for event, peer, line in zip(batch.events, peers, lines)  # noqa: B905
            ]
        if self.keep_lines:
            return [
                Entry(event, None, 0, 1, line)
                for event, line in zip(batch.events, lines)  # noqa: B905
            ]
        return batch.events

    def done(self, entries: Sequence[Entry]) -> None:
        """Forget entries that have been handled: those taken are gone already."""

    def fail(self, entry: Entry, failure: Failure, delay: float | None) -> None:
        """Have an entry tried again in `delay` seconds, or put it with the dead letters."""
        with self._lock:
            # Once it is closed, nobody will wait for the next attempt.
            if delay is not None and not self._waiting.closed:
                self._retried += 1
                again = entry._replace(attempt=entry.attempt + 1, failed=failure.first)
                self._waiting.put_back(again, delay)
                return
            self._dead += 1
            self._dead_letters.append(
                {
                    # As it came, if that is known.
                    "event": (
                        beginning(entry.event, LONGEST_EVENT)
                        if entry.line is None
                        else entry.line.decode(errors="replace")[:LONGEST_EVENT]
                    ),
                    "error": failure.error,
                    "traceback": failure.traceback,
                    "attempts": failure.attempts,
                    "first_failed": timestamp(datetime.fromtimestamp(failure.first)),
                    "last_failed": timestamp(datetime.fromtimestamp(failure.last)),
                }
            )

    def drained(self) -> list[Entry]:
        """Take all that waits now, of a queue that keeps lines and that nobody takes from."""
        return [self.get() for _ in range(len(self))]

    def counters(self) -> dict[str, Any]:
        """Events that wait, wait to be tried again, were tried again and are dead letters, the
        age of the oldest in seconds, and the dead letters."""
        with self._lock:
            return {
                "waiting": len(self),
                "retrying": self._waiting.retrying,
                "retried": self._retried,
                "dead": self._dead,
                "oldest_age": self._oldest_age(),
                "dead_letters": list(self._dead_letters),
            }

    def _oldest_age(self) -> float | None:
        taken = self._added - self._waiting.ready
        for added, when in self._ages:
            if added > taken:
                return round(time.monotonic() - when, 3)
        return None

    def lost_at_exit(self) -> int:
        """How many events that wait would be lost if the process ended now."""
        return len(self)

    def close(self) -> None:
        """Let takers run the queue empty, and wake those that wait."""
        with self._lock:
            self._waiting.close(drain=True)

    # It has no thread and no file.

    def start(self) -> None: ...

    def request_stop(self) -> None: ...

    def join(self, timeout: float) -> bool:  # noqa: ARG002
        return True

    def running_threads(self) -> list[threading.Thread]:
        return []

    def problems(self) -> list[Problem]:
        return []


def _revived(entry: Entry) -> Entry:
    # The handler may have changed what it was given.
    event = entry.event if entry.line is None else decode(entry.line)
    meta = None if entry.meta is None else entry.meta.of_attempt(entry.attempt)
    return entry._replace(event=event, meta=meta)
