"""What the log says about one slave."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..exceptions import Done
from ..runtime.failures import FailureLog, Location
from ..text import error_text
from .spec import SlaveSpec

RARE = 1.0
"""Seconds: a slave that is restarted after a longer wait doesn't flood the log."""
FEW = 10
"""Neither do so many restarts."""


class SlaveLog:
    """wake: called to have `run_due` called soon; clock: monotonic seconds."""

    def __init__(
        self,
        logger: logging.Logger,
        spec: SlaveSpec,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._logger = logger
        self._name, self._timeout = spec.name, spec.timeout
        self._failures = FailureLog(logger, wake, clock=clock)
        self.run_due = self._failures.run_due
        self._is_failing = False

    def call_failed(self, error: BaseException) -> None:
        """A call of a periodic slave raised."""
        what, then = self._outcome(error)
        logged = self._failures.log(error, what, then=f"{then}; it is called again as scheduled")
        self._is_failing = self._is_failing or logged

    def call_succeeded(self) -> None:
        """A call of a periodic slave succeeded after one that failed."""
        # One that fails every other time must not fill the log either.
        if self._is_failing:
            self._failures.flush()
            self._logger.info("The slave %s works again", self._name)
        self._is_failing = False

    def done(self, done: Done) -> None:
        """The slave has done its work."""
        self._logger.info("The slave %s is done%s", self._name, f": {done}" if str(done) else "")

    def exited(
        self, error: BaseException | None, restart: int, delay: float | None, *, expected: bool
    ) -> None:
        """The slave ended; its restart number `restart` follows in `delay` seconds, if at all."""
        what, then = self._outcome(error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            then += ", which ends the slave and not the daemon"
        then += "" if delay is None else f"; restart {restart} in {delay:.2g} s"
        if delay is None:
            self._failures.flush()
        if error is None:
            if not expected:
                self._logger.info("%s%s", what, then)
        elif delay is not None and delay < RARE and restart > FEW:
            self._failures.log(error, what, then=then)
        elif self._failures.is_new(at := Location.of(error, what)):
            self._logger.error("%s%s", what, then, exc_info=error)
        else:
            self._logger.error("%s%s: %s%s", what, then, error_text(error), at)

    def gave_up(self, reason: str, *, stops_daemon: bool) -> None:
        """The slave has failed for good."""
        consequence = "the daemon stops" if stops_daemon else "it stays down"
        self._logger.critical("The slave %s gave up: %s; %s", self._name, reason, consequence)

    def overdue(self, stack: str) -> None:
        """The slave has not stopped in time."""
        message = "The slave %s has not stopped in time; its stack:\n%s"
        self._logger.error(message, self._name, stack)

    def stopped_late(self) -> None:
        """It has stopped after that."""
        self._logger.info("The slave %s has stopped after all", self._name)

    def stalled(self, age: float, stack: str) -> None:
        """The last heartbeat was `age` seconds ago."""
        message = "The slave %s is stalled: no heartbeat for %.3g s (timeout %g s); its stack:\n%s"
        self._logger.error(message, self._name, age, self._timeout, stack)

    def recovered(self, age: float) -> None:
        """A stalled slave has beaten again after `age` seconds."""
        self._logger.info("The slave %s recovered after %.3g s", self._name, age)

    def _outcome(self, error: BaseException | None) -> tuple[str, str]:
        """What has happened, and what is particular to this time."""
        what, then = f"raised {type(error).__name__}", ""
        if error is None:
            what = "returned"
        elif isinstance(error, SystemExit):
            then = f"({error.code!r})"
        elif isinstance(error, MemoryError):
            what = "ran out of memory"
        elif isinstance(error, Exception):
            what = "failed"
        return f"The slave {self._name} {what}", then
