"""Waitress's loop on a thread of its own, and a way to stop it."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from ..forks import ForkGuard
from ..log import RateLimit
from ..sockets import plain_address
from ..types import Problem, lost
from .channel import Channel
from .envelope import SERVER
from .lane import Lane
from .poller import Poller

IDLE_TIMEOUT = 120.0
"""Seconds after which a connection without a request is closed."""
READ_AT_ONCE = 64 * 1024
ACCEPT_AT_ONCE = 64
LOG_INTERVAL = 60.0
"""Seconds between two lines about connections of one kind."""
PAUSE = 1.0
"""Seconds without accepting connections when descriptors or memory have run out."""
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
SHEDDING = "idle connections are closed for new ones, the oldest first"
STOPPING_TURN = 0.1
UNREAD = 5.0
"""Seconds that stopping waits for clients to read their answers."""
GIVING_UP = 0.1
"""Seconds for idle pool threads to end once a busy one has been given up."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server:
    """The HTTP server: waitress's loop on a thread, with its own pool for the requests.

    sock: a bound, listening socket, which this takes over; lane: what answers events without the
    application, if anything; threads: size of the pool; max_request_size: bytes of a body;
    connection_limit: connections at a time; request_timeout: seconds to send a request.
    """

    name = "http"

    def __init__(
        self,
        application: Application,
        sock: socket.socket,
        logger: logging.Logger,
        *,
        lane: Lane | None,
        threads: int,
        max_request_size: int,
        connection_limit: int,
        request_timeout: float,
    ) -> None:
        self._logger = logger
        self._socket = sock
        self._application = application
        self._adjustments = Adjustments(
            threads=threads,
            # Waitress refuses a body of exactly its limit as well.
            max_request_body_size=max_request_size + 1,
            recv_bytes=READ_AT_ONCE,
            ident=SERVER,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
        )
        self._map: dict[int, Any] = {}
        self._poller = Poller()
        self._lane = lane
        self._connection_limit = connection_limit
        self._request_timeout = request_timeout
        self._pool = _Pool()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop, name=self.name, daemon=True)
        self._stopping = False
        self._give_up = False

    def start(self) -> None:
        self._pool.set_thread_count(self._adjustments.threads)
        self._server = _Server(
            self._logger,
            self._poller,
            self._lane,
            self._connection_limit,
            self._request_timeout,
            _ending_children(self._application),
            self._map,
            _sock=self._socket,
            dispatcher=self._pool,
            adj=self._adjustments,
            sockinfo=(self._socket.family, self._socket.type, 0, self._socket.getsockname()),
            bind_socket=False,
        )
        self._thread.start()

    def request_stop(self) -> None:
        """Take no more connections and requests; those in flight are still answered."""
        self._stopping = True
        if self._server is not None:
            self._server.stopping = True
        self._wake()

    def join(self, timeout: float) -> bool:
        if self._thread.ident is None:
            self._socket.close()
            return True
        self._thread.join(timeout)
        stopped = not self._thread.is_alive()
        if not stopped:
            self._give_up = True
            self._wake()
            self._thread.join(2 * GIVING_UP)
        return stopped

    def running_threads(self) -> list[threading.Thread]:
        return [t for t in (self._thread, *self._pool.made) if t.is_alive()]

    def counters(self) -> dict[str, int]:
        """Connections open now and closed to make room for others, events taken by the fast lane,
        and requests that came too slowly."""
        server = self._server
        return {
            "connections": 0 if server is None else len(server.active_channels),
            "fast_events": 0 if self._lane is None else self._lane.accepted,
            "shed": 0 if server is None else server.shed,
            "timed_out": 0 if server is None else server.timed_out,
        }

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        return lost("the HTTP server", self._thread, stopping=self._stopping)

    def _wake(self) -> None:
        if self._server is not None:
            self._server.pull_trigger()

    def _loop(self) -> None:
        server = self._server
        while not self._stopping:
            self._turn(None)
        wasyncore.dispatcher.close(server)
        self._poller.unsettled.update(server.active_channels.values())
        while not self._give_up and self._in_work():
            self._turn(STOPPING_TURN)
        unread_until = time.monotonic() + UNREAD
        while not self._give_up and self._unsent() and time.monotonic() < unread_until:
            self._turn(STOPPING_TURN)
        self._pool.shutdown(timeout=GIVING_UP if self._give_up else 5)
        server.close_trigger()
        for channel in list(server.active_channels.values()):
            channel.drop()
        wasyncore.close_all(self._map)
        self._poller.close()

    def _turn(self, at_most: float | None) -> None:
        try:
            for fd, flags in self._poller.wait(self._server.tend(at_most)):
                # One that is ready may have been closed by the one before.
                item = self._map.get(fd)
                if item is not None:
                    self._poller.unsettled.add(item)
                    wasyncore.readwrite(item, flags)
            if self._lane is not None:
                self._lane.turn_ended()
        # Whatever one connection brings about, the others must go on being served.
        except Exception:
            self._logger.exception("The HTTP loop failed and goes on")

    def _in_work(self) -> bool:
        return any(channel.requests for channel in self._server.active_channels.values())

    def _unsent(self) -> bool:
        return any(channel.total_outbufs_len for channel in self._server.active_channels.values())


def _ending_children(application: Application) -> Application:
    """The application, but that a child which it has forked does not answer as well."""
    guard = ForkGuard()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return application(environ, start_response)
        finally:
            guard.end_child()

    return answer


class _Pool(ThreadedTaskDispatcher):
    """Waitress's threads, which can be named when one of them doesn't end."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[threading.Thread] = []

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        name = f"http-{thread_no + 1}"
        thread = threading.Thread(target=target, name=name, args=(thread_no,), daemon=True)
        self.made.append(thread)
        thread.start()


class _Server(TcpWSGIServer):
    """The listening socket, and what concerns all its connections."""

    channel_class = Channel
    unsettled = True

    def __init__(
        self,
        logger: logging.Logger,
        poller: Poller,
        lane: Lane | None,
        connection_limit: int,
        request_timeout: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.poller = poller
        self.lane = lane
        self.lingering: dict[Channel, float] = {}
        self.receiving: dict[Channel, float] = {}
        """Connections that a request is being read from, and since when, the oldest first."""
        self.stopping = False
        self.shed = 0
        self.timed_out = 0
        self._own_logger = logger
        self._limit = connection_limit
        self._request_timeout = request_timeout
        self._limits = {kind: RateLimit(LOG_INTERVAL) for kind in ("shed", "full")}
        self._idle_since: list[tuple[float, int, Channel]] = []
        self._next_sweep: float | None = None
        self._paused_until: float | None = None
        self._trigger_lock = threading.Lock()
        self._trigger_closed = False
        super().__init__(*args, **kwargs)
        poller.unsettled.add(self.trigger)

    # What is due at a certain time

    def tend(self, at_most: float | None) -> float | None:
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

    def _close_idle(self, now: float) -> float | None:
        """Close the connections that have been idle for too long, or don't read their answers."""
        oldest = None
        for channel in list(self.active_channels.values()):
            is_read_or_answered = channel.requests or channel in self.receiving
            since = now if is_read_or_answered else channel.last_activity
            if now >= since + IDLE_TIMEOUT:
                channel.drop()
            else:
                oldest = since if oldest is None else min(since, oldest)
        return None if oldest is None else max(oldest + IDLE_TIMEOUT, now + 1)

    # New connections

    def readable(self) -> bool:
        if not self.accepting or self._is_paused(time.monotonic()):
            return False
        channels = self.active_channels
        if len(channels) < self._limit or not all(c.is_busy for c in channels.values()):
            return True
        self._tell_limit("full", "all of them are busy, so new ones have to wait")
        return False

    def handle_accept(self) -> None:
        if len(self.active_channels) >= self._limit:
            self._tell_limit("shed", SHEDDING)
            self._shed_oldest()
        for _ in range(ACCEPT_AT_ONCE):
            count = len(self.active_channels)
            if count >= self._limit:
                break
            super().handle_accept()
            if len(self.active_channels) == count:
                break
        if self._next_sweep is None:
            self._next_sweep = time.monotonic() + IDLE_TIMEOUT

    def _tell_limit(self, kind: str, what: str) -> None:
        if self._limits[kind].allow() is not None:
            self._own_logger.warning(
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
                    self._own_logger.warning("%s: %s", error.strerror, SHEDDING)
                return None
            # The connection stays in the backlog, so without a pause this would be a busy loop.
            if self._paused_until is None:
                self._own_logger.error("No connections can be accepted: %s", error.strerror)
            self._paused_until = time.monotonic() + PAUSE
            return None
        if accepted is not None and self._paused_until is not None:
            self._paused_until = None
            self._own_logger.info("Connections are accepted again")
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
            if channel.connected and not channel.is_busy and channel.last_activity == since:
                channel.drop()
                self.shed += 1
                return True
        return False

    # What waitress calls

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.poller.unsettled.add(self)

    def del_channel(self, map: Any = None) -> None:
        self.poller.forget(self._fileno)
        super().del_channel(map)

    def fix_addr(self, addr: Any) -> Any:
        return (plain_address(addr[0]), *addr[1:])

    def pull_trigger(self) -> None:
        # A request that outlives the loop would write into a descriptor that is another file's.
        with self._trigger_lock:
            if not self._trigger_closed:
                super().pull_trigger()

    def close_trigger(self) -> None:
        with self._trigger_lock:
            self._trigger_closed = True
            self.trigger.close()
