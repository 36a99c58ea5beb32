"""The heartbeat of one thread: noticing that it has stalled, and that it has recovered."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from .clock import monotonic

GRID = 0.25
"""Seconds: deadlines are rounded up to a multiple, so that one wake-up serves many heartbeats."""


class Heartbeat:
    """Records when a thread was last known to be alive.

    timeout: seconds without a beat after which the thread is stalled, None for never; stalled,
    recovered: called by `run_due` once on entering and on leaving that state, with the seconds
    without a beat; wake: called to have `run_due` called soon; clock: monotonic seconds.
    """

    def __init__(
        self,
        timeout: float | None,
        stalled: Callable[[float], None],
        recovered: Callable[[float], None],
        wake: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._timeout = math.inf if timeout is None else timeout
        self._on_stalled = stalled
        self._on_recovered = recovered
        self._wake = wake
        self._clock = clock
        self._paused = False
        self._reported = False
        self._last = self._stalled_since = clock()

    def beat(self) -> None:
        """Record that the thread is alive."""
        self._last = self._clock()
        if self._reported:
            self._wake()

    def pause(self) -> None:
        """Beat, and expect no more beats until `resume`: the thread has nothing to do."""
        self._paused = True
        self.beat()

    def resume(self) -> None:
        """Beat, and expect beats again."""
        self.beat()
        self._paused = False

    def age(self) -> float:
        """Seconds since the last beat; 0 while paused."""
        return 0.0 if self._paused else max(0.0, self._clock() - self._last)

    @property
    def is_stalled(self) -> bool:
        """Whether the timeout has passed, reported already or not."""
        return self.age() > self._timeout

    def run_due(self, now: float) -> float:
        """Report a change of state; returns when to call this again."""
        age = self.age()
        if age > self._timeout:
            if not self._reported:
                self._reported, self._stalled_since = True, now - age
                self._on_stalled(age)
            # A beat wakes us, unless it came before `_reported` was set.
            return math.inf if self.is_stalled else now
        if self._reported:
            self._reported = False
            self._on_recovered(now - self._stalled_since)
        if self._timeout == math.inf:
            return math.inf
        return (math.floor((now - age + self._timeout) / GRID) + 1) * GRID


class ShutdownEvent(threading.Event):
    """Set when a slave is to stop. The slave's own `is_set()` and `wait()` count as heartbeats.

    on_set: called once it is set.
    """

    def __init__(self, heartbeat: Heartbeat, on_set: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._heartbeat = heartbeat
        self._on_set = on_set
        self._owner = 0

    def bind(self) -> None:
        """Make the calling thread the slave's; other threads' calls are no heartbeats."""
        self._owner = threading.get_ident()

    def set(self) -> None:
        super().set()
        if self._on_set is not None:
            self._on_set()

    def is_set(self) -> bool:
        if threading.get_ident() == self._owner:
            self._heartbeat.beat()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        if threading.get_ident() != self._owner:
            return super().wait(timeout)
        self._heartbeat.pause()
        try:
            return super().wait(timeout)
        finally:
            self._heartbeat.resume()
