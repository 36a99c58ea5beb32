"""Answers one request, and corrects waitress where it deviates from HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from waitress import task
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.utilities import build_http_date

from ..runtime.forks import ForkGuard
from .access import PEER
from .responses import CONTENT_TYPE, envelope

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT")
JOIN_LIMIT = 64 * 1024
"""Bytes. A body's first part up to this size is sent together with the head; a larger one isn't
worth the copy."""


class _AnswerTask(task.Task):
    """Sends an answer whose end the client can tell, so that the connection stays open.

    The head and the first part of the body are sent in one system call.
    """

    response_headers: list[tuple[str, str]]
    _written = 0

    def service(self) -> None:
        try:
            super().service()
        finally:
            if self.wrote_header:
                self.channel.server.answers.add(self)

    def build_response_header(self) -> bytes:
        """The status line and header fields, which decide how the body ends (RFC 9112)."""
        # What the application says about the connection isn't its own to decide.
        dropped = {"connection"} if self.has_body else {"connection", "content-length"}
        headers = [field for field in self.response_headers if field[0].lower() not in dropped]
        names = {name.lower() for name, _ in headers}
        if self.has_body and "content-length" not in names:
            if self.content_length is not None:
                headers.append(("Content-Length", str(self.content_length)))
            elif self.version == "1.1":
                headers.append(("Transfer-Encoding", "chunked"))
                self.chunked_response = True
            else:
                # Only the connection's end tells the body's.
                self.close_on_finish = True
        self.close_on_finish |= self._closes()
        if self.close_on_finish:
            headers.append(("Connection", "close"))
        elif self.version == "1.0":
            headers.append(("Connection", "keep-alive"))
        ident = self.channel.server.adj.ident
        headers.append(("Via" if "server" in names else "Server", ident))
        if "date" not in names:
            headers.append(("Date", build_http_date(self.start_time)))
        self.response_headers = sorted(headers, key=lambda header: header[0].lower())
        lines = [f"{name}: {value}" for name, value in self.response_headers]
        head = "\r\n".join([f"HTTP/{self.version} {self.status}", *lines, "", ""])
        return head.encode("latin-1")

    def _closes(self) -> bool:
        connection = self.request.headers.get("CONNECTION")
        return bool(connection == "close" or (self.version == "1.0" and connection != "keep-alive"))

    def write(self, data: bytes) -> None:
        if self.wrote_header and self._is_head:
            return
        self._written += len(data)
        channel = self.channel
        if self.wrote_header or len(data) > JOIN_LIMIT:
            super().write(data)
            return
        parts: list[bytes] = []
        channel.gathered = parts
        try:
            super().write(b"" if self._is_head else data)
            head_and_data = b"".join(parts)
        except BaseException:
            # The head isn't sent yet, so an error can still be answered.
            self.wrote_header: bool = False
            raise
        finally:
            channel.gathered = None
        channel.write_soon(head_and_data)

    def finish(self) -> None:
        if not self.wrote_header:
            self.write(b"")
        # The answer to HEAD has no body, and so no end of one (RFC 9112 section 6.3).
        self.chunked_response &= not self._is_head
        super().finish()

    @property
    def body_size(self) -> int:
        """Bytes of the answer's body."""
        if self._is_head or not self.has_body:
            return 0
        # A file is sent without `write`.
        return self._written or self.content_length or 0

    @property
    def _is_head(self) -> bool:
        return bool(self.request.command == "HEAD")


class Task(_AnswerTask, task.WSGITask):
    """Answers a request through the WSGI application."""

    def execute(self) -> None:
        try:
            super().execute()
        except Exception:
            raise
        # Waitress logs an Exception and answers 500; at any other it leaks the connection.
        except BaseException as error:
            failed = RuntimeError(f"a route raised {type(error).__name__}: {error}")
            # Where that was, is what tells failures apart in the log.
            raise failed.with_traceback(error.__traceback__) from error

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[PEER] = self.channel.other_end
        return environ

    def build_response_header(self) -> bytes:
        # A body sent without a length would be read as the next request.
        request = self.request
        unframed = (
            request.command not in BODYLESS_METHODS and "CONTENT_LENGTH" not in request.headers
        )
        if unframed or (self.channel.server.draining and self.channel.is_last(request)):
            request.headers["CONNECTION"] = "close"
        return super().build_response_header()


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


class ErrorTask(_AnswerTask, task.ErrorTask):
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
