"""Something that goes wrong for a while: told when it begins, now and then, and when it is over."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from ...exceptions import QueueFull, Unavailable
from ...runtime.ratelimit import RateLimit
from ...text import error_text
from ...types import Problem
from .database import is_locked
from .file import File, is_io_error

LOG_INTERVAL = 10.0
"""Seconds between two lines about what goes on."""


class Fault:
    """What is wrong with one part, if anything.

    over: the line that tells of the end; changed: called when it begins and when it is over.
    """

    def __init__(self, logger: logging.Logger, over: str, changed: Callable[[], None]) -> None:
        self._logger = logger
        self._over = over
        self._changed = changed
        self._limit = RateLimit(LOG_INTERVAL)
        self.problem: Problem | None = None

    def tell(self, text: str, *, tolerable: bool = False, error: Exception | None = None) -> None:
        """It is this, now; bearable: a new start would make nothing better; error: of our own."""
        problem = Problem(text, tolerable)
        is_news, self.problem = problem != self.problem, problem
        if is_news:
            self._changed()
        if self._limit.allow() is not None or is_news:
            self._logger.error("%s", sentence(text), exc_info=error)

    def end(self) -> None:
        """Nothing is wrong any more."""
        if self.problem is not None:
            self.problem = None
            self._changed()
            self._logger.info("%s", self._over)


class FileFaults:
    """What is wrong with a durable queue's file, and what refuses events because of it.

    changed: called when something begins or is over.
    """

    def __init__(self, file: File, logger: logging.Logger, changed: Callable[[], None]) -> None:
        self._file = file
        self._unwritten = Fault(logger, "The event queue's file can be written again", changed)
        self._unread = Fault(logger, "The event queue's file can be read again", changed)
        self._no_room = Fault(logger, "There is room for events again", changed)
        self._lost = Fault(logger, "", changed)

    def read_worked(self) -> None:
        """The file can be read."""
        self._unread.end()

    def write_worked(self) -> None:
        """The file can be written."""
        self._unwritten.end()

    def room_is_there(self) -> None:
        """There is room for events."""
        self._no_room.end()

    @property
    def is_unwritten(self) -> bool:
        """Whether the file could not be written."""
        return self._unwritten.problem is not None

    @property
    def is_full(self) -> bool:
        """Whether there is no room for events."""
        return self._no_room.problem is not None

    def read_failed(self, error: Exception) -> None:
        """The file can't be read."""
        self._failed(self._unread, "read", error)

    def write_failed(self, error: Exception, size: int = 0) -> Unavailable:
        """The file can't be written; returns what refuses events of so many bytes."""
        is_full = self._file.is_full(error, size)
        # What lacked room, or another process that is at it, loses nothing.
        if is_io_error(error) or not (is_full or is_locked(error)):
            self._file.is_doubtful = True
        if not is_full:
            return self._failed(self._unwritten, "written", error)
        if self._file.is_at_limit(size):
            return QueueFull(f"The event queue is full ({self._file.limit})")
        return self.room_is_gone()

    def room_is_gone(self) -> Unavailable:
        """The disk is full; returns what refuses events."""
        self._no_room.tell(
            f"the disk of the event queue is full ({self._file.path})", tolerable=True
        )
        return _refusal_for(self._no_room, QueueFull)

    def refusal_if_lost(self) -> Unavailable | None:
        """What refuses events if the file was found to be lost."""
        return None if self._lost.problem is None else _refusal_for(self._lost)

    def look_for_file(self, *, with_log: bool) -> Unavailable | None:
        """See whether the file is where it was; returns what refuses events if it isn't."""
        problem = self._file.place.problem(with_log=with_log)
        if not problem:
            return None
        if self._lost.problem is None:
            # Without its log the file would lack what was taken since.
            self._file.save_log()
        self._lost.tell(f"{problem}: the event queue takes nothing until the next start")
        return _refusal_for(self._lost)

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        faults = (self._lost, self._no_room, self._unwritten, self._unread)
        return [fault.problem for fault in faults if fault.problem is not None]

    def _failed(self, fault: Fault, what: str, error: Exception) -> Unavailable:
        is_foreseen = isinstance(error, sqlite3.Error)
        fault.tell(
            f"the event queue's file can't be {what}: "
            f"{error if is_foreseen else error_text(error)} ({self._file.path})",
            error=None if is_foreseen else error,
        )
        return _refusal_for(fault)


def _refusal_for(fault: Fault, kind: type[Unavailable] = Unavailable) -> Unavailable:
    assert fault.problem is not None
    return kind(sentence(fault.problem.text), retry_after=5)


def sentence(text: str) -> str:
    """The same with a capital at its beginning."""
    return text[:1].upper() + text[1:]
