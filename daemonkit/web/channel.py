"""One connection: when it is read, and how it is closed."""

from __future__ import annotations

import socket
import threading
from typing import Any

from ..runtime.clock import monotonic
from ..types import Origin
from .fast_lane import LINE, Head
from .request import Parser, RequestTimeout
from .sender import Sender
from .task import ErrorTask, Task

LINGER = 2.0
"""Seconds of reading after a refusal, so that a client that is still sending can read it."""


class Channel(Sender):
    """One connection."""

    task_class = Task
    error_task_class = ErrorTask
    parser_class = Parser

    request: Any
    partial = b""
    """The beginning of a request that only the fast lane has seen, not waitress's parser."""
    last_origin: tuple[Head, Origin] | None = None
    blank = 0
    """Bytes of blank lines that the fast lane has skipped since the last request."""
    _partial_began = 0.0
    busy_before = 0.0
    """How long the loop had been busy when the request began; see `Clients.busy`."""
    _lingers = False

    @property
    def logger(self) -> Any:
        """What waitress logs to."""
        return self.server.limited_logger

    @property
    def is_busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self.is_answering or self._began is not None

    def has_unread(self) -> bool:
        """Whether the client has sent something that hasn't been read yet."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    @property
    def _began(self) -> float | None:
        """When the request that is being read began, None if there is none."""
        if self.partial:
            return self._partial_began
        request = self.request
        if request is None or not request.has_begun:
            return None
        began: float = request.began
        return began

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.poller.recheck(self)

    def del_channel(self, map: Any = None) -> None:
        self.server.poller.forget(self._fileno)
        super().del_channel(map)

    # Reading

    def readable(self) -> bool:
        if self._lingers:
            return True
        if self.will_close or self.close_when_flushed:
            return False
        # While a request is being answered, the loop already waits for the next one, so that the
        # answer need not wake it, until more arrives than may be read ahead.
        self._reads_paused &= self.is_answering
        return not self._reads_paused

    @property
    def is_answering(self) -> bool:
        """Whether a request is being answered, or waits for the queue."""
        return bool(self.requests or self.total_outbufs_len or self.answer_pending)

    def _may_read_ahead(self) -> bool:
        """Whether to read the next request while one is being answered: a client that sends it at
        once would otherwise cost the loop two more iterations. Not for the fast lane, which must
        answer in order; nor at the end of the input."""
        if len(self.requests) != 1 or self.total_outbufs_len:
            return False
        try:
            ahead = self.socket.recv(len(LINE), socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return bool(ahead) and (self.server.lane is None or ahead != LINE)

    def handle_read(self) -> None:
        if not self._lingers and self.is_answering and not self._may_read_ahead():
            # In this order: a thread that finishes after the second check sees the flag.
            self._reads_paused = True
            if self.is_answering:
                return
            self._reads_paused = False
        try:
            data = self.recv(self.adj.recv_bytes)
        except OSError:
            self.handle_close()
            return
        # Data alone doesn't count as activity: a request has its own deadline.
        if data:
            self.received(data)

    def received(self, data: bytes) -> bool:
        if self._lingers:
            return False
        before, self.partial = self.partial, b""
        data = before + data
        rest = data
        lane = self.server.lane
        if lane is not None and not (
            self.requests
            or self.request
            or self.will_close
            or self.close_when_flushed
            # Flask's answer says that the connection will be closed.
            or self.server.draining
        ):
            rest = lane.take(self, data)
            if rest and self.answer_pending:
                self.parked = rest
                self._note_receiving()
                return True
        if self.partial and not (before and len(self.partial) == len(data)):
            self._partial_began = monotonic()
        taken = not rest or bool(super().received(rest))
        self._note_receiving()
        return taken

    def _note_receiving(self) -> None:
        """Record when the request that is being read began."""
        began = self._began if self.connected else None
        receiving = self.server.clients.receiving
        if began != receiving.get(self):
            # Re-inserted at the end, to keep the oldest first.
            receiving.pop(self, None)
            if began is not None:
                receiving[self] = began
                self.busy_before = self.server.clients.busy

    def time_out(self, seconds: float) -> None:
        """Refuse the request that is being read: it takes too long."""
        if self.will_close or self.close_when_flushed or self._lingers:
            self.server.clients.receiving.pop(self)
            return
        was_held_up = self._began is not None and self.last_activity > self._began
        if self.is_answering or was_held_up:
            # It is not read while the previous request is being answered.
            self._partial_began = monotonic()
            if self.request is not None:
                self.request.began = self._partial_began
            self._note_receiving()
            return
        partial, self.partial = self.partial, b""
        super().received(partial)
        with self.requests_lock:
            request = self.request
            if request is not None:
                request.error = RequestTimeout(
                    f"the request was not complete after {seconds:g} s (request_timeout)"
                )
                self.requests.append(request)
                self.request = None
                self.server.clients.timed_out += 1
                self.server.poller.recheck(self)
                self.server.add_task(self)
        self._note_receiving()

    def service(self) -> None:
        server = self.server
        try:
            super().service()
        finally:
            if (
                self._reads_paused
                or self.close_when_flushed
                or self.will_close
                or server.draining
                or server.clients.looks_for_idle
            ):
                server.recheck(self)
        server.task_dispatcher.yield_if_waiting()

    def is_last(self, request: Any) -> bool:
        """Whether no other request has arrived after this one."""
        return self.requests[-1:] == [request] and self.request is None and not self.partial

    # Closing

    def linger(self) -> None:
        """Let the client read its answers if it has sent more than was read.

        Closing would reset the connection, and answers in transit would be lost.
        """
        if not self._lingers and self.has_unread():
            self._answered_and_closing = True
            self.handle_close()

    def handle_close(self) -> None:
        if threading.get_ident() != self.server.loop_thread:
            # The loop may be about to wait for this descriptor.
            self.will_close = True
            self.server.recheck(self)
            return
        # Closing with input unread resets the connection, and the answer could be lost with it.
        if self._answered_and_closing and self.connected and not self._lingers:
            self.will_close = self.close_when_flushed = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            else:
                self._lingers = True
                self.server.clients.lingering[self] = monotonic() + LINGER
                self.server.poller.recheck(self)
                return
        self.drop()

    def handle_error(self) -> None:
        self.server.failures.log_raised("A connection failed", then=" and is closed")
        self.drop()

    def drop(self) -> None:
        """Close the connection and its buffers at once."""
        self.server.clients.lingering.pop(self, None)
        self.server.clients.receiving.pop(self, None)
        super().handle_close()
