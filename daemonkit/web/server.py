"""Waitress's loop on a thread of its own, and a way to stop it."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments

from ..runtime.part import thread_died
from ..types import Problem
from .fast_lane import FastLane
from .listener import Listener
from .poller import Poller
from .pool import Pool
from .request import Application, ending_children
from .responses import SERVER

READ_AT_ONCE = 16 * 1024
"""Bytes of one connection between two looks at the others."""
AFTER_FAILURE = 0.1
"""Seconds, so that a failure which stays isn't all that happens."""
STOPPING_TURN = 0.1
UNREAD = 5.0
"""Seconds that stopping waits for clients that read nothing of their answers."""
UNSENT = 2.0
"""Seconds that stopping waits for requests that are still being sent."""
LAST_REQUESTS = 1.0
"""Seconds in which clients of a passed socket may send one more request on their connections, to be
told that these are about to be closed."""
GIVING_UP = 0.1
"""Seconds for idle pool threads to end once a busy one has been given up."""


class Server:
    """The HTTP server: waitress's loop on a thread, with its own pool for the requests.

    sock: a bound, listening socket, which this takes over; outlives_us: whether it was passed to
    us, so that clients that aren't accepted wait for our successor; lane: what answers events
    without the application, if anything; threads: size of the pool; max_request_size: bytes of a
    body; connection_limit: connections at a time; request_timeout: seconds to send a request.
    """

    name = "http"

    def __init__(
        self,
        application: Application,
        sock: socket.socket,
        logger: logging.Logger,
        *,
        outlives_us: bool = False,
        lane: FastLane | None,
        threads: int,
        max_request_size: int,
        connection_limit: int,
        request_timeout: float,
    ) -> None:
        self._logger = logger
        self._socket = sock
        self.outlives_us = outlives_us
        self._application = application
        self._adjustments = Adjustments(
            threads=threads,
            # Waitress refuses a body of exactly its limit as well.
            max_request_body_size=max_request_size + 1,
            recv_bytes=READ_AT_ONCE,
            # In memory, within the limits there are: a temporary folder may be missing or full.
            inbuf_overflow=sys.maxsize,
            outbuf_overflow=sys.maxsize,
            ident=SERVER,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
        )
        # Most clients send the same head each time; see Parser.
        self._adjustments.known_heads = {}
        self._map: dict[int, Any] = {}
        self._lane = lane
        self._connection_limit = connection_limit
        self._request_timeout = request_timeout
        self._pool = Pool()
        self._listener: Listener | None = None
        self._poller = Poller()
        self._thread = threading.Thread(target=self._loop, name=self.name, daemon=True)
        self._stopping = False
        self._give_up = False
        self._is_empty = threading.Event()

    def start(self) -> None:
        self._pool.start(self._adjustments.threads)
        self._listener = Listener(
            self._logger,
            self._poller,
            self._lane,
            self.outlives_us,
            self._connection_limit,
            self._request_timeout,
            ending_children(self._application),
            self._map,
            _sock=self._socket,
            dispatcher=self._pool,
            adj=self._adjustments,
            sockinfo=(self._socket.family, self._socket.type, 0, self._socket.getsockname()),
            bind_socket=False,
        )
        self._thread.start()

    def admit(self) -> None:
        """Accept connections on a socket that was passed, too: nothing is refused any more."""
        assert self._listener is not None
        self._listener.is_open = True
        self._wake()

    def drain(self) -> None:
        """Say with each answer that its connection is closed; on a socket that was passed, leave
        new connections to the successor."""
        if self._listener is not None:
            self._listener.draining = True
            self._wake()

    def wait_until_empty(self, timeout: float) -> None:
        """After `drain`, wait until the clients of a passed socket are gone: until each has been
        answered once more, or has had time for a request and sent none."""
        if self._listener is not None and self._listener.active_channels:
            self._listener.clients.closes_idle_from = time.monotonic() + min(LAST_REQUESTS, timeout)
            self._wake()
            self._is_empty.wait(timeout)

    def request_stop(self) -> None:
        """Take no more connections; those that are there get their answers."""
        self.drain()
        self._stopping = True
        self._wake()

    def join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        if self._thread.ident is None:
            # It could not be started; the pool's threads may have been.
            self._close(GIVING_UP)
            stopped = True
        else:
            self._thread.join(timeout)
            stopped = not self._thread.is_alive()
        if not stopped:
            self._give_up = True
            self._wake()
            self._thread.join(2 * GIVING_UP)
            until = time.monotonic() + GIVING_UP
        # They have left the pool when the loop ends, but maybe not ended.
        for thread in self._pool.made:
            thread.join(max(0.0, until - time.monotonic()))
        return stopped

    def running_threads(self) -> list[threading.Thread]:
        return [t for t in (self._thread, *self._pool.made) if t.is_alive()]

    def counters(self) -> dict[str, Any]:
        """Connections open now and closed to make room for others, requests that came too slowly,
        whether the fast lane is open, and how many events it has taken."""
        listener, lane = self._listener, self._lane
        state = "closed: fast_events is false" if lane is None else lane.state()
        if listener is not None and listener.draining:
            state = "closed: the daemon is draining"
        return {
            "connections": 0 if listener is None else len(listener.active_channels),
            "shed": 0 if listener is None else listener.clients.shed,
            "timed_out": 0 if listener is None else listener.clients.timed_out,
            "fast_lane": state,
            "fast_events": 0 if lane is None else lane.accepted,
        }

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        return thread_died("the HTTP server", self._thread, stopping=self._stopping)

    def _wake(self) -> None:
        if self._listener is not None:
            self._listener.wake()

    def _loop(self) -> None:
        listener = self._listener
        assert listener is not None
        listener.loop_thread = threading.get_ident()
        while not self._stopping:
            self._turn(listener, None)
            if listener.draining and not listener.active_channels:
                self._is_empty.set()
        # Closing the socket would reset the clients in its backlog.
        count = -1
        while listener.admits and count < len(listener.active_channels):
            count = len(listener.active_channels)
            self._turn(listener, 0)
        wasyncore.dispatcher.close(listener)
        self._finish_requests(listener)
        for channel in list(listener.active_channels.values()):
            channel.linger()
        while not self._give_up and listener.clients.lingering:
            self._turn(listener, STOPPING_TURN)
        self._close(GIVING_UP if self._give_up else 5)

    def _finish_requests(self, listener: Listener) -> None:
        """Answer what clients have sent, but not what they send behind an answer."""
        began = time.monotonic()
        while not self._give_up:
            self._turn(listener, 0)
            if not self._in_work(listener, began):
                break
            self._turn(listener, STOPPING_TURN)
            listener.clients.drop_unread(UNREAD, time.monotonic(), began)

    def _close(self, patience: float) -> None:
        """End what has been started; patience: seconds to wait for threads."""
        self._pool.shutdown(timeout=patience)
        if self._listener is not None:
            self._listener.close_trigger()
            for channel in list(self._listener.active_channels.values()):
                channel.drop()
        wasyncore.close_all(self._map)
        self._poller.close()
        self._socket.close()

    def _turn(self, listener: Listener, at_most: float | None) -> None:
        try:
            try:
                accepts = self._handle_ready(listener, listener.run_due(at_most))
                while self._lane is not None and self._lane.gathers():
                    accepts = self._handle_ready(listener, 0)
            finally:
                if self._lane is not None:
                    self._lane.turn_ended()
            # New connections come last: for them, others are closed that seem to be idle.
            if accepts:
                self._handle(listener._fileno, accepts)
        # Whatever one connection brings about, the others must go on being served.
        except Exception:
            self._logger.exception("The HTTP loop failed and goes on")
            time.sleep(AFTER_FAILURE)

    def _handle_ready(self, listener: Listener, timeout: float | None) -> int:
        """Wait, and handle what is ready, but not new connections: their flags are returned."""
        ready = dict(self._poller.wait(timeout))
        accepts = ready.pop(listener._fileno, 0)
        for fd, flags in ready.items():
            self._handle(fd, flags)
        return accepts

    def _handle(self, fd: int, flags: int) -> None:
        # One that is ready may have been closed by the one before.
        item = self._map.get(fd)
        if item is not None:
            self._poller.look_again(item)
            wasyncore.readwrite(item, flags)

    def _in_work(self, listener: Listener, began: float) -> bool:
        """Whether something is to be answered, or has been read for less than UNSENT seconds."""
        is_early = time.monotonic() < began + UNSENT
        return any(
            channel.requests
            or channel.total_outbufs_len
            or (is_early and (channel in listener.clients.receiving or channel.has_unread()))
            for channel in listener.active_channels.values()
            if channel not in listener.clients.lingering
        )
