"""Reports faults of a durable queue's file: in the log, to the health check, and as refusals.

Nothing here changes the queue or its file.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from ...exceptions import QueueFull
from ...runtime.ratelimit import RateLimit
from ...text import error_text
from ...types import Problem

LOG_INTERVAL = 10.0
"""Seconds between two log lines about an ongoing fault."""


class Fault:
    """One kind of fault: logged when it begins, now and then while it lasts, and when it ends.

    over: the log line at the end; changed: called at the beginning and the end.
    """

    def __init__(self, logger: logging.Logger, over: str, changed: Callable[[], None]) -> None:
        self._logger = logger
        self._over = over
        self._changed = changed
        self._limit = RateLimit(LOG_INTERVAL)
        self.problem: Problem | None = None

    def report(
        self, text: str, *, tolerable: bool = False, error: Exception | None = None
    ) -> QueueFull:
        """Report the fault as it is now; returns the refusal of events.

        tolerable: a restart would not help; error: a bug of our own, logged with its traceback.
        """
        problem = Problem(text, tolerable)
        is_news, self.problem = problem != self.problem, problem
        if is_news:
            self._changed()
        if self._limit.allow() is not None or is_news:
            self._logger.error("%s", _capitalized(text), exc_info=error)
        return _refusal(problem)

    def end(self) -> None:
        """Report that the fault is over, if there was one."""
        if self.problem is not None:
            self.problem = None
            self._changed()
            self._logger.info("%s", self._over)


class FileFaults:
    """The faults of one file; changed: called when one begins or ends."""

    def __init__(self, path: str, logger: logging.Logger, changed: Callable[[], None]) -> None:
        self._path = path
        self._unwritten = Fault(logger, "The event queue's file can be written again", changed)
        self._unread = Fault(logger, "The event queue's file can be read again", changed)
        self._full = Fault(logger, "The disk of the event queue has space again", changed)
        self._lost = Fault(logger, "", changed)

    @property
    def is_unwritten(self) -> bool:
        """Whether the last write failed."""
        return self._unwritten.problem is not None

    @property
    def is_disk_full(self) -> bool:
        """Whether there was no space for events."""
        return self._full.problem is not None

    @property
    def refusal_if_lost(self) -> QueueFull | None:
        """Refuses events if the file was removed or replaced."""
        return None if self._lost.problem is None else _refusal(self._lost.problem)

    def read_worked(self) -> None:
        """The file was read."""
        self._unread.end()

    def read_failed(self, error: Exception) -> None:
        """The file can't be read."""
        self._failed(self._unread, "read", error)

    def write_worked(self) -> None:
        """The file was written."""
        self._unwritten.end()

    def write_failed(self, error: Exception) -> QueueFull:
        """The file can't be written; returns the refusal of events."""
        return self._failed(self._unwritten, "written", error)

    def disk_has_space(self) -> None:
        """There is space for events."""
        self._full.end()

    def disk_is_full(self) -> QueueFull:
        """There is no space; returns the refusal of events."""
        text = f"the disk of the event queue is full ({self._path})"
        return self._full.report(text, tolerable=True)

    def file_is_lost(self, problem: str) -> QueueFull:
        """The file was removed or replaced; returns the refusal of events."""
        return self._lost.report(f"{problem}: the event queue refuses events until a restart")

    def problems(self) -> list[Problem]:
        """For the health check."""
        faults = (self._lost, self._full, self._unwritten, self._unread)
        return [fault.problem for fault in faults if fault.problem is not None]

    def _failed(self, fault: Fault, what: str, error: Exception) -> QueueFull:
        is_expected = isinstance(error, sqlite3.Error)
        return fault.report(
            f"the event queue's file can't be {what}: "
            f"{error if is_expected else error_text(error)} ({self._path})",
            error=None if is_expected else error,
        )


def _refusal(problem: Problem) -> QueueFull:
    return QueueFull(_capitalized(problem.text), retry_after=5)


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
