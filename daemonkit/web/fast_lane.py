"""The fast lane: answers `POST /events` on the loop's thread, without Flask.

A client can't tell the difference: requests that Flask might answer otherwise go to Flask.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

from waitress.utilities import build_http_date

from ..events.codec import Decoded, decode, decode_lines
from ..events.entry import Refusal
from ..events.intake import Intake, Refusals
from ..exceptions import InvalidEvent, Unavailable
from ..types import Origin
from .access import Access, Client, Peer, last_of
from .responses import CONTENT_TYPE, NDJSON, RECEIVED, SERVER, batch_received, envelope

MAX_BLANK = 16
"""Bytes of blank lines before a request."""
MAX_HEAD = 2048
MAX_BODY = 64 * 1024
MAX_BATCH = 32 * 1024
MAX_LINES = 1000
"""Lines in a batch. Decoding this many blocks the loop for a millisecond."""
HEAD_CACHE_SIZE = 1000
MAX_GATHERED = 512
"""Requests committed together in one write to the disk."""

_END = b"\r\n\r\n"
# Stricter than waitress and Werkzeug (RFC 9112, RFC 1123 section 2.1), so that there is only one
# way to read a matching head.
LINE = b"POST /events HTTP/1.1\r\n"
_HEAD = re.compile(re.escape(LINE) + rb"(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n")
_FIELDS = re.compile(
    rb"\n(host|content-length|content-type|content-encoding|connection|cookie|expect"
    rb"|transfer-encoding|authorization|origin|sec-fetch-site|x-forwarded-for|x-forwarded-host)"
    rb":([^\r]*)"
)
_HOST = re.compile(
    rb"(?:(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_AUTHORIZATION = b"\nauthorization:"
# Cookies, because Flask may set one in return. The origin, because only browsers send it.
_FLASK_ONLY = {
    *(b"content-encoding", b"cookie", b"expect", b"origin", b"sec-fetch-site"),
    b"transfer-encoding",
}


class Head(NamedTuple):
    """What a request's head says about its body, and about who sends it.

    sender: the name of its token; forwarded_for: X-Forwarded-For of a trusted proxy, else "".
    """

    length: int
    is_batch: bool
    sender: str | None = None
    forwarded_for: str = ""


def read_head(head: bytes, access: Access, is_trusted: bool) -> Head | None:
    """Read the head of a plain `POST /events`; None for any other request, or one to be refused.

    is_trusted: whether it comes from a trusted proxy.
    """
    if _HEAD.fullmatch(head) is None:
        return None
    lowered = head.lower()
    found = _FIELDS.findall(lowered)
    fields = {name: value.strip(b" ") for name, value in found}
    length = fields.get(b"content-length", b"")
    if (
        len(fields) < len(found)
        or not _FLASK_ONLY.isdisjoint(fields)
        or not (length.isdigit() and len(length) <= len(str(MAX_BODY)))
        or _HOST.fullmatch(fields.get(b"host", b"")) is None
        or fields.get(b"connection", b"keep-alive") != b"keep-alive"
    ):
        return None
    is_batch = fields.get(b"content-type", b"").partition(b";")[0].rstrip() == NDJSON.encode()
    if int(length) > (MAX_BATCH if is_batch else MAX_BODY):
        return None
    plain = Head(int(length), is_batch)
    if not access.checks_heads:
        return plain
    forwarded = fields if is_trusted else {}
    host = last_of(forwarded.get(b"x-forwarded-host", b"").decode()) or fields[b"host"].decode()
    may, sender = access.sender(_authorization(head, lowered))
    if not (may and access.takes_http and access.allows_host(host)):
        return None
    forwarded_for = forwarded.get(b"x-forwarded-for", b"").decode()
    return plain._replace(sender=sender, forwarded_for=forwarded_for)


def _authorization(head: bytes, lowered: bytes) -> str:
    """The field Authorization, whose capitals matter."""
    begin = lowered.find(_AUTHORIZATION)
    if begin < 0:
        return ""
    begin += len(_AUTHORIZATION)
    return head[begin : head.find(b"\r", begin)].strip(b" ").decode()


def _may_be_event(line: bytes) -> bool:
    """Whether a request's first line, perhaps incomplete, can be that of a plain event."""
    return line == LINE[: len(line)]


class Taken(NamedTuple):
    """A request that is to be answered; size: of its batch, None if it is a single event."""

    connection: Connection
    size: int | None
    head: Head


class Connection(Protocol):
    """What the fast lane uses of a connection."""

    partial: bytes
    blank: int
    """Bytes of blank lines since the last request."""
    answer_pending: bool
    last_origin: tuple[Head, Origin] | None
    """Of its last event, the head and who sent it."""

    @property
    def other_end(self) -> Peer: ...

    def answer(self, data: bytes) -> None: ...


class FastLane:
    """Takes events from the connections' input and, once per iteration of the loop, queues and
    answers them.

    find_blocker: names what could see a request to `/events`, "" if nothing could; access: the
    settings for access control; max_request_size: bytes in a body.
    """

    def __init__(
        self,
        intake: Intake,
        find_blocker: Callable[[], str],
        access: Access,
        max_request_size: int,
    ) -> None:
        self._intake = intake
        self._find_blocker = find_blocker
        self._limit = max_request_size
        self._is_open: bool | None = None
        self._counted = 0
        self._access = access
        # Most clients send the same head each time.
        self._read_head = lru_cache(HEAD_CACHE_SIZE)(read_head)
        self._taken: list[Taken] = []
        """The requests whose events aren't being queued yet."""
        self._decoded = Decoded([], [])
        """The events of these requests."""
        self.accepted = 0
        """Events queued by the fast lane."""
        self.answers: Counter[str] = Counter()
        """How many answers had which status."""
        self._second = 0
        self._received: dict[int | None, bytes] = {}
        """Answers of this second, by batch size; each contains the date."""

    def state(self) -> str:
        """Whether it is open, or the reason why it is closed."""
        blocker = "intake has no http" if not self._access.takes_http else self._find_blocker()
        return f"closed: {blocker}" if blocker else "open"

    def take(self, connection: Connection, data: bytes) -> bytes:
        """Take the plain requests at the beginning of `data` and return the rest.

        An incomplete plain request is stored in `connection.partial`.
        """
        start, size = 0, len(data)
        access = self._access
        is_trusted = access.checks_clients and access.trusts(connection.other_end)
        while start < size:
            if data.startswith(b"\r\n", start) and connection.blank < MAX_BLANK:
                # Some clients send a line break after a body (RFC 9112 section 2.2).
                start += 2
                connection.blank += 2
                continue
            # The cheaper check first.
            if not _may_be_event(data[start : start + len(LINE)]) or not self._check_open():
                break
            body = data.find(_END, start) + len(_END)
            if body < len(_END):
                if size - start < MAX_HEAD:
                    connection.partial = data[start:]
                    return b""
                break
            if body - start > MAX_HEAD:
                break
            head = self._read_head(data[start:body], access, is_trusted)
            if head is None or head.length > self._limit:
                break
            if access.checks_clients and not access.allows(self._client(connection, head)):
                break
            end = body + head.length
            if end > size:
                connection.partial = data[start:]
                return b""
            if not self._accept(connection, head, data[body:end]):
                break
            start = end
        # Answers must be in the order of the requests.
        if start < size and self._taken:
            self.commit()
        return data[start:]

    def continue_gathering(self) -> bool:
        """Decide whether to read more requests before `end_iteration`.

        A queue in a file writes to the disk once per commit, so requests that arrive meanwhile
        should be part of this one.
        """
        before, self._counted = self._counted, len(self._taken)
        return self._intake.gathers and before < self._counted < MAX_GATHERED

    def end_iteration(self) -> None:
        """Queue and answer the requests taken in this iteration of the loop."""
        self._is_open, self._counted = None, 0
        if self._taken:
            self.commit()

    def commit(self) -> None:
        """Queue the events taken so far and answer their requests, later if the queue is on
        another machine."""
        taken, self._taken = self._taken, []
        decoded, self._decoded = self._decoded, Decoded([], [])
        self._intake.put_each(
            decoded,
            [1 if size is None else size for _, size, _ in taken],
            "http",
            lambda: [self._origin(connection, head) for connection, _, head in taken],
            self._answering(taken),
        )

    def _answering(self, taken: Sequence[Taken]) -> Callable[[Refusals], None]:
        """What answers these requests."""
        return partial(self._answer_each, taken)

    def _answer_each(self, taken: Sequence[Taken], refusals: Refusals) -> None:
        if (now := int(time.time())) != self._second:
            self._second, self._received = now, {}
        refused = 0
        answers: dict[Connection, list[bytes]] = {}
        for (connection, size, _), refusal in zip(taken, refusals, strict=True):
            if refusal is None:
                self.accepted += 1 if size is None else size
                answer = self._received_answer(size)
            else:
                refused += 1
                answer = self._refused_answer(refusal)
            answers.setdefault(connection, []).append(answer)
        self.answers["200"] += len(taken) - refused
        for connection, parts in answers.items():
            connection.answer(b"".join(parts))

    def _check_open(self) -> bool:
        """Check whether the fast lane is open, once per iteration of the loop."""
        if self._is_open is None:
            self._is_open = not self._find_blocker()
        return self._is_open

    def _origin(self, connection: Connection, head: Head) -> Origin:
        """Who sent an event; most requests of a connection have the same head."""
        if connection.last_origin is None or connection.last_origin[0] is not head:
            shown = self._client(connection, head).shown
            connection.last_origin = head, Origin(shown, head.sender)
        return connection.last_origin[1]

    def _client(self, connection: Connection, head: Head) -> Client:
        return self._access.client(connection.other_end, head.forwarded_for)

    def _accept(self, connection: Connection, head: Head, body: bytes) -> bool:
        if head.is_batch and body.count(b"\n") > MAX_LINES:
            return False
        events, lines = self._decoded
        size = None
        try:
            if head.is_batch:
                batch = decode_lines(body, self._intake.max_event_size)
                size = len(batch.events)
                events += batch.events
                lines += batch.lines
            else:
                events.append(decode(body, self._intake.max_event_size))
                lines.append(body)
        # Flask's route decodes it again and answers with the error.
        except InvalidEvent:
            return False
        connection.answer_pending = True
        connection.blank = 0
        self._taken.append(Taken(connection, size, head))
        return True

    def _received_answer(self, size: int | None) -> bytes:
        """The answer to a batch of `size` events, or to a single event if `size` is None."""
        if (answer := self._received.get(size)) is None:
            body = RECEIVED if size is None else batch_received(size)
            answer = self._received[size] = _answer("200 OK", body)
        return answer

    def _refused_answer(self, error: Refusal) -> bytes:
        body = envelope(str(error), False)
        if isinstance(error, Unavailable):
            self.answers["503"] += 1
            return _answer("503 SERVICE UNAVAILABLE", body, error.retry_after)
        self.answers["413"] += 1
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
