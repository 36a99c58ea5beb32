"""What goes into a queue, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from ..exceptions import BatchTooLarge, QueueFull
from ..text import error_text, traceback_text
from ..types import Component, Event, EventMeta, Problem, Source


class Batch(NamedTuple):
    """Events that are queued together.

    lines: the JSON text of each as it came; peers: the sender of each, None if nobody asked.
    """

    events: Sequence[Event]
    lines: Sequence[bytes] = ()
    source: Source = "app"
    peers: Sequence[str | None] | None = None

    def part(self, start: int, stop: int) -> Batch:
        """Some of them, as a slice has them."""
        peers = None if self.peers is None else self.peers[start:stop]
        return Batch(self.events[start:stop], self.lines[start:stop], self.source, peers)


class Entry(NamedTuple):
    """An event taken from a queue that knows more of it than the event.

    meta: its circumstances, if the handler wants them; id: by which the queue knows it; attempt: 1
    for the first time it is handled; line: its JSON text, if it may be needed again; failed: when
    it failed first, in Unix seconds.
    """

    event: Event
    meta: EventMeta | None = None
    id: int = 0
    attempt: int = 1
    line: bytes | None = None
    failed: float | None = None


class Failure(NamedTuple):
    """Why an event could not be handled.

    error: one line; attempts: how many there were; first, last: when they failed, in Unix seconds.
    """

    error: str
    traceback: str
    attempts: int
    first: float
    last: float


class RetryPolicy(NamedTuple):
    """How often a failing event is handled again, and after how many seconds, doubled each time."""

    retries: int = 0
    backoff: float = 1.0

    def delay(self, attempts: int) -> float | None:
        """Seconds until the next attempt after so many, None when there is none."""
        if attempts > self.retries:
            return None
        return min(self.backoff * 2.0 ** min(attempts - 1, 60), LONGEST_BACKOFF)


ONCE = RetryPolicy()
"""A failing event is a dead letter at once."""
LONGEST_BACKOFF = 3600.0


def failure_of(error: BaseException, entry: Entry, redact: Callable[[str], str]) -> Failure:
    """What is kept of an exception that a handler raised just now."""
    now = time.time()
    return Failure(
        error_text(error, redact),
        traceback_text(error, redact),
        entry.attempt,
        now if entry.failed is None else entry.failed,
        now,
    )


def meta_of(source: Source, peer: str | None, received: float, attempt: int = 1) -> EventMeta:
    """The circumstances of an event that came at `received`, in Unix seconds."""
    return EventMeta(source, peer, datetime.fromtimestamp(received, timezone.utc), attempt)


class EventQueue(Component, Protocol):
    """Where events wait for the event processor, and those that failed for the next attempt.

    is_durable: whether it outlives the process, and is told what has been handled; with_meta,
    keep_lines: set to have the circumstances of each event, and its text to try it again.
    """

    is_durable: bool
    with_meta: bool
    keep_lines: bool
    size: int

    def __len__(self) -> int:
        """How many events wait."""

    def put_many(self, batch: Batch) -> None:
        """Add all or none; raises QueueFull or BatchTooLarge."""

    def put_some(self, batch: Batch) -> tuple[int, QueueFull | None]:
        """Add the first ones that there is room for; returns how many, and what refuses the
        others."""

    def room(self) -> int:
        """For how many events there is room just now."""

    def refusal_of(self, count: int) -> QueueFull | BatchTooLarge:
        """What refuses so many events, for lack of room."""

    def get(self) -> Any:
        """Wait for one and take it, an event or an Entry; raises QueueClosed."""

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Wait for one, then up to `linger` seconds for up to `limit`; raises QueueClosed."""

    def done(self, entries: Sequence[Entry]) -> None:
        """Remove what has been handled."""

    def fail(self, entry: Entry, failure: Failure, delay: float | None) -> None:
        """Have one tried again in `delay` seconds, or put it with the dead letters."""

    def counters(self) -> dict[str, Any]:
        """What `/status` shows of it."""

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""

    def lost_at_exit(self) -> int:
        """How many events that wait would be lost if the process ended now."""

    def close(self) -> None:
        """Have takers raise QueueClosed, once it is empty if it isn't durable."""
