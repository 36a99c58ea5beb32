from __future__ import annotations

import io

import pytest

from daemonkit import InvalidEvent
from daemonkit.events.durable import ndjson
from daemonkit.events.durable.ndjson import read_lines


def test_lines_come_in_lists_that_fit_into_a_batch() -> None:
    found = list(read_lines(io.BytesIO(b"1\n" * 2500)))

    assert [(len(lines), read) for lines, read in found] == [
        (1000, 2000),
        (1000, 4000),
        (500, 5000),
    ]


def test_a_list_ends_at_the_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "BYTES_AT_ONCE", 10)
    found = list(read_lines(io.BytesIO(b"123\n" * 9)))

    assert [len(lines) for lines, _ in found] == [4, 4, 1]


def test_space_and_byte_order_marks_are_removed() -> None:
    text = b"\xef\xbb\xbf1\r\n\n \t[2] \n\xef\xbb\xbf3\n\xef\xbb\xbf\n   4"

    assert list(read_lines(io.BytesIO(text))) == [([b"1", b"[2]", b"3", b"4"], len(text))]


def test_an_invalid_line_is_named_after_those_before_it() -> None:
    found = read_lines(io.BytesIO(b"1\n\n{oops\n2\n"))
    assert next(found) == ([b"1"], 9)

    with pytest.raises(InvalidEvent, match="^line 3: Expecting property name"):
        next(found)


def test_a_line_may_have_as_many_bytes_as_the_limit_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ndjson, "LONGEST_LINE", 10)
    assert list(read_lines(io.BytesIO(b"1234567890"))) == [([b"1234567890"], 10)]

    with pytest.raises(InvalidEvent, match="^line 1: longer than 10 bytes$"):
        list(read_lines(io.BytesIO(b"12345678901")))
