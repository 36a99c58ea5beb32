"""Admits events to the queue, whatever their source, and counts them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from ..exceptions import BatchTooLarge, EventTooLarge, InvalidEvent, QueueFull, Unavailable
from ..types import NOBODY, Origin, Source
from .bounded import daemon_stopping
from .codec import Decoded, count_lines, decode_lines, decode_one, normalize
from .entry import Batch, EventQueue, Load, Refusal

LARGE = 64 * 1024
"""Bytes. Larger bodies are decoded one after the other: decoding keeps the interpreter from all
other threads, and several at once would keep it from them for as long as all of them take."""
SOURCES = ("http", "udp", "app")
REASONS = ("full", "too_large", "unavailable", "invalid")
"""Why events are refused."""

Refusals = Sequence[Refusal | None]
"""Of each of several requests."""


class Intake:
    """Puts events on the queue.

    max_event_size: the most bytes of an event; it may be changed. Who sent an event is looked up
    only if the event handler needs it.
    """

    def __init__(self, queue: EventQueue, max_event_size: int) -> None:
        self.max_event_size = max_event_size
        self._queue = queue
        self._refusal: Callable[[], Unavailable] | None = None
        self._stopping = False
        self._decoding = threading.Lock()
        self._starting_thread = 0
        self._lock = threading.Lock()
        self._refused = 0
        self._sources: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    @property
    def needs_origins(self) -> bool:
        """Whether the event handler needs to know who sent each event."""
        return self._queue.with_meta

    @property
    def gathers(self) -> bool:
        """Whether puts that come at once should be one; see `EventQueue`."""
        return self._queue.gathers

    def use(self, queue: EventQueue) -> None:
        """Put events on this queue from now on."""
        self._queue = queue

    def hold(self) -> None:
        """Refuse events until `open`, except those of the calling thread: it runs start hooks."""
        self._starting_thread = threading.get_ident()
        self._refusal = _daemon_starting

    def open(self) -> None:
        """Accept events."""
        if not self._stopping:
            self._refusal = None

    def close(self) -> None:
        """Refuse all events from now on."""
        self._stopping = True
        self._refusal = daemon_stopping

    # Decoding

    def decode_one(self, data: bytes) -> Decoded:
        """Decode an event; raises InvalidEvent."""
        with self._invalid_counted(), self._decoding if len(data) > LARGE else nullcontext():
            return decode_one(data, self.max_event_size)

    def decode_lines(self, data: bytes) -> Decoded:
        """Decode a batch, one event a line; raises InvalidEvent, or BatchTooLarge if the queue
        could never hold it."""
        size = self._queue.size
        # Decoding them only to refuse them would take much time and memory.
        if data.count(b"\n") > size and (count := count_lines(data)) > size:
            refusal = self._queue.refusal_of(Load(count))
            self._count_refused(count, refusal)
            raise refusal
        with self._invalid_counted(), self._decoding if len(data) > LARGE else nullcontext():
            return decode_lines(data, self.max_event_size)

    @contextmanager
    def _invalid_counted(self) -> Iterator[None]:
        try:
            yield
        except InvalidEvent as error:
            with self._lock:
                self._refusals[_reason(error)] += 1
            raise

    # Putting

    def put_many(self, decoded: Decoded, source: Source, origin: Origin = NOBODY) -> None:
        """Queue all events or none; raises Unavailable or BatchTooLarge."""
        events, lines = decoded
        count = len(events)
        origins = [origin] * count if self.needs_origins else None
        try:
            self._admit()
            self._queue.put_many(Batch(events, lines, source, origins))
        except Exception as error:
            self._count_refused(count, error)
            raise
        with self._lock:
            self._sources[source] += count

    def put_value(self, value: Any) -> None:
        """Queue a value of the program's own; raises InvalidEvent, Unavailable or BatchTooLarge."""
        with self._invalid_counted():
            decoded = normalize(value, self.max_event_size)
        self.put_many(decoded, "app")

    def put_each(
        self,
        decoded: Decoded,
        counts: Sequence[int],
        source: Source,
        origins: Callable[[], Iterable[Origin]],
        done: Callable[[Refusals], object],
    ) -> None:
        """Queue the events of several requests, each all or none.

        counts: how many events each request has; origins: called for who sent each request,
        if the event handler needs it; done: called with the refusal of each, or None, once the
        queue knows; see `EventQueue.put_later`.
        """
        batch = Batch(*decoded, source)
        if self.needs_origins:
            found = list(origins())
            # Most requests have one event.
            if len(batch.events) > len(counts):
                pairs = zip(found, counts, strict=True)
                found = [origin for origin, count in pairs for _ in range(count)]
            batch = batch._replace(origins=found)
        try:
            self._admit()
        except Unavailable as refusal:
            self._count_each(counts, [refusal] * len(counts), source, done)
        else:
            self._queue.put_later(batch, partial(self._put_rest, batch, counts, done))

    def _put_rest(
        self,
        batch: Batch,
        counts: Sequence[int],
        done: Callable[[Refusals], object],
        refusal: Refusal | None,
    ) -> None:
        """After a put of all events of some requests: put what fits if not all of it did."""
        if not isinstance(refusal, QueueFull | BatchTooLarge):
            self._count_each(counts, [refusal] * len(counts), batch.source, done)
            return
        refusals, fitting = self._what_fits(batch, counts)

        def finish(refusal: Refusal | None) -> None:
            # For all of them: no room on the disk, or a put came in between.
            each = [found or refusal for found in refusals]
            self._count_each(counts, each, batch.source, done)

        if fitting.events:
            self._queue.put_later(fitting, finish)
        else:
            finish(None)

    def _count_each(
        self,
        counts: Sequence[int],
        refusals: Refusals,
        source: Source,
        done: Callable[[Refusals], object],
    ) -> None:
        taken = sum(counts)
        if any(refusals):
            for refusal, count in zip(refusals, counts, strict=True):
                if refusal is not None:
                    taken -= count
                    self._count_refused(count, refusal)
        with self._lock:
            self._sources[source] += taken
        done(refusals)

    def _what_fits(self, batch: Batch, counts: Sequence[int]) -> tuple[list[Refusal | None], Batch]:
        """The refusal of each request that finds no room, and the events of the others."""
        queue, room, start = self._queue, self._queue.room(), 0
        refusals: list[Refusal | None] = []
        for count in counts:
            load = queue.load_of(batch.part(start, start + count))
            start += count
            if load.fits(room):
                room = room.without(load)
                refusals.append(None)
            else:
                refusals.append(queue.refusal_of(load))
        pairs = zip(refusals, counts, strict=True)
        fits = [refusal is None for refusal, count in pairs for _ in range(count)]
        return refusals, batch.selected(fits)

    def put_some(
        self, decoded: Decoded, source: Source, origins: Callable[[], Iterable[Origin]]
    ) -> tuple[int, Unavailable | None]:
        """Queue the first events, as many as there is room for; returns their number and the
        refusal of the others.

        origins: called for who sent each event, if the event handler needs it.
        """
        events, lines = decoded
        batch = Batch(events, lines, source, list(origins()) if self.needs_origins else None)
        try:
            self._admit()
            accepted, refusal = self._queue.put_some(batch)
        except Unavailable as error:
            accepted, refusal = 0, error
        with self._lock:
            self._sources[source] += accepted
        if refusal is not None:
            self._count_refused(len(events) - accepted, refusal)
        return accepted, refusal

    def _count_refused(self, count: int, error: Exception) -> None:
        with self._lock:
            self._refused += count
            self._refusals[_reason(error)] += count

    def _admit(self) -> None:
        refusal = self._refusal
        if refusal is not None and (
            self._stopping or threading.get_ident() != self._starting_thread
        ):
            raise refusal()

    def counters(self) -> dict[str, int]:
        """Events received and refused since the start."""
        return {"received": self._queue.accepted, "refused": self._refused}

    def details(self) -> dict[str, dict[str, int]]:
        """The same by their source, and by the reason; invalid events are there, too, one for each
        request."""
        with self._lock:
            return {"sources": dict(self._sources), "refusals": dict(self._refusals)}


def _reason(error: Exception) -> str:
    """Why an event is refused, in a word."""
    if isinstance(error, QueueFull):
        return "full"
    if isinstance(error, BatchTooLarge | EventTooLarge):
        return "too_large"
    return "invalid" if isinstance(error, InvalidEvent) else "unavailable"


def _daemon_starting() -> Unavailable:
    return Unavailable("The daemon is starting")
