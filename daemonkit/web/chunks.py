"""Decodes a chunked body (RFC 9112 section 7.1)."""

from __future__ import annotations

import re
from typing import Any

from .head import FIELD, TOKEN, Refused

MAX_LINE = 4096
"""Bytes in the line that begins a chunk."""
MAX_TRAILERS = 8192
"""Bytes in all trailer fields together."""
SPARE_OVERHEAD = 16 * 1024
"""Bytes of such lines, beyond what a body of ordinary chunks needs."""
MAX_SIZE_DIGITS = 15
"""Hexadecimal digits in a chunk's size; with more, the body is over any limit."""

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (TOKEN, TOKEN, _QUOTED)
# Without extensions, as almost all are.
_PLAIN_LINE = re.compile(rb"([1-9A-Fa-f][0-9A-Fa-f]{0,6})\r\n")
_LINE = rb"([0-9A-Fa-f]+)(?:%b)*" % _EXTENSION
_FORBIDDEN = {b"content-length", b"transfer-encoding", b"host"}
"""Fields that must not be trailers (RFC 9110 section 6.5.1)."""
_CRLF = b"\r\n"


class ChunkedBody:
    """Receives a chunked body; drops the trailer fields.

    buffer: takes the decoded bytes with `append`; limit: the most of them.
    """

    def __init__(self, buffer: Any, limit: int) -> None:
        self.completed = False
        self.error: Any = None
        self._buffer = buffer
        self._limit = limit
        self._rest = b""
        """Bytes that are not a whole line yet."""
        self._parts: list[bytes] = []
        """Decoded bytes that aren't in the buffer yet."""
        self._step = self._read_size
        self._left = 0
        """Bytes that are missing in the current chunk."""
        self._length = 0
        self._overhead = 0
        self._trailers = 0

    def __len__(self) -> int:
        return self._length

    def getbuf(self) -> Any:
        """The buffer, as waitress calls it."""
        return self._buffer

    def getfile(self) -> Any:
        """The decoded bytes, as a file."""
        return self._buffer.getfile()

    def received(self, data: bytes) -> int:
        """Take the bytes that belong to the body; returns how many. Sets `completed` or `error`."""
        kept = len(self._rest)
        data, self._rest = self._rest + data, b""
        at = 0
        try:
            while not self.completed and at < len(data):
                after = self._read_whole(data, at) or self._step(data, at)
                if after == at:
                    self._rest = data[at:]
                    break
                at = after
        except Refused as refused:
            self.error = refused.error
        if self._parts:
            self._buffer.append(b"".join(self._parts))
            self._parts.clear()
        return (at if self.completed else len(data)) - kept

    def _read_whole(self, data: bytes, at: int) -> int:
        """Read a plain chunk that is there as a whole; returns the next position, 0 for others."""
        line = _PLAIN_LINE.match(data, at) if self._step == self._read_size else None
        if line is None:
            return 0
        begin = line.end()
        size = int(line[1], 16)
        end = begin + size
        if data[end : end + 2] != _CRLF or self._length + size > self._limit:
            return 0
        self._parts.append(data[begin:end])
        self._length += size
        return end + len(_CRLF)

    # Each of these reads at a position, and returns the next one; the same one for lack of bytes.

    def _read_size(self, data: bytes, at: int) -> int:
        end = _line_end(data, at, MAX_LINE, "a chunk's first line")
        if end < 0:
            return at
        line = re.fullmatch(_LINE, data[at:end])
        if line is None:
            raise Refused("a chunk must begin with its size in hexadecimal digits")
        digits = line[1].lstrip(b"0")
        size = int(digits or b"0", 16) if len(digits) <= MAX_SIZE_DIGITS else self._limit + 1
        if self._length + size > self._limit:
            raise Refused("", 413, "Request Entity Too Large")
        # Much of it for little content would cost time without counting towards the limit.
        self._overhead += end - at - 16 - 2 * size
        if self._overhead > SPARE_OVERHEAD:
            raise Refused("the chunks have too many extensions")
        self._left = size
        self._length += size
        self._step = self._read_content if size else self._read_trailer
        return end + len(_CRLF)

    def _read_content(self, data: bytes, at: int) -> int:
        content = data[at : at + self._left]
        self._parts.append(content)
        self._left -= len(content)
        if not self._left:
            self._step = self._read_end
        return at + len(content)

    def _read_end(self, data: bytes, at: int) -> int:
        end = data[at : at + len(_CRLF)]
        if not _CRLF.startswith(end):
            raise Refused("a chunk is longer than its size")
        if len(end) < len(_CRLF):
            return at
        self._step = self._read_size
        return at + len(_CRLF)

    def _read_trailer(self, data: bytes, at: int) -> int:
        end = _line_end(data, at, MAX_TRAILERS, "a trailer field")
        if end < 0:
            return at
        if end == at:
            self.completed = True
            return end + len(_CRLF)
        found = FIELD.fullmatch(data, at, end)
        if found is None or found[1].lower() in _FORBIDDEN:
            raise Refused("after the last chunk, there must be an empty line or trailer fields")
        self._trailers += end - at
        if self._trailers > MAX_TRAILERS:
            raise Refused(
                f"more than {MAX_TRAILERS} bytes of trailer fields",
                431,
                "Request Header Fields Too Large",
            )
        return end + len(_CRLF)


def _line_end(data: bytes, at: int, limit: int, what: str) -> int:
    """Where the line ends that begins at a position; -1 if its end hasn't arrived."""
    end = data.find(_CRLF, at, at + limit + len(_CRLF))
    # A bare LF never becomes a line's end, so that there is nothing to wait for.
    if data.find(b"\n", at, end if end >= 0 else len(data)) >= 0:
        raise Refused(f"{what} must end with CRLF")
    if end < 0 and len(data) - at > limit:
        raise Refused(f"{what} is longer than {limit} bytes")
    return end
