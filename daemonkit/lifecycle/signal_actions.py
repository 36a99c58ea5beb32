"""What each signal does."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

from ..runtime.clock import monotonic
from ..runtime.stacks import stacks
from .exit import exit_by_signal
from .signals import Coalesced, kernel_handler

SAME_SIGNAL = 0.5
"""Seconds after a stop signal within which another one, of either kind, is the same request: a
terminal, a process manager and its wrapper may all pass on one Ctrl+C."""


class StopRequest:
    """The first stop signal, and whether another one is a second request."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._first_at = 0.0

    def is_first(self, number: int) -> bool:
        """Whether this signal, received now, is the first."""
        if self.first is not None:
            return False
        self._first_at = monotonic()
        self.first = number
        return True

    def is_fresh(self) -> bool:
        """Whether another signal now would count as the first one."""
        return self.first is not None and monotonic() - self._first_at < SAME_SIGNAL


class StopSignals:
    """Sets `shutdown` on the first signal and exits at once on the second.

    events_left: how many events would be left unhandled by an immediate exit.
    """

    def __init__(
        self, shutdown: threading.Event, logger: logging.Logger, events_left: Callable[[], int]
    ) -> None:
        self._shutdown = shutdown
        self._logger = logger
        self._events_left = events_left
        self.request = StopRequest()
        self._asked = "stop() was called"

    def ask(self, why: str) -> None:
        """Stop without a signal; why: for the log."""
        self._asked = why
        self._shutdown.set()

    def receive(self, number: signal.Signals) -> None:
        """Handle one signal; runs on the signal thread, so it must not wait, not even for the
        log."""
        if self.request.is_first(number):
            self._shutdown.set()
        elif not self.request.is_fresh():
            left = self._events_left()
            exit_by_signal(self._logger, number, f"{left} events are left unhandled")

    @property
    def reason(self) -> str:
        """Why the daemon stops, for the log."""
        first = self.request.first
        return self._asked if first is None else f"received {signal.Signals(first).name}"


def signal_actions(
    stop: StopSignals, reload: Callable[[], None], logger: logging.Logger
) -> dict[int, Callable[[], None]]:
    """The signals that a daemon handles, and what is called for each; none of it blocks."""
    actions: dict[int, Callable[[], None]] = {
        signal.SIGTERM: lambda: stop.receive(signal.SIGTERM),
        signal.SIGINT: lambda: stop.receive(signal.SIGINT),
        signal.SIGHUP: reload,
    }
    # A program that handles this one itself keeps it.
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL and not kernel_handler(signal.SIGUSR1):
        actions[signal.SIGUSR1] = Coalesced(lambda: _log_stacks(logger), "stacks", logger).request
    return actions


def _log_stacks(logger: logging.Logger) -> None:
    # At any log level, because it was requested.
    text = f"received SIGUSR1: {stacks()}"
    record = logger.makeRecord(
        logger.name, logging.INFO, __file__, 0, text, (), None, "_log_stacks"
    )
    logger.handle(record)
