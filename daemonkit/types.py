"""Types that rooms share, and the contract of every running part."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

Event = Any
"""Any JSON value; its structure is up to the user."""

Source = Literal["http", "udp", "app"]

EventHandler = Callable[[Any], Any] | Callable[[Any, Any], Any]
StatusField = Callable[[], Any]
PingCheck = Callable[[], Any]
Hook = Callable[[], Any]
ValidateHook = Callable[[dict[str, Any], dict[str, Any]], Any]
"""Called with `config` and `master_config`; an exception refuses them."""
HealthChangeHook = Callable[[Any], Any]


class Origin(NamedTuple):
    """Who sent an event: the client's address, and the name of its token, if any."""

    peer: str | None
    sender: str | None = None


NOBODY = Origin(None)


class EventMeta(NamedTuple):
    """The circumstances of one event.

    source: how it arrived; peer: "address:port" of the client, None for `put_event`; received: when
    it was accepted, in UTC; attempt: 1 for the first call of the handler; sender: the name of the
    token that it came with, None without one.
    """

    source: Source
    peer: str | None
    received: datetime
    attempt: int = 1
    sender: str | None = None

    def of_attempt(self, attempt: int) -> EventMeta:
        """The same for another attempt."""
        return self._replace(attempt=attempt)


class Pause(NamedTuple):
    """Since when something is paused, and by whom."""

    since: datetime
    by: str


class Problem(NamedTuple):
    """Something that keeps the daemon from being healthy.

    text: one line; tolerable: a restart of the process would not help, for instance because of a
    slave that is backing off or isn't critical.
    """

    text: str
    tolerable: bool = False


class Component(Protocol):
    """What every running part can do, so that starting and stopping are lists."""

    @property
    def name(self) -> str: ...

    def start(self) -> None: ...

    def request_stop(self) -> None:
        """Ask it to stop; never blocks."""

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; True when it has stopped."""
        ...

    def running_threads(self) -> list[threading.Thread]:
        """The threads that still run, to be named if it doesn't stop."""
        ...

    def problems(self) -> list[Problem]:
        """What is wrong with it now; empty when it is healthy."""
        ...


class SlaveMaster(Protocol):
    """What a slave sees of its master."""

    name: str
    logger: logging.Logger
    shutdown: threading.Event

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def master_config(self) -> Mapping[str, Any]: ...

    def put_event(self, event: Event) -> None: ...

    def stop(self) -> None: ...

    def send_event_to_juggler(
        self, host: str, service: str, status: str, description: str
    ) -> None: ...
