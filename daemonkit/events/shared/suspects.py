"""Events that may kill the process that handles them: those that a dead node held, each handled
while no other one is in work, so that the next death has one suspect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ...types import Event
from ..entry import FailedAttempt
from ..waiting import Waiting
from .engine import Link
from .in_flight import WAITING, Held, InFlight
from .node import Node
from .scripts import BEGIN

DEADLY = 3
"""How many processes an event may kill before it is a dead letter."""
POLL = 1.0
"""Seconds between two looks whether all is over."""


class Suspects:
    """The entries of dead nodes that this node has taken over.

    may_go_on: notified when results are saved, and at a stop; is_over: returns whether to stop;
    hand_over: lets a handler have the event of an entry with this number; changed: called when
    there is a result to be saved; gave_up: see `EventQueue`.
    """

    def __init__(
        self,
        node: Node,
        in_flight: InFlight,
        waiting: Waiting,
        may_go_on: threading.Condition,
        logger: logging.Logger,
        is_over: Callable[[], bool],
        hand_over: Callable[[Held, int], object],
        changed: Callable[[], None],
        gave_up: Callable[[Event, FailedAttempt], object],
    ) -> None:
        self._node = node
        self._in_flight = in_flight
        self._waiting = waiting
        self._may_go_on = may_go_on
        self._logger = logger
        self._is_over = is_over
        self._hand_over = hand_over
        self._changed = changed
        self._gave_up = gave_up
        self._entries: list[tuple[Held, int, int]] = []
        """With the number of the event that was handled alone, and how often."""
        self._alone: tuple[Held, int] | None = None
        """The entry and the number of the event that is handled alone."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, held: Held, mark: bytes) -> None:
        """Add an entry; mark: what is in the key `suspects` about it."""
        place, times = mark.split()
        self._entries.append((held, int(place), int(times)))

    def forget(self) -> None:
        """They are others' now; the caller holds the lock of `in_flight`."""
        self._entries, self._alone = [], None

    def release(self) -> tuple[list[Held], Held | None]:
        """Forget all but the entry of which an event is in work; returns the others, and that one.
        The caller holds the lock of `in_flight`."""
        alone = self._in_hand()
        released = [held for held, _, _ in self._entries if held is not alone]
        self._entries = [entry for entry in self._entries if entry[0] is alone]
        return released, alone

    def _in_hand(self) -> Held | None:
        """The entry of which an event is handled alone now."""
        if self._alone is None:
            return None
        held, number = self._alone
        return held if held.bits[number] == WAITING else None

    def handle(self, link: Link) -> None:
        """Have the events of an entry handled, one at a time; raises EngineAway."""
        held, suspected, times = self._entries[0]
        node = self._node.name
        for number in [n for n, bit in enumerate(held.bits) if bit == WAITING]:
            if not self._is_idle(node) or not self._in_flight.holds(held.entry):
                return
            if number == suspected and times >= DEADLY - 1:
                failure = self._give_up(held, number)
                # Once it is stored.
                if self._is_idle(node):
                    self._gave_up(held.event(number), failure)
                continue
            if not link.run(BEGIN, node, held.entry, number):
                break
            with self._in_flight.lock:
                if self._node.name != node or not self._in_flight.holds(held.entry):
                    return
                self._alone = held, number
            self._hand_over(held, number)
        if self._is_idle(node):
            with self._in_flight.lock:
                self._entries = [entry for entry in self._entries if entry[0] is not held]

    def _is_idle(self, node: str) -> bool:
        """Wait until this node has nothing in work, and all results are saved; False if it was
        taken for dead meanwhile, or is to stop."""
        with self._may_go_on:
            while not self._is_over() and self._node.name == node:
                if not self._waiting.ready and not self._in_work():
                    return True
                self._may_go_on.wait(POLL)
        return False

    def _in_work(self) -> int:
        if self._in_hand() is not None:
            return 1
        suspected = sum(held.left for held, _, _ in self._entries)
        return self._in_flight.unsaved + self._in_flight.open - suspected

    def _give_up(self, held: Held, number: int) -> FailedAttempt:
        text = f"the process ended {DEADLY} times while it handled this event"
        self._logger.error("The event %d is now a dead letter: %s", held.id_of(number), text)
        now = held.content.received
        failure = FailedAttempt(f"ProcessKilled: {text}", "", DEADLY, now, now)
        self._in_flight.give_up(held, number, failure)
        self._changed()
        return failure
