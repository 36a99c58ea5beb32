"""What a head says, and that it says the same when it comes again."""

from __future__ import annotations

from typing import Any

import pytest
from waitress.adjustments import Adjustments

from daemonkit.web.fast_lane import HEAD_CACHE_SIZE, MAX_HEAD
from daemonkit.web.request import Parser

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
    """All that is known of a request, with its body."""
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
def test_a_head_that_comes_again_says_the_same(
    adjustments: Any, head: bytes, bodies: list[bytes]
) -> None:
    for body in bodies:
        again = parsed(adjustments, head + body)
        assert again.completed
        fresh = Adjustments()
        fresh.head_cache = {}
        assert facts(again) == facts(parsed(fresh, head + body))
        # What becomes of one request concerns no other.
        again.headers["CONNECTION"] = "close"
    assert list(adjustments.head_cache) == ([] if head is CHUNKED else [head])


def test_what_is_remembered_is_bounded_and_holds_no_body(adjustments: Any) -> None:
    for number in range(HEAD_CACHE_SIZE + 10):
        parsed(adjustments, b"GET /%d HTTP/1.1\r\n\r\n" % number)
    assert 0 < len(adjustments.head_cache) <= HEAD_CACHE_SIZE
    parsed(adjustments, b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n")
    parsed(adjustments, POST + b"one")

    assert max(map(len, adjustments.head_cache)) < MAX_HEAD
    assert "body_rcv" not in adjustments.head_cache[POST]


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_a_head_that_is_refused_is_refused_again(adjustments: Any, head: bytes) -> None:
    errors = [parsed(adjustments, head).error for _ in range(3)]

    assert [type(error).__name__ for error in errors] == ["BadRequest"] * 3
    assert adjustments.head_cache == {}
