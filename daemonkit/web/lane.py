"""The fast lane: `POST /events` answered in the loop's own thread, without Flask.

From outside nobody can tell: what could make a difference takes the long way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from waitress.utilities import build_http_date

from ..events.codec import decode, decode_lines
from ..events.intake import Intake
from ..exceptions import BatchTooLarge, InvalidEvent, QueueFull
from .envelope import CONTENT_TYPE, NDJSON, RECEIVED, SERVER, batch_received, envelope

LARGEST_HEAD = 2048
LARGEST_BODY = 64 * 1024
LARGEST_BATCH = 32 * 1024
MOST_LINES = 1000
"""Lines of NDJSON that are decoded here: while that lasts, a millisecond, everybody else waits."""
HEADS_KEPT = 1000

_END = b"\r\n\r\n"
# Narrower than what waitress and Werkzeug take (RFC 9112, RFC 1123 section 2.1): nothing in it can
# be understood in two ways.
_LINE = b"POST /events HTTP/1.1\r\n"
_HEAD = re.compile(re.escape(_LINE) + rb"(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n")
_FIELDS = re.compile(
    rb"\n(host|content-length|content-type|connection|cookie|expect|transfer-encoding):([^\r]*)"
)
_HOST = re.compile(
    rb"(?:(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
# With a cookie, Flask may answer with one.
_LONG_WAY = {b"cookie", b"expect", b"transfer-encoding"}


class Head(NamedTuple):
    """What a request's head says of its body."""

    length: int
    is_batch: bool


def read_head(head: bytes) -> Head | None:
    """What the head of a plain `POST /events` says, None for any other request."""
    if _HEAD.fullmatch(head) is None:
        return None
    found = _FIELDS.findall(head.lower())
    fields = {name: value.strip(b" ") for name, value in found}
    length = fields.get(b"content-length", b"")
    if (
        len(fields) < len(found)
        or not _LONG_WAY.isdisjoint(fields)
        or not (length.isdigit() and len(length) <= len(str(LARGEST_BODY)))
        or _HOST.fullmatch(fields.get(b"host", b"")) is None
        or fields.get(b"connection", b"keep-alive") != b"keep-alive"
    ):
        return None
    is_batch = fields.get(b"content-type", b"").partition(b";")[0].rstrip() == NDJSON.encode()
    fits = int(length) <= (LARGEST_BATCH if is_batch else LARGEST_BODY)
    return Head(int(length), is_batch) if fits else None


def _may_become_plain(beginning: bytes) -> bool:
    """Whether what has come of a head may be the beginning of a plain one."""
    same = min(len(beginning), len(_LINE))
    return len(beginning) < LARGEST_HEAD and beginning[:same] == _LINE[:same]


class Connection(Protocol):
    """What the lane needs of a connection."""

    partial: bytes

    @property
    def peer(self) -> str: ...

    def answer(self, data: bytes) -> None: ...


class Lane:
    """Takes events out of what connections read, puts them on the queue once a turn of the loop,
    and then answers them.

    who_else: names who else wants to see requests to `/events`, "" if nobody does; redact: hides
    secrets in a message; max_request_size: bytes of a body.
    """

    def __init__(
        self,
        intake: Intake,
        who_else: Callable[[], str],
        redact: Callable[[str], str],
        max_request_size: int,
    ) -> None:
        self._intake = intake
        self._who_else = who_else
        self._redact = redact
        self._limit = max_request_size
        self._open_now: bool | None = None
        # Most clients send the same head each time.
        self._read_head = lru_cache(HEADS_KEPT)(read_head)
        self._events: list[Any] = []
        self._waiting: dict[Connection, int] = {}
        self.accepted = 0
        """Events taken this way."""
        self._second = 0
        self._received = b""

    def state(self) -> str:
        """Whether it is open, or why not."""
        who = self._who_else()
        return f"closed: {who}" if who else "open"

    def take(self, connection: Connection, data: bytes) -> bytes:
        """Take the plain requests at the beginning of `data`, and return the rest.

        What has come of one that isn't complete is left in `connection.partial`.
        """
        start, size = 0, len(data)
        while start < size and self._is_open_now():
            if data.startswith(b"\r\n", start):
                # Some clients end a body so (RFC 9112 section 2.2).
                start += 2
                continue
            body = data.find(_END, start) + len(_END)
            if body < len(_END):
                if _may_become_plain(data[start:]):
                    connection.partial = data[start:]
                    return b""
                break
            head = self._read_head(data[start:body]) if body - start <= LARGEST_HEAD else None
            if head is None or head.length > self._limit:
                break
            end = body + head.length
            if end > size:
                connection.partial = data[start:]
                return b""
            if not self._accept(connection, head.is_batch, data[body:end]):
                break
            start = end
        # Answers keep the order of the requests.
        if start < size and connection in self._waiting:
            self.commit()
        return data[start:]

    def turn_ended(self) -> None:
        """Answer what was taken in this turn of the loop."""
        self._open_now = None
        if self._waiting:
            self.commit()

    def commit(self) -> None:
        """Put on the queue what was taken, and then answer it."""
        events, self._events = self._events, []
        waiting, self._waiting = self._waiting, {}
        accepted, refusal = self._intake.put_some(
            events, "http", lambda: [c.peer for c, count in waiting.items() for _ in range(count)]
        )
        self.accepted += accepted
        received = self._received_answer()
        if refusal is None:
            for connection, count in waiting.items():
                connection.answer(received * count)
            return
        refused = self._refused_answer(refusal)
        for connection, count in waiting.items():
            good = min(count, accepted)
            accepted -= good
            connection.answer(received * good + refused * (count - good))

    def _is_open_now(self) -> bool:
        if self._open_now is None:
            self._open_now = not self._who_else()
        return self._open_now

    def _accept(self, connection: Connection, is_batch: bool, body: bytes) -> bool:
        try:
            if is_batch:
                if body.count(b"\n") > MOST_LINES:
                    return False
                self._put_batch(connection, decode_lines(body))
                return True
            self._events.append(decode(body))
        # What is wrong is said there.
        except InvalidEvent:
            return False
        self._waiting[connection] = self._waiting.get(connection, 0) + 1
        return True

    def _put_batch(self, connection: Connection, events: Sequence[Any]) -> None:
        if self._waiting:
            self.commit()
        try:
            self._intake.put_many(events, "http", connection.peer)
        except (QueueFull, BatchTooLarge) as error:
            connection.answer(self._refused_answer(error))
        else:
            self.accepted += len(events)
            connection.answer(_answer("200 OK", batch_received(len(events))))

    def _received_answer(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second, self._received = now, _answer("200 OK", RECEIVED)
        return self._received

    def _refused_answer(self, error: QueueFull | BatchTooLarge) -> bytes:
        body = envelope(self._redact(str(error)), False)
        if isinstance(error, QueueFull):
            return _answer("503 SERVICE UNAVAILABLE", body, error.retry_after)
        return _answer("413 REQUEST ENTITY TOO LARGE", body)


def _answer(status: str, body: bytes, retry_after: int | None = None) -> bytes:
    headers = {
        "Content-Length": len(body),
        "Content-Type": CONTENT_TYPE,
        "Date": build_http_date(time.time()),
        **({} if retry_after is None else {"Retry-After": retry_after}),
        "Server": SERVER,
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
