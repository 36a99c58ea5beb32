"""Makes what sends alerts, and runs it as one part."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..config.alerts import ALERTMANAGER, JUGGLER, Target, When, parse_targets, parse_when
from ..config.defaults import Settings
from ..config.in_force import ConfigInForce
from ..events.entry import EventQueue
from ..monitoring.alerts.alert import Alert
from ..monitoring.alerts.backend import HttpBackend
from ..monitoring.alerts.juggler import LARGEST_BATCH, Juggler
from ..monitoring.alerts.outbox import Outbox
from ..monitoring.alerts.states import AlertStates
from ..monitoring.health import RUNNING, Health
from ..runtime.clock import monotonic
from ..runtime.failures import FailureLog
from ..runtime.timer import Timer
from ..types import Problem, SlaveMaster

TIMEOUT = 5.0
"""Seconds to connect to a target, and for its reply."""


class Alerting:
    """The states of services, the targets that they are sent to, and the outbox for
    `send_event_to_juggler`.

    Before `open`, states are kept.
    """

    name = "alerts"

    def __init__(self, master: SlaveMaster, config: ConfigInForce, health: Health) -> None:
        self.states = AlertStates(socket.gethostname(), master.logger, config.redact)
        self.recorder: Callable[[Alert], object] | None = None
        """Set by `daemonkit.testing`: takes the alerts in place of the targets."""
        self._daemon = master.name
        self._config = config
        self._health = health
        self._logger = master.logger
        self._shutdown = master.shutdown
        self._lock = threading.Lock()
        self._juggler: Outbox | None = None
        self._targets: dict[str, Outbox] = {}

    @property
    def juggler(self) -> Outbox:
        """The outbox for `send_event_to_juggler`, made when first needed."""
        with self._lock:
            if self._juggler is None:
                settings = self._config.settings
                backend = Juggler(self._daemon, settings.juggler_url, settings.juggler_timeout)
                self._juggler = Outbox(backend, self._logger, self._config.redact)
            return self._juggler

    def open(self, queue: EventQueue, timer: Timer) -> None:
        """Make the targets and conditions that are configured."""
        settings, hold = self._config.settings, self._config.settings.alert_hold
        if self.recorder is not None:
            outlets, hold = [self.recorder], 0.0
        else:
            for target in parse_targets(settings.alerts):
                backend = self._backend(target, settings)
                self._targets[target.name] = Outbox(
                    backend, self._logger, self._config.redact, newest_only=True
                )
            outlets = [target.put for target in self._targets.values()]
        self.states.open(outlets, settings.alert_refresh, hold, timer.wake)
        timer.add(self.states.run_due)
        when = parse_when(settings.alerts)
        if when != When():
            from ..monitoring.alerts.conditions import Conditions, Limits  # noqa: PLC0415

            limits = Limits(settings.queue_size, settings.queue_memory)
            conditions = Conditions(
                when,
                lambda: self._health.phase == RUNNING and not self._shutdown.is_set(),
                self._health.problems,
                partial(queue.counters, quick=True),
                limits,
                settings.alert_hold,
                self.states.report,
            )
            timer.add(conditions.run_due)

    def _backend(self, target: Target, settings: Settings) -> HttpBackend:
        name = f"alerts-{target.name}"
        if target.kind == JUGGLER:
            return Juggler(
                self._daemon,
                settings.juggler_url,
                settings.juggler_timeout,
                name=name,
                batch=LARGEST_BATCH,
                prefix=f"{self._daemon}.",
            )
        if target.kind == ALERTMANAGER:
            from ..monitoring.alerts.alertmanager import Alertmanager  # noqa: PLC0415

            refresh = settings.alert_refresh
            return Alertmanager(name, self._daemon, target.url, TIMEOUT, refresh)
        from ..monitoring.alerts.webhook import Webhook  # noqa: PLC0415

        return Webhook(name, self._daemon, target.url, TIMEOUT)

    def gave_up(self, reason: str) -> None:
        """The daemon stops because a slave has given up, which `unhealthy` may be too late for."""
        if parse_when(self._config.settings.alerts).unhealthy is not None:
            self.states.report("unhealthy", "CRIT", f"the daemon stops: {reason}", is_last=True)

    def counters(self) -> dict[str, Any]:
        """The fields of `/status`."""
        targets = {name: outbox.counters() for name, outbox in self._targets.items()}
        return {
            "juggler": self.juggler.counters(),
            "alerts": {**targets, "active": self.states.active()},
        }

    def failure_logs(self) -> list[FailureLog]:
        """What logs that alerts could not be sent."""
        return [outbox.failures for outbox in self._outboxes()]

    def totals(self) -> dict[str, int]:
        """The counters of all targets and of `send_event_to_juggler`, added up."""
        each = [outbox.counters() for outbox in self._outboxes()]
        return {name: sum(counts[name] for counts in each) for name in each[0]}

    # A part of the daemon

    def start(self) -> None:
        """Do nothing: the first alert starts a thread for its target."""

    def request_stop(self) -> None:
        """Send what waits, then stop."""
        self.states.finish()
        for outbox in self._outboxes():
            outbox.request_stop()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; log how many alerts are left."""
        until = monotonic() + timeout
        stopped = [outbox.join(max(0.0, until - monotonic())) for outbox in self._outboxes()]
        self.states.close()
        return all(stopped)

    def running_threads(self) -> list[threading.Thread]:
        return [thread for outbox in self._outboxes() for thread in outbox.running_threads()]

    def problems(self) -> list[Problem]:
        """None: an alert that cannot be sent is logged."""
        return []

    def _outboxes(self) -> list[Outbox]:
        return [self.juggler, *self._targets.values()]
