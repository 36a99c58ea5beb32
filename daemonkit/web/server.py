"""Runs waitress's loop on a thread, and stops it without losing requests."""

from __future__ import annotations

import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments

from ..events.entry import Watched
from ..runtime.clock import monotonic
from ..runtime.failures import FailureLog
from ..runtime.part import ThreadedPart
from ..system.sockets import remove_socket_file
from .answers import Answers
from .fast_lane import FastLane
from .listener import Listener
from .poller import Poller
from .pool import Pool
from .responses import SERVER
from .task import Application, with_fork_guard

READ_SIZE = 16 * 1024
"""Bytes read from one connection before the others have their turn."""
FAILURE_PAUSE = 0.1
"""Seconds between iterations of a loop that keeps failing."""
STOP_POLL_INTERVAL = 0.1
UNREAD_TIMEOUT = 5.0
"""Seconds that a stop waits for a client that reads nothing of its answer."""
UNSENT_TIMEOUT = 2.0
"""Seconds that a stop waits for requests that are still being sent."""
LAST_REQUEST_TIMEOUT = 1.0
"""Seconds that an idle client of a passed socket has for one more request, whose answer says
`Connection: close`."""
ABANDON_TIMEOUT = 0.1
"""Seconds for the other threads to end after a busy one has been abandoned."""


class Server(ThreadedPart):
    """The HTTP server: waitress's loop on one thread, and a pool of threads for requests.

    sock: a bound, listening socket, which this closes; is_passed: whether the socket was passed
    to this process, so that its successor accepts the clients left in the backlog; is_admin:
    whether it is the admin listener; lane: answers events without the application, None if
    disabled; log: called with each task that has answered; threads: size of the pool;
    max_request_size: bytes in a body; connection_limit: most open connections; request_timeout:
    seconds that a client has to send a request.
    """

    def __init__(
        self,
        application: Application,
        sock: socket.socket,
        logger: logging.Logger,
        *,
        is_passed: bool = False,
        is_admin: bool = False,
        lane: FastLane | None,
        log: Callable[[Any], object] | None = None,
        threads: int,
        max_request_size: int,
        connection_limit: int,
        request_timeout: float,
    ) -> None:
        name = "admin" if is_admin else "http"
        super().__init__(name, f"the {'admin' if is_admin else 'HTTP'} server")
        self._is_admin = is_admin
        self._logger = logger
        self.failures = FailureLog(logger)
        self._socket = sock
        self._path: str = sock.getsockname() if sock.family == socket.AF_UNIX else ""
        self.is_passed = is_passed
        self._application = application
        self._adjustments = Adjustments(
            threads=threads,
            # Waitress refuses a body whose size equals its limit.
            max_request_body_size=max_request_size + 1,
            recv_bytes=READ_SIZE,
            # Keep bodies in memory: the temporary folder may be missing or full.
            inbuf_overflow=sys.maxsize,
            outbuf_overflow=sys.maxsize,
            ident=SERVER,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
        )
        # Used by Parser: most clients send the same head each time.
        self._adjustments.head_cache = {}
        self._map: dict[int, Any] = {}
        self._lane = lane
        self._answers = Answers(log)
        self._connection_limit = connection_limit
        self._request_timeout = request_timeout
        self._pool = Pool(self.failures, name)
        self._listener: Listener | None = None
        self._poller = Poller()
        self._abandon = False
        self._is_empty = threading.Event()
        self._duties: list[Callable[[float], float]] = []

    def start(self) -> None:
        self._pool.start(self._adjustments.threads)
        self._listener = Listener(
            self._logger,
            self.failures,
            self._poller,
            self._lane,
            self._answers,
            self.is_passed,
            self._is_admin,
            self._connection_limit,
            self._request_timeout,
            with_fork_guard(self._application),
            self._map,
            _sock=self._socket,
            dispatcher=self._pool,
            adj=self._adjustments,
            sockinfo=(self._socket.family, self._socket.type, 0, self._socket.getsockname()),
            bind_socket=False,
        )
        super().start()

    def admit(self) -> None:
        """Accept connections on a passed socket; on any other they are accepted from the start."""
        assert self._listener is not None
        self._listener.is_open = True
        self.wake()

    def drain(self) -> None:
        """Close each connection after its next answer, and leave a passed socket's new connections
        to the successor."""
        if self._listener is not None:
            self._listener.draining = True
            self.wake()

    def wait_until_empty(self, timeout: float) -> None:
        """Wait at most `timeout` seconds after `drain` until no client is connected.

        Each client gets one more answer, or is disconnected if it stays idle.
        """
        if self._listener is not None and self._listener.active_channels:
            grace = min(LAST_REQUEST_TIMEOUT, timeout)
            self._listener.clients.closes_idle_from = monotonic() + grace
            self.wake()
            self._is_empty.wait(timeout)

    def request_stop(self) -> None:
        """Accept no more connections, and end once the requests in flight are answered."""
        self.drain()
        super().request_stop()
        self.wake()

    def join(self, timeout: float) -> bool:
        until = monotonic() + timeout
        if self._thread.ident is None:
            # It could not be started; the pool's threads may have been.
            self._close(ABANDON_TIMEOUT)
            stopped = True
        else:
            stopped = super().join(timeout)
        if not stopped:
            self._abandon = True
            self.wake()
            self._thread.join(2 * ABANDON_TIMEOUT)
            until = monotonic() + ABANDON_TIMEOUT
        # Pool threads may still run for a moment after they have left the pool.
        for thread in self._pool.started:
            thread.join(max(0.0, until - monotonic()))
        return stopped

    def running_threads(self) -> list[threading.Thread]:
        return super().running_threads() + [t for t in self._pool.started if t.is_alive()]

    # For what waits on this loop, see `events.entry.Loop`

    @property
    def busy(self) -> float:
        """Seconds that the loop has spent on other things than waiting, so far."""
        return 0.0 if self._listener is None else self._listener.clients.busy

    def add_duty(self, run_due: Callable[[float], float]) -> None:
        """Call `run_due` with the monotonic time before each wait; it returns when to call it
        again."""
        self._duties.append(run_due)

    def watch(self, item: Watched) -> None:
        """Wait for a descriptor, or check again what for; only on the loop's thread."""
        if item._fileno is not None:
            self._map[item._fileno] = item
            self._poller.recheck(item)

    def forget(self, item: Watched) -> None:
        """Wait for a descriptor no more; call this before closing it, on the loop's thread."""
        if item._fileno is not None:
            self._poller.forget(item._fileno)
            self._map.pop(item._fileno, None)

    def wake(self) -> None:
        """Run the loop once more; may be called from any thread."""
        if self._listener is not None:
            self._listener.wake()

    def counters(self) -> dict[str, Any]:
        """The keys under `http` in /status."""
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
            "answers": self._answers.counts(lane),
        }

    def _run(self) -> None:
        listener = self._listener
        assert listener is not None
        listener.loop_thread = threading.get_ident()
        while not self._stop_requested.is_set():
            self._run_once(listener, None)
            if listener.draining and not listener.active_channels:
                self._is_empty.set()
        # Accept the clients in the backlog: closing the socket would reset their connections.
        count = -1
        while listener.admits and count < len(listener.active_channels):
            count = len(listener.active_channels)
            self._run_once(listener, 0)
        wasyncore.dispatcher.close(listener)
        self._finish_requests(listener)
        for channel in list(listener.active_channels.values()):
            channel.linger()
        while not self._abandon and listener.clients.lingering:
            self._run_once(listener, STOP_POLL_INTERVAL)
        self._close(ABANDON_TIMEOUT if self._abandon else 5)

    def _finish_requests(self, listener: Listener) -> None:
        """Answer the requests in flight, but none that follows an answer."""
        began = monotonic()
        while not self._abandon:
            self._run_once(listener, 0)
            if not self._has_work(listener, began):
                break
            self._run_once(listener, STOP_POLL_INTERVAL)
            listener.clients.drop_unread(UNREAD_TIMEOUT, monotonic(), began)

    def _close(self, patience: float) -> None:
        """Release everything; wait at most `patience` seconds for the pool's threads."""
        self._pool.shutdown(timeout=patience)
        if self._listener is not None:
            self._listener.close_trigger()
            for channel in list(self._listener.active_channels.values()):
                channel.drop()
        wasyncore.close_all(self._map)
        self._poller.close()
        self._socket.close()
        if self._path:
            remove_socket_file(self._path)

    def _run_once(self, listener: Listener, at_most: float | None) -> None:
        try:
            try:
                accepts = self._handle_ready(listener, self._run_due(listener, at_most))
                while self._lane is not None and self._lane.continue_gathering():
                    accepts = self._handle_ready(listener, 0)
            finally:
                if self._lane is not None:
                    self._lane.end_iteration()
            # Last, so that no connection counts as idle whose request is about to be read.
            if accepts:
                self._handle(listener._fileno, accepts)
        # A failure of one connection must not affect the others.
        except Exception as error:
            self.failures.log(error, "The HTTP loop failed", then=" and continues")
            time.sleep(FAILURE_PAUSE)

    def _run_due(self, listener: Listener, at_most: float | None) -> float | None:
        """Do what is due; returns the seconds until something is due again, None for never."""
        wait = listener.run_due(at_most)
        if self._duties:
            now = monotonic()
            due = min(run_due(now) for run_due in self._duties)
            if due < math.inf:
                wait = min(max(0.0, due - now), math.inf if wait is None else wait)
        return wait

    def _handle_ready(self, listener: Listener, timeout: float | None) -> int:
        """Wait for connections and handle those that are ready; return the listener's flags."""
        ready = dict(self._poller.wait(timeout))
        listener.polled_at = monotonic()
        accepts = ready.pop(listener._fileno, 0)
        for fd, flags in ready.items():
            self._handle(fd, flags)
        return accepts

    def _handle(self, fd: int, flags: int) -> None:
        # Handling another connection may have closed this one.
        item = self._map.get(fd)
        if item is not None:
            self._poller.recheck(item)
            wasyncore.readwrite(item, flags)

    def _has_work(self, listener: Listener, began: float) -> bool:
        """Whether a request is to be answered, or one may still arrive since `began`."""
        is_early = monotonic() < began + UNSENT_TIMEOUT
        return any(
            channel.is_answering
            or (is_early and (channel in listener.clients.receiving or channel.has_unread()))
            for channel in listener.active_channels.values()
            if channel not in listener.clients.lingering
        )
