"""One connection: how its requests are read, refused and answered where waitress is wrong."""

from __future__ import annotations

import re
import socket
import time

from waitress import task
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError

from .envelope import CONTENT_TYPE, envelope

LINGER = 2.0
"""Seconds to go on reading after a refusal, so that a client that still sends gets to read it."""
BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT")

_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$")


class Parser(HTTPRequestParser):
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


class Channel(HTTPChannel):
    """One connection."""

    task_class = Task
    error_task_class = ErrorTask
    parser_class = Parser

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
