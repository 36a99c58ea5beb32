"""Prometheus's Alertmanager: alerts in the form of its API v2."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ...config.secrets import redact
from .alert import OK, Alert
from .backend import HttpBackend

LARGEST_BATCH = 50
SEVERITIES = {"INFO": "info", "WARN": "warning", "CRIT": "critical"}
EXPIRES_AFTER = 4
"""After how many missed repetitions an alert ends by itself: as many as Prometheus sets."""


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(timezone.utc)


class Alertmanager(HttpBackend):
    """The backend of an outbox that posts to Alertmanager (https://prometheus.io/docs/alerting).

    Alertmanager routes by labels alone, so the severity is one; a change of it ends one alert and
    begins another. daemon: the label of that name; refresh: seconds between repetitions of an
    active alert.
    """

    def __init__(
        self,
        name: str,
        daemon: str,
        url: str,
        timeout: float,
        refresh: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(name, "Alertmanager", url, timeout, LARGEST_BATCH)
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._daemon = redact(daemon)
        self._expires_after = timedelta(seconds=EXPIRES_AFTER * refresh)
        self._clock = clock

    def body(self, alerts: Sequence[Alert]) -> Any:
        now = self._clock()
        return [entry for alert in alerts for entry in self._entries(alert, now)]

    def _entries(self, alert: Alert, now: datetime) -> Iterator[dict[str, Any]]:
        for status, severity in SEVERITIES.items():
            is_active = status == alert.status
            # With a change, all others end: what a previous process sent, or a lost request, too.
            if not is_active and alert.is_repeated and alert.status != OK:
                continue
            entry = {
                "labels": {
                    "alertname": alert.service,
                    "daemon": self._daemon,
                    "instance": alert.host,
                    "service": alert.service,
                    "severity": severity,
                },
                "annotations": {"description": alert.description},
                "endsAt": (now + self._expires_after if is_active else now).isoformat(),
            }
            if is_active:
                # The clock may have been set back.
                entry["startsAt"] = min(alert.since or now, now).isoformat()
            yield entry
