"""Connects to the engine for the loop, which must not wait."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from redis.connection import Connection

from ...runtime.clock import monotonic
from ...runtime.part import ThreadedPart
from .engine import Engine
from .faults import PUTS, EngineFaults

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.4
"""Seconds between two attempts; service is to resume within one second of the engine."""
SETTLED = 5.0
"""Seconds for which a connection must last for the next pause to be the first one again."""


class BackOff:
    """Growing pauses with jitter, so that a fleet of daemons doesn't come back at once."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def reset(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self) -> float:
        """Seconds to wait now."""
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)


class Connector(ThreadedPart):
    """Makes a connection when one is asked for; made: called, on its thread, once there is one."""

    def __init__(self, engine: Engine, faults: EngineFaults, made: Callable[[], None]) -> None:
        super().__init__("event queue connector", "the event queue's connector")
        self._engine = engine
        self._faults = faults
        self._made = made
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._wanted.set()
        self._ready: Connection | None = None

    def request(self) -> None:
        """Ask for a connection, because the last one has ended."""
        self._wanted.set()

    def take(self) -> Connection | None:
        """The connection that was made, if there is one."""
        with self._lock:
            ready, self._ready = self._ready, None
            return ready

    def request_stop(self) -> None:
        super().request_stop()
        self._wanted.set()

    def _run(self) -> None:
        back_off, made_at = BackOff(), -SETTLED
        while True:
            self._wanted.wait()
            if monotonic() - made_at >= SETTLED:
                back_off.reset()
            elif self._stop_requested.wait(back_off.next()):
                pass
            if self._stop_requested.is_set():
                if (left := self.take()) is not None:
                    left.disconnect()
                return
            made_at = self._connect()

    def _connect(self) -> float:
        try:
            connection = self._engine.connect()
        # Whatever it is: nothing may end this thread.
        except Exception as error:
            self._faults.away(error, PUTS)
            return monotonic()
        self._wanted.clear()
        if self._stop_requested.is_set():
            # It was set before, and must not be missed.
            self._wanted.set()
        with self._lock:
            self._ready = connection
        self._made()
        return monotonic()
