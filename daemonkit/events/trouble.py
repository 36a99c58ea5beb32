"""Something that goes wrong for a while: told when it begins, now and then, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..log import RateLimit
from ..types import Problem

LOG_INTERVAL = 10.0
"""Seconds between two lines about what goes on."""


class Trouble:
    """What is wrong with one part, if anything.

    over: the line that tells of the end; changed: called when it begins and when it is over.
    """

    def __init__(self, logger: logging.Logger, over: str, changed: Callable[[], None]) -> None:
        self._logger = logger
        self._over = over
        self._changed = changed
        self._limit = RateLimit(LOG_INTERVAL)
        self.problem: Problem | None = None

    def tell(self, text: str, *, bearable: bool = False) -> None:
        """It is this, now; bearable: a new start would make nothing better."""
        problem = Problem(text, bearable)
        is_news, self.problem = problem != self.problem, problem
        if is_news:
            self._changed()
        if self._limit.allow() is not None or is_news:
            self._logger.error("%s", sentence(text))

    def end(self) -> None:
        """Nothing is wrong any more."""
        if self.problem is not None:
            self.problem = None
            self._changed()
            self._logger.info("%s", self._over)


def sentence(text: str) -> str:
    """The same with a capital at its beginning."""
    return text[:1].upper() + text[1:]
