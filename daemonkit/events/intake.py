"""The one door to the queue: every event, however it came, is admitted and counted here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ..exceptions import BatchTooLarge, QueueFull
from ..types import Event, EventQueue, Meta, Source
from .memory import STOPPING


class Tagged(NamedTuple):
    """A queue entry that carries the circumstances of its event."""

    event: Event
    meta: Meta


class Intake:
    """Puts events on the queue, or says why not.

    with_meta: whether the event processor wants the circumstances of each event; they are made
    only if it does.
    """

    def __init__(self, queue: EventQueue) -> None:
        self.with_meta = True
        self._queue = queue
        self._refusal: QueueFull | None = None
        self._stopping = False
        self._holder = 0
        self._lock = threading.Lock()
        self._received = 0
        self._refused = 0

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

    def put(self, event: Event, source: Source, peer: str | None = None) -> None:
        """Queue one event; raises QueueFull."""
        self.put_many([event], source, peer)

    def put_many(self, events: Sequence[Event], source: Source, peer: str | None = None) -> None:
        """Queue all events or none; raises QueueFull or BatchTooLarge."""
        items: Sequence[Any] = events
        if self.with_meta:
            items = self._tagged(events, source, [peer] * len(events))
        try:
            self._admit()
            self._queue.put_many(items)
        except Exception:
            self._count(0, len(events))
            raise
        self._count(len(events), 0)

    def put_each(
        self,
        batches: Sequence[Sequence[Event]],
        source: Source,
        peers: Callable[[], Iterable[str]],
    ) -> Sequence[QueueFull | BatchTooLarge | None]:
        """Queue each batch whole or not at all; returns for each what refuses it. peers: called for
        the sender of each batch if anyone wants to know."""
        whose = list(peers()) if self.with_meta else [None] * len(batches)
        events = [event for batch in batches for event in batch]
        items: Sequence[Any] = events
        if self.with_meta:
            items = self._tagged(
                events,
                source,
                [peer for peer, batch in zip(whose, batches, strict=True) for _ in batch],
            )
        try:
            self._admit()
            self._queue.put_many(items)
        # Together they find no room; one or the other of them may.
        except (QueueFull, BatchTooLarge):
            return [
                self._put_or_why(batch, source, peer)
                for peer, batch in zip(whose, batches, strict=True)
            ]
        self._count(len(events), 0)
        return [None] * len(batches)

    def _put_or_why(
        self, events: Sequence[Event], source: Source, peer: str | None
    ) -> QueueFull | BatchTooLarge | None:
        try:
            self.put_many(events, source, peer)
        except (QueueFull, BatchTooLarge) as error:
            return error
        return None

    def put_some(
        self, events: Sequence[Event], source: Source, peers: Callable[[], Iterable[str]]
    ) -> tuple[int, QueueFull | None]:
        """Queue the first events that there is room for; returns how many that were, and what
        refuses the others. peers: called for the sender of each if anyone wants to know."""
        items: Sequence[Any] = events
        if self.with_meta:
            items = self._tagged(events, source, peers())
        try:
            self._admit()
            accepted, refusal = self._queue.put_some(items)
        except QueueFull as error:
            accepted, refusal = 0, error
        self._count(accepted, len(events) - accepted)
        return accepted, refusal

    def _tagged(
        self, events: Sequence[Event], source: Source, peers: Iterable[str | None]
    ) -> list[Tagged]:
        now = datetime.now(timezone.utc)
        return [
            Tagged(event, Meta(source, peer, now))
            for event, peer in zip(events, peers, strict=True)
        ]

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
