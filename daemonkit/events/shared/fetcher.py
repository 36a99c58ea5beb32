"""Takes events from the engine, a bounded number ahead of the handlers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ...exceptions import InvalidEvent
from ...runtime.failures import FailureLog
from ...runtime.part import ThreadedPart
from ...text import shorten
from ...types import Event
from ..durable.rows import StoredBatch
from ..durable.unpacking import retry_of, unpack
from ..entry import Entry, FailedAttempt, failure_of
from ..waiting import Waiting
from .connector import BackOff
from .engine import Engine, EngineAway, Link
from .faults import FETCHER, EngineFaults
from .in_flight import HANDLED, Held, InFlight
from .layout import GROUP
from .node import Node
from .pacing import MOST_ENTRIES, Pacing, Portions
from .records import batch_in, failure_in, fields_of
from .scripts import SETTLE
from .suspects import Suspects

PREFETCH = 1000
"""Events that a node holds before it takes no more; one entry may exceed it."""
LOW = 250
"""New events that are ready for handlers, from which no more are read."""
PREFETCH_SIZE = 64 * 1024 * 1024
"""Bytes, likewise."""
BLOCK = 1.0
"""Seconds for which the engine waits for an event."""
AFTER_FAILURE = 1.0
MOST_SHOWN = 1000
"""Characters in the log of what is removed."""


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
        self.may_go_on = threading.Condition()
        """Notified when there may be room, or the node has joined."""
        self.claiming = threading.Lock()
        """Held while entries become this node's that might be read again at the same time."""
        self._rereads = False
        """Whether an answer was lost: what was in it is pending."""
        self.suspects = Suspects(
            *(node, in_flight, waiting, self.may_go_on, logger),
            *(self._stop_requested.is_set, self._hand_over, changed, gave_up),
        )
        self.pacing = Pacing()
        self._portions = Portions(PREFETCH_SIZE)

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
        self._rereads = False
        self.suspects.forget()

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
                    self._faults.away(error, FETCHER)
                self._stop_requested.wait(back_off.next())
            # Nothing may end this thread.
            except Exception as error:
                self._failures.log(error, "The event queue failed", then=" and continues")
                self._stop_requested.wait(AFTER_FAILURE)
        self._link.close()

    def _fetch(self) -> None:
        if self._faults.away_for(FETCHER) and (self.suspects or not self._may_fetch()):
            # There may be nothing to fetch for long.
            self._link.call("PING")
            self._faults.works(FETCHER)
        with self.may_go_on:
            if not self._may_fetch():
                self.may_go_on.wait(BLOCK)
                if not self._may_fetch():
                    return
        if self.suspects:
            self.suspects.handle(self._link)
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
            entries = self._read(node, ">", self._most())
            self._faults.works(FETCHER)
            if entries:
                self._portions.note(entries)
                self.hold(node, entries)
        except BaseException:
            self._rereads = True
            raise

    def _may_fetch(self) -> bool:
        if not self._node.is_joined or self._stop_requested.is_set():
            return False
        waiting = self._waiting
        if self.suspects or self.room <= 0 or waiting.is_paused:
            return bool(self.suspects)
        # Few large reads cost less than many small ones.
        return waiting.ready < LOW or waiting.consumers > 0

    def _most(self) -> int:
        size = PREFETCH_SIZE - self._in_flight.size
        return self._portions.most(self.pacing.most(self.room), size)

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
                    # Perhaps in the answer to a claim.
                    suspects = self._engine.prefix + "suspects"
                    marks = self._link.call("HMGET", suspects, *[entry for entry, _ in missing])
                    self.hold(node, missing, marks)
                if not entries:
                    return
                after = entries[-1][0]

    def hold(self, node: str, entries: Sequence[Any], marks: Sequence[Any] = ()) -> None:
        """Hold entries that were given to this node under this name; marks: see `suspects`."""
        handled = self._link.call(
            "HMGET", self._engine.prefix + "handled", *[entry for entry, _ in entries]
        )
        parts = [
            (entry, fields_of(flat), bits or b"", mark)
            for (entry, flat), bits, mark in zip(
                entries, handled, marks or [None] * len(entries), strict=True
            )
        ]
        self._hold(node, parts, self._link)

    def take_over(self, node: str, claimed: Sequence[Any], link: Link) -> int:
        """Hold entries that were claimed; returns how many. Called by the keeper."""
        parts = [(entry, fields_of(flat), bits, mark) for entry, flat, bits, mark in claimed]
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
                self._remove(entry, fields, failed, link)
                continue
            with self._in_flight.lock:
                if self._node.name != node:
                    return
                self._in_flight.add(held)
            if mark:
                self.suspects.add(held, mark)
            else:
                self._hand_over(held)

    def _remove(
        self,
        entry: bytes,
        fields: dict[bytes, bytes],
        failed: dict[bytes, tuple[bytes, bytes]],
        link: Link,
    ) -> None:
        """Remove what an operator has dropped, or what is no event."""
        id = fields.get(b"k", b"")
        record = failed[id][0] if id else fields
        if record:
            text = shorten(repr(record), MOST_SHOWN)
            self._logger.error("Removed the entry %s, which is no event: %s", entry.decode(), text)
        link.run(SETTLE, entry, 1 if id and record else 0, b"", id)

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

    def _hand_over(self, held: Held, only: int | None = None) -> None:
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
            self._in_flight.give_up(held, number, failure_of(invalid, Entry(None), str))
            self._changed()
        self._waiting.add(entries, len(entries))
