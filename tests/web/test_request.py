from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from waitress import task
from waitress.adjustments import Adjustments

from daemonkit.web.fast_lane import HEAD_CACHE_SIZE, MAX_HEAD
from daemonkit.web.request import JOIN_LIMIT, Parser, Task, with_fork_guard

from ..clock import Clock

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX: 1\r\nX: 2\r\nExpect: 100-continue\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
POST = b"POST /events?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
EMPTY = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def adjustments() -> Any:
    adjustments = Adjustments()
    adjustments.head_cache = {}
    return adjustments


def parsed(adjustments: Any, data: bytes) -> Parser:
    parser = Parser(adjustments)
    while data:
        data = data[parser.received(data) :]
    return parser


def facts(parser: Parser) -> dict[str, Any]:
    """All attributes of a parsed request, and its body."""
    found = {k: v for k, v in vars(parser).items() if k not in ("adj", "began", "body_rcv")}
    return {**found, "body": parser.get_body_stream().read()}


@pytest.mark.parametrize(
    ("head", "bodies"),
    [
        (GET, [b""] * 3),
        (OLD, [b""] * 3),
        (POST, [b"one", b"two", b"333"]),
        (EMPTY, [b""] * 3),
        (CHUNKED, [b"1\r\na\r\n0\r\n\r\n", b"2\r\nbc\r\n0\r\n\r\n"]),
    ],
)
def test_a_cached_head_is_read_like_a_new_one(
    adjustments: Any, head: bytes, bodies: list[bytes]
) -> None:
    for body in bodies:
        again = parsed(adjustments, head + body)
        assert again.completed
        fresh = Adjustments()
        fresh.head_cache = {}
        assert facts(again) == facts(parsed(fresh, head + body))
        # A change to one request must not affect the next.
        again.headers["CONNECTION"] = "close"
    assert list(adjustments.head_cache) == ([] if head is CHUNKED else [head])


def test_the_head_cache_is_bounded_and_holds_no_body(adjustments: Any) -> None:
    for number in range(HEAD_CACHE_SIZE + 10):
        parsed(adjustments, b"GET /%d HTTP/1.1\r\n\r\n" % number)
    assert 0 < len(adjustments.head_cache) <= HEAD_CACHE_SIZE
    long = b"GET / HTTP/1.1\r\nX: %s\r\n\r\n"
    longest = long % (b"x" * (MAX_HEAD + 2 - len(long)))
    parsed(adjustments, longest)
    assert longest in adjustments.head_cache
    parsed(adjustments, longest.replace(b"X: ", b"X: x"))
    parsed(adjustments, POST + b"one")

    assert max(map(len, adjustments.head_cache)) == MAX_HEAD
    assert "body_rcv" not in adjustments.head_cache[POST]


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_a_refused_head_is_not_cached(adjustments: Any, head: bytes) -> None:
    errors = [parsed(adjustments, head).error for _ in range(3)]

    assert [type(error).__name__ for error in errors] == ["BadRequest"] * 3
    assert adjustments.head_cache == {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("daemonkit.web.request.time", SimpleNamespace(monotonic=clock))
    return clock


def test_a_request_begins_with_its_first_byte_and_not_with_blank_lines(
    adjustments: Any, clock: Clock
) -> None:
    parser = Parser(adjustments)
    assert (parser.began, parser.has_begun) == (100, False)
    times = []
    for clock.now, data in ((105, b"\r\n"), (110, b"G"), (120, b"ET / HTTP/1.1\r\n\r\n")):
        assert parser.received(data) == len(data)
        times.append((parser.began, parser.has_begun))

    assert times == [(105, False), (110, True), (110, True)]
    assert parser.completed


def test_a_request_with_a_body_begins_with_its_head(adjustments: Any, clock: Clock) -> None:
    parser = Parser(adjustments)
    parser.received(POST)
    clock.now = 110
    parser.received(b"one")

    assert (parser.began, parser.completed) == (100, True)


@pytest.mark.parametrize("blank", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("first", [b"\x16\x03\x01", b" GET", b"\xff", b"("])
def test_bytes_that_cannot_begin_a_request_are_refused(
    adjustments: Any, blank: bytes, first: bytes
) -> None:
    parser = Parser(adjustments)

    assert parser.received(blank + first) == len(blank + first)
    assert (parser.completed, parser.error.code) == (True, 400)


def test_a_complete_request_with_expect_is_not_asked_to_continue(adjustments: Any) -> None:
    expect = b"\r\nExpect: 100-continue\r\n\r\n"
    waiting = Parser(adjustments)
    waiting.received(POST.replace(b"\r\n\r\n", expect))
    complete = Parser(adjustments)
    complete.received(EMPTY.replace(b"\r\n\r\n", expect))

    assert (waiting.completed, waiting.expect_continue) == (False, True)
    assert (complete.completed, complete.expect_continue) == (True, False)


class Channel:
    """Records what a task sends."""

    gathered: list[bytes] | None = None
    server = SimpleNamespace(draining=False, adj=SimpleNamespace(ident="x"))

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write_soon(self, data: bytes) -> None:
        (self.sent if self.gathered is None else self.gathered).append(data)


def new_task(adjustments: Any, channel: Channel, length: int) -> Any:
    made: Any = Task(channel, parsed(adjustments, GET))
    made.complete, made.status, made.content_length = True, "200 OK", length
    return made


@pytest.mark.parametrize(("size", "sent"), [(JOIN_LIMIT, 1), (JOIN_LIMIT + 1, 2)])
def test_a_head_is_sent_together_with_a_small_body(adjustments: Any, size: int, sent: int) -> None:
    channel = Channel()
    new_task(adjustments, channel, size).write(b"x" * size)

    assert len(channel.sent) == sent
    head, _, body = b"".join(channel.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"x" * size


def test_parts_after_the_head_are_sent_as_they_come(adjustments: Any) -> None:
    channel = Channel()
    answer = new_task(adjustments, channel, 3)
    for part in (b"a", b"b", b"c"):
        answer.write(part)

    assert [sent[-1:] for sent in channel.sent] == [b"a", b"b", b"c"]
    assert channel.sent[1:] == [b"b", b"c"]


def test_an_error_before_the_head_is_sent_can_still_be_answered(adjustments: Any) -> None:
    channel = Channel()
    answer = new_task(adjustments, channel, 4)
    with pytest.raises(TypeError):
        answer.write("text")

    assert (channel.sent, channel.gathered, answer.wrote_header) == ([], None, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), "ValueError: no"),
        (SystemExit(3), "RuntimeError: a route raised SystemExit: 3"),
        (KeyboardInterrupt("now"), "RuntimeError: a route raised KeyboardInterrupt: now"),
    ],
    ids=repr,
)
def test_any_base_exception_in_a_route_becomes_an_exception(
    adjustments: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr(task.WSGITask, "execute", fail)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        new_task(adjustments, Channel(), 0).execute()

    assert f"{type(raised.value).__name__}: {raised.value}" == expected


class Parts:
    """A body that may fork while it is iterated or closed."""

    def __init__(self, fork: Callable[[], Any], at: str) -> None:
        self._fork, self._at = fork, at
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in ("part", "second", "end", "error"):
            if part == self._at:
                self._fork()
            if part == "error":
                return
            yield part.encode()

    def close(self) -> None:
        self.closed += 1
        if self._at == "close":
            self._fork()


def read(application: Any) -> list[bytes]:
    body = with_fork_guard(application)({}, lambda *_: None)
    parts = list(body)
    if hasattr(body, "close"):
        body.close()  # type: ignore[attr-defined]
    return parts


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("at", ["call", "part", "second", "error", "close"])
def test_a_child_forked_while_a_route_answers_exits(at: str) -> None:
    parent, children = os.getpid(), []

    def fork() -> None:
        if pid := os.fork():
            children.append(pid)

    def application(environ: Any, start_response: Any) -> Parts:
        if at == "call":
            fork()
        return Parts(fork, at)

    try:
        parts = read(application)
    finally:
        # A child that is not ended would run the rest of the tests.
        if os.getpid() != parent:
            os._exit(99)

    assert parts == [b"part", b"second", b"end"]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_exits_with_the_error_of_the_body_that_forked_it() -> None:
    parent = os.getpid()
    children = []

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b"part"
        if pid := os.fork():
            children.append(pid)
        else:
            raise SystemExit(7)

    try:
        assert read(application) == [b"part"]
    finally:
        if os.getpid() != parent:
            os._exit(99)

    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [7]


def test_a_body_is_closed_once_and_a_list_is_passed_through() -> None:
    parts = Parts(lambda: None, "")
    assert read(lambda *_: parts) == [b"part", b"second", b"end"]
    assert parts.closed == 1

    body = [b"x"]
    assert with_fork_guard(lambda *_: body)({}, lambda *_: None) is body
    assert read(lambda *_: iter(body)) == body
