"""The listening socket, and what concerns all connections: who is let in, and who is let go."""

from __future__ import annotations

import errno
import logging
import threading
import time
from typing import Any

from waitress.server import TcpWSGIServer

from ..runtime.ratelimit import RateLimit
from ..system.sockets import plain_address
from .channel import Channel
from .fast_lane import FastLane
from .poller import Poller

IDLE_TIMEOUT = 120.0
"""Seconds after which a connection without a request, or with an answer that isn't read, is
closed."""
IDLE_LOOK = 0.1
"""Seconds between two looks for connections that have become idle, while all are to be closed."""
ACCEPT_AT_ONCE = 64
PAUSE = 1.0
"""Seconds without accepting connections when descriptors or memory have run out."""
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
LOG_INTERVAL = 60.0
"""Seconds between two lines about connections of one kind."""
SHEDDING = "idle connections are closed for new ones, the oldest first"


class Listener(TcpWSGIServer):
    """Waitress's server without its loop.

    poller: what the loop waits with; lane: what takes events without the application, if anything;
    outlives_us: whether the socket was passed to us; connection_limit: connections at a time;
    request_timeout: seconds to send a request.
    """

    channel_class = Channel

    def __init__(
        self,
        logger: logging.Logger,
        poller: Poller,
        lane: FastLane | None,
        outlives_us: bool,
        connection_limit: int,
        request_timeout: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.poller = poller
        self.lane = lane
        self._outlives_us = outlives_us
        self.lingering: dict[Channel, float] = {}
        self.receiving: dict[Channel, float] = {}
        """Connections that a request is being read from, and since when, the oldest first."""
        self.draining = False
        """Whether each answer says that the connection is closed behind it."""
        self.is_open = False
        """Whether connections on a socket that was passed are accepted, too."""
        self.closes_idle_from: float | None = None
        """When connections begin to be closed as soon as they are idle, in monotonic seconds."""
        self.shed = 0
        self.timed_out = 0
        self.own_logger = logger
        self._limit = connection_limit
        self._request_timeout = request_timeout
        self._limits = {kind: RateLimit(LOG_INTERVAL) for kind in ("shed", "full")}
        self._idle_since: list[tuple[float, int, Channel]] = []
        self._next_sweep: float | None = None
        self._paused_until: float | None = None
        self.looks_for_idle = False
        """Whether all connections were busy, and one that isn't any more is to be reported."""
        self._idle: Channel | None = None
        self.loop_thread = 0
        self._trigger_lock = threading.Lock()
        self._trigger_closed = False
        super().__init__(*args, **kwargs)
        poller.last = self
        poller.look_again(self.trigger)

    # What is due at a certain time

    def run_due(self, at_most: float | None) -> float | None:
        """Do what is due; returns the seconds until something is again, but `at_most`; None for
        never."""
        now = time.monotonic()
        dues = [None if at_most is None else now + at_most]
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
        if self._is_paused(now):
            dues.append(self._paused_until)
        due = min((due for due in dues if due is not None), default=None)
        return None if due is None else max(0.0, due - now)

    def _close_lingering(self, now: float) -> float | None:
        """Let go of the refused clients that had time enough to read their answer."""
        for channel in [c for c, until in self.lingering.items() if now >= until]:
            channel.handle_close()
        return min(self.lingering.values(), default=None)

    def _time_out_slow(self, now: float) -> float | None:
        while self.receiving:
            channel, began = next(iter(self.receiving.items()))
            if now < began + self._request_timeout:
                return began + self._request_timeout
            channel.time_out(self._request_timeout)
        return None

    def _close_all_idle(self, now: float, since: float) -> float | None:
        if now < since:
            return since
        for channel in list(self.active_channels.values()):
            if not (channel.is_busy or channel in self.lingering or channel.has_unread()):
                channel.drop()
        if self.active_channels:
            return now + IDLE_LOOK
        # At once, for whoever waits until all are gone.
        self.closes_idle_from = None
        return now

    def _close_idle(self, now: float) -> float | None:
        """Close the connections that have been idle for too long, or don't read their answers."""
        oldest = None
        self.drop_unread(IDLE_TIMEOUT, now)
        for channel in list(self.active_channels.values()):
            is_at_work = channel.requests or channel in self.receiving
            is_waited_for = is_at_work and not channel.total_outbufs_len
            since = now if is_waited_for else channel.last_activity
            if now >= since + IDLE_TIMEOUT:
                channel.drop()
            else:
                oldest = since if oldest is None else min(since, oldest)
        return None if oldest is None else max(oldest + IDLE_TIMEOUT, now + 1)

    def drop_unread(self, seconds: float, now: float, began: float = 0.0) -> None:
        """Close the connections whose clients have read nothing of their answers for so many
        seconds since `began`, and so free the threads that wait for them."""
        unread = [
            channel
            for channel in self.active_channels.values()
            if channel.total_outbufs_len
            and now >= max(channel.last_activity, began) + seconds
            and not channel.is_received()
        ]
        for channel in unread:
            channel.drop()
        if unread:
            self.own_logger.warning(
                "Connections closed whose clients read nothing of their answers for %g s: %d (%s)",
                seconds,
                len(unread),
                ", ".join(channel.peer for channel in unread[:10]),
            )

    # New connections

    @property
    def admits(self) -> bool:
        """Whether new connections are accepted, and not left to our successor."""
        return not self._outlives_us or (self.is_open and not self.draining)

    def readable(self) -> bool:
        if not (self.accepting and self.admits) or self._is_paused(time.monotonic()):
            return False
        if len(self.active_channels) < self._limit:
            self.looks_for_idle = False
            return True
        if self._one_is_idle():
            return True
        self._tell_limit("full", "all of them are busy, so new ones have to wait")
        return False

    def _one_is_idle(self) -> bool:
        idle = self._idle
        if idle is None or not idle.connected or idle.is_busy:
            # Once none was, only those can be that something has happened to.
            channels = self.poller.asked if self.looks_for_idle else self.active_channels.values()
            # Before the look: a thread that is done after it reports that.
            self.looks_for_idle = True
            self._idle = next(
                (c for c in channels if isinstance(c, Channel) and c.connected and not c.is_busy),
                None,
            )
        self.looks_for_idle = self._idle is None
        return self._idle is not None

    def handle_accept(self) -> None:
        if len(self.active_channels) >= self._limit:
            self._tell_limit("shed", SHEDDING)
            self._shed_oldest()
        else:
            self._idle_since.clear()
        for _ in range(ACCEPT_AT_ONCE):
            count = len(self.active_channels)
            if count >= self._limit:
                break
            super().handle_accept()
            if len(self.active_channels) <= count:
                break
        if self._next_sweep is None:
            self._next_sweep = time.monotonic() + IDLE_TIMEOUT

    def _tell_limit(self, kind: str, what: str) -> None:
        if self._limits[kind].allow() is not None:
            self.own_logger.warning(
                "The limit of %d connections (connection_limit) is reached: %s", self._limit, what
            )

    def _is_paused(self, now: float) -> bool:
        return self._paused_until is not None and now < self._paused_until

    def accept(self) -> Any:
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            if self._shed_oldest():
                if self._limits["shed"].allow() is not None:
                    self.own_logger.warning("%s: %s", error.strerror, SHEDDING)
                return None
            # The connection stays in the backlog, so without a pause this would be a busy loop.
            if self._paused_until is None:
                self.own_logger.error("No connections can be accepted: %s", error.strerror)
            self._paused_until = time.monotonic() + PAUSE
            return None
        if accepted is not None and self._paused_until is not None:
            self._paused_until = None
            self.own_logger.info("Connections are accepted again")
        return accepted

    def _shed_oldest(self) -> bool:
        """Close the connection that has been idle for longest; False when there is none."""
        if self._shed_next():
            return True
        self._idle_since = sorted(
            (
                (channel.last_activity, number, channel)
                for number, channel in self.active_channels.items()
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

    # Waking the loop

    def wake(self) -> None:
        """Have the loop turn once more."""
        # A request that outlives the loop would write into a descriptor that is another file's.
        with self._trigger_lock:
            if not self._trigger_closed:
                super().pull_trigger()

    def tell(self, channel: Channel) -> None:
        """Have the loop ask a connection what it waits for."""
        self.poller.look_again(channel)
        if not self.poller.is_woken and threading.get_ident() != self.loop_thread:
            self.poller.is_woken = True
            self.wake()

    # What waitress calls

    def handle_error(self) -> None:
        self.own_logger.exception("Taking a connection failed")
        self._paused_until = time.monotonic() + PAUSE

    def del_channel(self, map: Any = None) -> None:
        self.poller.forget(self._fileno)
        super().del_channel(map)

    def fix_addr(self, addr: Any) -> Any:
        return (plain_address(addr[0]), *addr[1:])

    def pull_trigger(self) -> None:
        # Waitress does it after each request; a channel knows whether there is anything to report.
        pass

    def close_trigger(self) -> None:
        with self._trigger_lock:
            self._trigger_closed = True
            self.trigger.close()
