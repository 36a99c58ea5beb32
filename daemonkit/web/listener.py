"""The listening socket: which connections are accepted, and when."""

from __future__ import annotations

import errno
import logging
import threading
from socket import AF_UNIX
from typing import Any

from waitress.server import TcpWSGIServer
from waitress.utilities import logger as waitress_logger

from ..runtime.clock import monotonic
from ..runtime.failures import FailureLog, LimitedLogger, Location
from ..system.sockets import plain_address
from .answers import Answers
from .channel import Channel
from .clients import Clients
from .fast_lane import FastLane
from .poller import Poller

ACCEPT_AT_ONCE = 64
PAUSE = 1.0
"""Seconds without accepting connections when descriptors or memory have run out."""
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
SHEDDING = "idle connections are closed for new ones, the oldest first"


class Listener(TcpWSGIServer):
    """Waitress's server without its loop.

    failures: logs what fails; poller: what the loop waits with; lane: the fast lane, None if
    disabled; answers: counts what is answered without it; is_passed: whether the socket was passed
    to this process; is_admin: whether it is the admin listener; connection_limit: most open
    connections; request_timeout: seconds to send a request.
    """

    channel_class = Channel

    def __init__(
        self,
        logger: logging.Logger,
        failures: FailureLog,
        poller: Poller,
        lane: FastLane | None,
        answers: Answers,
        is_passed: bool,
        is_admin: bool,
        connection_limit: int,
        request_timeout: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.poller = poller
        self.lane = lane
        self.answers = answers
        self._is_passed = is_passed
        self.is_admin = is_admin
        self.draining = False
        """Whether each answer says that its connection will be closed."""
        self.is_open = False
        """Whether connections are accepted on a passed socket too."""
        self.own_logger = logger
        self.failures = failures
        self.limited_logger = LimitedLogger(waitress_logger, failures, "A request failed")
        self._limit = connection_limit
        self._paused_until: float | None = None
        self.polled_at = monotonic()
        """When the loop last looked which connections can be read, in monotonic seconds."""
        self.loop_thread = 0
        self._trigger_lock = threading.Lock()
        self._trigger_closed = False
        super().__init__(*args, **kwargs)
        self.clients = Clients(self.active_channels, poller, logger, request_timeout)
        poller.last = self
        poller.recheck(self.trigger)

    def run_due(self, at_most: float | None) -> float | None:
        """Do what is due; returns the seconds until something is due again, at most `at_most`, or
        None for never."""
        now = monotonic()
        self.clients.busy += max(0.0, now - self.polled_at)
        dues = self.clients.run_due(now)
        if at_most is not None:
            dues.append(now + at_most)
        if self._paused_until is not None and self._is_paused(now):
            dues.append(self._paused_until)
        return max(0.0, min(dues) - now) if dues else None

    # New connections

    @property
    def admits(self) -> bool:
        """Whether new connections are accepted; otherwise they wait for the next process."""
        return not self._is_passed or (self.is_open and not self.draining)

    def readable(self) -> bool:
        if not (self.accepting and self.admits) or self._is_paused(monotonic()):
            return False
        if len(self.active_channels) < self._limit:
            self.clients.looks_for_idle = False
            return True
        if self.clients.find_idle():
            return True
        self._log_limit("all of them are busy, so new ones must wait")
        return False

    def handle_accept(self) -> None:
        if len(self.active_channels) >= self._limit:
            self._log_limit(SHEDDING)
            self.clients.shed_oldest()
        else:
            self.clients.forget_order()
        for _ in range(ACCEPT_AT_ONCE):
            count = len(self.active_channels)
            if count >= self._limit:
                break
            super().handle_accept()
            if len(self.active_channels) <= count:
                break
        self.clients.watch_idle()

    def _log_limit(self, what: str) -> None:
        # Not counted: this is a state, and is looked at all the time.
        if self.failures.is_new(Location("The limit", what)):
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
            if self.clients.shed_oldest():
                if self.failures.is_new(Location("The limit", SHEDDING)):
                    self.own_logger.warning("%s: %s", error.strerror, SHEDDING)
                return None
            # The connection stays in the backlog, so without a pause this would be a busy loop.
            if self._paused_until is None:
                self.own_logger.error("No connections can be accepted: %s", error.strerror)
            self._paused_until = monotonic() + PAUSE
            return None
        if accepted is not None and self._paused_until is not None:
            self._paused_until = None
            self.own_logger.info("Connections are accepted again")
        return accepted

    # Waking the loop

    def wake(self) -> None:
        """Make the loop run once more."""
        # Once it is closed, its descriptor may belong to another file.
        with self._trigger_lock:
            if not self._trigger_closed:
                super().pull_trigger()

    def recheck(self, channel: Channel) -> None:
        """Make the loop check again what a connection waits for; may be called from any thread."""
        self.poller.recheck(channel)
        if not self.poller.is_woken and threading.get_ident() != self.loop_thread:
            self.poller.is_woken = True
            self.wake()

    # What waitress calls

    def handle_error(self) -> None:
        self.failures.log_raised("Accepting a connection failed")
        self._paused_until = monotonic() + PAUSE

    def del_channel(self, map: Any = None) -> None:
        self.poller.forget(self._fileno)
        super().del_channel(map)

    def fix_addr(self, addr: Any) -> Any:
        # A Unix socket's peer has no address.
        return ("", 0) if self.family == AF_UNIX else (plain_address(addr[0]), *addr[1:])

    def getsockname(self) -> Any:
        return ("localhost", 0) if self.family == AF_UNIX else super().getsockname()

    def set_socket_options(self, conn: Any) -> None:
        if self.family != AF_UNIX:
            super().set_socket_options(conn)

    def pull_trigger(self) -> None:
        # Waitress calls this after each request; a channel wakes the loop only if needed.
        pass

    def close_trigger(self) -> None:
        with self._trigger_lock:
            self._trigger_closed = True
            self.trigger.close()
