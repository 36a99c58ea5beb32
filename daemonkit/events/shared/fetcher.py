"""Takes events from the engine, a bounded number ahead of the handlers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ...exceptions import InvalidEvent
from ...runtime.failures import FailureLog
from ...runtime.part import ThreadedPart
from ...types import Event
from ..codec import decode
from ..durable.rows import StoredBatch
from ..durable.unpacking import retry_of, unpack
from ..entry import Entry, FailedAttempt, failure_of
from ..waiting import Waiting
from .connector import BackOff
from .engine import Engine, EngineAway, Link
from .faults import EngineFaults
from .in_flight import HANDLED, WAITING, Failed, Held, InFlight
from .layout import GROUP
from .node import Node
from .pacing import Pacing
from .records import batch_in, failure_in, fields_of
from .scripts import BEGIN, SETTLE

PREFETCH = 1000
"""Events that a node holds before it takes no more; one entry may exceed it."""
LOW = 250
"""New events that are ready for handlers, from which no more are read."""
PREFETCH_SIZE = 64 * 1024 * 1024
"""Bytes, likewise."""
MOST_ENTRIES = 64
BLOCK = 1.0
"""Seconds for which the engine waits for an event."""
AFTER_FAILURE = 1.0
DEADLY = 3
"""How many processes an event may kill before it is a dead letter."""


class Fetcher(ThreadedPart):
    """Holds entries of the stream and passes their events to `waiting`.

    changed: called when there are results to be saved; with_meta: returns whether the handler wants
    each event's circumstances; gave_up: see `EventQueue`.
    """

    def __init__(
        self,
        engine: Engine,
        node: Node,
        in_flight: InFlight,
        waiting: Waiting,
        faults: EngineFaults,
        logger: logging.Logger,
        changed: Callable[[], None],
        with_meta: Callable[[], bool],
        gave_up: Callable[[Event, FailedAttempt], object],
    ) -> None:
        super().__init__("event queue fetcher", "the event queue's fetcher")
        self._engine = engine
        self._link = Link(engine, BLOCK + 2.0)
        self._node = node
        self._in_flight = in_flight
        self._waiting = waiting
        self._faults = faults
        self._logger = logger
        self._failures = FailureLog(logger)
        self._changed = changed
        self._with_meta = with_meta
        self._gave_up = gave_up
        self.may_go_on = threading.Condition()
        """Notified when there may be room, or the node has joined."""
        self.claiming = threading.Lock()
        """Held while entries become this node's that might be read again at the same time."""
        self._rereads = False
        """Whether an answer was lost: what was in it is pending."""
        self._suspects: list[tuple[Held, int, int]] = []
        """Entries of dead nodes; the number of the event that was handled alone, and how often."""
        self._alone: tuple[Held, int] | None = None
        """The entry and the number of the event that is handled alone."""
        self._each = 1.0
        self.pacing = Pacing()
        """How many events an entry has, of late."""

    def request_stop(self) -> None:
        super().request_stop()
        self._link.interrupt()
        self.wake()

    def wake(self) -> None:
        """There may be room, or something else has changed."""
        with self.may_go_on:
            self.may_go_on.notify_all()

    def ran_dry(self) -> bool:
        """A handler waits for an event; returns False: there is none yet."""
        self.wake()
        return False

    def reread(self) -> None:
        """Take what is pending and not held."""
        self._rereads = True

    def forget(self) -> None:
        """What is held is others' now."""
        self._suspects, self._rereads, self._alone = [], False, None

    @property
    def has_suspects(self) -> bool:
        """Whether events are handled alone."""
        return bool(self._suspects)

    @property
    def room(self) -> int:
        """How many events may be taken."""
        in_flight = self._in_flight
        return PREFETCH - in_flight.open if in_flight.size < PREFETCH_SIZE else 0

    def _run(self) -> None:
        back_off = BackOff()
        while not self._stop_requested.is_set():
            try:
                self._fetch()
                back_off.reset()
            except EngineAway as error:
                if self._stop_requested.is_set():
                    break
                if error.code == "NOGROUP":
                    self._node.is_joined = False
                else:
                    self._faults.away(error)
                self._stop_requested.wait(back_off.next())
            # Nothing may end this thread.
            except Exception as error:
                self._failures.log(error, "The event queue failed", then=" and continues")
                self._stop_requested.wait(AFTER_FAILURE)
        self._link.close()

    def _fetch(self) -> None:
        with self.may_go_on:
            if not self._may_fetch():
                self.may_go_on.wait(BLOCK)
                if not self._may_fetch():
                    return
        if self._suspects:
            self._handle_alone()
            return
        node = self._node.name
        if self._rereads:
            self._rereads = False
            try:
                self._reread(node)
            except BaseException:
                self._rereads = True
                raise
        self._stop_requested.wait(self.pacing.pause())
        try:
            if entries := self._read(node, ">", self._most()):
                self._each = sum(int(dict_of(f).get(b"n", 1)) for _, f in entries) / len(entries)
                self.hold(node, entries)
        except BaseException:
            self._rereads = True
            raise

    def _may_fetch(self) -> bool:
        if not self._node.is_joined or self._stop_requested.is_set():
            return False
        waiting = self._waiting
        if self._suspects or self.room <= 0 or waiting.is_paused:
            return bool(self._suspects)
        # Few large reads cost less than many small ones.
        return waiting.ready < LOW or waiting.consumers > 0

    def _most(self) -> int:
        return max(1, min(MOST_ENTRIES, int(self.pacing.most(self.room) / self._each)))

    def _read(self, node: str, after: str | bytes, most: int) -> list[Any]:
        how: tuple[Any, ...] = ("BLOCK", int(BLOCK * 1000)) if after == ">" else ()
        answer = self._link.call(
            *("XREADGROUP", "GROUP", GROUP, node, "COUNT", most),
            *(*how, "STREAMS", self._engine.stream, after),
        )
        return answer[0][1] if answer else []

    def _reread(self, node: str) -> None:
        """Take what was in an answer that got lost."""
        after: bytes = b"0"
        with self.claiming:
            while True:
                # Not what the keeper is removing just now.
                with self._in_flight.lock:
                    entries = self._read(node, after, MOST_ENTRIES)
                    missing = [e for e in entries if e[1] and not self._in_flight.holds(e[0])]
                if missing:
                    self.hold(node, missing)
                if not entries:
                    return
                after = entries[-1][0]

    def hold(self, node: str, entries: Sequence[Any]) -> None:
        """Hold entries that were given to this node under this name."""
        marks = self._link.call(
            "HMGET", self._engine.prefix + "handled", *[entry for entry, _ in entries]
        )
        parts = [
            (entry, dict_of(flat), bits or b"", None)
            for (entry, flat), bits in zip(entries, marks, strict=True)
        ]
        self._hold(node, parts, self._link)

    def take_over(self, node: str, claimed: Sequence[Any], link: Link) -> int:
        """Hold entries that were claimed; returns how many. Called by the keeper."""
        parts = [(entry, dict_of(flat), bits, mark) for entry, flat, bits, mark in claimed]
        self._hold(node, parts, link)
        return len(parts)

    def _hold(self, node: str, parts: Sequence[Any], link: Link) -> None:
        retries = [fields[b"k"] for _, fields, _, _ in parts if b"k" in fields]
        failed: dict[bytes, tuple[bytes, bytes]] = {}
        if retries:
            prefix = self._engine.prefix
            texts = link.call("HMGET", prefix + "failed", *retries)
            attempts = link.call("HMGET", prefix + "attempts", *retries)
            failed = dict(zip(retries, zip(texts, attempts, strict=True), strict=True))
        for entry, fields, bits, mark in parts:
            held = self._held(entry, fields, bits, failed)
            if held is None:
                # Unless it was dropped by an operator.
                if fields and b"k" not in fields:
                    self._logger.error("Removed the entry %s, which is no event", entry.decode())
                link.run(SETTLE, entry, 0, b"", fields.get(b"k", b""))
                continue
            with self._in_flight.lock:
                if self._node.name != node:
                    return
                self._in_flight.add(held)
            if mark:
                place, times = mark.split()
                self._suspects.append((held, int(place), int(times)))
            else:
                self._hand_over(held, None)

    def _held(
        self,
        entry: bytes,
        fields: dict[bytes, bytes],
        bits: bytes,
        failed: dict[bytes, tuple[bytes, bytes]],
    ) -> Held | None:
        try:
            if b"k" not in fields:
                return Held(entry, batch_in(entry, fields), bits)
            id = fields[b"k"]
            text, attempts = failed[id]
            return Held(entry, failure_in(int(id), text, int(attempts or 0), None), bits)
        except (KeyError, ValueError, TypeError):
            return None

    def _hand_over(self, held: Held, only: int | None) -> None:
        """Let a handler have the events of an entry, or only the one with this number."""
        content, with_meta = held.content, self._with_meta()
        damaged: dict[int, InvalidEvent] = {}
        if isinstance(content, StoredBatch):
            handled = {n for n, bit in enumerate(held.bits) if bit == HANDLED}
            if only is not None:
                handled = set(range(content.events)) - {only}
            _, entries, damaged = unpack(content, handled, with_meta=with_meta)
        else:
            try:
                entries = [retry_of(content, with_meta=with_meta)]
            except InvalidEvent as error:
                entries, damaged = [], {0: error}
        for number, invalid in damaged.items():
            failure = failure_of(invalid, Entry(None), str)
            self._in_flight.failures.append(Failed(_event(held, number), failure, None))
            self._changed()
        self._waiting.add(entries, len(entries))

    # Events of dead nodes, each alone

    def _handle_alone(self) -> None:
        """Handle the events of a dead node, each while no other one is in work here."""
        held, suspected, times = self._suspects[0]
        node = self._node.name
        for number in [n for n, bit in enumerate(held.bits) if bit == WAITING]:
            if not self._is_idle(node):
                return
            if number == suspected and times >= DEADLY - 1:
                failure = self._give_up(held, number)
                # Once it is stored.
                if self._is_idle(node):
                    self._gave_up(event_of(held, number), failure)
                continue
            begun = self._link.run(BEGIN, node, held.entry, number)
            if not begun:
                break
            self._alone = held, number
            self._hand_over(held, number)
        if self._is_idle(node):
            self._suspects.remove((held, suspected, times))

    def _is_idle(self, node: str) -> bool:
        """Wait until this node has nothing in work, and all results are saved; False if it was
        taken for dead meanwhile, or is to stop."""
        with self.may_go_on:
            while not self._stop_requested.is_set() and self._node.name == node:
                if not self._waiting.ready and not self._in_work():
                    return True
                self.may_go_on.wait(BLOCK)
        return False

    def _in_work(self) -> int:
        if self._alone is not None and self._alone[0].bits[self._alone[1]] == WAITING:
            return 1
        suspected = sum(held.left for held, _, _ in self._suspects)
        return self._in_flight.unsaved + self._in_flight.open - suspected

    def _give_up(self, held: Held, number: int) -> FailedAttempt:
        id = _event(held, number)
        text = f"the process ended {DEADLY} times while it handled this event"
        self._logger.error("The event %d is now a dead letter: %s", id, text)
        now = held.content.received
        failure = FailedAttempt(f"ProcessKilled: {text}", "", DEADLY, now, now)
        self._in_flight.failures.append(Failed(id, failure, None))
        self._changed()
        return failure


def dict_of(flat: Sequence[bytes] | None) -> dict[bytes, bytes]:
    """The fields of an entry, none if it was removed."""
    return fields_of(flat or ())


def event_of(held: Held, number: int) -> Event:
    """The event with this number, None if it isn't JSON any more."""
    content = held.content
    line = content.texts()[number] if isinstance(content, StoredBatch) else content.line
    try:
        return decode(line)
    except InvalidEvent:
        return None


def _event(held: Held, number: int) -> int:
    return held.content.id + number
