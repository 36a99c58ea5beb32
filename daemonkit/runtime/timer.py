"""The thread that looks after what has to be done, or noticed, at a certain time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from ..types import Problem, thread_died

LONGEST_SLEEP = 3600.0
AFTER_TROUBLE = 1.0
"""Seconds before it goes on when it has failed."""

RunDue = Callable[[float], float]
"""Takes monotonic seconds, does what is due, and returns when it wants to be called again."""


class Timer:
    """Calls functions when they are due; it sleeps until the first one is, or somebody wakes it.

    name: also the thread's.
    """

    def __init__(self, logger: logging.Logger, name: str = "watch") -> None:
        self.name = name
        self._logger = logger
        self._tends: list[RunDue] = []
        self._wakes = threading.Condition()
        self._woken = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def add(self, run_due: RunDue) -> None:
        """Have `tend` called, from the start on."""
        self._tends.append(run_due)

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        with self._wakes:
            self._closed = True
            self._wakes.notify()

    def join(self, timeout: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        return thread_died("the watch", self._thread, stopping=self._closed)

    def wake(self) -> None:
        """Have everything called soon; never blocks."""
        with self._wakes:
            self._woken = True
            self._wakes.notify()

    def _run(self) -> None:
        due = 0.0
        while self._sleep_until(due):
            now = time.monotonic()
            try:
                due = min((run_due(now) for run_due in self._tends), default=math.inf)
            # Nothing may end this thread while there is something to look after.
            except Exception:
                self._logger.exception("The thread %s failed and goes on", self.name)
                due = now + AFTER_TROUBLE

    def _sleep_until(self, due: float) -> bool:
        """Wait until `due` or a wake; False when there is nothing more to do."""
        with self._wakes:
            while not self._woken and not self._closed:
                left = due - time.monotonic()
                if left <= 0:
                    break
                self._wakes.wait(min(left, LONGEST_SLEEP))
            self._woken = False
            return not self._closed
