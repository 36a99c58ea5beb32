"""Juggler: its statuses, and the form of its requests and replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...config.secrets import redact
from ...text import shorten
from .alert import Alert, check_status, check_texts
from .backend import HttpBackend, beginning

LARGEST_BATCH = 50
"""The most events that Juggler takes in one request."""


def make_alert(host: str, service: str, status: str, description: str) -> Alert:
    """Check the arguments of an alert.

    Raises ValueError for an unknown status and TypeError for a text that is not a string.
    """
    check_status(status, "a Juggler")
    check_texts(host=host, service=service, description=description)
    return Alert(host, service, status, description)


class Juggler(HttpBackend):
    """The backend of an outbox that posts to Juggler.

    source: named in each request; url: Juggler's address; timeout: seconds to connect, and to
    receive the reply; name, batch: see `Backend`; prefix: in front of each service.
    """

    def __init__(
        self,
        source: str,
        url: str,
        timeout: float,
        *,
        name: str = "juggler",
        batch: int = 1,
        prefix: str = "",
    ) -> None:
        super().__init__(name, "Juggler", url, timeout, batch)
        self._source = redact(source)
        self._prefix = redact(prefix)

    def body(self, alerts: Sequence[Alert]) -> Any:
        events = [
            {
                "host": alert.host,
                "service": self._prefix + alert.service,
                "status": alert.status,
                "description": alert.description,
                "instance": "",
                "tags": [],
            }
            for alert in alerts
        ]
        return {"source": self._source, "events": events}

    def refusals(self, reply: Any, count: int) -> Sequence[str | None]:
        try:
            answers = reply.json()["events"]
            codes = [answer["code"] for answer in answers]
        except (ValueError, KeyError, TypeError):
            codes = []
        if reply.status_code != 200 or len(codes) != count:
            return [f"invalid reply: {beginning(reply)}"] * count
        return [
            None if code == 200 else f"{code}: {shorten(str(answer.get('message', '')))}"
            for code, answer in zip(codes, answers, strict=True)
        ]
