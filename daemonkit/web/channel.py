"""One connection: how its requests are read, refused and answered where waitress is wrong."""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Any

from waitress import task
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import Error

from ..sockets import join
from .envelope import CONTENT_TYPE, envelope

LINGER = 2.0
"""Seconds to go on reading after a refusal, so that a client that still sends gets to read it."""
BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT")

_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$")


class Parser(HTTPRequestParser):
    """Refuses what could be read as two requests by different servers (RFC 9112 section 6.3)."""

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = time.monotonic()

    def received(self, data: bytes) -> int:
        if not (self.headers_finished or _is_more(self.header_plus)):
            # Blank lines before it don't count (RFC 9112 section 2.2).
            self.began = time.monotonic()
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


class Task(task.WSGITask):
    """Answers one request through the WSGI application."""

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


class ErrorTask(task.ErrorTask):
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


class RequestTimeout(Error):
    """The client took too long to send a request (RFC 9110 section 15.5.9)."""

    code = 408
    reason = "Request Timeout"


class Channel(HTTPChannel):
    """One connection."""

    task_class = Task
    error_task_class = ErrorTask
    parser_class = Parser

    request: Any
    partial = b""
    """What has come of a request that the lane has begun to read, and waitress's parser has not."""
    _partial_began = 0.0
    _lingers = False
    _closes_when_flushed = False
    _answered_and_closing = False

    # Waitress sets this once the last answer is made, on whatever thread made it.
    @property
    def close_when_flushed(self) -> bool:
        """Whether the connection is closed once everything is sent."""
        return self._closes_when_flushed

    @close_when_flushed.setter
    def close_when_flushed(self, value: bool) -> None:
        self._closes_when_flushed = value
        self._answered_and_closing |= value

    # Waitress writes the time of day here, which may be set back.
    @property
    def last_activity(self) -> float:
        """When something was last answered or a request came, in monotonic seconds."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self._last_activity = time.monotonic()

    @property
    def peer(self) -> str:
        """The client's address and port."""
        return join(self.addr[0], self.addr[1])

    @property
    def unsettled(self) -> bool:
        """Whether a thread may change what it waits for."""
        return bool(self.requests)

    @property
    def is_busy(self) -> bool:
        """Whether a request is being read or answered."""
        return bool(self.requests or self.total_outbufs_len or self._began is not None)

    def has_unread(self) -> bool:
        """Whether the client has sent something that isn't read yet."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    @property
    def _began(self) -> float | None:
        """Since when a request is being read, None while none is."""
        if self.partial:
            return self._partial_began
        request = self.request
        # Blank lines before it don't count (RFC 9112 section 2.2).
        if request is None or not (request.headers_finished or _is_more(request.header_plus)):
            return None
        began: float = request.began
        return began

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.poller.look_again(self)

    def del_channel(self, map: Any = None) -> None:
        self.server.poller.forget(self._fileno)
        super().del_channel(map)

    def readable(self) -> bool:
        # While stopping, what is not yet read of a request is not read any more.
        return self._lingers or (not self.server.stopping and bool(super().readable()))

    def handle_read(self) -> None:
        try:
            data = self.recv(self.adj.recv_bytes)
        except OSError:
            self.handle_close()
            return
        # Reading alone is no sign of life: a request has a deadline of its own.
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
            self.requests or self.request or self.will_close or self.close_when_flushed
        ):
            rest = lane.take(self, data)
        if self.partial and not (before and len(self.partial) == len(data)):
            self._partial_began = time.monotonic()
        taken = not rest or bool(super().received(rest))
        self._note_receiving()
        return taken

    def _note_receiving(self) -> None:
        """Tell the server since when a request is being read."""
        began = self._began if self.connected else None
        receiving = self.server.receiving
        if began != receiving.get(self):
            # At the end of it: the server looks at the oldest first.
            receiving.pop(self, None)
            if began is not None:
                receiving[self] = began

    def time_out(self, seconds: float) -> None:
        """Refuse the request that is being read; it has taken too long."""
        if self.will_close or self.close_when_flushed or self._lingers:
            self.server.receiving.pop(self)
            return
        was_held_up = self._began is not None and self.last_activity > self._began
        if self.requests or self.total_outbufs_len or was_held_up:
            # It isn't read while the one before it is in work, or its answer is not yet sent.
            self._partial_began = time.monotonic()
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
                self.server.timed_out += 1
                self.server.poller.look_again(self)
                self.server.add_task(self)
        self._note_receiving()

    def answer(self, data: bytes) -> None:
        """Send an answer that no task has made; for the loop's thread, with no request in work."""
        self._last_activity = time.monotonic()
        if not self.connected:
            return
        if not self.total_outbufs_len:
            try:
                data = data[self.send(data) :]
            except OSError:
                self.drop()
        if data and self.connected:
            with self.outbuf_lock:
                self.outbufs[-1].append(data)
                self.current_outbuf_count += len(data)
                self.total_outbufs_len += len(data)

    def _flush_some(self, do_close: bool = True) -> bool:
        # Waitress does without the lock where no request is in work; a pool thread that has just
        # finished one may still be sending an interim answer then.
        with self.outbuf_lock:
            return bool(super()._flush_some(do_close))

    def linger(self) -> None:
        """Let the client read its answers, if it has sent more than was read (else closing would
        reset the connection, and what is under way to the client be lost)."""
        if not self._lingers and self.has_unread():
            self._answered_and_closing = True
            self.handle_close()

    def send_continue(self) -> None:
        super().send_continue()
        # A pool thread does this when it is done with the request before.
        self.server.poller.look_again(self)

    def handle_close(self) -> None:
        if threading.get_ident() != self.server.loop_thread:
            # The loop may be about to wait for this very descriptor.
            self.will_close = True
            self.server.poller.look_again(self)
            self.server.pull_trigger()
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
                self.server.lingering[self] = time.monotonic() + LINGER
                self.server.poller.look_again(self)
                return
        self.drop()

    def handle_error(self) -> None:
        self.server.own_logger.exception("A connection failed and is closed")
        self.drop()

    def drop(self) -> None:
        """Close the connection at once, and what is kept in files for it."""
        self.server.lingering.pop(self, None)
        self.server.receiving.pop(self, None)
        super().handle_close()


def _is_more(head: bytes) -> bool:
    """Whether there is more in it than blank lines."""
    return bool(head) and not head.isspace()
