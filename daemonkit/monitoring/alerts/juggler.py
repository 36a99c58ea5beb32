"""Juggler: its statuses, and the form of its requests and replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...config.secrets import redact, without_password
from ...system.outgoing import open_session
from ...text import describe, shorten
from .outbox import Alert, Post, TryLater

STATUSES = ("OK", "INFO", "WARN", "CRIT")
LONGEST_REPLY = 200
"""The most characters of an unexpected reply that are logged."""


def make_alert(host: str, service: str, status: str, description: str) -> Alert:
    """Check the arguments of an alert.

    Raises ValueError for an unknown status and TypeError for a text that is not a string.
    """
    if status not in STATUSES:
        raise ValueError(
            f"a Juggler status is one of {', '.join(STATUSES)}, not {describe(status)}"
        )
    for field, text in (("host", host), ("service", service), ("description", description)):
        if not isinstance(text, str):
            raise TypeError(f"the {field} of an alert must be a string, not {describe(text)}")
    return Alert(host, service, status, description)


class Juggler:
    """The backend of an outbox that posts to Juggler, one alert per request.

    source: named in each request; url: Juggler's address; timeout: seconds to connect, and to
    receive the reply.
    """

    name = "juggler"

    def __init__(self, source: str, url: str, timeout: float) -> None:
        self.address = f"Juggler at {without_password(url)}"
        self._source = redact(source)
        self._url = url
        self._timeout = timeout

    @contextmanager
    def connect(self) -> Iterator[Post]:
        """Open a session; the connection is made by the first request."""
        with open_session(self._url) as session:
            yield partial(self._post, session)

    def _post(self, session: Any, alert: Alert) -> str | None:
        # Imported late, see open_session.
        import requests  # noqa: PLC0415

        body = {"source": self._source, "events": [{**alert._asdict(), "instance": "", "tags": []}]}
        try:
            reply = session.post(self._url, json=body, timeout=self._timeout, allow_redirects=False)
        except requests.RequestException as error:
            raise TryLater(_root_cause(error)) from None
        if reply.status_code >= 500 or reply.status_code in (408, 429):
            raise TryLater(f"HTTP {reply.status_code}")
        if reply.status_code != 200:
            return f"HTTP {reply.status_code}: {redact(reply.text)[:LONGEST_REPLY]}"
        try:
            (answer,) = reply.json()["events"]
            code = answer["code"]
        except (ValueError, KeyError, TypeError):
            return f"invalid reply: {redact(reply.text)[:LONGEST_REPLY]}"
        return None if code == 200 else f"{code}: {shorten(str(answer.get('message', '')))}"


def _root_cause(error: BaseException) -> str:
    """ "Connection refused" rather than the exceptions wrapped around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
