"""What the log says about one slave."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..runtime.ratelimit import RateLimit
from .slave import SlaveSpec

REPEAT_INTERVAL = 60.0
"""Seconds between two lines about a periodic slave's calls that fail with the same error."""


class SlaveLog:
    """clock: monotonic seconds."""

    def __init__(self, logger: logging.Logger, spec: SlaveSpec, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._spec = spec
        self._name = spec.name
        self._clock = clock
        self._repeats = RateLimit(REPEAT_INTERVAL, clock)

    def call_failed(self, error: BaseException, text: str, *, is_repeated: bool) -> None:
        """A call of a periodic slave raised; is_repeated: so did the one before, with `text`."""
        if not is_repeated:
            self._repeats = RateLimit(REPEAT_INTERVAL, self._clock)
            self._repeats.allow()
            message = "The slave %s %s; it is called again as scheduled"
            self._logger.error(message, self._name, _outcome(error), exc_info=error)
        elif (suppressed := self._repeats.allow()) is not None:
            message = "The slave %s still fails (%d more times): %s"
            self._logger.error(message, self._name, suppressed + 1, text)

    def call_succeeded(self) -> None:
        """A call of a periodic slave succeeded after one that failed."""
        self._logger.info("The slave %s works again", self._name)

    def exited(
        self, error: BaseException | None, restart: int, delay: float | None, *, expected: bool
    ) -> None:
        """The slave ended; its restart number `restart` follows in `delay` seconds, if at all."""
        what = _outcome(error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            what += ", which ends the slave and not the daemon"
        if delay is not None:
            what += f"; restart {restart} in {delay:.2g} s"
        if error is not None:
            self._logger.error("The slave %s %s", self._name, what, exc_info=error)
        elif not expected:
            self._logger.info("The slave %s %s", self._name, what)

    def gave_up(self, reason: str) -> None:
        """The slave has failed for good."""
        consequence = "the daemon stops" if self._spec.critical else "it stays down"
        self._logger.critical("The slave %s gave up: %s; %s", self._name, reason, consequence)

    def stalled(self, age: float, stack: str) -> None:
        """The last heartbeat was `age` seconds ago."""
        message = "The slave %s is stalled: no heartbeat for %.3g s (timeout %g s); its stack:\n%s"
        self._logger.error(message, self._name, age, self._spec.timeout, stack)

    def recovered(self, age: float) -> None:
        """A stalled slave has beaten again after `age` seconds."""
        self._logger.info("The slave %s recovered after %.3g s", self._name, age)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "returned"
    if isinstance(error, SystemExit):
        return f"raised SystemExit({error.code!r})"
    if isinstance(error, MemoryError):
        return "ran out of memory"
    return "failed" if isinstance(error, Exception) else f"raised {type(error).__name__}"
