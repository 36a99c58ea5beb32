"""A fault of a queue's storage: in the log, for the health check, and as a refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..exceptions import Unavailable
from ..runtime.failures import FailureLog
from ..types import Problem


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


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
