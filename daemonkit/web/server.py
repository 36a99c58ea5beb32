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
from ..sockets import plain_address
from ..types import Problem, lost
from .channel import LINGER, Channel

CONNECTION_LIMIT = 1000
LOOP_TIMEOUT = 30.0
"""Seconds the loop sleeps at most; waitress closes idle connections when it wakes."""
PAUSE = 1.0
"""Seconds without accepting connections when descriptors or memory have run out."""
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
STOPPING_TURN = 0.1
UNREAD = 5.0
"""Seconds that stopping waits for clients to read their answers."""
GIVING_UP = 0.1
"""Seconds for idle pool threads to end once a busy one has been given up."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server:
    """The HTTP server: waitress's loop on a thread, with its own pool for the requests.

    sock: a bound, listening socket, which this takes over; threads: size of the pool;
    max_request_size: bytes of a body.
    """

    name = "http"

    def __init__(
        self,
        application: Application,
        sock: socket.socket,
        logger: logging.Logger,
        *,
        threads: int,
        max_request_size: int,
    ) -> None:
        self._logger = logger
        self._socket = sock
        self._application = application
        self._adjustments = Adjustments(
            threads=threads,
            # Waitress refuses a body of exactly its limit as well.
            max_request_body_size=max_request_size + 1,
            connection_limit=CONNECTION_LIMIT,
            ident="daemonkit",
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
        )
        self._map: dict[int, Any] = {}
        self._pool = _Pool()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop, name=self.name, daemon=True)
        self._stopping = False
        self._give_up = False

    def start(self) -> None:
        self._pool.set_thread_count(self._adjustments.threads)
        self._server = _Server(
            self._logger,
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

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        return lost("the HTTP server", self._thread, stopping=self._stopping)

    def _wake(self) -> None:
        if self._server is not None:
            self._server.pull_trigger()

    def _loop(self) -> None:
        server = self._server
        while not self._stopping:
            self._turn(server.loop_timeout())
        wasyncore.dispatcher.close(server)
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

    def _turn(self, timeout: float) -> None:
        try:
            self._server.close_lingering()
            # select() would end the loop at a descriptor of 1024 or more.
            wasyncore.loop(timeout, use_poll=True, map=self._map, count=1)
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
    channel_class = Channel

    def __init__(self, logger: logging.Logger, *args: Any, **kwargs: Any) -> None:
        self.lingering: dict[Channel, float] = {}
        self.stopping = False
        self._own_logger = logger
        self._paused_until: float | None = None
        self._trigger_lock = threading.Lock()
        self._trigger_closed = False
        super().__init__(*args, **kwargs)

    def loop_timeout(self) -> float:
        """Seconds the loop may sleep without missing something it has to do."""
        if self.lingering or self._paused_until is not None:
            return min(LINGER, PAUSE)
        return LOOP_TIMEOUT

    def close_lingering(self) -> None:
        """Let go of the refused clients that had time enough to read their answer."""
        if self.lingering:
            now = time.monotonic()
            for channel in [c for c, until in self.lingering.items() if now >= until]:
                channel.handle_close()

    def readable(self) -> bool:
        if self._paused_until is not None and time.monotonic() < self._paused_until:
            return False
        return bool(super().readable())

    def accept(self) -> Any:
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            # The connection stays in the backlog, so without a pause this would be a busy loop.
            if self._paused_until is None:
                self._own_logger.error("No connections can be accepted: %s", error.strerror)
            self._paused_until = time.monotonic() + PAUSE
            return None
        if accepted is not None and self._paused_until is not None:
            self._paused_until = None
            self._own_logger.info("Connections are accepted again")
        return accepted

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
