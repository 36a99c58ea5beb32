"""What users do to send alerts."""

from __future__ import annotations

from typing import Protocol

from .monitoring.alerts.juggler import make_alert
from .monitoring.alerts.outbox import Outbox
from .monitoring.alerts.states import AlertStates


class AlertSenders(Protocol):
    """What takes alerts: those of the setting `alerts`, and those for Juggler alone."""

    @property
    def states(self) -> AlertStates: ...

    @property
    def juggler(self) -> Outbox: ...


class AlertCommands:
    """The part of `Daemon` that sends alerts."""

    @property
    def _alert_senders(self) -> AlertSenders:
        raise NotImplementedError

    def alert(self, service: str, status: str, description: str) -> None:
        """Report the present status of a service; it is sent to the targets of the setting `alerts`
        when it changes, and repeated while it isn't OK. Returns at once.

        status: OK, INFO, WARN or CRIT; another is a ValueError.
        """
        self._alert_senders.states.report(service, status, description)

    def send_event_to_juggler(self, host: str, service: str, status: str, description: str) -> None:
        """Queue an event for the monitoring system Juggler; returns at once.

        status: OK, INFO, WARN or CRIT; another is a ValueError.
        """
        self._alert_senders.juggler.put(make_alert(host, service, status, description))
