"""Heartbeats, and what follows from their answers: dead nodes, whose entries are taken over, lost
entries, and that this node itself was taken for dead."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from ...runtime.clock import monotonic
from ...runtime.failures import FailureLog
from ..waiting import Waiting
from .census import BEATS, Census
from .engine import Engine, Link
from .faults import KEEPER, EngineFaults
from .fetcher import Fetcher
from .in_flight import InFlight
from .layout import GROUP, RELEASED
from .node import Node, awake
from .scripts import BEAT, CLAIM, MOST_CLAIMED, RELEASE
from .view import View, heard_in

MOST_PENDING = 1000
"""Entries that are looked at for lost ones."""
FULL = 10
"""How many of all nodes get a full answer at each interval: see the script BEAT."""


class Heartbeats:
    """Those of this node.

    timeout: seconds, `node_timeout`; about: returns what the others may know of this node; viewed:
    called with the queue after each heartbeat.
    """

    def __init__(
        self,
        engine: Engine,
        node: Node,
        in_flight: InFlight,
        waiting: Waiting,
        fetcher: Fetcher,
        faults: EngineFaults,
        logger: logging.Logger,
        timeout: float,
        about: Callable[[], dict[str, Any]],
        viewed: Callable[[View], object],
    ) -> None:
        self._engine = engine
        self._node = node
        self._in_flight = in_flight
        self._waiting = waiting
        self._fetcher = fetcher
        self._faults = faults
        self._logger = logger
        self._failures = FailureLog(logger)
        self._census = Census(timeout)
        self.interval = timeout / BEATS
        """Seconds from one to the next."""
        self._about = about
        self._viewed = viewed
        self.beats = 0
        """How many heartbeats were answered."""
        self._discarded: int | None = None
        """How many dead letters were dropped so far, in all."""
        self._known: dict[bytes, bytes] = {}
        """What is known of each node."""
        self._full_every = 1
        """How many heartbeats there are from one full answer to the next."""
        self._lost: set[bytes] = set()
        """Entries that this node was given and didn't have at the last heartbeat."""

    def join(self, link: Link) -> None:
        """Make this node a part of the queue; raises StartError for a newer layout, and
        EngineAway."""
        link.join(self._node.name, json.dumps(self._about()))
        self._node.is_joined = True
        self._fetcher.wake()

    def beat(self, link: Link) -> int | None:
        """Send a heartbeat; returns milliseconds until the next retry is due, -1 if there is none,
        and None if nothing is known. Raises EngineAway."""
        began, node = awake(), self._node.name
        is_full = self.beats % self._full_every == 0
        answer = link.run(BEAT, node, json.dumps(self._about()), int(is_full))
        self.beats += 1
        self._faults.works(KEEPER)
        if answer is None:
            self._begin_anew(link)
            return None
        self._node.beat(began)
        self._fetcher.wake()
        now = monotonic()
        heard = heard_in(answer)
        counters, consumers = heard.counters, heard.consumers
        dead = self._census.note(counters, node.encode(), now)
        ages = {name: self._census.age(name, now) for name in counters}
        if is_full:
            self._known = heard.about
            self._full_every = max(1, len(counters) // FULL)
        self._viewed(heard.view(ages, self._known))
        self._note_discarded(heard.counts.discarded)
        self._look_for_lost(consumers.get(node.encode(), 0), link)
        for name, pending in consumers.items():
            if name not in counters and (pending or name != RELEASED.encode()):
                dead.append(name)
        if self._waiting.is_paused:
            if any(name != node.encode() and name not in dead for name in counters):
                self._give_back(link)
        elif not self._waiting.closed:
            for name in dead:
                self._take_over(name, counters.get(name, b""), link)
        return heard.next_due

    def _take_over(self, dead: bytes, counter: bytes, link: Link) -> None:
        node, taken = self._node.name, 0
        while True:
            room = max(0, self._fetcher.room)
            with self._fetcher.claiming:
                claimed = link.run(CLAIM, dead, counter, node, room)
                taken += 0 if not claimed else self._fetcher.take_over(node, claimed, link)
            if not claimed or len(claimed) < MOST_CLAIMED:
                break
            # It is no node any more.
            counter = b""
        if taken and dead != RELEASED.encode():
            name = dead.decode(errors="replace")
            self._logger.warning("Took over %d batches of the dead node %s", taken, name)
        self._fetcher.wake()

    def _give_back(self, link: Link) -> None:
        """Let others handle what waits here for the end of a pause."""
        in_flight = self._in_flight
        with in_flight.lock:
            suspects, alone = self._fetcher.suspects.release()
            released, kept = in_flight.release(self._waiting.discard(), alone)
            self._waiting.add(kept, len(kept))
            for held in suspects:
                in_flight.drop(held)
                released.append(held.entry)
            # If it fails, they are found as lost ones.
            if released:
                link.run(RELEASE, self._node.name, *released)

    def _look_for_lost(self, pending: int, link: Link) -> None:
        """Look for entries that this node was given and doesn't have: in the answer to a call of an
        old connection, for instance, on which nobody waits any more."""
        lost: set[bytes] = set()
        in_flight, node = self._in_flight, self._node.name
        if pending > in_flight.entries:
            given = link.call(
                *("XPENDING", self._engine.stream, GROUP, "-", "+", MOST_PENDING, node)
            )
            with in_flight.lock:
                lost = {entry for entry, *_ in given if not in_flight.holds(entry)}
        # Those that are only now on their way aren't missing at the next heartbeat.
        if missing := lost & self._lost:
            if self._waiting.is_paused:
                link.run(RELEASE, node, *missing)
            else:
                self._fetcher.reread()
        self._lost = lost

    def _note_discarded(self, discarded: int) -> None:
        before, self._discarded = self._discarded, discarded
        if before is not None and discarded > before:
            text = f"{discarded - before} now, the oldest ones (dead_letters)"
            self._failures.report(logging.WARNING, "Too many dead letters: some are dropped", text)

    def _begin_anew(self, link: Link) -> None:
        """This node was taken for dead: what it holds is others'."""
        # An operator may have removed it, or the engine dropped it to save memory.
        is_gone = link.call("GET", self._engine.prefix + "layout") is None
        with self._in_flight.lock:
            name, held = self._node.name, self._in_flight.open
            self._node.rename()
            self._waiting.discard()
            self._in_flight.abandon()
            self._fetcher.forget()
        if is_gone:
            self._logger.error(
                "The queue is gone from the event queue's engine %s (emptied, or evicted?): %d "
                "events that this node held are not handled; it begins a new queue",
                self._engine.shown,
                held,
            )
        else:
            self._logger.error(
                "This node %s was taken for dead, since its heartbeats had stopped; others handle "
                "the %d events that it held; it goes on as %s",
                name,
                held,
                self._node.name,
            )
        self._fetcher.wake()
