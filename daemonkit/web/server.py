"""Waitress on a thread of its own: everything it does not promise is dealt with here."""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask

from ..sockets import plain_address
from .envelope import CONTENT_TYPE, envelope

CONNECTION_LIMIT = 1000
LOOP_TIMEOUT = 30.0
"""Seconds the loop sleeps at most; waitress closes idle connections when it wakes."""
LINGER = 2.0
"""Seconds to go on reading after a refusal, so that a client that still sends gets to read it."""
PAUSE = 1.0
"""Seconds without accepting connections when descriptors or memory have run out."""
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
STOPPING_TURN = 0.1
UNREAD = 5.0
"""Seconds that stopping waits for clients to read their answers."""
GIVING_UP = 0.1
"""Seconds for idle pool threads to end once a busy one has been given up."""
BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT")

_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$")

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
            asyncore_use_poll=True,
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
            self._application,
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
            wasyncore.loop(timeout, use_poll=True, map=self._map, count=1)
        # Whatever one connection brings about, the others must go on being served.
        except Exception:
            self._logger.exception("The HTTP loop failed and goes on")

    def _in_work(self) -> bool:
        return any(channel.requests for channel in self._server.active_channels.values())

    def _unsent(self) -> bool:
        return any(channel.total_outbufs_len for channel in self._server.active_channels.values())


class _Parser(HTTPRequestParser):
    """Refuses what could be read as two requests by different servers (RFC 9112 section 6.3)."""

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.completed:
            # Asked to continue a request that is complete or refused, waitress would read the next
            # one into it.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        codings = _TRANSFER_ENCODING.findall(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError:
            # `GET http://[::1/`, or a Content-Length of thousands of digits.
            raise ParsingError("Malformed request line or Content-Length") from None
        if codings and self.version != "1.1":
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")
        if codings and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length together with Transfer-Encoding")
        if codings and [coding.lower() for coding in codings] != [b"chunked"]:
            raise ParsingError("Transfer-Encoding must be chunked, once")


class _Task(WSGITask):
    def execute(self) -> None:
        try:
            super().execute()
        except Exception:
            raise
        # Waitress would leak the connection; as an Exception it is logged and answered 500.
        except BaseException as error:
            raise RuntimeError(f"a route raised {type(error).__name__}: {error}") from error

    def build_response_header(self) -> bytes:
        # A body that came without a length would be read as the next request.
        request = self.request
        unframed = (
            request.command not in BODYLESS_METHODS and "CONTENT_LENGTH" not in request.headers
        )
        if unframed or self.channel.server.stopping:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class _ErrorTask(ErrorTask):
    """Waitress's own refusals, in the envelope."""

    def execute(self) -> None:
        error = self.request.error
        limit = self.channel.adj.max_request_body_size - 1
        messages = {
            413: f"The body is over the limit of {limit} bytes (max_request_size)",
            431: "The request's headers are too large",
            500: "Internal Server Error",
        }
        body = envelope(messages.get(error.code, f"{error.reason}: {error.body}"), False)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", CONTENT_TYPE))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    task_class = _Task
    error_task_class = _ErrorTask
    parser_class = _Parser

    _lingers = False
    _answered_and_closing = False

    def readable(self) -> bool:
        # While stopping, what is not yet read of a request is not read any more.
        return self._lingers or (not self.server.stopping and bool(super().readable()))

    def handle_write(self) -> None:
        self._answered_and_closing = self.close_when_flushed
        super().handle_write()

    def handle_close(self) -> None:
        # Closing with input unread resets the connection, and the answer could be lost with it.
        if self._answered_and_closing and self.connected and not self._lingers:
            self.will_close = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            else:
                self._lingers = True
                self.server.lingering[self] = time.monotonic() + LINGER
                return
        self.drop()

    def drop(self) -> None:
        """Close the connection at once, and what is kept in files for it."""
        self.server.lingering.pop(self, None)
        super().handle_close()

    def received(self, data: bytes) -> bool:
        return False if self._lingers else bool(super().received(data))


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
    channel_class = _Channel

    def __init__(self, logger: logging.Logger, *args: Any, **kwargs: Any) -> None:
        self.lingering: dict[_Channel, float] = {}
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
