"""Puts events on the shared queue: on the HTTP loop, one numbered put at a time.

A put whose answer was lost is sent again under its number, and the engine knows whether it has it.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import hiredis
from redis.connection import Connection

from ...exceptions import BatchTooLarge, QueueFull, Unavailable
from ...types import Problem
from ..bounded import daemon_stopping
from ..durable.group_commit import merged
from ..durable.rows import to_row
from ..entry import Batch, Loop, Refusal
from .connector import Connector
from .engine import Engine, EngineAway
from .faults import EngineFaults
from .put import (
    BY_SHA,
    BY_TEXT,
    CONFIRM_TIMEOUT,
    Argument,
    Done,
    Flight,
    Put,
    Replicas,
    packed,
    put_command,
    units_of,
)
from .repairs import REMEMBERED, Repairs
from .stream_socket import StreamSocket

MAX_UNSENT = 64 * 1024 * 1024
"""Bytes of events that may wait to be put."""
MAX_TOGETHER = 4000
"""Events that are put together."""
GRACE = 1.0
"""Seconds for which puts wait for an engine that is away; then they are refused at once."""


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
        self._lock = threading.Lock()
        """For what waits: it is added by any thread, and sent by the loop."""
        self._waiting: deque[Put] = deque()
        self._unsent = 0
        self._flight: Flight | None = None
        self._number = 0
        self._repairs = Repairs(engine.keys, logger, self._go_on, self._repair_failed)
        self._socket: StreamSocket | None = None
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
        refusal = None if patient else self._refusal(put)
        if refusal is not None:
            done(refusal)
            return
        with self._lock:
            self._waiting.append(put)
            self._unsent += put.size
        if self._loop is not None and self._loop.is_current_thread:
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
        if put.count > (size := self._size()):
            return BatchTooLarge(
                f"{put.count} events at once are more than the queue holds (queue_size is {size})"
            )
        if self._faults.away_for() > GRACE:
            return self._faults.refusal()
        if self._unsent + put.size > MAX_UNSENT:
            return Unavailable("The event queue's engine is too slow")
        return None

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.wake()

    # On the loop

    def _run_due(self, now: float) -> float:
        """Do what is due; returns when something is due again, in monotonic seconds."""
        if self._closed:
            self._end()
            return math.inf
        if self._socket is None and (connection := self._connector.take()) is not None:
            self._use(connection)
        if now >= self._next_deadline():
            self._refuse_late(now)
        self._send()
        return self._next_deadline()

    def _next_deadline(self) -> float:
        """When the oldest put is late; all have the same time, so it is the first one."""
        flying = () if self._flight is None else self._flight.puts()
        with self._lock:
            for put in chain(flying, self._waiting):
                if put.done is not None and put.deadline < math.inf:
                    return put.deadline
        return math.inf

    def _end(self) -> None:
        self._disconnect()
        with self._lock:
            waiting, self._unsent = list(self._waiting), 0
            self._waiting.clear()
        flight, self._flight = self._flight, None
        for put in [*(flight.puts() if flight else ()), *waiting]:
            put.settle(daemon_stopping())

    def _refuse_late(self, now: float) -> None:
        if self._flight is not None:
            self._settle((p for p in self._flight.puts() if p.deadline <= now), self._unconfirmed())
            if all(put.done is None for put in self._flight.puts()):
                self._flight = None
                # What comes on this connection later is no answer to the next put.
                self._broken()
        with self._lock:
            late = [put for put in self._waiting if put.deadline <= now]
            for put in late:
                self._waiting.remove(put)
                self._unsent -= put.size
        self._settle(late, self._unconfirmed())

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
        self._repairs.begin(self._socket)

    def _go_on(self) -> None:
        """The engine has all that it had confirmed: send what was under way, and what waits."""
        if self._flight is not None:
            # Under the same number: the engine says whether it has it.
            self._fly(self._flight)
        else:
            self._send()

    def _send(self) -> None:
        is_busy = self._flight is not None or self._repairs.is_busy
        if is_busy or self._socket is None or not self._waiting:
            return
        with self._lock:
            puts = self._next()
        try:
            self._flight = self._made_flight(puts)
        except BaseException:
            self._settle(puts, Unavailable("The event can't be stored"))
            raise
        self._fly(self._flight)

    def _made_flight(self, puts: Sequence[Put]) -> Flight:
        units = units_of(puts)
        self._number += 1
        head: list[Argument] = [self._number, int(REMEMBERED * 1000), self._size()]
        tails: list[list[Argument]] = []
        for unit in units:
            rows = [to_row(batch, 0) for batch in merged(unit)]
            tail: list[Argument] = [len(rows), sum(row.events for row in rows)]
            for row in rows:
                tail += [row.events, row.source, row.peers or "", row.lines]
            tails.append(tail)
        return Flight(head, units, tails)

    def _fly(self, flight: Flight, how: tuple[str, str] = BY_SHA) -> None:
        assert self._socket is not None
        flight.outcome = None
        command = put_command(how, self._keys, flight.arguments())
        if self._replicas.needed:
            command += packed(*self._replicas.command())
        self._socket.send(command)

    def _next(self) -> list[Put]:
        puts: list[Put] = []
        count = 0
        while self._waiting and (not puts or count + self._waiting[0].count <= MAX_TOGETHER):
            put = self._waiting.popleft()
            self._unsent -= put.size
            count += put.count
            puts.append(put)
        return puts

    def _received(self, answer: object) -> None:
        if self._repairs.is_busy:
            self._repairs.received(answer)
            return
        flight = self._flight
        if flight is None:
            return
        if isinstance(answer, hiredis.ReplyError):
            self._refused(flight, str(answer))
        elif flight.outcome is None and self._replicas.needed:
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
                self._flight = None
                refusal = self._faults.too_few_replicas(confirmed, self._replicas.needed)
                self._settle(flight.puts(), refusal)

    def _refused(self, flight: Flight, text: str) -> None:
        code = text.partition(" ")[0]
        if code == "NOSCRIPT":
            # It was restarted, or its scripts were flushed.
            self._skip_wait()
            self._fly(flight, BY_TEXT)
            return
        self._flight = None
        if code == "OOM":
            self._skip_wait()
            self._settle(flight.puts(), self._faults.full())
        else:
            # Of a replica, for instance, that was the primary.
            self._faults.away(EngineAway(text))
            self._broken()
            self._settle(flight.puts(), self._faults.refusal())

    def _confirmed(self, flight: Flight, outcome: bytes) -> None:
        flags, _, waiting = outcome.partition(b" ")
        self._flight = None
        self._counted(int(waiting))
        self._faults.stored()
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
        with self._lock:
            self._waiting.extendleft(reversed(again))
            self._unsent += sum(put.size for put in again)
        if stored:
            self._repairs.keep(flight.head, stored)
        self._added(sum(put.count for put in accepted if put.done is not None))
        # First, so that the engine works while the answers are sent.
        self._send()
        self._settle(accepted, None)
        if refused:
            self._settle(refused, QueueFull(f"The event queue is full ({self._size()} events)"))

    def _repair_failed(self, text: str) -> None:
        self._faults.away(EngineAway(text))
        self._broken()

    def _skip_wait(self) -> None:
        """The answer to a WAIT, which was sent with the put, says nothing."""
        assert self._socket is not None
        if self._replicas.needed:
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
