"""What this node holds of the shared queue, and its results until the engine has them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from ...exceptions import InvalidEvent
from ...types import Event
from ..codec import decode
from ..durable.rows import STRIDE, StoredBatch, StoredFailure, batch_of, to_failure
from ..entry import Entry, FailedAttempt

HANDLED, WAITING = ord("1"), ord("0")


class Failed(NamedTuple):
    """A failed event; delay: seconds until its retry, None for a dead letter; was_taken: whether a
    handler had it."""

    id: int
    failure: FailedAttempt
    delay: float | None
    was_taken: bool = True


class Held:
    """An entry of the stream of which this node handles events.

    content: a batch, or the failed event that is retried; bits: b"0" or b"1" for each event, 1 for
    the handled ones.
    """

    __slots__ = ("bits", "content", "entry", "left", "size")

    def __init__(self, entry: bytes, content: StoredBatch | StoredFailure, bits: bytes) -> None:
        self.entry = entry
        self.content = content
        size = content.events if isinstance(content, StoredBatch) else 1
        self.bits = bytearray(bits or b"0" * size)
        self.left = self.bits.count(WAITING)
        text = content.lines if isinstance(content, StoredBatch) else content.line
        self.size = len(text)

    def settle(self, number: int) -> bool:
        """Note that an event is handled; returns whether it wasn't before."""
        is_new = self.bits[number] == WAITING
        if is_new:
            self.bits[number] = HANDLED
            self.left -= 1
        return is_new

    def number_of(self, id: int) -> int:
        """The number of an event in it, from 0."""
        return id - self.content.id if isinstance(self.content, StoredBatch) else 0

    def id_of(self, number: int) -> int:
        """The id of the event with this number."""
        return self.content.id + number

    def event(self, number: int) -> Event:
        """The event with this number, None if it isn't JSON any more."""
        content = self.content
        try:
            return decode(
                content.texts()[number] if isinstance(content, StoredBatch) else content.line
            )
        except InvalidEvent:
            return None

    def failed(self, id: int, failure: FailedAttempt) -> StoredFailure:
        """An event of it that failed, as it is stored."""
        content = self.content
        if isinstance(content, StoredFailure):
            return content.failed_again(failure, None)
        number = self.number_of(id)
        return to_failure(content, number, content.texts()[number], failure, None)

    def arguments(self) -> list[bytes | int]:
        """What the script SETTLE is told about it."""
        content = self.content
        is_batch = isinstance(content, StoredBatch)
        bits = bytes(self.bits) if self.left else b""
        return [self.entry, len(self.bits), bits, b"" if is_batch else content.id]


class InFlight:
    """Any thread may report results; all else is for the holder of `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.handled: list[Entry] = []
        """Handled events, for threads to append to: a call for each event would cost too much."""
        self.failures: list[Failed] = []
        """Failed events, likewise."""
        self.open = 0
        """Events that are held and have no result yet, as far as collected."""
        self.size = 0
        """Bytes of what is held."""
        self._batches: dict[int, Held] = {}
        self._retries: dict[int, Held] = {}
        self._entries: set[bytes] = set()
        self._orphans: dict[int, Held] = {}
        """Batches that this node held under another name."""
        self._changed: dict[bytes, Held] = {}
        """Entries whose results the engine doesn't have."""
        self._unsettled = 0
        self.saved = 0
        """How many results of handlers the engine has."""

    @property
    def unsaved(self) -> int:
        """How many results the engine doesn't have."""
        return self._unsettled + len(self.handled) + len(self.failures)

    @property
    def entries(self) -> int:
        """How many entries of the stream are held."""
        return len(self._entries)

    def holds(self, entry: bytes) -> bool:
        """Whether an entry of the stream is held."""
        return entry in self._entries

    def holds_event(self, id: int) -> bool:
        """Whether an event is held; by any thread."""
        return id in self._retries or id - id % STRIDE in self._batches

    def add(self, held: Held) -> None:
        """Hold an entry."""
        content = held.content
        if isinstance(content, StoredBatch):
            self._batches[content.id] = held
        else:
            self._retries[content.id] = held
        self._entries.add(held.entry)
        self.open += held.left
        self.size += held.size

    def collect(self) -> list[Failed]:
        """Collect the results that threads have reported so far; returns the failed events."""
        handled = self.handled[: len(self.handled)]
        failures = self.failures[: len(self.failures)]
        self._unsettled += len(handled)
        del self.handled[: len(handled)]
        ids = sorted([entry[2] for entry in handled])
        if self._retries:
            for id in self._retries.keys() & set(ids):
                self._settle(self._retries[id], [id])
            ids = [id for id in ids if id not in self._retries]
        # By batch, not by event: this is a hot path.
        start = 0
        while start < len(ids):
            base = batch_of(ids[start])
            end = bisect_left(ids, base + STRIDE, start)
            held = self._batches.get(base) or self._orphans.get(base)
            if held is not None:
                self._settle(held, ids[start:end])
            start = end
        return failures

    def _settle(self, held: Held, ids: Iterable[int]) -> None:
        settled = sum(held.settle(held.number_of(id)) for id in ids)
        if held.entry in self._entries:
            self.open -= settled
        self._changed[held.entry] = held

    def unsettled(self) -> list[bytes | int]:
        """What the script SETTLE is told."""
        return [argument for held in self._changed.values() for argument in held.arguments()]

    def settled(self) -> None:
        """The engine has the results that were collected."""
        for held in self._changed.values():
            if not held.left:
                self._remove(held)
        self.saved += self._unsettled
        self._changed, self._unsettled = {}, 0

    def held_by(self, id: int) -> Held | None:
        """What holds an event."""
        return self._retries.get(id) or self._batches.get(batch_of(id))

    def give_up(self, held: Held, number: int, failure: FailedAttempt) -> None:
        """Note a dead letter that no handler had."""
        self.failures.append(Failed(held.id_of(number), failure, None, was_taken=False))

    def failed(self, failed: Failed) -> None:
        """The engine has what became of a failed event, or others decide that."""
        self.failures.remove(failed)
        self.saved += failed.was_taken
        held = self.held_by(failed.id)
        if held is not None and held.settle(held.number_of(failed.id)):
            self.open -= 1
            if not held.left:
                self._changed.pop(held.entry, None)
                self._remove(held)

    def _remove(self, held: Held) -> None:
        found = self._batches if isinstance(held.content, StoredBatch) else self._retries
        if found.get(held.content.id) is held:
            del found[held.content.id]
            self._entries.discard(held.entry)
            self.size -= held.size

    def release(
        self, waiting: Iterable[Entry], kept_one: Held | None = None
    ) -> tuple[list[bytes], list[Entry]]:
        """Hold the entries no more of which all that has no result is in `waiting`, except
        `kept_one`; returns them, and the events of the others."""
        found: dict[Held, list[Entry]] = {}
        for entry in waiting:
            if (held := self.held_by(entry.id)) is not None:
                found.setdefault(held, []).append(entry)
        released: list[bytes] = []
        kept: list[Entry] = []
        for held, entries in found.items():
            is_whole = held.left == len(entries) and held.entry not in self._changed
            if is_whole and held is not kept_one:
                released.append(held.entry)
                self.drop(held)
            else:
                kept += entries
        return released, kept

    def drop(self, held: Held) -> None:
        """Hold an entry no more."""
        self.open -= held.left
        self._remove(held)

    def abandon(self) -> None:
        """All that is held is others' now; what handlers finish nevertheless is still reported."""
        self._orphans = self._batches
        self._batches, self._retries, self._entries = {}, {}, set()
        self.open = self.size = 0
