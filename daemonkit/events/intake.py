"""The one door to the queue: every event, however it came, is admitted and counted here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from ..exceptions import BatchTooLarge, QueueFull
from ..types import Event, Source
from .bounded import STOPPING, NoRoom
from .entry import Batch, EventQueue


class Intake:
    """Puts events on the queue, or says why not.

    Who sent them is asked for only if the queue wants to know, for the event handler.
    """

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        self._refusal: QueueFull | None = None
        self._stopping = False
        self._holder = 0
        self._lock = threading.Lock()
        self._received = 0
        self._refused = 0

    @property
    def asks_who(self) -> bool:
        """Whether somebody wants to know who sent an event."""
        return self._queue.with_meta

    @property
    def is_durable(self) -> bool:
        """Whether events are on the disk once they are queued."""
        return self._queue.is_durable

    def use(self, queue: EventQueue) -> None:
        """Put events on this queue from now on."""
        self._queue = queue

    def hold(self) -> None:
        """Refuse events until `open`, but for those this thread puts: start hooks run in it."""
        self._holder = threading.get_ident()
        self._refusal = QueueFull("The daemon is starting")

    def open(self) -> None:
        """Accept events."""
        if not self._stopping:
            self._refusal = None

    def close(self) -> None:
        """Refuse every event from now on."""
        self._stopping = True
        self._refusal = QueueFull(STOPPING, retry_after=5)

    def put(self, event: Event, line: bytes, source: Source, peer: str | None = None) -> None:
        """Queue one event, with its text; raises QueueFull."""
        self.put_many([event], [line], source, peer)

    def put_many(
        self,
        events: Sequence[Event],
        lines: Sequence[bytes],
        source: Source,
        peer: str | None = None,
    ) -> None:
        """Queue all events or none; raises QueueFull or BatchTooLarge."""
        peers = [peer] * len(events) if self.asks_who else None
        try:
            self._admit()
            self._queue.put_many(Batch(events, lines, source, peers))
        except Exception:
            self._count(0, len(events))
            raise
        self._count(len(events), 0)

    def put_each(
        self,
        batches: Sequence[tuple[Sequence[Event], Sequence[bytes]]],
        source: Source,
        peers: Callable[[], Iterable[str]],
    ) -> Sequence[QueueFull | BatchTooLarge | None]:
        """Queue each batch whole or not at all; returns for each what refuses it. peers: called for
        the sender of each batch if anyone wants to know."""
        whose = list(peers()) if self.asks_who else None
        refusals: list[QueueFull | BatchTooLarge | None] = [None] * len(batches)
        try:
            self._admit()
            try:
                self._put_those(range(len(batches)), batches, source, whose)
            except (NoRoom, BatchTooLarge):
                # Together they find no room; as many of them as do find it are taken.
                room = self._queue.room()
                for number, (events, _) in enumerate(batches):
                    if (count := len(events)) <= room:
                        room -= count
                    else:
                        refusals[number] = self._queue.refusal_of(count)
                fitting = [number for number, refusal in enumerate(refusals) if refusal is None]
                self._put_those(fitting, batches, source, whose)
        # Each of them alone would be refused for the same reason.
        except QueueFull as error:
            refusals = [refusal or error for refusal in refusals]
        counts = [len(events) for events, _ in batches]
        taken = sum(n for n, refusal in zip(counts, refusals, strict=True) if refusal is None)
        self._count(taken, sum(counts) - taken)
        return refusals

    def _put_those(
        self,
        numbers: Sequence[int],
        batches: Sequence[tuple[Sequence[Event], Sequence[bytes]]],
        source: Source,
        whose: Sequence[str] | None,
    ) -> None:
        if len(numbers) == 1:
            events, lines = batches[numbers[0]]
        else:
            events = [event for n in numbers for event in batches[n][0]]
            lines = [line for n in numbers for line in batches[n][1]]
        peers = None if whose is None else [whose[n] for n in numbers for _ in batches[n][0]]
        if events:
            self._queue.put_many(Batch(events, lines, source, peers))

    def put_some(
        self,
        events: Sequence[Event],
        lines: Sequence[bytes],
        source: Source,
        peers: Callable[[], Iterable[str]],
    ) -> tuple[int, QueueFull | None]:
        """Queue the first events that there is room for; returns how many that were, and what
        refuses the others. peers: called for the sender of each if anyone wants to know."""
        batch = Batch(events, lines, source, list(peers()) if self.asks_who else None)
        try:
            self._admit()
            accepted, refusal = self._queue.put_some(batch)
        except QueueFull as error:
            accepted, refusal = 0, error
        self._count(accepted, len(events) - accepted)
        return accepted, refusal

    def _count(self, received: int, refused: int) -> None:
        with self._lock:
            self._received += received
            self._refused += refused

    def _admit(self) -> None:
        refusal = self._refusal
        if refusal is not None and (self._stopping or threading.get_ident() != self._holder):
            raise QueueFull(str(refusal), refusal.retry_after)

    def counters(self) -> dict[str, int]:
        """Events received and refused since the start."""
        return {"received": self._received, "refused": self._refused}
