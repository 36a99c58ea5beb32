"""The fast lane: `POST /events` answered in the loop's own thread, without Flask.

From outside nobody can tell: what could make a difference takes the long way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

from waitress.utilities import build_http_date

from ..events.codec import Decoded, decode_lines, decode_one
from ..events.intake import Intake
from ..exceptions import BatchTooLarge, InvalidEvent, Unavailable
from .responses import CONTENT_TYPE, NDJSON, RECEIVED, SERVER, batch_received, envelope

LARGEST_HEAD = 2048
LARGEST_BODY = 64 * 1024
LARGEST_BATCH = 32 * 1024
MOST_LINES = 1000
"""Lines of NDJSON that are decoded here: while that lasts, a millisecond, everybody else waits."""
HEADS_KEPT = 1000
GATHERED = 512
"""Requests that are looked for at most before what they bring is written together."""

_END = b"\r\n\r\n"
# Narrower than what waitress and Werkzeug take (RFC 9112, RFC 1123 section 2.1): nothing in it can
# be understood in two ways.
LINE = b"POST /events HTTP/1.1\r\n"
_HEAD = re.compile(re.escape(LINE) + rb"(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n")
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


def _may_be_event(line: bytes) -> bool:
    """Whether what has come of a request's first line may be the beginning of a plain event's."""
    return line == LINE[: len(line)]


class Connection(Protocol):
    """What the lane needs of a connection."""

    partial: bytes
    is_owed: bool

    @property
    def peer(self) -> str: ...

    def answer(self, data: bytes) -> None: ...


class FastLane:
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
        self._counted = 0
        # Most clients send the same head each time.
        self._read_head = lru_cache(HEADS_KEPT)(read_head)
        self._taken: list[tuple[Connection, Decoded, bool]] = []
        """Connections, the events and lines each has sent, and whether as a batch; to be queued and
        answered."""
        self.accepted = 0
        """Events taken this way."""
        self._second = 0
        self._received: dict[int | None, bytes] = {}
        """Answers of this second: the date is part of them."""

    def state(self) -> str:
        """Whether it is open, or why not."""
        who = self._who_else()
        return f"closed: {who}" if who else "open"

    def take(self, connection: Connection, data: bytes) -> bytes:
        """Take the plain requests at the beginning of `data`, and return the rest.

        What has come of one that isn't complete is left in `connection.partial`.
        """
        start, size = 0, len(data)
        while start < size:
            if data.startswith(b"\r\n", start):
                # Some clients end a body so (RFC 9112 section 2.2).
                start += 2
                continue
            # In this order: to look whether it is open costs more.
            if not _may_be_event(data[start : start + len(LINE)]) or not self._is_open_now():
                break
            body = data.find(_END, start) + len(_END)
            if body < len(_END):
                if size - start < LARGEST_HEAD:
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
        if start < size and self._taken:
            self.commit()
        return data[start:]

    def gathers(self) -> bool:
        """Whether to look for more before `turn_ended`: where each turn costs a write to the disk,
        those who send in the meantime are better in this one."""
        before, self._counted = self._counted, len(self._taken)
        return self._intake.is_durable and before < self._counted < GATHERED

    def turn_ended(self) -> None:
        """Answer what was taken in this turn of the loop."""
        self._open_now, self._counted = None, 0
        if self._taken:
            self.commit()

    def commit(self) -> None:
        """Put on the queue what was taken, and then answer it."""
        taken, self._taken = self._taken, []
        refusals = self._intake.put_each(
            [batch for _, batch, _ in taken],
            "http",
            lambda: [connection.peer for connection, _, _ in taken],
        )
        if (now := int(time.time())) != self._second:
            self._second, self._received = now, {}
        answers: dict[Connection, list[bytes]] = {}
        for (connection, (events, _), is_batch), refusal in zip(taken, refusals, strict=True):
            if refusal is None:
                self.accepted += len(events)
                answer = self._received_answer(len(events) if is_batch else None)
            else:
                answer = self._refused_answer(refusal)
            answers.setdefault(connection, []).append(answer)
        for connection, parts in answers.items():
            connection.answer(b"".join(parts))

    def _is_open_now(self) -> bool:
        if self._open_now is None:
            self._open_now = not self._who_else()
        return self._open_now

    def _accept(self, connection: Connection, is_batch: bool, body: bytes) -> bool:
        if is_batch and body.count(b"\n") > MOST_LINES:
            return False
        try:
            batch = decode_lines(body) if is_batch else decode_one(body)
        # What is wrong is said there.
        except InvalidEvent:
            return False
        connection.is_owed = True
        self._taken.append((connection, batch, is_batch))
        return True

    def _received_answer(self, count: int | None) -> bytes:
        """The answer to a batch of `count` events, or to a single event for None."""
        if (answer := self._received.get(count)) is None:
            body = RECEIVED if count is None else batch_received(count)
            answer = self._received[count] = _answer("200 OK", body)
        return answer

    def _refused_answer(self, error: Unavailable | BatchTooLarge) -> bytes:
        body = envelope(self._redact(str(error)), False)
        if isinstance(error, Unavailable):
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
