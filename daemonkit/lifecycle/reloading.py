"""Reloading the configuration on SIGHUP, and the reload hooks after it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from ..config.in_force import ConfigInForce
from ..config.lint import log_warnings
from ..exceptions import ConfigError
from ..monitoring.health import Health
from ..monitoring.systemd_notifier import SystemdNotifier
from ..runtime.calls import call_hook
from ..types import Hook
from .signals import Coalesced


class Outcome(NamedTuple):
    """How a reload went, in one sentence."""

    is_ok: bool
    text: str


class Failure(NamedTuple):
    """A reload that failed."""

    time: datetime
    error: str


BETWEEN_RELOADS = 1.0
"""Seconds between two reloads; SIGHUPs received meanwhile count as one."""


class Reloader:
    """Loads the configuration again and calls the reload hooks, on a thread of its own.

    apply_level: called with a new configuration, to set the log level; notifier: returns what
    reports the reload to systemd, None before the daemon has its parts.
    """

    def __init__(
        self,
        config: ConfigInForce,
        hooks: Sequence[Hook],
        health: Health,
        shutdown: threading.Event,
        logger: logging.Logger,
        apply_level: Callable[[], None],
        notifier: Callable[[], SystemdNotifier | None],
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._health = health
        self._shutdown = shutdown
        self._logger = logger
        self._apply_level = apply_level
        self._notifier = notifier
        self.failure: Failure | None = None
        """Why the last reload left the old configuration in force."""
        self._waiting: list[_Waiting] = []
        self._busy = threading.Lock()
        self.request = Coalesced(self.reload, "reload", logger, BETWEEN_RELOADS).request

    def reload(self) -> None:
        """Reload now, once the daemon has started."""
        # The hooks may need what the start hooks open.
        self._health.begun.wait()
        with self._busy:
            # What is asked for from now on may be meant for another content of the file.
            waiting, self._waiting = self._waiting, []
            outcome = Outcome(False, "Not reloaded: the daemon is stopping")
            notifier = self._notifier()
            try:
                if notifier is not None and not self._shutdown.is_set():
                    outcome = Outcome(False, "The reload failed; see the log")
                    outcome = self._notified(notifier)
            finally:
                for waits in waiting:
                    waits.settle(outcome)

    def _notified(self, notifier: SystemdNotifier) -> Outcome:
        notifier.reloading()
        try:
            return self._load()
        finally:
            notifier.reloaded()

    def reload_and_wait(self, timeout: float) -> Outcome | None:
        """Reload soon, as on SIGHUP; returns the outcome, None if there is none within `timeout`
        seconds."""
        waits = _Waiting()
        self._waiting.append(waits)
        self.request()
        waits.settled.wait(timeout)
        return waits.outcome

    def wait_idle(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the reload hooks to return."""
        if self._busy.acquire(timeout=timeout):
            self._busy.release()

    def _load(self) -> Outcome:
        try:
            reload = self._config.reload()
        except ConfigError as error:
            self.failure = Failure(datetime.now(), str(error))
            text = f"Not reloaded, the old configuration stays: {error}"
            self._logger.error("%s", text)
            return Outcome(False, text)
        self.failure = None
        remarks = []
        for level, line in reload.report():
            self._logger.log(level, "%s", line)
            if level >= logging.WARNING:
                remarks.append(line[:1].lower() + line[1:])
        log_warnings(self._config.now, self._logger)
        self._apply_level()
        failed = 0
        for hook in self._hooks:
            # A stop hook may have closed what this hook would use.
            if self._shutdown.is_set():
                return Outcome(False, "Reloaded, but the daemon is stopping")
            failed += call_hook(hook, "reload", self._logger) is not None
        text = "Reloaded" + (f", but {failed} reload hooks failed" if failed else "")
        self._logger.info(text)
        return Outcome(not failed, "; ".join([text, *remarks]))


class _Waiting:
    """A call that waits for a reload."""

    def __init__(self) -> None:
        self.settled = threading.Event()
        self.outcome: Outcome | None = None

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.settled.set()
