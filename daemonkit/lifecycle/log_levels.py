"""Log levels that are set while the daemon runs, for a time or until it stops."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..runtime.clock import monotonic
from ..system.log import has_log, set_level
from ..text import timestamp


class SetLevel(NamedTuple):
    """A level that was set.

    before: the logger's own level, None for that of the daemon's log; due: when it reverts, in
    monotonic seconds.
    """

    level: str
    before: int | None
    due: float
    until: datetime | None
    by: str


class LogLevels:
    """The levels set by control, over those of the configuration and the program.

    own: the name of the daemon's logger, which stands for its log if it has one; configured:
    returns the level that the configuration has for that; wake: makes the timer call `run_due`
    soon.
    """

    def __init__(
        self,
        own: str,
        configured: Callable[[], str],
        logger: logging.Logger,
        wake: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._own = own
        self._configured = configured
        self._logger = logger
        self._wake = wake
        self._clock = clock
        self._lock = threading.Lock()
        self._set: dict[str, SetLevel] = {}

    def set(self, name: str, level: str, seconds: float | None, by: str) -> None:
        """Set a logger's level, for so many seconds, or until the daemon stops."""
        with self._lock:
            known = self._set.get(name)
            is_own = name == self._own and has_log(name)
            before = None if is_own else logging.getLogger(name).level
            self._set[name] = SetLevel(
                level,
                before if known is None else known.before,
                math.inf if seconds is None else self._clock() + seconds,
                None if seconds is None else datetime.now() + timedelta(seconds=seconds),
                by,
            )
            self._apply(name)
        self._wake()

    def revert(self, name: str) -> bool:
        """Go back to the level that was there before; returns whether there is one."""
        with self._lock:
            reverted = self._set.pop(name, None)
            if reverted is not None:
                self._undo(name, reverted)
            return reverted is not None

    def revert_all(self) -> None:
        """Go back to all levels that were there before, because the daemon stops."""
        for name in list(self._set):
            self.revert(name)

    def configuration_changed(self) -> None:
        """Apply the configured level, unless another one is set."""
        with self._lock:
            if self._own not in self._set:
                set_level(self._own, self._configured())

    def run_due(self, now: float) -> float:
        """Revert what is due; returns when to call this again, in monotonic seconds."""
        with self._lock:
            over = [name for name, item in self._set.items() if item.due <= now]
        for name in over:
            if self.revert(name):
                self._logger.info("The log level of %s is %s again", name, self.level_of(name))
        with self._lock:
            return min((item.due for item in self._set.values()), default=math.inf)

    def level_of(self, name: str) -> str:
        """The level in force for a logger's lines."""
        return logging.getLevelName(logging.getLogger(name).getEffectiveLevel())

    def shown(self) -> list[dict[str, Any]]:
        """What `/status` shows."""
        with self._lock:
            return [
                {
                    "logger": name,
                    "level": item.level,
                    "until": timestamp(item.until),
                    "by": item.by,
                }
                for name, item in self._set.items()
            ]

    def _apply(self, name: str) -> None:
        item = self._set[name]
        if item.before is None:
            set_level(name, item.level)
        else:
            logging.getLogger(name).setLevel(item.level)

    def _undo(self, name: str, item: SetLevel) -> None:
        if item.before is None:
            set_level(name, self._configured())
        else:
            logging.getLogger(name).setLevel(item.before)
