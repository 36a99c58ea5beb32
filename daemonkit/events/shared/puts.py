"""Puts events on the shared queue: on the HTTP loop, one numbered put at a time.

A put whose answer was lost is sent again under its number, and the engine knows whether it has it.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence

import hiredis
from redis.connection import Connection

from ...exceptions import BatchTooLarge, QueueFull, Unavailable
from ...runtime.clock import monotonic
from ...types import Problem
from ..bounded import daemon_stopping
from ..entry import Batch, Loop, Refusal
from .backlog import Backlog
from .connector import Connector
from .engine import Engine, EngineAway
from .faults import PUTS, EngineFaults
from .put import (
    BY_SHA,
    BY_TEXT,
    CONFIRM_TIMEOUT,
    Argument,
    Done,
    Flight,
    Put,
    Replicas,
    flight_of,
    packed,
    put_command,
)
from .repairs import REMEMBERED, Repairs
from .stream_socket import StreamSocket

GRACE = 1.0
"""Seconds for which puts wait for an engine that is away; then they are refused at once."""
IDLE, PROBE_TIMEOUT = 5.0, 2.0
"""Seconds without an answer after which an idle connection is tried, and for which that may take.
Nobody tells of a machine that has lost its power."""


class Puts:
    """The puts of this process, of any thread.

    size: returns the most events that may wait; counted: called with how many wait, as the engine
    says; added: called with how many were added; replicas: which must have a put.
    """

    def __init__(
        self,
        engine: Engine,
        faults: EngineFaults,
        replicas: Replicas,
        logger: logging.Logger,
        size: Callable[[], int],
        counted: Callable[[int], object],
        added: Callable[[int], object],
    ) -> None:
        self._faults = faults
        self._keys = engine.keys
        self._replicas = replicas
        self._size = size
        self._counted = counted
        self._added = added
        self._waiting = Backlog()
        self._flight: Flight | None = None
        self._number = 0
        self._repairs = Repairs(engine.keys, logger, self._go_on, self._repair_failed)
        self._socket: StreamSocket | None = None
        self._heard_at = 0.0
        """When the engine answered last on this connection, in monotonic seconds."""
        self._loop: Loop | None = None
        self._closed = False
        self._connector = Connector(engine, faults, self._wake)

    def use_loop(self, loop: Loop) -> None:
        """Put on this loop."""
        self._loop = loop
        loop.add_duty(self._run_due)
        self._connector.start()

    def close(self) -> None:
        """Refuse what waits, and everything from now on."""
        self._closed = True
        self._connector.request_stop()
        self._wake()

    def threads(self) -> list[threading.Thread]:
        """Those that run."""
        return self._connector.running_threads()

    def problems(self) -> list[Problem]:
        """For the health check."""
        return self._connector.problems()

    def add(self, batch: Batch, done: Done, *, patient: bool = False) -> None:
        """Put all events or none; patient: even if the engine takes long to come."""
        put = Put(batch, done)
        if patient:
            put.deadline = math.inf
        if not patient and (refusal := self._refusal(put)) is not None:
            done(refusal)
            return
        self._waiting.add(put)
        if self.is_on_loop:
            self._send()
        else:
            self._wake()

    @property
    def is_on_loop(self) -> bool:
        """Whether the calling thread is the one that puts."""
        return self._loop is not None and self._loop.is_current_thread

    def _refusal(self, put: Put) -> Refusal | None:
        if self._closed:
            return daemon_stopping()
        if (too_large := self.never_fits(put.count)) is not None:
            return too_large
        if self._faults.away_for(PUTS) > GRACE or self._faults.lacks_replicas:
            return self._faults.refusal()
        if self._waiting.is_full(put):
            return Unavailable("The event queue's engine is too slow")
        return None

    def never_fits(self, count: int) -> BatchTooLarge | None:
        """The refusal of more events at once than may wait."""
        if count <= (size := self._size()):
            return None
        return BatchTooLarge(
            f"{count} events at once are more than the queue holds (queue_size is {size})"
        )

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.wake()

    # On the loop

    def _run_due(self, now: float) -> float:
        """Do what is due; returns when something is due again, in monotonic seconds."""
        if self._closed:
            self._end()
            return math.inf
        if now >= self._next_deadline():
            self._refuse_late(now)
        if self._socket is None and (connection := self._connector.take()) is not None:
            self._use(connection)
        self._send()
        return min(self._next_deadline(), self._probe(now))

    def _probe(self, now: float) -> float:
        """Try a connection that is idle, and give up one that doesn't answer; returns when this is
        due again. Puts have their own deadlines."""
        flight = self._flight
        is_tried = self._repairs.is_busy or (flight is not None and flight.is_trial)
        if self._socket is None or (flight is not None and not is_tried):
            return math.inf
        if now >= self._heard_at + (PROBE_TIMEOUT if is_tried else IDLE):
            if is_tried:
                self._broken()
                return math.inf
            self._heard_at, is_tried = now, True
            self._repairs.begin(self._socket)
        return self._heard_at + (PROBE_TIMEOUT if is_tried else IDLE)

    def _next_deadline(self) -> float:
        return self._waiting.next_deadline(self._flight.puts() if self._flight else iter(()))

    def _end(self) -> None:
        self._disconnect()
        flight, self._flight = self._flight, None
        if flight is not None:
            self._settle(flight.puts(), daemon_stopping())
        self._settle(self._waiting.take_all(), daemon_stopping())

    def _refuse_late(self, now: float) -> None:
        if self._flight is not None:
            self._settle((p for p in self._flight.puts() if p.deadline <= now), self._unconfirmed())
            if not self._flight.is_trial and all(put.done is None for put in self._flight.puts()):
                self._flight = None
                # What comes on this connection later is no answer to the next put.
                if self._socket is not None:
                    self._broken()
        self._settle(self._waiting.take_late(now), self._unconfirmed())

    def _unconfirmed(self) -> Unavailable:
        return Unavailable(
            f"The event queue's engine hasn't confirmed it within {CONFIRM_TIMEOUT:g} s"
        )

    def _settle(self, puts: Iterable[Put], refusal: Refusal | None) -> None:
        for put in puts:
            put.settle(refusal)

    def _use(self, connection: Connection) -> None:
        assert self._loop is not None
        self._socket = StreamSocket(connection, self._loop, self._received, self._broken)
        self._heard_at = monotonic()
        self._repairs.begin(self._socket)

    def _go_on(self) -> None:
        """The engine has all that it had confirmed: send what was under way, and what waits."""
        if self._flight is not None:
            # Under the same number: the engine says whether it has it.
            self._fly(self._flight)
        elif self._faults.away_for(PUTS):
            # Whether it can store anything: a replica can't, that was the primary.
            self._take_off(())
        else:
            self._send()

    def _send(self) -> None:
        is_busy = self._flight is not None or self._repairs.is_busy
        if is_busy or self._socket is None or not self._waiting:
            return
        puts = self._waiting.take()
        try:
            self._take_off(puts)
        except BaseException:
            self._settle(puts, Unavailable("The event can't be stored"))
            raise

    def _take_off(self, puts: Sequence[Put]) -> None:
        self._number += 1
        self._flight = flight_of(puts, self._number, REMEMBERED, self._size())
        self._fly(self._flight)

    def _fly(self, flight: Flight, how: tuple[str, str] = BY_SHA) -> None:
        assert self._socket is not None
        flight.outcome = None
        command = put_command(how, self._keys, flight.arguments())
        if self._needed(flight):
            command += packed(*self._replicas.command())
        self._socket.send(command)

    def _needed(self, flight: Flight) -> int:
        """How many replicas must have it."""
        return 0 if flight.is_trial else self._replicas.needed

    def _received(self, answer: object) -> None:
        self._heard_at = monotonic()
        if self._repairs.is_busy:
            self._repairs.received(answer)
            return
        flight = self._flight
        if flight is None:
            return
        if isinstance(answer, hiredis.ReplyError):
            self._refused(flight, str(answer))
        elif flight.outcome is None and self._needed(flight):
            assert isinstance(answer, bytes)
            flight.outcome = answer
        elif flight.outcome is None:
            assert isinstance(answer, bytes)
            self._confirmed(flight, answer)
        else:
            confirmed = self._replicas.confirmed(answer)
            if confirmed >= self._replicas.needed:
                self._confirmed(flight, flight.outcome)
            else:
                refusal = self._faults.too_few_replicas(confirmed, self._replicas.needed)
                self._only_stored(flight, refusal)

    def _only_stored(self, flight: Flight, refusal: Refusal) -> None:
        """The engine has it, but too few replicas do."""
        self._flight = None
        for put in flight.puts():
            # What nobody waits for would be put again.
            put.settle(None if put.deadline == math.inf else refusal)

    def _refused(self, flight: Flight, text: str) -> None:
        code = text.partition(" ")[0]
        if code == "NOSCRIPT":
            # It was restarted, or its scripts were flushed.
            self._skip_wait(flight)
            self._fly(flight, BY_TEXT)
            return
        self._flight = None
        if flight.outcome is not None:
            # No right to WAIT, for instance.
            self._faults.away(EngineAway(text), PUTS)
            self._broken()
            self._only_stored(flight, self._faults.refusal())
        elif code == "OOM":
            self._skip_wait(flight)
            self._faults.works(PUTS)
            self._settle(flight.puts(), self._faults.full())
        else:
            # Of a replica, for instance, that was the primary.
            self._faults.away(EngineAway(text), PUTS)
            self._broken()
            self._settle(flight.puts(), self._faults.refusal())

    def _confirmed(self, flight: Flight, outcome: bytes) -> None:
        flags, _, waiting = outcome.partition(b" ")
        self._flight = None
        self._counted(int(waiting))
        self._faults.stored(confirmed=not flight.is_trial)
        refused: list[Put] = []
        accepted: list[Put] = []
        again: list[Put] = []
        stored: list[list[Argument]] = []
        for unit, tail, flag in zip(flight.units, flight.tails, flags, strict=True):
            if flag == ord("1"):
                accepted += unit
                stored.append(tail)
            elif len(unit) == 1:
                refused += unit
            else:
                again += unit
        for put in again:
            put.is_alone = True
        self._waiting.put_back(again)
        if stored:
            self._repairs.keep(flight.head, stored)
        self._added(sum(put.count for put in accepted if put.done is not None))
        # First, so that the engine works while the answers are sent.
        self._send()
        self._settle(accepted, None)
        if refused:
            self._settle(refused, QueueFull(f"The event queue is full ({self._size()} events)"))

    def _repair_failed(self, text: str) -> None:
        self._faults.away(EngineAway(text), PUTS)
        self._broken()

    def _skip_wait(self, flight: Flight) -> None:
        """The answer to a WAIT, which was sent with the put, says nothing."""
        assert self._socket is not None
        if self._needed(flight):
            self._socket.skip(1)

    def _broken(self) -> None:
        self._disconnect()
        if not self._closed:
            self._connector.request()

    def _disconnect(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()
            self._repairs.note_break()
