"""Reads, refuses and answers one request; corrects waitress where it deviates from HTTP."""

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
from .fast_lane import HEAD_CACHE_SIZE, MAX_HEAD
from .responses import CONTENT_TYPE, envelope

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT")
JOIN_LIMIT = 64 * 1024
"""Bytes. A body's first part up to this size is sent together with the head; a larger one isn't
worth the copy."""

_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$")
# A method begins with one of these (RFC 9110 section 5.6.2); a TLS client's first byte is 0x16.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")


class Parser(HTTPRequestParser):
    """Refuses request smuggling (RFC 9112 section 6.3), and bytes that can't begin a request."""

    path = ""
    """Of a request that is refused before its first line is complete; waitress logs it."""

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = time.monotonic()
        """When its first byte arrived, in monotonic seconds; leading blank lines don't count."""

    @property
    def has_begun(self) -> bool:
        """Whether anything but leading blank lines (RFC 9112 section 2.2) has arrived."""
        head = self.header_plus
        return bool(self.headers_finished or (head and not head.isspace()))

    def received(self, data: bytes) -> int:
        if not self.has_begun:
            self.began = time.monotonic()
            first = data.lstrip(b"\r\n")
            if first and not self.completed and not _TOKEN.match(first):
                return self._refuse(data)
        consumed: int = super().received(data)
        if self.completed:
            # After "100 Continue" for a complete or refused request, waitress would read the next
            # request as its body.
            self.expect_continue = False
        return consumed

    def _refuse(self, data: bytes) -> int:
        self.error = BadRequest("this is not an HTTP request; does the client speak TLS (https)?")
        self.completed = True
        return len(data)

    def parse_header(self, header_plus: bytes) -> None:
        """Set the attributes that follow from the head, from the cache for one seen before."""
        cache: dict[bytes, dict[str, Any]] = self.adj.head_cache
        if (parsed := cache.get(header_plus)) is None:
            before = vars(self).copy()
            self._parse_head(header_plus)
            if self.chunked or len(header_plus) > MAX_HEAD:
                return
            if len(cache) >= HEAD_CACHE_SIZE:
                cache.clear()
            parsed = {k: v for k, v in vars(self).items() if before.get(k, self) is not v}
            # It holds the body, and each request needs a new one.
            parsed.pop("body_rcv", None)
            cache[header_plus] = {**parsed, "headers": self.headers.copy()}
        else:
            self.__dict__.update(parsed, headers=parsed["headers"].copy())
            if self.content_length:
                buffer = OverflowableBuffer(self.adj.inbuf_overflow)
                self.body_rcv = FixedStreamReceiver(self.content_length, buffer)

    def _parse_head(self, header_plus: bytes) -> None:
        codings = _TRANSFER_ENCODING.findall(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError:
            # `GET http://[::1/`, or a Content-Length with thousands of digits.
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


class _JoiningTask(task.Task):
    """Sends the head and the first part of the body in one system call."""

    def write(self, data: bytes) -> None:
        channel = self.channel
        if self.wrote_header or len(data) > JOIN_LIMIT:
            super().write(data)
            return
        parts: list[bytes] = []
        channel.gathered = parts
        try:
            super().write(data)
            head_and_data = b"".join(parts)
        except BaseException:
            # The head isn't sent yet, so an error can still be answered.
            self.wrote_header: bool = False
            raise
        finally:
            channel.gathered = None
        channel.write_soon(head_and_data)


class Task(_JoiningTask, task.WSGITask):
    """Answers a request through the WSGI application."""

    def execute(self) -> None:
        try:
            super().execute()
        except Exception:
            raise
        # Waitress logs an Exception and answers 500; at any other it leaks the connection.
        except BaseException as error:
            raise RuntimeError(f"a route raised {type(error).__name__}: {error}") from error

    def build_response_header(self) -> bytes:
        # A body sent without a length would be read as the next request.
        request = self.request
        unframed = (
            request.command not in BODYLESS_METHODS and "CONTENT_LENGTH" not in request.headers
        )
        if unframed or (self.channel.server.draining and self.channel.is_last(request)):
            request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header


def with_fork_guard(application: Application) -> Application:
    """Wrap a WSGI application so that a child it forks exits and sends no second answer."""
    guard = ForkGuard()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            body = application(environ, start_response)
        finally:
            guard.end_child()
        # These run no user code when iterated, and waitress checks for their types.
        is_ready = isinstance(body, list | tuple | ReadOnlyFileBasedBuffer)
        return body if is_ready else _GuardedBody(body, guard)

    return answer


class _GuardedBody:
    """A body whose parts user code produces, a generator for example, which may fork."""

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


class ErrorTask(_JoiningTask, task.ErrorTask):
    """Sends waitress's own error answers as the library's JSON."""

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
