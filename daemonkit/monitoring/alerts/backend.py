"""What the monitoring systems have in common: alerts are posted as JSON over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

from ...config.secrets import redact, without_password
from ...system.outgoing import open_session
from .alert import Alert

LONGEST_REPLY = 200
"""The most characters of an unexpected reply that are logged."""


class TryLater(Exception):
    """The monitoring system is unavailable; a later attempt may succeed."""


Post = Callable[[Sequence[Alert]], Sequence[str | None]]
"""Sends alerts in one request; returns for each why it was refused, or None. Raises TryLater."""


class Backend(Protocol):
    """A monitoring system that alerts are sent to.

    name: names the outbox and its thread; address: names the system in the log; batch: the most
    alerts in one request.
    """

    name: str
    address: str
    batch: int

    def connect(self) -> AbstractContextManager[Post]:
        """Open a connection or session; called on the outbox's thread."""
        ...


class HttpBackend:
    """The base of the backends: says what is posted where, and reads the reply.

    name: see `Backend`; title: names the system in the log; timeout: seconds to connect, and to
    receive the reply; batch: the most alerts in one request.
    """

    def __init__(self, name: str, title: str, url: str, timeout: float, batch: int = 1) -> None:
        self.name = name
        self.address = f"{title} at {without_password(url)}"
        self.batch = batch
        self._url = url
        self._timeout = timeout

    @contextmanager
    def connect(self) -> Iterator[Post]:
        """Open a session; the connection is made by the first request."""
        with open_session(self._url) as session:
            yield partial(self._post, session)

    def body(self, alerts: Sequence[Alert]) -> Any:
        """The JSON value to post."""
        raise NotImplementedError

    def refusals(self, reply: Any, count: int) -> Sequence[str | None]:  # noqa: ARG002
        """Why each of the `count` alerts was refused, or None, if the reply is a 2xx."""
        return [None] * count

    def _post(self, session: Any, alerts: Sequence[Alert]) -> Sequence[str | None]:
        # Imported late, see open_session.
        import requests  # noqa: PLC0415

        try:
            reply = session.post(
                self._url, json=self.body(alerts), timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise TryLater(_root_cause(error)) from None
        if reply.status_code >= 500 or reply.status_code in (408, 429):
            raise TryLater(f"HTTP {reply.status_code}")
        if not 200 <= reply.status_code < 300:
            return [f"HTTP {reply.status_code}: {beginning(reply)}"] * len(alerts)
        return self.refusals(reply, len(alerts))


def beginning(reply: Any) -> str:
    """The beginning of a reply's text, for the log."""
    return redact(reply.text)[:LONGEST_REPLY]


def _root_cause(error: BaseException) -> str:
    """ "Connection refused" rather than the exceptions wrapped around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
