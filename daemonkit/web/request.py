"""Receives one request: its head and its body, within their limits (RFC 9112)."""

from __future__ import annotations

import re
from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import Error

from ..runtime.clock import monotonic
from .fast_lane import HEAD_CACHE_SIZE, MAX_BLANK, MAX_HEAD
from .head import Head, Refused, check_lines, parse_head

_END = b"\r\n\r\n"
# A method begins with one of these (RFC 9110 section 5.6.2); a TLS client's first byte is 0x16.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")


class Parser(HTTPRequestParser):
    """A request that is being received, with the attributes that waitress reads."""

    # Of a request that is refused before its head is parsed.
    command = path = request_uri = query = fragment = ""
    version = "1.1"
    completed: bool = False
    expect_continue: bool = False
    url_scheme = "http"

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = monotonic()
        """When its first byte arrived, in monotonic seconds; leading blank lines don't count."""
        self._blank = 0
        self._head = bytearray()
        """The beginning of the head, until all of it has arrived."""

    @property
    def has_begun(self) -> bool:
        """Whether anything but leading blank lines (RFC 9112 section 2.2) has arrived."""
        return bool(self.headers_finished or self._head)

    def received(self, data: bytes) -> int:
        """Take the bytes that belong to this request; returns how many."""
        if self.completed:
            return 0
        try:
            receive = self._receive_head if self.body_rcv is None else self._receive_body
            consumed = receive(data)
        except Refused as refused:
            self.error, consumed = refused.error, len(data)
            self.completed = True
        if self.completed:
            # After "100 Continue" for a complete or refused request, waitress would read the next
            # request as its body.
            self.expect_continue = False
        return consumed

    def _receive_head(self, data: bytes) -> int:
        size = len(data)
        if not self._head:
            data = self._skip_blank(data)
            if not data:
                return size
        known = len(self._head)
        self._head += data
        end = self._head.find(_END, max(0, known - 3))
        if end >= 0:
            end += len(_END)
        if (end if end >= 0 else len(self._head)) > self.adj.max_request_header_size:
            text = f"more than {self.adj.max_request_header_size} bytes"
            raise Refused(text, 431, "Request Header Fields Too Large")
        if end < 0:
            # It would wait in vain for the empty line.
            check_lines(self._head[max(0, known - 1) :].removeprefix(b"\n"))
            return size
        head = bytes(self._head[:end])
        self.headers_finished = True
        self._use(self._parsed(head))
        return size - (len(self._head) - end)

    def _skip_blank(self, data: bytes) -> bytes:
        self.began = monotonic()
        rest = data.lstrip(b"\r\n")
        self._blank += len(data) - len(rest)
        if self._blank > MAX_BLANK:
            raise Refused("too many blank lines before the request")
        if rest and not _TOKEN.match(rest):
            raise Refused("this is not an HTTP request; does the client speak TLS (https)?")
        return rest

    def _parsed(self, data: bytes) -> Head:
        """The head, from the cache if it was seen before."""
        cache: dict[bytes, Head] = self.adj.head_cache
        if (head := cache.get(data)) is None:
            head = parse_head(data)
            if len(data) <= MAX_HEAD:
                if len(cache) >= HEAD_CACHE_SIZE:
                    cache.clear()
                cache[data] = head
        return head

    def _use(self, head: Head) -> None:
        self.command, self.request_uri, self.version = head.command, head.target, head.version
        self.path, self.query = head.path, head.query
        self.headers = head.fields.copy()
        self.connection_close = head.closes
        # Waitress refuses a body whose size equals its limit.
        limit = self.adj.max_request_body_size - 1
        if head.length is None:
            from .chunks import ChunkedBody  # noqa: PLC0415

            self.chunked = True
            self.body_rcv = ChunkedBody(self._buffer(), limit)
        elif head.length > limit:
            raise Refused("", 413, "Request Entity Too Large")
        elif head.length:
            self.content_length = head.length
            self.body_rcv = FixedStreamReceiver(head.length, self._buffer())
        else:
            self.completed = True
        expect = self.headers.get("EXPECT", "").lower()
        self.expect_continue = head.version == "1.1" and expect == "100-continue"

    def _buffer(self) -> OverflowableBuffer:
        return OverflowableBuffer(self.adj.inbuf_overflow)

    def _receive_body(self, data: bytes) -> int:
        body = self.body_rcv
        consumed: int = body.received(data)
        self.error = body.error
        self.completed = body.completed or body.error is not None
        if self.completed and self.chunked:
            # To the application, the body has a length.
            self.headers["CONTENT_LENGTH"] = str(len(body))
        return consumed


class RequestTimeout(Error):
    """The client took too long to send a request (RFC 9110 section 15.5.9)."""

    code = 408
    reason = "Request Timeout"
