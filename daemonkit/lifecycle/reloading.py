"""Reloading the configuration on SIGHUP, and the reload hooks after it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..config.in_force import ConfigInForce
from ..config.lint import log_warnings
from ..exceptions import ConfigError
from ..monitoring.health import Health
from ..monitoring.systemd_notifier import SystemdNotifier
from ..runtime.calls import call_hook
from ..system.log import set_level
from ..types import Hook
from .signals import Coalesced

BETWEEN_RELOADS = 1.0
"""Seconds between two reloads; SIGHUPs received meanwhile count as one."""


class Reloader:
    """Loads the configuration again and calls the reload hooks, on a thread of its own.

    notifier: returns what reports the reload to systemd, None before the daemon has its parts.
    """

    def __init__(
        self,
        config: ConfigInForce,
        hooks: Sequence[Hook],
        health: Health,
        shutdown: threading.Event,
        logger: logging.Logger,
        notifier: Callable[[], SystemdNotifier | None],
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._health = health
        self._shutdown = shutdown
        self._logger = logger
        self._notifier = notifier
        self._busy = threading.Lock()
        self.request = Coalesced(self.reload, "reload", logger, BETWEEN_RELOADS).request

    def reload(self) -> None:
        """Reload now, once the daemon has started."""
        # The hooks may need what the start hooks open.
        self._health.begun.wait()
        with self._busy:
            notifier = self._notifier()
            if notifier is None or self._shutdown.is_set():
                return
            notifier.reloading()
            try:
                self._load()
            finally:
                notifier.reloaded()

    def wait_idle(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the reload hooks to return."""
        if self._busy.acquire(timeout=timeout):
            self._busy.release()

    def _load(self) -> None:
        try:
            reload = self._config.reload()
        except ConfigError as error:
            self._logger.error("Not reloaded, the old configuration stays: %s", error)
            return
        for level, line in reload.report():
            self._logger.log(level, "%s", line)
        log_warnings(self._config.now, self._logger)
        set_level(self._logger.name, self._config.settings.log_level)
        failed = 0
        for hook in self._hooks:
            # A stop hook may have closed what this hook would use.
            if self._shutdown.is_set():
                return
            failed += call_hook(hook, "reload", self._logger) is not None
        self._logger.info("Reloaded" + (f", but {failed} reload hooks failed" if failed else ""))
