"""Reports faults of a durable queue's file: in the log, to the health check, and as refusals.

Nothing here changes the queue or its file.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from ...exceptions import QueueFull, Unavailable
from ...text import error_text
from ...types import Problem
from ..fault import Fault


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
