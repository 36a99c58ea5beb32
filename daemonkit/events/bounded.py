"""What the event queues have in common: a bound on what may wait, and consumers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from ..exceptions import BatchTooLarge, QueueFull, Unavailable
from ..types import Event
from .entry import Batch, FailedAttempt, Load, Loop, Refusal
from .waiting import Idle, Waiting


def daemon_stopping() -> Unavailable:
    """The error that refuses events while the daemon is stopping."""
    return Unavailable("The daemon is stopping", retry_after=5)


class Bounded:
    """The base of the event queues.

    size: the most events that may wait; memory_limit: the most bytes that they may use; both may be
    changed. with_meta, keep_lines: whether the event processor needs each event's circumstances,
    and its text for retries.
    """

    name = "event queue"
    gathers = False

    def __init__(self, size: int, waiting: Waiting, memory_limit: float = math.inf) -> None:
        self.size = size
        self.memory_limit = memory_limit
        self.accepted = 0
        """How many events were added so far."""
        self.gave_up: Callable[[Event, FailedAttempt], object] = lambda *_: None
        self.with_meta = False
        self.keep_lines = False
        self._waiting = waiting

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """How many events consumers have taken to handle, retries included."""
        return self._waiting.taken

    def get(self) -> Any:
        """Wait for the oldest entry and take it; raises QueueClosed."""
        return self._waiting.get()

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        """Take up to `limit` entries, waiting at most `linger` seconds after the first; a retry
        is handed out alone. Raises QueueClosed."""
        return self._waiting.get_batch(limit, linger)

    @property
    def idle(self) -> Idle:
        """How long threads wait for it."""
        return self._waiting.idle

    @property
    def is_paused(self) -> bool:
        """Whether events are taken in but not handed out."""
        return self._waiting.is_paused

    def pause(self) -> None:
        """Hand out no events until `resume`, or until the queue is closed."""
        self._waiting.pause()

    def resume(self) -> None:
        """Hand out events again."""
        self._waiting.resume()

    @abstractmethod
    def put_many(self, batch: Batch) -> None:
        """Add all events or none; raises Unavailable or BatchTooLarge."""

    def put_later(self, batch: Batch, done: Callable[[Refusal | None], object]) -> None:
        """Add all events or none, and call `done` with the refusal, or None, before returning."""
        refusal: Refusal | None = None
        try:
            self.put_many(batch)
        except (Unavailable, BatchTooLarge) as error:
            refusal = error
        done(refusal)

    def put_early(self, batch: Batch) -> None:
        """Add what was put before the start; raises Unavailable or BatchTooLarge."""
        self.put_many(batch)

    @property
    def outage(self) -> str:
        """Why nothing can be put now, "" unless another machine is away."""
        return ""

    def use_loop(self, loop: Loop) -> None:
        """Nothing to do: there is no other machine to wait for."""

    def load_of(self, batch: Batch) -> Load:
        """What events would take."""
        return Load(len(batch.events))

    def _memory_used(self) -> float:
        """Bytes that the waiting events use, where that is bounded."""
        return 0

    def room(self) -> Load:
        """What can be added now."""
        left = self.memory_limit - self._memory_used()
        return Load(0 if self._waiting.closed else max(0, self.size - len(self)), left)

    def refusal_of(self, load: Load) -> Refusal:
        """The error that refuses events for lack of room."""
        if load.events > self.size:
            return BatchTooLarge(
                f"{load.events} events at once are more than the queue holds "
                f"(queue_size is {self.size})"
            )
        if load.memory > self.memory_limit:
            return BatchTooLarge(
                f"it would take {_mebibytes(load.memory)} of memory, more than all waiting events "
                f"may use (queue_memory is {_mebibytes(self.memory_limit)})"
            )
        return self._refusal(load)

    def _refusal(self, load: Load) -> Unavailable:
        if self._waiting.closed:
            return daemon_stopping()
        room = self.room()
        if load.memory <= room.memory or room.events == 0:
            return QueueFull(f"The event queue is full ({self.size} events)")
        return QueueFull(
            f"The event queue is full: waiting events use {_mebibytes(self._memory_used())} of "
            f"memory (queue_memory is {_mebibytes(self.memory_limit)})"
        )

    def _check_room(self, load: Load) -> None:
        if not load.fits(self.room()):
            raise self.refusal_of(load)

    def _room_for_some(self, batch: Batch) -> tuple[int, Unavailable | None]:
        """How many of the events can be added, and the refusal of the others."""
        load, room = self.load_of(batch), self.room()
        if load.fits(room):
            return load.events, None
        fits = min(load.events, room.events)
        if load.memory > room.memory:
            sizes = accumulate(self.load_of(batch.part(n, n + 1)).memory for n in range(fits))
            fits = sum(1 for size in sizes if size <= room.memory)
        return fits, self._refusal(load)


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
