"""One state per service: when it is sent, repeated and resolved."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...runtime.clock import monotonic
from ...system.log import log_safely
from ...text import plain, shorten, timestamp
from .alert import OK, STATUSES, Alert, check_status, check_texts
from .alertmanager import utc_now

MOST_SERVICES = 1000
"""How many states are kept."""

Send = Callable[[Alert], object]
"""Takes an alert to send it; must neither block nor raise."""


@dataclass(eq=False, repr=False)
class _State:
    """What was reported of a service, and what was sent.

    is_last: what is reported later is ignored; changed: since when `status` is reported; settled:
    from when it may be sent, repeat: when what was sent is due again, both in monotonic seconds.
    """

    service: str
    status: str
    description: str
    changed: datetime
    is_last: bool = False
    settled: float = -math.inf
    sent: Alert | None = None
    repeat: float = math.inf

    @property
    def is_sent(self) -> bool:
        return self.sent is not None and self.sent.status == self.status

    @property
    def due(self) -> float:
        return self.repeat if self.is_sent else min(self.settled, self.repeat)


class AlertStates:
    """The states of all services.

    A worse status is sent at once, a better one when it has been reported for `hold` seconds
    without a change. A status other than OK is repeated. host: named in the alerts; redact: applied
    to texts; clock: monotonic seconds; now: the time, aware.
    """

    def __init__(
        self,
        host: str,
        logger: logging.Logger,
        redact: Callable[[str], str] = str,
        *,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._host = host
        self._logger = logger
        self._redact = redact
        self._clock = clock
        self._now = now
        # Reentrant: a log handler may report an alert itself.
        self._lock = threading.RLock()
        self._states: dict[str, _State] = {}
        self._outlets: Sequence[Send] | None = None
        self._wake: Callable[[], None] = lambda: None
        self._refresh = self._hold = math.inf
        self._closed = False
        self._overflowed = False

    def open(
        self, outlets: Sequence[Send], refresh: float, hold: float, wake: Callable[[], None]
    ) -> None:
        """Send what was reported so far, and from now on what is reported.

        refresh: seconds between repetitions; hold: see the class; wake: called to have `run_due`
        called soon.
        """
        with self._lock:
            self._outlets, self._refresh, self._hold = outlets, refresh, hold
            self._wake = wake
            for state in list(self._states.values()):
                self._send_status(state)

    def report(self, service: str, status: str, description: str, *, is_last: bool = False) -> None:
        """Take the present status of a service; returns at once.

        is_last: the last word, which is sent even if only the description is new; what is reported
        later is ignored. Raises ValueError for an unknown status or an empty service, and TypeError
        for a text that is not a string.
        """
        check_status(status, "an alert's")
        check_texts(service=service, description=description)
        if not service:
            raise ValueError("the service of an alert must not be empty")
        service, description = self._clean(service), self._clean(description)
        with self._lock:
            if self._closed:
                self._logger.warning("Ignored the alert %s: the daemon has stopped", service)
            elif (state := self._states.get(service)) is not None:
                if not state.is_last:
                    self._update(state, status, description, is_last=is_last)
            elif self._make_room():
                state = _State(service, status, description, self._now(), is_last)
                self._states[service] = state
                self._send_status(state)
                self._wake()

    def _update(self, state: _State, status: str, description: str, *, is_last: bool) -> None:
        now, has_changed = self._clock(), status != state.status
        state.description, state.is_last = description, is_last
        if has_changed:
            state.status, state.changed = status, self._now()
            is_better = state.sent is not None and _rank(status) < _rank(state.sent.status)
            state.settled = now + self._hold if is_better else now
        if state.sent is not None and state.is_sent:
            # With the next repetition: a figure in it may change all the time.
            state.sent = state.sent._replace(description=description)
            if is_last:
                self._repeat(state)
        elif state.settled <= now:
            self._send_status(state)
        if has_changed:
            self._wake()

    def run_due(self, now: float) -> float:
        """Send what is due; returns when to call this again, in monotonic seconds."""
        with self._lock:
            states = list(self._states.values())
            for state in states:
                if not state.is_sent and state.settled <= now:
                    self._send_status(state)
                elif state.repeat <= now:
                    self._repeat(state)
            return min((state.due for state in states), default=math.inf)

    def finish(self) -> None:
        """Send better statuses that are held back, and repeat nothing any more: the daemon is
        stopping. What isn't OK stays so."""
        with self._lock:
            self._refresh, self._hold = math.inf, 0
            for state in list(self._states.values()):
                state.repeat = math.inf
                if not state.is_sent:
                    self._send_status(state)

    def close(self) -> None:
        """Ignore, from now on, what is reported."""
        with self._lock:
            self._closed = True

    def active(self) -> list[dict[str, Any]]:
        """What is not OK, as `/status` shows it."""
        with self._lock:
            sent = [
                (state.sent, not state.is_sent)
                for state in self._states.values()
                if state.sent is not None
            ]
        return [
            {
                "service": alert.service,
                "status": alert.status,
                "description": alert.description,
                "since": timestamp(alert.since.astimezone().replace(tzinfo=None)),
                "resolving": is_better,
            }
            for alert, is_better in sent
            if alert.status != OK and alert.since is not None
        ]

    def _send_status(self, state: _State) -> None:
        before = None if state.sent is None else state.sent.status
        texts = (self._host, state.service, state.status, state.description)
        self._send(state, Alert(*texts, state.changed, before))

    def _repeat(self, state: _State) -> None:
        if state.sent is not None:
            self._send(state, state.sent._replace(previous=state.sent.status))

    def _send(self, state: _State, alert: Alert) -> None:
        if self._outlets is None:
            return
        state.sent = alert
        state.repeat = math.inf if alert.status == OK else self._clock() + self._refresh
        for send in self._outlets:
            send(alert)
        # Not the first OK, which is no news. Last, for a log handler may report this service.
        if not alert.is_repeated and not (alert.previous is None and alert.status == OK):
            text = (alert.service, alert.status, alert.description)
            log_safely(self._logger, logging.INFO, "Alert %s: %s, %s", *text)

    def _make_room(self) -> bool:
        """Whether one more service can be kept, if need be in place of one that is OK."""
        if len(self._states) < MOST_SERVICES:
            return True
        for service, state in self._states.items():
            if state.is_sent and state.status == OK:
                del self._states[service]
                return True
        if not self._overflowed:
            self._overflowed = True
            self._logger.error("More than %d services have alerts; ignoring more", MOST_SERVICES)
        return False

    def _clean(self, text: str) -> str:
        # Redacted before it is cut: half a secret isn't recognized.
        return plain(shorten(self._redact(text)))


def _rank(status: str) -> int:
    return STATUSES.index(status)
