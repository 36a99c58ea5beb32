"""One request: how it is read, refused and answered where waitress is wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from waitress import task
from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest, Error

from ..runtime.forks import ForkGuard
from .fast_lane import HEADS_KEPT, LARGEST_HEAD
from .responses import CONTENT_TYPE, envelope

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT")
JOINED = 64 * 1024
"""Bytes of a body's first part that leave together with the head; more aren't worth a copy."""

_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$")
# A method begins with one of these (RFC 9110 section 5.6.2); a TLS client's first byte is 0x16.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")


class Parser(HTTPRequestParser):
    """Refuses what could be read as two requests by different servers (RFC 9112 section 6.3), and
    what can't become a request."""

    path = ""
    """Of a request that is refused before it is known; waitress names it in its log."""

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = time.monotonic()

    @property
    def is_begun(self) -> bool:
        """Whether more than blank lines (RFC 9112 section 2.2) has come of it."""
        head = self.header_plus
        return bool(self.headers_finished or (head and not head.isspace()))

    def received(self, data: bytes) -> int:
        if not self.is_begun:
            self.began = time.monotonic()
            first = data.lstrip(b"\r\n")
            if first and not self.completed and not _TOKEN.match(first):
                return self._refuse(data)
        consumed: int = super().received(data)
        if self.completed:
            # Asked to continue a request that is complete or refused, waitress would read the next
            # one into it.
            self.expect_continue = False
        return consumed

    def _refuse(self, data: bytes) -> int:
        self.error = BadRequest("this is no HTTP request; does the client speak TLS (https)?")
        self.completed = True
        return len(data)

    def parse_header(self, header_plus: bytes) -> None:
        """Set what the head says, or has said when it came before."""
        known: dict[bytes, dict[str, Any]] = self.adj.known_heads
        if (said := known.get(header_plus)) is None:
            before = vars(self).copy()
            self._parse_head(header_plus)
            if self.chunked or len(header_plus) > LARGEST_HEAD:
                return
            if len(known) >= HEADS_KEPT:
                known.clear()
            said = {k: v for k, v in vars(self).items() if before.get(k, self) is not v}
            # Not what the body is going to be in.
            said.pop("body_rcv", None)
            known[header_plus] = {**said, "headers": self.headers.copy()}
        else:
            self.__dict__.update(said, headers=said["headers"].copy())
            if self.content_length:
                buffer = OverflowableBuffer(self.adj.inbuf_overflow)
                self.body_rcv = FixedStreamReceiver(self.content_length, buffer)

    def _parse_head(self, header_plus: bytes) -> None:
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


class RequestTimeout(Error):
    """The client took too long to send a request (RFC 9110 section 15.5.9)."""

    code = 408
    reason = "Request Timeout"


class _Answer(task.Task):
    """Sends the head together with the beginning of the body: one call into the kernel, not two."""

    def write(self, data: bytes) -> None:
        channel = self.channel
        if self.wrote_header or len(data) > JOINED:
            super().write(data)
            return
        parts: list[bytes] = []
        channel.gathered = parts
        try:
            super().write(data)
            head_and_data = b"".join(parts)
        except BaseException:
            # It isn't sent, and an answer that says so still can be.
            self.wrote_header: bool = False
            raise
        finally:
            channel.gathered = None
        channel.write_soon(head_and_data)


class Task(_Answer, task.WSGITask):
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
        if unframed or (self.channel.server.draining and self.channel.is_last(request)):
            request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header


def ending_children(application: Application) -> Application:
    """The application, but that a child which it has forked does not answer as well."""
    guard = ForkGuard()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            body = application(environ, start_response)
        finally:
            guard.end_child()
        # Waitress wants to know what these are; and their parts are there already.
        is_known = isinstance(body, list | tuple | ReadOnlyFileBasedBuffer)
        return body if is_known else _Body(body, guard)

    return answer


class _Body:
    """The parts of a body, made by code of the user's: a generator, say, that forks."""

    def __init__(self, parts: Any, guard: ForkGuard) -> None:
        self._parts = parts
        self._guard = guard

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._parts:
                self._guard.end_child()
                yield part
        except BaseException as error:
            self._guard.end_child(error)
            raise
        self._guard.end_child()

    def close(self) -> None:
        try:
            if hasattr(self._parts, "close"):
                self._parts.close()
        finally:
            self._guard.end_child()


class ErrorTask(_Answer, task.ErrorTask):
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
