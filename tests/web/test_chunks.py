from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waitress.buffers import OverflowableBuffer

from daemonkit.web.chunks import MAX_LINE, MAX_TRAILERS, ChunkedBody

LIMIT = 1000
BODIES = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
EXTENSIONS = st.sampled_from(["", ";a", "; a=b", ' ;a="b;c\\""', ";a=b;c", "\t;a = b"])
TRAILERS = st.lists(st.sampled_from(["X: y", "Y:", "Z: a b"]), max_size=3)


def new_body(limit: int = LIMIT) -> ChunkedBody:
    return ChunkedBody(OverflowableBuffer(10**9), limit)


def content(body: ChunkedBody) -> bytes:
    data: bytes = body.getfile().read()
    return data


def refusal(data: bytes, limit: int = LIMIT) -> tuple[int, str]:
    body = new_body(limit)
    assert body.received(data) == len(data)
    assert not body.completed
    return body.error.code, body.error.body


@given(BODIES, TRAILERS, st.binary(max_size=20), st.data())
def test_a_body_is_read_however_it_is_framed_and_split(
    parts: list[bytes], trailers: list[str], rest: bytes, data: Any
) -> None:
    framed = b""
    for part in (*parts, b""):
        zeros, extension = data.draw(st.sampled_from(["", "0", "000"])), data.draw(EXTENSIONS)
        size = data.draw(st.sampled_from([f"{len(part):x}", f"{len(part):X}"]))
        framed += f"{zeros}{size}{extension}\r\n".encode() + part + (b"\r\n" if part else b"")
    framed += "".join(f"{trailer}\r\n" for trailer in trailers).encode() + b"\r\n"
    whole = framed + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))

    body, consumed = new_body(), 0
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if not body.completed:
            taken = body.received(whole[start:stop])
            consumed += taken
            assert body.error is None
            assert taken == stop - start or body.completed

    assert body.completed
    assert consumed == len(framed)
    assert (content(body), len(body)) == (b"".join(parts), len(b"".join(parts)))


@given(st.binary(), st.integers(1, 10))
def test_any_bytes_are_taken_or_refused_the_same_however_they_are_split(
    data: bytes, step: int
) -> None:
    whole, split = new_body(), new_body()
    consumed = whole.received(data)
    taken = 0
    for start in range(0, len(data), step):
        if not (split.completed or split.error):
            taken += split.received(data[start : start + step])

    assert split.completed is whole.completed
    assert content(split) == content(whole)
    assert (split.error is None) is (whole.error is None)
    if whole.completed:
        assert taken == consumed


@pytest.mark.parametrize("size", [b"3E9", b"FFFFFFFFFF", b"F" * 5000, b"1\r\n1\r\n3e8"])
def test_a_size_over_the_limit_is_refused_before_its_content(size: bytes) -> None:
    if len(size) > MAX_LINE:
        assert refusal(size + b"\r\n")[0] == 400
    else:
        assert refusal(size + b"\r\n")[0] == 413


def test_a_body_of_just_the_limit_is_accepted() -> None:
    body = new_body(3)
    body.received(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")

    assert (body.completed, content(body)) == (True, b"abc")


@pytest.mark.parametrize("step", [10**9, 100])
def test_extensions_and_trailers_are_bounded(step: int) -> None:
    def refused_after(data: bytes) -> tuple[int, int]:
        body, taken = new_body(10**9), 0
        while body.error is None:
            taken += body.received(data[taken : taken + step])
        return body.error.code, taken

    size = 10**6 if step > 10**6 else 0
    assert refused_after(b"1;" + b"a" * 10**6)[0] == 400
    code, taken = refused_after(b"1;a=%b\r\n1\r\n" % (b"x" * 1000) * 1000)
    assert (code, taken < 25_000 or bool(size)) == (400, True)
    assert refused_after(b"0\r\n" + b"X: " + b"a" * 10**6)[0] == 400
    code, taken = refused_after(b"0\r\n" + b"X: a\r\n" * 10**5)
    assert (code, taken < 2 * MAX_TRAILERS or bool(size)) == (431, True)


def test_ordinary_chunks_may_be_many() -> None:
    body = new_body(10**6)
    body.received(b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")

    assert (body.completed, len(body)) == (True, 50_000)


def test_a_refusal_says_what_is_wrong() -> None:
    assert refusal(b"\r\n")[1] == "a chunk must begin with its size in hexadecimal digits"
    assert refusal(b"1\n")[1] == "a chunk's first line must end with CRLF"
    assert refusal(b"1\r\n12")[1] == "a chunk is longer than its size"
    assert refusal(b"0\r\nHost: x\r\n")[1] == (
        "after the last chunk, there must be an empty line or trailer fields"
    )


@pytest.mark.parametrize("space", [b" ", b"\t"])
def test_a_trailer_with_many_spaces_takes_no_time(space: bytes) -> None:
    """A pattern that backtracks would take an hour."""
    body = new_body()
    body.received(b"0\r\nX:%s\r\n\r\n" % (space * 8000))
    assert body.completed
    assert refusal(b"0\r\nX:%s\x01\r\n\r\n" % (space * 8000))[0] == 400
    assert refusal(b"1%s;%s=\x01\r\n" % (space * 2000, space * 2000))[0] == 400
