"""What each signal does."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from ..runtime.stacks import stacks
from .exit import exit_by_signal
from .signals import Coalesced

SAME_SIGNAL = 0.03
"""Seconds within which the same signal, received twice, counts once."""


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
        self._first: signal.Signals | None = None
        self._first_at = 0.0

    def receive(self, number: signal.Signals) -> None:
        """Handle one signal; runs on the signal thread, so it must not wait, not even for the
        log."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._first_at = number, now
            self._shutdown.set()
        # timeout(1) and others signal the process and then its group: one request, two signals.
        elif number != self._first or now - self._first_at > SAME_SIGNAL:
            left = self._events_left()
            exit_by_signal(self._logger, number, f"{left} events are left unhandled")

    @property
    def reason(self) -> str:
        """Why the daemon stops, for the log."""
        return f"received {self._first.name}" if self._first else "stop() was called"


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
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        actions[signal.SIGUSR1] = Coalesced(lambda: _log_stacks(logger), "stacks", logger).request
    return actions


def _log_stacks(logger: logging.Logger) -> None:
    # At any log level, because it was requested.
    text = f"received SIGUSR1: {stacks()}"
    record = logger.makeRecord(
        logger.name, logging.INFO, __file__, 0, text, (), None, "_log_stacks"
    )
    logger.handle(record)
