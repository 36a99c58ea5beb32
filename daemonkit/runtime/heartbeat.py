"""Noticing that something which must show life now and then doesn't, and that it does again."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

GRID = 0.25
"""Seconds: a stall is told at the next multiple, so that many are looked at in one go."""


class Heartbeat:
    """When something last showed life.

    timeout: seconds without life after which it is stalled, None to never call it so; stalled and
    recovered: called once each time it enters and leaves that state, with the seconds it was
    silent, by the thread that calls `tend`; wake: called to have `tend` called soon; clock:
    monotonic seconds.
    """

    def __init__(
        self,
        timeout: float | None,
        stalled: Callable[[float], None],
        recovered: Callable[[float], None],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = math.inf if timeout is None else timeout
        self._on_stalled = stalled
        self._on_recovered = recovered
        self._wake = wake
        self._clock = clock
        self._resting = False
        self._told = False
        self._last = self._silent_since = clock()

    def beat(self) -> None:
        """Show life."""
        self._last = self._clock()
        if self._told:
            self._wake()

    def rest(self) -> None:
        """Show life, and be excused from it until `work`: there is nothing to do."""
        self._resting = True
        self.beat()

    def work(self) -> None:
        """Show life, and begin to do something."""
        self.beat()
        self._resting = False

    def age(self) -> float:
        """Seconds since it last showed life."""
        return 0.0 if self._resting else max(0.0, self._clock() - self._last)

    @property
    def is_stalled(self) -> bool:
        """Whether it is silent for too long now, told already or not."""
        return self.age() > self._timeout

    def run_due(self, now: float) -> float:
        """Tell what has changed; returns when to call this again."""
        age = self.age()
        if age > self._timeout:
            if not self._told:
                self._told, self._silent_since = True, now - age
                self._on_stalled(age)
            # A beat wakes us, unless it came before it could know that we have told.
            return math.inf if self.is_stalled else now
        if self._told:
            self._told = False
            self._on_recovered(now - self._silent_since)
        if self._timeout == math.inf:
            return math.inf
        return (math.floor((now - age + self._timeout) / GRID) + 1) * GRID


class ShutdownEvent(threading.Event):
    """Set when a slave is to stop. A slave that looks at it, or waits for it, shows life."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__()
        self._heartbeat = heartbeat
        self._owner = 0

    def own(self) -> None:
        """Tell that the calling thread is the slave's; only it can show the slave's life."""
        self._owner = threading.get_ident()

    def is_set(self) -> bool:
        if threading.get_ident() == self._owner:
            self._heartbeat.beat()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        if threading.get_ident() != self._owner:
            return super().wait(timeout)
        self._heartbeat.rest()
        try:
            return super().wait(timeout)
        finally:
            self._heartbeat.work()
