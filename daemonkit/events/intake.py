"""Admits events to the queue, whatever their source, and counts them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import compress

from ..exceptions import BatchTooLarge, QueueFull, Unavailable
from ..types import Source
from .bounded import daemon_stopping
from .codec import Decoded
from .entry import Batch, EventQueue


class Intake:
    """Puts events on the queue.

    Senders are looked up only if the event handler needs them.
    """

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        self._refusal: Callable[[], Unavailable] | None = None
        self._stopping = False
        self._starting_thread = 0
        self._lock = threading.Lock()
        self._received = 0
        self._refused = 0

    @property
    def needs_peers(self) -> bool:
        """Whether the event handler needs the sender of each event."""
        return self._queue.with_meta

    @property
    def is_durable(self) -> bool:
        """Whether queued events are on the disk."""
        return self._queue.is_durable

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

    def put_many(self, decoded: Decoded, source: Source, peer: str | None = None) -> None:
        """Queue all events or none; raises Unavailable or BatchTooLarge."""
        events, lines = decoded
        count = len(events)
        peers = [peer] * count if self.needs_peers else None
        try:
            self._admit()
            self._queue.put_many(Batch(events, lines, source, peers))
        except Exception:
            self._count(0, count)
            raise
        self._count(count, 0)

    def put_each(
        self, requests: Sequence[Decoded], source: Source, peers: Callable[[], Iterable[str]]
    ) -> Sequence[Unavailable | BatchTooLarge | None]:
        """Queue the events of each request, all or none; returns the refusal of each, if any.

        peers: called for the sender of each request if the event handler needs it.
        """
        senders = list(peers()) if self.needs_peers else None
        refusals: list[Unavailable | BatchTooLarge | None] = [None] * len(requests)
        taken = refused = 0
        try:
            self._admit()
            try:
                taken = self._put_together(requests, source, senders)
            except (QueueFull, BatchTooLarge):
                # There is no room for all of them: accept each one that fits.
                room = self._queue.room()
                for number, request in enumerate(requests):
                    if (count := len(request.events)) <= room:
                        room -= count
                    else:
                        refusals[number] = self._queue.refusal_of(count)
                        refused += count
                fits = [refusal is None for refusal in refusals]
                senders = None if senders is None else list(compress(senders, fits))
                taken = self._put_together(list(compress(requests, fits)), source, senders)
        # It would refuse each of them alone, too.
        except Unavailable as error:
            refusals = [refusal or error for refusal in refusals]
            refused = sum(len(request.events) for request in requests)
        self._count(taken, refused)
        return refusals

    def _put_together(
        self, requests: Sequence[Decoded], source: Source, senders: Sequence[str] | None
    ) -> int:
        """Queue the events of all requests; returns their number."""
        events = [event for request in requests for event in request.events]
        lines = [line for request in requests for line in request.lines]
        peers = None
        if senders is not None:
            pairs = zip(senders, requests, strict=True)
            peers = [sender for sender, request in pairs for _ in request.events]
        if events:
            self._queue.put_many(Batch(events, lines, source, peers))
        return len(events)

    def put_some(
        self, decoded: Decoded, source: Source, peers: Callable[[], Iterable[str]]
    ) -> tuple[int, Unavailable | None]:
        """Queue the first events, as many as there is room for; returns their number and the
        refusal of the others.

        peers: called for the sender of each event if the event handler needs it.
        """
        events, lines = decoded
        batch = Batch(events, lines, source, list(peers()) if self.needs_peers else None)
        try:
            self._admit()
            accepted, refusal = self._queue.put_some(batch)
        except Unavailable as error:
            accepted, refusal = 0, error
        self._count(accepted, len(events) - accepted)
        return accepted, refusal

    def _count(self, received: int, refused: int) -> None:
        with self._lock:
            self._received += received
            self._refused += refused

    def _admit(self) -> None:
        refusal = self._refusal
        if refusal is not None and (
            self._stopping or threading.get_ident() != self._starting_thread
        ):
            raise refusal()

    def counters(self) -> dict[str, int]:
        """Events received and refused since the start."""
        return {"received": self._received, "refused": self._refused}


def _daemon_starting() -> Unavailable:
    return Unavailable("The daemon is starting")
