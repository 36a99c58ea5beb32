"""Keeps this node a part of the shared queue: its results, retries that are due, heartbeats."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ...exceptions import StartError
from ...runtime.clock import monotonic
from ...runtime.failures import FailureLog
from ...runtime.part import ThreadedPart
from .connector import BackOff
from .engine import Engine, EngineAway, Link
from .engine_facts import EngineFacts
from .faults import KEEPER, EngineFaults
from .fetcher import Fetcher
from .heartbeats import Heartbeats
from .in_flight import Failed, Held, InFlight
from .node import Node
from .records import to_json
from .scripts import DUE, FAIL, LEAVE, SETTLE

ACK_DELAY = 0.02
"""Seconds until results are saved, together with those that arrive meanwhile."""
AFTER_FAILURE = 1.0
LOOK_INTERVAL, SOON = 10.0, 1.0
"""Seconds between two looks at the engine's settings, the second while replicas may be missing."""


class Keeper(ThreadedPart):
    """The thread that does it.

    dead_letters: the most that are kept; counted: called with how many events wait.
    """

    def __init__(
        self,
        engine: Engine,
        node: Node,
        in_flight: InFlight,
        fetcher: Fetcher,
        heartbeats: Heartbeats,
        faults: EngineFaults,
        facts: EngineFacts,
        logger: logging.Logger,
        *,
        ack_batch: int,
        dead_letters: int,
        counted: Callable[[int], object],
    ) -> None:
        super().__init__("event queue keeper", "the event queue's keeper")
        self._engine = engine
        self._link = Link(engine)
        self._node = node
        self._in_flight = in_flight
        self._fetcher = fetcher
        self._heartbeats = heartbeats
        self._faults = faults
        self._facts = facts
        self._logger = logger
        self._failures = FailureLog(logger)
        self._ack_batch = ack_batch
        self._dead_letters = dead_letters
        self._counted = counted
        self._wanted = threading.Event()
        """Set to save results, or to stop."""
        self.saved = threading.Condition()
        """Notified when results are saved, or can't be."""
        self.saves = self._begun = 0
        """How often that was done, and begun."""
        self._next_beat = 0.0
        self._looked_at = -LOOK_INTERVAL
        self._next_due: float | None = None

    def save_soon(self) -> None:
        """There are results."""
        self._wanted.set()

    @property
    def is_wanted(self) -> bool:
        """Whether results are going to be saved already."""
        return self._wanted.is_set()

    @property
    def next_save(self) -> int:
        """What `saves` is, at least, once all results are saved that there are now."""
        return self._begun + 1

    def request_stop(self) -> None:
        super().request_stop()
        self._wanted.set()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def leave_unstarted(self) -> None:
        """Leave if the thread was never started, which otherwise does so at its end."""
        if self._thread.ident is None:
            self._leave()

    def first_contact(self) -> None:
        """Connect and join, once, before the thread starts; raises StartError, and EngineAway."""
        self._facts.look(self._link, at_start=True)
        self._join()
        self._beat()

    def _run(self) -> None:
        back_off = BackOff()
        while not self._stop_requested.is_set():
            try:
                self._tend()
                if not self._faults.away_for(KEEPER):
                    back_off.reset()
            except EngineAway as error:
                self._failed(error)
                self._stop_requested.wait(back_off.next())
            # A newer daemonkit has changed the layout meanwhile.
            except StartError as error:
                self._failed(EngineAway(str(error)))
                self._stop_requested.wait(AFTER_FAILURE)
            # Nothing may end this thread.
            except Exception as error:
                self._failures.log(error, "The event queue failed", then=" and continues")
                self._stop_requested.wait(AFTER_FAILURE)
        self._leave()

    def _failed(self, error: EngineAway) -> None:
        # What wasn't saved must not wait for the next result, nor for the next heartbeat.
        self._wanted.set()
        self._next_beat = 0.0
        if error.code == "NOGROUP":
            self._node.is_joined = False
        else:
            self._faults.away(error, KEEPER)
        with self.saved:
            self.saved.notify_all()

    def _tend(self) -> None:
        if not self._node.is_joined:
            self._join()
        now = monotonic()
        dues = [self._next_beat, *([self._next_due] if self._next_due is not None else [])]
        if self._wanted.wait(max(0.0, min(dues) - now)):
            in_flight = self._in_flight
            if in_flight.unsaved < self._ack_batch and not self._fetcher.suspects:
                self._stop_requested.wait(ACK_DELAY)
            self._save()
        if monotonic() >= self._next_beat:
            self._beat()
        if self._next_due is not None and monotonic() >= self._next_due:
            self._append_due()
        interval = SOON if self._faults.doubts_replicas else LOOK_INTERVAL
        if monotonic() >= self._looked_at + interval:
            self._looked_at = monotonic()
            self._facts.look(self._link)

    def _join(self) -> None:
        self._heartbeats.join(self._link)
        self._next_beat = 0.0

    # Results

    def _save(self) -> None:
        self._wanted.clear()
        self._begun += 1
        begun, in_flight = self._begun, self._in_flight
        with in_flight.lock:
            failures = in_flight.collect()
            if arguments := in_flight.unsettled():
                self._counted(self._link.run(SETTLE, *arguments))
            in_flight.settled()
            for failed in failures:
                self._save_failed(failed)
        self.saves = begun
        with self.saved:
            self.saved.notify_all()
        self._fetcher.wake()

    def _save_failed(self, failed: Failed) -> None:
        held = self._in_flight.held_by(failed.id)
        if held is not None:
            waiting = self._link.run(FAIL, *self._failure(held, failed))
            if waiting >= 0:
                self._counted(waiting)
            if failed.delay is not None:
                due = monotonic() + failed.delay
                self._next_due = due if self._next_due is None else min(due, self._next_due)
        self._in_flight.failed(failed)

    def _failure(self, held: Held, failed: Failed) -> list[Any]:
        delay = "" if failed.delay is None else int(failed.delay * 1000)
        return [
            self._node.name,
            held.entry,
            held.number_of(failed.id),
            len(held.bits),
            failed.id,
            failed.failure.attempts,
            to_json(held.failed(failed.id, failed.failure)),
            delay,
            self._dead_letters,
        ]

    # Heartbeats, and retries that are due

    def _beat(self) -> None:
        self._next_beat = monotonic() + self._heartbeats.interval
        next_due = self._heartbeats.beat(self._link)
        if next_due is not None:
            self._set_due(next_due)

    def _set_due(self, milliseconds: int) -> None:
        self._next_due = None if milliseconds < 0 else monotonic() + milliseconds / 1000

    def _append_due(self) -> None:
        self._set_due(self._link.run(DUE))

    def _leave(self) -> None:
        """Save what there is, and give back the rest."""
        try:
            self._save()
            while not self._link.run(LEAVE, self._node.name):
                pass
        except EngineAway as error:
            if unsaved := self._in_flight.unsaved:
                self._logger.error(
                    "%d results of handled events could not be saved (%s): these events will be "
                    "handled again",
                    unsaved,
                    error,
                )
        finally:
            self._link.close()
            with self.saved:
                self.saved.notify_all()
