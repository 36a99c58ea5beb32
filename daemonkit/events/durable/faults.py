"""Reports faults of a durable queue's file: in the log, to the health check, and as refusals.

Nothing here changes the queue or its file.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from ...exceptions import QueueFull, Unavailable
from ...runtime.failures import FailureLog
from ...text import error_text
from ...types import Problem


class Fault:
    """One kind of fault: logged when it begins, at intervals while it lasts, and when it ends.

    over: the log line at the end; changed: called at the beginning and the end; refuses: the class
    of the error that refuses events.
    """

    def __init__(
        self,
        logger: logging.Logger,
        over: str,
        changed: Callable[[], None],
        refuses: type[Unavailable] = Unavailable,
    ) -> None:
        self._refuses = refuses
        self._logger = logger
        self._over = over
        self._changed = changed
        self._failures = FailureLog(logger)
        self.problem: Problem | None = None

    def report(
        self, text: str, *, tolerable: bool = False, error: Exception | None = None
    ) -> Unavailable:
        """Report the fault as it is now; returns the refusal of events.

        tolerable: a restart would not help; error: a bug of our own, logged with its traceback.
        """
        problem = Problem(text, tolerable)
        is_new, self.problem = problem != self.problem, problem
        if is_new:
            self._changed()
            self._failures.forget()
        if error is None:
            self._failures.report(logging.ERROR, _capitalized(text))
        else:
            self._failures.log(error, _capitalized(text))
        return self._refusal(problem)

    def end(self) -> None:
        """Report that the fault is over, if there was one."""
        if self.problem is not None:
            self.problem = None
            self._changed()
            self._logger.info("%s", self._over)

    @property
    def refusal(self) -> Unavailable | None:
        """Refuses events while the fault lasts, None after that."""
        return None if self.problem is None else self._refusal(self.problem)

    def _refusal(self, problem: Problem) -> Unavailable:
        return self._refuses(_capitalized(problem.text), retry_after=5)


class FileFaults:
    """The faults of one file; changed: called when one begins or ends."""

    def __init__(self, path: str, logger: logging.Logger, changed: Callable[[], None]) -> None:
        self._path = path
        self.unwritable = Fault(logger, "The event queue's file can be written again", changed)
        self.unreadable = Fault(logger, "The event queue's file can be read again", changed)
        self.disk_full = Fault(
            logger, "The disk of the event queue has space again", changed, QueueFull
        )
        self.lost = Fault(logger, "", changed)

    def problems(self) -> list[Problem]:
        """For the health check."""
        faults = (self.lost, self.disk_full, self.unwritable, self.unreadable)
        return [fault.problem for fault in faults if fault.problem is not None]

    def read_failed(self, error: Exception) -> None:
        """The file can't be read."""
        self._failed(self.unreadable, "read", error)

    def write_failed(self, error: Exception) -> Unavailable:
        """The file can't be written; returns the refusal of events."""
        return self._failed(self.unwritable, "written", error)

    def disk_is_full(self) -> Unavailable:
        """There is no space; returns the refusal of events."""
        text = f"the disk of the event queue is full ({self._path})"
        return self.disk_full.report(text, tolerable=True)

    def file_is_lost(self, problem: str) -> Unavailable:
        """The file was removed or replaced; returns the refusal of events."""
        return self.lost.report(f"{problem}: the event queue refuses events until a restart")

    def _failed(self, fault: Fault, what: str, error: Exception) -> Unavailable:
        is_expected = isinstance(error, sqlite3.Error)
        return fault.report(
            f"the event queue's file can't be {what}: "
            f"{error if is_expected else error_text(error)} ({self._path})",
            error=None if is_expected else error,
        )


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
