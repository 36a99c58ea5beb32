"""The queue of many daemons: every accepted event is in the engine, and any of them handles it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ...exceptions import StartError, Unavailable
from ...runtime.clock import monotonic
from ...runtime.forks import ForkFlag
from ...types import Problem
from ..bounded import Bounded
from ..entry import Batch, Entry, FailedAttempt, Loop, Refusal
from ..waiting import Waiting
from .address import parse
from .early import EarlyPuts
from .engine import Engine, EngineAway, EngineRefuses
from .engine_facts import EngineFacts
from .failed import EngineFailures
from .faults import KEEPER, EngineFaults
from .fetcher import Fetcher
from .heartbeats import Heartbeats
from .in_flight import Failed, InFlight
from .keeper import Keeper
from .node import Node
from .put import CONFIRM_TIMEOUT, Replicas
from .puts import Puts
from .view import View

LOOP_TIMEOUT = CONFIRM_TIMEOUT + 5.0
"""Seconds that a thread waits for the loop to tell it what the engine says."""
STALE_POLL = 0.1
"""Seconds between two looks whether this node may hand out what it holds."""


class SharedQueue(Bounded):
    """A first-in-first-out queue in an engine, which many daemons share.

    address: of the engine; name: of the daemons; size: the most events that may wait; ack_batch:
    the most results of handlers that the engine need not have; timeout: seconds after which a node
    without heartbeats is dead; replicas, on_disk: see `Replicas`; dead_letters: the most that are
    kept; changed: called when there may be a new problem.
    Raises StartError for an address, a login or a layout that can't be used.
    """

    is_durable = True

    def __init__(
        self,
        address: str,
        logger: logging.Logger,
        *,
        name: str,
        size: int = 100_000,
        ack_batch: int = 100,
        timeout: float = 10.0,
        replicas: int = 0,
        on_disk: bool = False,
        dead_letters: int = 10_000,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(size, Waiting(lambda entry: entry, lambda: self._fetcher.ran_dry()))
        parsed = parse(address)
        self._ack_batch = ack_batch
        self._forked = ForkFlag()
        self._closing = threading.Event()
        self._view = View()
        self._node = node = Node(timeout)
        self._in_flight = in_flight = InFlight()
        engine = Engine(parsed, parsed.name or name, node.name)
        self._faults = faults = EngineFaults(engine.shown, logger, changed)
        needed = Replicas(replicas, on_disk)
        self._facts = EngineFacts(engine, faults, logger, needed)
        self.failed_events = EngineFailures(engine)
        told = (lambda: self.size, self._counted, self._added)
        self._puts = Puts(engine, faults, needed, logger, *told)
        self._early = EarlyPuts(self._puts)
        self._fetcher = Fetcher(
            engine,
            node,
            in_flight,
            self._waiting,
            faults,
            logger,
            self._save_soon,
            lambda: self.with_meta,
            lambda event, failure: self.gave_up(event, failure),
        )
        heartbeats = Heartbeats(
            *(engine, node, in_flight, self._waiting, self._fetcher, faults, logger),
            *(timeout, self._about, self._viewed),
        )
        self._keeper = Keeper(
            engine,
            node,
            in_flight,
            self._fetcher,
            heartbeats,
            faults,
            self._facts,
            logger,
            ack_batch=ack_batch,
            dead_letters=dead_letters,
            counted=self._counted,
        )
        self._begin()

    def _begin(self) -> None:
        try:
            self._keeper.first_contact()
        except (EngineRefuses, StartError) as error:
            self._keeper.close()
            if isinstance(error, StartError):
                raise
            address = self._facts.shown["address"]
            raise StartError(f"the event queue's engine {address} refuses: {error}") from None
        # It may come later than this daemon.
        except EngineAway as error:
            self._faults.away(error, KEEPER)

    def start(self) -> None:
        self._fetcher.start()
        self._keeper.start()

    def use_loop(self, loop: Loop) -> None:
        """Put events on this loop."""
        self._puts.use_loop(loop)
        pacing = self._fetcher.pacing
        pacing.yields_to = lambda: loop.busy if self._view.waiting < self.size / 2 else None

    def close(self) -> None:
        """Hand out nothing more; waiting events stay in the engine."""
        self._closing.set()
        self._waiting.close(drain=False)
        self._fetcher.request_stop()

    def request_stop(self) -> None:
        """Save the results, and give back what this node holds."""
        self.close()
        self._puts.close()

    def join(self, timeout: float) -> bool:
        until = monotonic() + timeout
        # In this order: what it fetches last is given back, too.
        self._fetcher.join(timeout)
        self._keeper.request_stop()
        self._keeper.join(max(0.0, until - monotonic()))
        self._keeper.leave_unstarted()
        for thread in self._puts.threads():
            thread.join(max(0.0, until - monotonic()))
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        own = [*self._fetcher.running_threads(), *self._keeper.running_threads()]
        return own + self._puts.threads()

    # Putting

    def __len__(self) -> int:
        return max(0, self._view.waiting - self._in_hand())

    def _in_hand(self) -> int:
        """Events that handlers have taken and the engine still counts."""
        return self.taken - self._in_flight.saved

    def put_later(self, batch: Batch, done: Callable[[Refusal | None], object]) -> None:
        if self._forked.is_child:
            done(Unavailable("A forked child can't put events on a shared queue"))
        else:
            self._puts.add(batch, done)

    def put_many(self, batch: Batch) -> None:
        """Put all events or none, and return once the engine has confirmed them; raises
        Unavailable, or BatchTooLarge if they never fit."""
        if self._puts.is_on_loop:
            # A log handler, for instance, that puts an event for each logged error.
            raise Unavailable("This thread is the one that puts events on the queue")
        settled = threading.Event()
        refusals: list[Refusal | None] = []

        def done(refusal: Refusal | None) -> None:
            refusals.append(refusal)
            settled.set()

        self.put_later(batch, done)
        if not settled.wait(LOOP_TIMEOUT):
            raise Unavailable("The event queue doesn't answer")
        if (refusal := refusals[0]) is not None:
            raise refusal

    def put_some(self, batch: Batch) -> tuple[int, Unavailable | None]:
        """Put the first events, as many as there is room for; returns how many, and the refusal of
        the others."""
        count = len(batch.events)
        fits, refusal = self._room_for_some(batch)
        if not fits:
            return 0, refusal
        try:
            self.put_many(batch if fits == count else batch.part(0, fits))
        except Unavailable as error:
            return 0, error
        return fits, refusal

    def put_early(self, batch: Batch) -> None:
        """Put events once there is a loop, and the engine is there and has room; returns at
        once."""
        self._early.add(batch)

    def _added(self, count: int) -> None:
        self.accepted += count

    def _counted(self, waiting: int) -> None:
        self._view = self._view._replace(waiting=waiting)

    # Taking

    def get(self) -> Any:
        while True:
            entry = self._waiting.get()
            if self._mine([entry]):
                return entry

    def get_batch(self, limit: int, linger: float) -> list[Any]:
        while True:
            if mine := self._mine(self._waiting.get_batch(limit, linger)):
                return mine

    def _mine(self, entries: list[Any]) -> list[Any]:
        """Those that are still this node's to handle, once it knows."""
        began, holds = 0.0, self._in_flight.holds_event
        while True:
            mine = [entry for entry in entries if holds(entry.id)]
            if not mine or self._node.is_fresh:
                break
            began = began or monotonic()
            # Others may have taken over: this node may have been suspended, or cut off.
            if self._closing.wait(STALE_POLL):
                mine = []
                break
        if began:
            self._waiting.idle.seconds += monotonic() - began
        if len(mine) < len(entries):
            self._waiting.forget(len(entries) - len(mine))
        return mine

    def resume(self) -> None:
        """Hand out events again."""
        super().resume()
        self._fetcher.wake()

    # Results

    def done(self, entries: Sequence[Entry]) -> None:
        """Have handled events removed from the engine soon; waits once `ack_batch` results are
        unsaved, unless the engine is away."""
        self._in_flight.handled += entries
        self._save_soon()

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> bool:
        """Have an event retried in `delay` seconds, or kept as a dead letter; returns whether it is
        a dead letter."""
        self._in_flight.failures.append(Failed(entry.id, failure, delay))
        self._save_soon()
        return delay is None

    def _save_soon(self) -> None:
        if not self._keeper.is_wanted:
            self._keeper.save_soon()
        if self._in_flight.unsaved >= 2 * self._ack_batch:
            self._wait_until_saved(self._ack_batch)

    def _wait_until_saved(self, most: int) -> None:
        began = monotonic()
        with self._keeper.saved:
            while (
                self._in_flight.unsaved >= most
                and not self._closing.is_set()
                and not self._faults.away_for(KEEPER)
            ):
                self._keeper.saved.wait(1.0)
        self._waiting.idle.seconds += monotonic() - began

    def flush(self) -> bool:
        """Have all results saved that there are now; returns False if the queue is closed
        before."""
        keeper, wanted = self._keeper, self._keeper.next_save
        while self._in_flight.unsaved and keeper.saves < wanted:
            keeper.save_soon()
            with keeper.saved:
                keeper.saved.wait(STALE_POLL)
            if self._closing.is_set():
                return not self._in_flight.unsaved
        return True

    # Status

    @property
    def outage(self) -> str:
        """Why nothing can be put now, "" if it can."""
        return self._faults.outage

    def problems(self) -> list[Problem]:
        """For the health check."""
        parts = (self._fetcher, self._keeper, self._puts, self._faults)
        return [problem for part in parts for problem in part.problems()]

    def lost_at_exit(self) -> int:
        """Those that the engine doesn't have yet; all others are there."""
        return self._early.unconfirmed

    def counters(self, *, quick: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """Counts of this node's received events, and of all that wait, as of the last heartbeat;
        with the engine and the nodes."""
        view = self._view
        return {
            "received": self.accepted,
            "waiting": len(self),
            "retrying": view.retrying,
            "retried": view.retried,
            "dead": view.dead,
            "dead_now": view.dead_now,
            "discarded": view.discarded,
            "oldest_age": view.oldest_age,
            "engine": {"up": not self._faults.is_away, **self._facts.shown},
            "node": self._node.name,
            "nodes": list(view.nodes),
        }

    def _viewed(self, view: View) -> None:
        self._view = view
        self._early.put_again()

    def _about(self) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "held": self._in_flight.open,
            "in_work": max(0, self._in_hand() - self._in_flight.unsaved),
        }
