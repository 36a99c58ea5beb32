"""A webhook: one alert a request, in a form of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...config.secrets import redact
from .alert import Alert
from .backend import HttpBackend


class Webhook(HttpBackend):
    """The backend of an outbox that posts to a URL.

    daemon: the field of that name.
    """

    def __init__(self, name: str, daemon: str, url: str, timeout: float) -> None:
        super().__init__(name, "the webhook", url, timeout)
        self._daemon = redact(daemon)

    def body(self, alerts: Sequence[Alert]) -> Any:
        (alert,) = alerts
        return {
            "daemon": self._daemon,
            "host": alert.host,
            "service": alert.service,
            "status": alert.status,
            "previous": alert.previous,
            "description": alert.description,
            "since": None if alert.since is None else alert.since.isoformat(),
        }
