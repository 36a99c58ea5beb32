from __future__ import annotations

from typing import Any

import pytest
from waitress.adjustments import Adjustments

from daemonkit.web.fast_lane import HEAD_CACHE_SIZE, MAX_HEAD
from daemonkit.web.request import Parser

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
    found = {
        k: v for k, v in vars(parser).items() if k not in ("adj", "began", "body_rcv", "_head")
    }
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
    assert list(adjustments.head_cache) == [head]


def test_the_head_cache_is_bounded(adjustments: Any) -> None:
    for number in range(HEAD_CACHE_SIZE + 10):
        parsed(adjustments, b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
    assert 0 < len(adjustments.head_cache) <= HEAD_CACHE_SIZE
    long = b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n"
    longest = long % (b"x" * (MAX_HEAD + 2 - len(long)))
    parsed(adjustments, longest)
    assert longest in adjustments.head_cache
    parsed(adjustments, longest.replace(b"X: ", b"X: x"))
    parsed(adjustments, POST + b"one")

    assert max(map(len, adjustments.head_cache)) == MAX_HEAD


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_a_refused_head_is_not_cached(adjustments: Any, head: bytes) -> None:
    errors = [parsed(adjustments, head).error for _ in range(3)]

    assert [error.code for error in errors] == [400] * 3
    assert adjustments.head_cache == {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("daemonkit.web.request.monotonic", clock)
    return clock


def test_a_request_begins_with_its_first_byte_and_not_with_blank_lines(
    adjustments: Any, clock: Clock
) -> None:
    parser = Parser(adjustments)
    assert (parser.began, parser.has_begun) == (100, False)
    times = []
    for clock.now, data in (
        (105, b"\r\n"),
        (110, b"G"),
        (120, b"ET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ):
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
