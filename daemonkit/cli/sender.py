"""Sends events to a running daemon, and counts what has become of them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from select import select
from typing import NamedTuple

from ..exceptions import DaemonkitError
from .client import Address, Answer, Client, Unreachable
from .refusal import refusal

NDJSON = "application/x-ndjson"
JSON = "application/json"
LONGEST_WAIT = 60.0
"""Seconds between two attempts, whatever Retry-After says."""
RECONNECT_AFTER = 1.0
ABOUT_THE_EVENTS = (400, 413)
"""Refusals that say nothing about other events."""
LARGEST_DATAGRAM = 65_507
ICMP_WAIT = 0.05
"""Seconds; on the same machine, a refused datagram is reported at once."""


class Stopped(DaemonkitError):
    """Sending can't go on; exit_status: 1 if the daemon refuses, 3 if it can't be reached."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Retries(NamedTuple):
    """seconds: how long a batch is retried while the daemon is not available; resends: whether also
    one that it may have accepted."""

    seconds: float
    resends: bool = False


class Counts:
    """Events by what has become of them; all that were sent are in exactly one of the others."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.unknown = 0

    @property
    def sent(self) -> int:
        return self.accepted + self.refused + self.unknown


class HttpSender:
    """Sends batches over HTTP, one after the other.

    report: called with a line about each batch that wasn't accepted; sleep, clock: in seconds.
    """

    def __init__(
        self,
        client: Client,
        retries: Retries,
        report: Callable[[str], None],
        sleep: Callable[[float], object],
        clock: Callable[[], float],
    ) -> None:
        self.counts = Counts()
        self._client = client
        self._retries = retries
        self._report = report
        self._sleep = sleep
        self._clock = clock
        self._has_answered = False
        self._lost_in_a_row = 0

    def send(self, events: list[bytes], place: str, content_type: str = NDJSON) -> None:
        """Send a batch; raises Stopped when no further one can be sent, and Unreachable when the
        daemon has never answered. place: names the batch."""
        body, until = b"\n".join(events) + b"\n", self._clock() + self._retries.seconds
        while True:
            try:
                answer = self._client.post("/events", body, content_type)
            except KeyboardInterrupt:
                # Its answer was waited for.
                self.counts.unknown += len(events)
                raise
            except Unreachable as error:
                is_lost = error.was_sent and not self._retries.resends
                if is_lost:
                    self._lose(len(events), f"{place}: {error}")
                    return
                # It wasn't sent, or is sent again.
                if not (self._has_answered or error.was_sent) or not self._may_wait(
                    RECONNECT_AFTER, until
                ):
                    self._give_up(error.was_sent, len(events))
                    if self._has_answered:
                        raise Stopped(f"stopped at {place}: {error}", 3) from None
                    raise
                continue
            self._has_answered, self._lost_in_a_row = True, 0
            if answer.status != 503 or not self._may_wait(_retry_after(answer), until):
                self._settle(answer, len(events), place)
                return

    def _may_wait(self, seconds: float, until: float) -> bool:
        """Wait before another attempt, unless there is no time for it."""
        if self._clock() + seconds > until:
            return False
        self._sleep(seconds)
        return True

    def _lose(self, count: int, problem: str) -> None:
        self.counts.unknown += count
        self._lost_in_a_row += 1
        text = f"{problem}; whether the events were accepted is unknown"
        # It may hang, and would keep each further batch waiting.
        if self._lost_in_a_row > 1 or not self._has_answered:
            raise Stopped(text, 3)
        self._report(text)

    def _give_up(self, may_have_it: bool, count: int) -> None:
        if may_have_it:
            self.counts.unknown += count

    def _settle(self, answer: Answer, count: int, place: str) -> None:
        value = answer.json()
        if answer.status == 200 and isinstance(value, dict) and value.get("result") is True:
            self.counts.accepted += count
            return
        self.counts.refused += count
        text = f"{place}: {refusal(self._client, answer)}"
        if answer.status not in ABOUT_THE_EVENTS:
            raise Stopped(text, 1)
        self._report(text)


def _retry_after(answer: Answer) -> float:
    """Seconds; as a date, it isn't what a daemon sends."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else RECONNECT_AFTER


class DatagramSender:
    """Sends each event as a datagram; whether one arrives is not known, but that nothing listens
    on this machine is noticed. Raises Unreachable."""

    def __init__(self, address: Address, report: Callable[[str], None]) -> None:
        self.counts = Counts()
        self._report = report
        self._name = f"{address.host} port {address.port}"
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise Unreachable(f"cannot reach {address.text}: {error.strerror}") from None
        family, _, _, _, where = found[0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.connect(where)
        except OSError as error:
            self.close()
            raise Unreachable(f"cannot reach {address.text}: {error.strerror}") from None

    def send(self, events: list[bytes], place: str) -> None:
        """Send a batch."""
        for event in events:
            if len(event) > LARGEST_DATAGRAM:
                self.counts.refused += 1
                self._report(
                    f"{place}: an event of {len(event)} bytes doesn't fit into a datagram "
                    f"({LARGEST_DATAGRAM})"
                )
                continue
            try:
                self._socket.send(event)
            except OSError as error:
                raise self._stopped(error) from None
            self.counts.unknown += 1

    def finish(self) -> None:
        """Notice that the last datagram was refused."""
        if select([self._socket], [], [], ICMP_WAIT)[0]:
            try:
                self._socket.recv(1)
            except OSError as error:
                raise self._stopped(error) from None

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self._socket.close()

    def _stopped(self, error: OSError) -> Stopped:
        return Stopped(f"nothing listens for datagrams at {self._name}: {error.strerror}", 3)


class Pace:
    """Keeps to a number of events per second, None for as many as possible."""

    def __init__(
        self, rate: float | None, sleep: Callable[[float], object], clock: Callable[[], float]
    ) -> None:
        self._rate = rate
        self._sleep = sleep
        self._clock = clock
        self._due = clock()

    def wait(self, count: int) -> None:
        """Wait until the next `count` events may be sent."""
        if self._rate is None:
            return
        now = self._clock()
        if self._due > now:
            self._sleep(self._due - now)
        # What was late isn't caught up on in a burst.
        self._due = max(self._due, now) + count / self._rate
