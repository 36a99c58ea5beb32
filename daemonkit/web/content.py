"""Decodes request bodies by their Content-Encoding (RFC 9110 section 8.4)."""

from __future__ import annotations

import zlib
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

CODING = "gzip"
MAX_MEMBERS = 10_000
"""Parts that a gzip file is joined of; each takes time, even an empty one."""
_AT_ONCE = 65536
_GZIP = 16 + zlib.MAX_WBITS


class UnsupportedCoding(UnsupportedMediaType):
    """415, with the coding that is supported (RFC 9110 section 12.5.3)."""

    def get_headers(self, *arguments: Any, **keywords: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*arguments, **keywords), ("Accept-Encoding", CODING)]


def decoded(data: bytes, coding: str, limit: int) -> bytes:
    """The body without its coding.

    coding: the value of Content-Encoding; limit: the most bytes of the result. Raises
    UnsupportedCoding, RequestEntityTooLarge, and BadRequest for what isn't gzip (RFC 1952).
    """
    codings = [name.strip().lower() for name in coding.split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if not codings:
        return data
    if codings not in ([CODING], [f"x-{CODING}"]):
        raise UnsupportedCoding(f"Content-Encoding {coding} is not supported; use {CODING}")
    try:
        return _unzipped(data, limit)
    except zlib.error as error:
        raise BadRequest(f"The body is not {CODING}: {error}") from None


def _unzipped(data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left, members = limit, 0
    unzip = zlib.decompressobj(_GZIP)
    # In pieces: what follows a member is copied each time.
    for start in range(0, len(data), _AT_ONCE):
        piece = data[start : start + _AT_ONCE]
        while piece:
            if unzip.eof:
                members += 1
                unzip = zlib.decompressobj(_GZIP)
                if members >= MAX_MEMBERS:
                    raise BadRequest(f"The body has more than {MAX_MEMBERS} {CODING} members")
            part = unzip.decompress(piece, left + 1)
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise RequestEntityTooLarge(
                    f"The decoded body is over the limit of {limit} bytes (max_request_size)"
                )
            piece = unzip.unused_data
    if not unzip.eof:
        raise BadRequest(f"The body is not {CODING}: it is incomplete")
    return b"".join(parts)


def whole_body(limit: int) -> bytes:
    """The body of the current request, decoded; limit: bytes of that. Raises HTTPException."""
    return decoded(_whole_body(), request.headers.get("Content-Encoding", ""), limit)


def _whole_body() -> bytes:
    """The request's body, even if a hook has read some of it, for example as a form."""
    stream = request.environ["wsgi.input"]
    # Middleware may have replaced it with a stream that has only what PEP 3333 requires.
    may_seek = getattr(stream, "seekable", bool)
    if not getattr(request, "_cached_data", None) and may_seek():
        stream.seek(0)
        for name in ("stream", "_cached_data"):
            vars(request).pop(name, None)
    return request.get_data()
