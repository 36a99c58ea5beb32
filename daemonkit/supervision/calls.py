"""The calls of a periodic slave: when they are due, paused or asked for, and how the last went."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..runtime.clock import kernel_timeout, monotonic
from ..text import timestamp
from ..types import Pause
from .schedule import Schedule


class Calls:
    """The calls of one periodic slave, over all its runs.

    every: seconds between the starts of two calls; clock: monotonic seconds.
    """

    def __init__(self, every: float, clock: Callable[[], float] = monotonic) -> None:
        self.every = every
        self.paused: Pause | None = None
        self.last: datetime | None = None
        self.last_success: datetime | None = None
        self.last_duration: float | None = None
        """Of the last call, in seconds."""
        self._clock = clock
        self._schedule = Schedule(every, clock)
        self._changed = threading.Condition(threading.RLock())
        self._is_woken = False
        self._is_requested = False
        self._is_calling = self._is_scheduled = False
        self._began_at = 0.0
        self._wake_loop: Callable[[], None] = _nothing

    # By the slave's thread

    def begin_run(self) -> None:
        """A run begins, whose first call is due at once."""
        with self._changed:
            self._schedule = Schedule(self.every, self._clock)
            self._wake_loop = _nothing
            # The run before may have been cancelled in a call.
            self._is_calling = self._is_scheduled = False

    def use_loop(self, wake: Callable[[], None]) -> None:
        """The slave waits in an event loop; wake: ends the wait."""
        with self._changed:
            self._wake_loop = wake

    def delay(self) -> float:
        """Seconds until the next call, infinity while paused."""
        with self._changed:
            if self._is_requested:
                return 0.0
            return math.inf if self.paused else self._schedule.delay()

    def begin_call(self) -> None:
        """A call begins."""
        with self._changed:
            self._is_scheduled = not self.paused and self._schedule.delay() == 0
            self._is_requested, self._is_calling = False, True
        self.last, self._began_at = datetime.now(), self._clock()

    def end_call(self, *, succeeded: bool) -> None:
        """The call has ended; the next one isn't due earlier because of one that was asked for."""
        self.last_duration = self._clock() - self._began_at
        if succeeded:
            self.last_success = datetime.now()
        with self._changed:
            self._is_calling = False
            if self._is_scheduled:
                self._schedule.advance()

    def sleep(self, seconds: float) -> None:
        """Wait until `wake`, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_woken, kernel_timeout(seconds))
            self._is_woken = False

    # By anyone

    def wake(self) -> None:
        """End the wait for the next call, to look again when that is."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()
            self._wake_loop()

    def request(self) -> bool:
        """Have the slave called once, even if it is paused: now, or after the call that runs;
        returns whether none does."""
        with self._changed:
            self._is_requested = True
            self.wake()
            return not self._is_calling

    def pause(self, by: str) -> bool:
        """Suspend the calls; returns whether they weren't suspended already."""
        with self._changed:
            is_new = self.paused is None
            self.paused = self.paused or Pause(datetime.now(), by)
            self.wake()
            return is_new

    def resume(self) -> bool:
        """Make the calls again that are due from now on; returns whether they were suspended."""
        with self._changed:
            was_paused, self.paused = self.paused is not None, None
            self._schedule.skip_missed()
            self.wake()
            return was_paused

    def shown(self, *, is_running: bool) -> dict[str, Any]:
        """What `/status` shows."""
        delay = math.inf
        if is_running:
            with self._changed:
                is_in_turn = self._is_calling and self._is_scheduled and not self.paused
                delay = self._schedule.delay(1) if is_in_turn else self.delay()
        return {
            "every": self.every,
            "paused": self.paused is not None,
            "next_call_in": None if delay == math.inf else round(delay, 3),
            "last_call": timestamp(self.last),
            "last_success": timestamp(self.last_success),
            "last_duration": None if self.last_duration is None else round(self.last_duration, 6),
        }


def _nothing() -> None:
    pass
