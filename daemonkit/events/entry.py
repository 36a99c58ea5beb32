"""What goes into an event queue, what comes out of it, and the protocol of queues."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from itertools import compress
from typing import Any, NamedTuple, Protocol

from ..exceptions import BatchTooLarge, Unavailable
from ..text import error_text, traceback_text
from ..types import Component, Event, EventMeta, Origin, Problem, Source
from .failed import FailedEvents

LONGEST_BACKOFF = 3600.0
"""Seconds: the default upper limit of the wait between two attempts."""


class Batch(NamedTuple):
    """Events that are queued together.

    lines: the JSON text of each event as received; origins: who sent each event, None if the
    handler does not ask for it.
    """

    events: Sequence[Event]
    lines: Sequence[bytes] = ()
    source: Source = "app"
    origins: Sequence[Origin] | None = None

    def part(self, start: int, stop: int) -> Batch:
        """The events from `start` up to, but not including, `stop`."""
        origins = None if self.origins is None else self.origins[start:stop]
        return Batch(self.events[start:stop], self.lines[start:stop], self.source, origins)

    def selected(self, flags: Sequence[bool]) -> Batch:
        """The events whose flag is true."""
        events, lines = list(compress(self.events, flags)), list(compress(self.lines, flags))
        origins = None if self.origins is None else list(compress(self.origins, flags))
        return Batch(events, lines, self.source, origins)


class Entry(NamedTuple):
    """An event taken from a queue, with what the queue knows about it.

    meta: the event's circumstances, if the handler asks for them; id: 0 until an event in memory
    has failed;
    attempt: 1 for the first call of the handler; line: the JSON text, if a retry may need it;
    failed: when the first attempt failed, in Unix seconds.
    """

    event: Event
    meta: EventMeta | None = None
    id: int = 0
    attempt: int = 1
    line: bytes | None = None
    failed: float | None = None


class FailedAttempt(NamedTuple):
    """Why an event could not be handled.

    error: one line; attempts: how many have failed so far; first_failed, last_failed: when the
    first and the last of them failed, in Unix seconds.
    """

    error: str
    traceback: str
    attempts: int
    first_failed: float
    last_failed: float

    @property
    def first(self) -> datetime:
        """When the first attempt failed, in UTC."""
        return datetime.fromtimestamp(self.first_failed, timezone.utc)

    @property
    def last(self) -> datetime:
        """When the last attempt failed, in UTC."""
        return datetime.fromtimestamp(self.last_failed, timezone.utc)


class RetryPolicy(NamedTuple):
    """How often a failed event is retried.

    first: seconds before the first retry, doubled for each further one; longest: the upper limit.
    """

    retries: int = 0
    first: float = 1.0
    longest: float = LONGEST_BACKOFF

    def delay(self, attempts: int) -> float | None:
        """Seconds to wait after so many attempts, or None for no further retry."""
        if attempts > self.retries:
            return None
        return min(self.first * 2.0 ** min(attempts - 1, 60), self.longest)


NO_RETRIES = RetryPolicy()


def failure_of(error: BaseException, entry: Entry, redact: Callable[[str], str]) -> FailedAttempt:
    """Describe the exception that the handler has just raised."""
    now = time.time()
    return FailedAttempt(
        error_text(error, redact),
        traceback_text(error, redact),
        entry.attempt,
        now if entry.failed is None else entry.failed,
        now,
    )


def meta_of(source: Source, origin: Origin, received: float, attempt: int = 1) -> EventMeta:
    """The circumstances of an event received at `received`, in Unix seconds."""
    moment = datetime.fromtimestamp(received, timezone.utc)
    return EventMeta(source, origin.peer, moment, attempt, origin.sender)


class Load(NamedTuple):
    """What a queue is to hold, or has room for.

    memory: bytes beyond what is too little to count.
    """

    events: int
    memory: float = 0

    def fits(self, room: Load) -> bool:
        """Whether there is room for it."""
        return self.events <= room.events and self.memory <= room.memory

    def without(self, load: Load) -> Load:
        """What is left of this room."""
        return Load(self.events - load.events, self.memory - load.memory)


Refusal = Unavailable | BatchTooLarge
"""Why events aren't queued."""


class Watched(Protocol):
    """The owner of a descriptor that a loop waits for; all of it is called on the loop's thread.

    _fileno: the descriptor; accepting: False. The handlers are those that wasyncore calls.
    """

    _fileno: int | None
    accepting: bool

    def readable(self) -> bool: ...

    def writable(self) -> bool: ...

    def handle_read_event(self) -> None: ...

    def handle_write_event(self) -> None: ...

    def handle_expt_event(self) -> None: ...

    def handle_close(self) -> None: ...

    def handle_error(self) -> None: ...

    def close(self) -> None: ...


class Loop(Protocol):
    """A loop that waits for descriptors, the HTTP server's for instance."""

    @property
    def is_current_thread(self) -> bool:
        """Whether this is called by the loop."""

    @property
    def busy(self) -> float:
        """Seconds that it has spent on other things than waiting, so far."""

    def add_duty(self, run_due: Callable[[float], float]) -> None:
        """Call `run_due` with the monotonic time before each wait; it returns when to call it
        again."""

    def watch(self, item: Watched) -> None:
        """Wait for its descriptor, or check again what for; only on the loop's thread."""

    def forget(self, item: Watched) -> None:
        """Wait for it no more; call this before closing it, on the loop's thread."""

    def wake(self) -> None:
        """Run what is due now; may be called from any thread."""


class EventQueue(Component, Protocol):
    """Holds events until the event processor takes them, and failed ones until their retry.

    is_durable: events survive the process, and `done` must be called for handled ones; gathers: a
    put takes so long that those which come at once should be one; with_meta,
    keep_lines: set by the event processor if it needs each event's circumstances, or its text for
    retries; size: the most events that may wait; memory_limit: the most bytes that they may use;
    accepted: how many events were added so far; failed_events: those that operators may see;
    gave_up: called with an event that is a dead letter although its handler never returned, and
    why; set by the event processor.
    """

    is_durable: bool
    gathers: bool
    with_meta: bool
    keep_lines: bool
    size: int
    memory_limit: float
    accepted: int
    gave_up: Callable[[Event, FailedAttempt], object]

    @property
    def idle(self) -> Any:
        """How long threads wait for it, see `waiting.Idle`."""

    @property
    def failed_events(self) -> FailedEvents: ...

    def __len__(self) -> int:
        """How many events are waiting."""

    @property
    def taken(self) -> int:
        """How many events consumers have taken to handle, retries included.

        An event is counted from the moment it no longer counts as waiting.
        """

    def put_many(self, batch: Batch) -> None:
        """Add all events or none; raises Unavailable or BatchTooLarge."""

    def put_some(self, batch: Batch) -> tuple[int, Unavailable | None]:
        """Add the first events, as many as there is room for; returns their number and the refusal
        of the others."""

    def put_later(self, batch: Batch, done: Callable[[Refusal | None], object]) -> None:
        """Add all events or none, without waiting for another machine.

        done: called once it is certain, with the refusal if there is one: before this returns, or
        later by the loop.
        """

    def put_early(self, batch: Batch) -> None:
        """Add what was put before the start, even before there is a loop; raises Unavailable or
        BatchTooLarge."""

    def use_loop(self, loop: Loop) -> None:
        """Wait for other machines on this loop."""

    def load_of(self, batch: Batch) -> Load:
        """What events would take."""

    def room(self) -> Load:
        """What can be added now."""

    def refusal_of(self, load: Load) -> Refusal:
        """The error that refuses events for lack of room."""

    def get(self) -> Any:
        """Wait for an event and take it, as it is or as an Entry; raises QueueClosed."""

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Wait for an event, then up to `linger` seconds for up to `limit`; raises QueueClosed."""

    @property
    def is_paused(self) -> bool:
        """Whether events are taken in but not handed out."""

    def pause(self) -> None:
        """Hand out no events until `resume`, or until the queue is closed."""

    def resume(self) -> None:
        """Hand out events again."""

    def done(self, entries: Sequence[Entry]) -> None:
        """Remove handled events."""

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> bool:
        """Retry an event in `delay` seconds, or add it to the dead letters; returns whether it is
        a dead letter now."""

    def flush(self) -> bool:
        """Store what `done` and `fail` reported; returns False if that is no longer possible."""

    @property
    def outage(self) -> str:
        """Why nothing can be put now, "" unless another machine is away."""

    def counters(self, *, quick: bool = False) -> dict[str, Any]:
        """The queue's part of `/status`; among it `received` and `waiting`, of the same moment.

        quick: without the dead letters, and without what only the disk knows.
        """

    def problems(self) -> list[Problem]:
        """The queue's part of the health check."""

    def lost_at_exit(self) -> int:
        """How many waiting events would be lost if the process ended now."""

    def close(self) -> None:
        """Make `get` raise QueueClosed; a queue that isn't durable is drained first."""
