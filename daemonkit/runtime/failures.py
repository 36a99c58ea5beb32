"""Logs faults; of those that repeat, only the first in full."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..system.handling import Handled, handled_now, noted
from ..system.log import log_safely
from ..text import error_text
from .clock import monotonic

REPEAT_INTERVAL = 10.0
"""Seconds between two lines about a fault that repeats."""
FORGET_AFTER = 60.0
"""Seconds without a fault after which the next one is logged in full again."""
MAX_LOCATIONS = 100
"""Locations whose faults are counted apart."""


class Location(NamedTuple):
    """What failed, with which exception or in which way, and the line of code that raised it."""

    what: str
    kind: object = None
    file: str = ""
    line: int = 0

    @classmethod
    def of(cls, error: BaseException, what: str) -> Location:
        trace, file, line = error.__traceback__, "", 0
        while trace is not None:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
            trace = trace.tb_next
        return cls(what, type(error), file, line)

    def __str__(self) -> str:
        return f" at {self.file}:{self.line}" if self.file else ""


@dataclass(eq=False, repr=False)
class Repeats:
    """Faults at one location that were not logged."""

    since: float
    """When the last line about them was logged, in monotonic seconds."""
    seen: float
    """When the last one was, in monotonic seconds."""
    count: int = 0
    level: int = logging.ERROR
    last: str = ""
    handled: Handled | None = None
    """What the last one was about."""


class FailureLog:
    """Logs faults, unless they repeat at the same location, which is the line of code that raises.

    Then one line per `interval` seconds has their number and the last one. After FORGET_AFTER
    seconds without a fault at a location, the next one is logged in full again. wake: called to
    have `run_due` called soon; redact: hides secrets; clock: monotonic seconds.
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
        self.wake = wake
        self._logger = logger
        self._redact = redact
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._repeats: dict[Location, Repeats] = {}
        self._due = math.inf

    def log(self, error: BaseException, what: str, about: str = "", then: str = "") -> bool:
        """Log an exception with its traceback, or count it; returns whether it was logged.

        what: names the kind of failure, as in "The event handler failed"; about: what is particular
        to this one; then: ends the line of one that is logged in full. Never raises what the user's
        log handlers do.
        """
        location = Location.of(error, what)
        if self.is_new(location):
            log_safely(self._logger, logging.ERROR, "%s%s%s", what, about, then, exc_info=error)
            return True
        self._count(location, logging.ERROR, f"{about}: {error_text(error, self._redact)}")
        return False

    def log_raised(self, what: str, about: str = "", then: str = "") -> bool:
        """The same for the exception that is being handled."""
        error = sys.exc_info()[1]
        assert error is not None
        return self.log(error, what, about, then)

    def report(self, level: int, what: str, text: str = "", kind: str = "") -> bool:
        """Log a fault that isn't an exception, or count it; returns whether it was logged.

        what: begins the line; text: what is particular to this one; kind: tells faults apart that
        begin alike.
        """
        location, more = Location(what, kind), f": {text}" if text else ""
        if self.is_new(location):
            log_safely(self._logger, level, "%s%s", what, more)
            return True
        self._count(location, level, more)
        return False

    def is_new(self, location: Location) -> bool:
        """Whether a fault is to be logged in full: none is known from its location. From now on
        one is."""
        now = self._clock()
        if now >= self._due:
            self._log_due(now)
        with self._lock:
            known = self._repeats.get(location)
            if known is not None:
                if known.count or now < known.seen + FORGET_AFTER:
                    return False
                del self._repeats[location]
            self._repeats[location] = Repeats(now, now)
            oldest = next(iter(self._repeats)) if len(self._repeats) > MAX_LOCATIONS else None
            dropped = None if oldest is None else self._repeats.pop(oldest)
        if oldest is not None and dropped is not None and dropped.count:
            self._log_repeats(oldest, dropped, now)
        return True

    def _count(self, location: Location, level: int, last: str) -> None:
        now, handled = self._clock(), handled_now()
        with self._lock:
            repeats = self._repeats.setdefault(location, Repeats(now, now))
            repeats.count += 1
            repeats.seen, repeats.level, repeats.last = now, level, last
            repeats.handled = handled
            is_first = repeats.count == 1
            if is_first:
                self._due = min(self._due, repeats.since + self._interval)
        if is_first:
            self.wake()

    def run_due(self, now: float) -> float:
        """Log what is due; returns when to call this again."""
        if now >= self._due:
            self._log_due(now)
        return self._due

    def flush(self) -> None:
        """Log now what hasn't been logged yet: no more faults are expected."""
        self._log_due(math.inf)

    def forget(self) -> None:
        """Log the next fault in full, whatever came before."""
        with self._lock:
            self._repeats.clear()
            self._due = math.inf

    def _log_due(self, until: float) -> None:
        now, counted = self._clock(), []
        with self._lock:
            self._due = math.inf
            for at, repeats in self._repeats.items():
                if not repeats.count:
                    continue
                if repeats.since + self._interval <= until:
                    counted.append((at, replace(repeats)))
                    repeats.count, repeats.since, repeats.last = 0, now, ""
                else:
                    self._due = min(self._due, repeats.since + self._interval)
        for at, repeats in counted:
            self._log_repeats(at, repeats, now)

    def _log_repeats(self, location: Location, repeats: Repeats, now: float) -> None:
        with noted(repeats.handled):
            log_safely(
                self._logger,
                repeats.level,
                "%s: %s more in the last %d s%s%s",
                location.what,
                f"{repeats.count:,}",
                max(1, round(now - repeats.since)),
                location,
                f", last{repeats.last}" if repeats.last else "",
            )


class LimitedLogger:
    """A logger for code of others that logs exceptions; what: begins their lines."""

    def __init__(self, logger: logging.Logger, failures: FailureLog, what: str) -> None:
        self._logger = logger
        self._failures = failures
        self._what = what

    def exception(self, text: str, *arguments: Any) -> None:
        """Log the exception that is being handled, or count it."""
        self._failures.log_raised(self._what, f" ({text % arguments if arguments else text})")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)
