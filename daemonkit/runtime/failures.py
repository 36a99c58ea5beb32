"""Logs exceptions; of those that repeat, only the first in full."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..system.log import log_safely
from ..text import error_text
from .clock import monotonic

REPEAT_INTERVAL = 60.0
"""Seconds between two lines about failures that repeat."""
MAX_LOCATIONS = 100
"""Locations whose failures are counted apart."""


class Location(NamedTuple):
    """What failed, with which exception, and the line of code that raised it."""

    what: str
    kind: type[BaseException]
    file: str
    line: int

    @classmethod
    def of(cls, error: BaseException, what: str) -> Location:
        trace, file, line = error.__traceback__, "", 0
        while trace is not None:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
            trace = trace.tb_next
        return cls(what, type(error), file, line)

    def __str__(self) -> str:
        return f" at {self.file}:{self.line}" if self.file else ""


@dataclass
class Repeats:
    """Failures at one location that were not logged."""

    due: float
    """When they may be logged, in monotonic seconds."""
    count: int = 0
    last: str = ""


class FailureLog:
    """Logs exceptions with their tracebacks, unless the same line of code keeps raising.

    Then one line per `interval` seconds has their number and the last one. After `interval` seconds
    without a failure at a location, the next one is logged in full again. wake: called to have
    `run_due` called soon; redact: hides secrets; clock: monotonic seconds.
    """

    def __init__(
        self,
        logger: logging.Logger,
        wake: Callable[[], None] = lambda: None,
        *,
        redact: Callable[[str], str] = str,
        interval: float = REPEAT_INTERVAL,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._logger = logger
        self._wake = wake
        self._redact = redact
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._repeats: dict[Location, Repeats] = {}

    def log(self, error: BaseException, what: str, about: str = "", then: str = "") -> bool:
        """Log a failure, or count it; returns whether it was logged.

        what: names the kind of failure, as in "The event handler failed"; about: what is particular
        to this one; then: ends the line of one that is logged in full. Never raises what the user's
        log handlers do.
        """
        location = Location.of(error, what)
        if self.is_new(location):
            log_safely(self._logger, logging.ERROR, "%s%s%s", what, about, then, exc_info=error)
            return True
        last = f"{about}: {error_text(error, self._redact)}"
        with self._lock:
            repeats = self._repeats.setdefault(location, Repeats(self._clock() + self._interval))
            repeats.count += 1
            repeats.last = last
            is_first = repeats.count == 1
        if is_first:
            self._wake()
        return False

    def is_new(self, location: Location) -> bool:
        """Whether a failure is to be logged in full: none is known from its location. From now on
        one is."""
        now = self._clock()
        self._log_due(now)
        with self._lock:
            if location in self._repeats:
                return False
            self._repeats[location] = Repeats(now + self._interval)
            oldest = next(iter(self._repeats)) if len(self._repeats) > MAX_LOCATIONS else None
            dropped = None if oldest is None else self._repeats.pop(oldest)
        if oldest is not None and dropped is not None:
            self._log_repeats(oldest, dropped.count, dropped.last)
        return True

    def run_due(self, now: float) -> float:
        """Log what is due; returns when to call this again."""
        self._log_due(now)
        with self._lock:
            return min((r.due for r in self._repeats.values() if r.count), default=math.inf)

    def flush(self) -> None:
        """Log now what hasn't been logged yet: no more failures are expected."""
        self._log_due(self._clock(), early=True)

    def _log_due(self, now: float, *, early: bool = False) -> None:
        counts = []
        with self._lock:
            for at, repeats in list(self._repeats.items()):
                is_due = repeats.due <= now
                if repeats.count and (is_due or early):
                    counts.append((at, repeats.count, repeats.last))
                    repeats.count, repeats.due = 0, now + self._interval
                elif is_due:
                    del self._repeats[at]
        for at, count, last in counts:
            self._log_repeats(at, count, last)

    def _log_repeats(self, location: Location, count: int, last: str) -> None:
        if count:
            times = "1 more time" if count == 1 else f"{count} more times"
            text = "%s %s%s, last%s"
            log_safely(self._logger, logging.ERROR, text, location.what, times, location, last)
