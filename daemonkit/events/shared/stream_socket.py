"""A connection to the engine that a loop waits for: nobody waits for an answer."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import hiredis
from redis.connection import Connection

from ..entry import Loop
from .engine import socket_of

READ_SIZE = 64 * 1024
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StreamSocket:
    """Sends commands and passes on their answers; all of it on the loop's thread.

    connection: connected, which this closes; received: called with each answer; broken: called when
    the connection has ended.
    """

    accepting = False

    def __init__(
        self,
        connection: Connection,
        loop: Loop,
        received: Callable[[object], None],
        broken: Callable[[], None],
    ) -> None:
        sock = socket_of(connection)
        assert sock is not None
        sock.setblocking(False)
        self._connection = connection
        self._sock = sock
        self._fileno: int | None = sock.fileno()
        self._loop = loop
        self._received = received
        self._broken = broken
        self._reader = hiredis.Reader()
        self._unsent = b""
        self._skipped = 0
        loop.watch(self)

    def send(self, data: bytes) -> None:
        """Send a command after those that were sent before."""
        self._unsent += data
        self._send()

    def skip(self, answers: int) -> None:
        """Don't pass on the next answers."""
        self._skipped += answers

    def close(self) -> None:
        """Close the connection."""
        if self._fileno is not None:
            self._loop.forget(self)
            self._fileno = None
            self._connection.disconnect()

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except _NOT_NOW:
            sent = 0
        except OSError:
            self._end()
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.watch(self)

    def _end(self) -> None:
        if self._fileno is not None:
            self._broken()

    # What the loop calls

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return bool(self._unsent)

    def handle_read_event(self) -> None:
        # TLS may have read more than it gives at once.
        while self._fileno is not None:
            try:
                data = self._sock.recv(READ_SIZE)
            except _NOT_NOW:
                return
            except OSError:
                self._end()
                return
            if not data:
                self._end()
                return
            self._reader.feed(data)
            while self._fileno is not None and (answer := self._reader.gets()) is not False:
                if self._skipped:
                    self._skipped -= 1
                else:
                    self._received(answer)
            if len(data) < READ_SIZE and not isinstance(self._sock, ssl.SSLSocket):
                return

    def handle_write_event(self) -> None:
        if self._fileno is not None:
            self._send()

    def handle_expt_event(self) -> None: ...

    def handle_close(self) -> None:
        self._end()

    def handle_error(self) -> None:
        self._end()
