"""The clients of the HTTP server: which are idle, which are too slow, and which are closed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..runtime.clock import monotonic
from .channel import Channel
from .poller import Poller

IDLE_TIMEOUT = 120.0
"""Seconds after which a connection without a request, or with an answer that isn't read, is
closed."""
LONGEST_EXTENSION = 10
"""How many times `request_timeout` the server's own slowness may add to it."""
IDLE_CHECK = 0.1
"""Seconds between two checks for idle connections, while all are to be closed."""


class Clients:
    """The open connections, and when each is to be closed.

    channels: all connections, as waitress keeps them; request_timeout: seconds to send a request.
    """

    def __init__(
        self,
        channels: Mapping[int, Channel],
        poller: Poller,
        logger: logging.Logger,
        request_timeout: float,
    ) -> None:
        self.lingering: dict[Channel, float] = {}
        """Refused clients that may still read their answer, and until when."""
        self.receiving: dict[Channel, float] = {}
        """Connections that are sending a request, and since when, the oldest first."""
        self.closes_idle_from: float | None = None
        """When connections begin to be closed as soon as they are idle, in monotonic seconds."""
        self.looks_for_idle = False
        """Whether all connections were busy, so that the first idle one must be reported."""
        self.busy = 0.0
        """Seconds that the loop spent on other things than waiting for input, so far."""
        self.shed = 0
        self.timed_out = 0
        self._channels = channels
        self._poller = poller
        self._logger = logger
        self._request_timeout = request_timeout
        self._idle_since: list[tuple[float, int, Channel]] = []
        self._idle: Channel | None = None
        self._next_sweep: float | None = None

    def run_due(self, now: float) -> list[float]:
        """Do what is due; returns when this is to be called again, in monotonic seconds."""
        dues: list[float | None] = []
        if self.lingering:
            dues.append(self._close_lingering(now))
        if self.receiving:
            dues.append(self._time_out_slow(now))
        if self._next_sweep is not None:
            if now >= self._next_sweep:
                self._next_sweep = self._close_idle(now)
            dues.append(self._next_sweep)
        if self.closes_idle_from is not None:
            dues.append(self._close_all_idle(now, self.closes_idle_from))
        return [due for due in dues if due is not None]

    def watch_idle(self) -> None:
        """Start closing connections that are idle for too long."""
        if self._next_sweep is None:
            self._next_sweep = monotonic() + IDLE_TIMEOUT

    def forget_order(self) -> None:
        """Sort the connections by idle time again before the next one is shed."""
        self._idle_since.clear()

    def _close_lingering(self, now: float) -> float | None:
        """Close the connections of refused clients that had time to read their answer."""
        for channel in [c for c, until in self.lingering.items() if now >= until]:
            channel.handle_close()
        return min(self.lingering.values(), default=None)

    def _time_out_slow(self, now: float) -> float | None:
        timeout = self._request_timeout
        while self.receiving:
            channel, began = next(iter(self.receiving.items()))
            # Time in which the server read nothing isn't the client's; up to a limit, as the loop
            # may be busy all the time.
            busy = min(self.busy - channel.busy_before, LONGEST_EXTENSION * timeout)
            if now < began + timeout + busy:
                return began + timeout + busy
            channel.time_out(timeout)
        return None

    def _close_all_idle(self, now: float, since: float) -> float | None:
        if now < since:
            return since
        for channel in list(self._channels.values()):
            if not (channel.is_busy or channel in self.lingering or channel.has_unread()):
                channel.drop()
        if self._channels:
            return now + IDLE_CHECK
        # At once: the server waits until all are closed.
        self.closes_idle_from = None
        return now

    def _close_idle(self, now: float) -> float | None:
        """Close connections that have been idle, or whose client has read nothing, for too long."""
        oldest = None
        self.drop_unread(IDLE_TIMEOUT, now)
        for channel in list(self._channels.values()):
            is_at_work = channel.requests or channel.answer_pending or channel in self.receiving
            is_waited_for = is_at_work and not channel.total_outbufs_len
            since = now if is_waited_for else channel.last_activity
            if now >= since + IDLE_TIMEOUT:
                channel.drop()
            else:
                oldest = since if oldest is None else min(since, oldest)
        return None if oldest is None else max(oldest + IDLE_TIMEOUT, now + 1)

    def drop_unread(self, seconds: float, now: float, began: float = 0.0) -> None:
        """Close connections whose clients have read nothing of their answers for `seconds`, not
        counting the time before `began`; this frees the threads that wait for them."""
        unread = [
            channel
            for channel in self._channels.values()
            if channel.total_outbufs_len
            and now >= max(channel.last_activity, began) + seconds
            and not channel.check_received()
        ]
        for channel in unread:
            channel.drop()
        if unread:
            self._logger.warning(
                "Connections closed whose clients read nothing of their answers for %g s: %d (%s)",
                seconds,
                len(unread),
                ", ".join(channel.peer for channel in unread[:10]),
            )

    def find_idle(self) -> bool:
        """Look for an idle connection; returns whether there is one."""
        idle = self._idle
        if idle is None or not idle.connected or idle.is_busy:
            # If none was idle, only those that changed since can be.
            channels = self._poller.rechecked if self.looks_for_idle else self._channels.values()
            # Set before the search: a thread that finishes later reports its connection.
            self.looks_for_idle = True
            self._idle = next(
                (c for c in channels if isinstance(c, Channel) and c.connected and not c.is_busy),
                None,
            )
        self.looks_for_idle = self._idle is None
        return self._idle is not None

    def shed_oldest(self) -> bool:
        """Close the connection that has been idle for longest; returns False if there is none."""
        if self._shed_next():
            return True
        self._idle_since = sorted(
            (
                (channel.last_activity, number, channel)
                for number, channel in self._channels.items()
                if not channel.is_busy
            ),
            reverse=True,
        )
        return self._shed_next()

    def _shed_next(self) -> bool:
        while self._idle_since:
            since, _, channel = self._idle_since.pop()
            unchanged = channel.connected and channel.last_activity == since
            if unchanged and not channel.is_busy and not channel.has_unread():
                channel.drop()
                self.shed += 1
                return True
        return False
