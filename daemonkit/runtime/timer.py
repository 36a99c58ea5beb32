"""One thread that calls functions when they are due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .clock import kernel_timeout, monotonic
from .failures import FailureLog
from .part import ThreadedPart

AFTER_FAILURE = 1.0
"""Seconds until the functions are called again after one has raised."""

RunDue = Callable[[float], float]
"""Takes monotonic seconds, does what is due, and returns when to call it again."""


class Timer(ThreadedPart):
    """Calls all its functions when the first of them is due, or after `wake`.

    name: also the thread's; title: names the part in a problem's text.
    """

    def __init__(
        self, logger: logging.Logger, name: str = "timer", title: str = "the timer"
    ) -> None:
        super().__init__(name, title)
        self._failures = FailureLog(logger)
        self._watched = [self._failures]
        self._functions: list[RunDue] = []
        self._wakes = threading.Condition()
        self._woken = False

    def add(self, run_due: RunDue) -> None:
        """Add a function; it is first called at the start."""
        self._functions.append(run_due)

    def watch(self, *logs: FailureLog) -> None:
        """Log what repeats once it is due, and the rest at the end."""
        for failures in logs:
            failures.wake = self.wake
            self._watched.append(failures)
            self.add(failures.run_due)

    def join(self, timeout: float) -> bool:
        stopped = super().join(timeout)
        for failures in self._watched:
            failures.flush()
        return stopped

    def request_stop(self) -> None:
        with self._wakes:
            super().request_stop()
            self._wakes.notify()

    def wake(self) -> None:
        """Have every function called soon; never blocks."""
        with self._wakes:
            self._woken = True
            self._wakes.notify()

    def _run(self) -> None:
        due = 0.0
        while self._sleep_until(due):
            now = monotonic()
            functions = [*self._functions, self._failures.run_due]
            due = min(self._call(run_due, now) for run_due in functions)

    def _call(self, run_due: RunDue, now: float) -> float:
        try:
            return run_due(now)
        # Neither the thread nor the other functions may suffer from what one raises.
        except Exception as error:
            self._failures.log(error, f"The thread {self.name} failed", then=" and continues")
            return now + AFTER_FAILURE

    def _sleep_until(self, due: float) -> bool:
        """Wait until `due` or a wake; False when the thread is to stop."""
        with self._wakes:
            while not self._woken and not self._stop_requested.is_set():
                left = due - monotonic()
                if left <= 0:
                    break
                self._wakes.wait(kernel_timeout(left))
            self._woken = False
            return not self._stop_requested.is_set()
