from __future__ import annotations

import contextlib
import json
import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemonkit import EventTooLarge, InvalidEvent
from daemonkit.events import codec
from daemonkit.events.codec import (
    Decoded,
    beginning,
    count_lines,
    decode,
    decode_each,
    decode_lines,
    decode_one,
    normalize,
)

from ..json_values import json_values


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b'{"Hello": "World"}', {"Hello": "World"}),
        (b" [1, 2.5, -0, 1e3] \r\n", [1, 2.5, 0, 1000.0]),
        (b"null", None),
        (b'"x"', "x"),
        (b"\xef\xbb\xbf{}", {}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud800"', "\ud800"),
        (b'"\xd0\xb9"', "й"),
        (b"[" * 200 + b"]" * 200, json.loads("[" * 200 + "]" * 200)),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b'"\\"' + b"{" * 300 + b'\\\\"', '"' + "{" * 300 + "\\"),
    ],
)
def test_valid_json_is_decoded(data: bytes, event: object) -> None:
    assert decode(data) == event


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"\xef\xbb\xbf", "the body is empty"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"a":\n tru}', "Expecting value: line 2 column 2 (char 7)"),
        (b"{} x", "Extra data: line 1 column 4 (char 3)"),
        (b"01", "Extra data: line 1 column 2 (char 1)"),
        (b"'a'", "Expecting value: line 1 column 1 (char 0)"),
        (b'"a\nb"', "Invalid control character at: line 1 column 3 (char 2)"),
        (b"NaN", "NaN is not JSON: line 1 column 1 (char 0)"),
        (b'["NaN",\n NaN]', "NaN is not JSON: line 2 column 2 (char 9)"),
        (b"[Infinity]", "Infinity is not JSON: line 1 column 2 (char 1)"),
        (b"[-Infinity]", "-Infinity is not JSON: line 1 column 2 (char 1)"),
        (b"[1e999]", "1e999 is too large a number: line 1 column 2 (char 1)"),
        (b"[-1e999]", "-1e999 is too large a number: line 1 column 2 (char 1)"),
        (
            b"1" * 400 + b".0",
            "11111111111111111111... is too large a number: line 1 column 1 (char 0)",
        ),
        (
            b'["' + b"1" * 5000 + b'", ' + b"1" * 5000 + b"]",
            "a whole number of more than 4300 digits: line 1 column 5006 (char 5005)",
        ),
        (
            b"[-" + b"1" * 4300 + b", " + b"1" * 4301 + b"]",
            "a whole number of more than 4300 digits: line 1 column 4305 (char 4304)",
        ),
        (b'"\xff"', "not UTF-8 at byte 1"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (
            '{"a": 1}'.encode("utf-16-le"),
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b"[" * 201 + b"]" * 201, "nested deeper than 200 levels: line 1 column 201 (char 200)"),
        (b"[" * 100_000, "nested deeper than 200 levels: line 1 column 201 (char 200)"),
        (b'{"a":' * 100_000, "nested deeper than 200 levels: line 1 column 1001 (char 1000)"),
        (b'["\\\\", ' + b"[" * 201, "nested deeper than 200 levels: line 1 column 207 (char 206)"),
        (b"\xef\xbb\xbf\xef\xbb\xbf1", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_invalid_json_is_refused_with_the_position(data: bytes, message: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(data)

    assert str(caught.value) == message


@settings(deadline=None)
@given(json_values(max_leaves=30))
def test_json_values_round_trip(event: object) -> None:
    assert decode(json.dumps(event).encode()) == event


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ 01eE.-NaInfty\n', max_size=60))
def test_any_bytes_are_an_event_or_an_invalid_event(data: bytes | str) -> None:
    try:
        event = decode(data if isinstance(data, bytes) else data.encode())
    except InvalidEvent:
        return
    assert decode(json.dumps(event, allow_nan=False).encode()) == event


@pytest.mark.parametrize("data", [b'{"a": 1}\r\n', b' "' + b"x" * 300 + b'"'])
def test_one_event_is_kept_with_its_text(data: bytes) -> None:
    decoded = decode_one(data)

    assert decoded == Decoded([json.loads(data)], [data])
    assert type(decoded) is Decoded
    with pytest.raises(InvalidEvent, match="^NaN is not JSON"):
        decode_one(b"NaN")


def test_the_fallback_decides_what_an_undecoded_item_becomes() -> None:
    undecoded: list[tuple[int, bytes]] = []

    def fallback(number: int, data: bytes) -> list[object]:
        undecoded.append((number, data))
        return [] if data == b"nope" else [decode(data)]

    assert decode_each([b"1", b"nope", b" 2", b"3"], fallback) == [1, 2, 3]
    assert undecoded == [(1, b"nope"), (2, b" 2")]


def test_ndjson_is_one_event_a_line_and_empty_lines_are_left_out() -> None:
    events, lines = decode_lines(b'\xef\xbb\xbf{"a": 1}\r\n\n2\n')

    assert events == [{"a": 1}, 2]
    assert lines == [b'{"a": 1}\r', b"2"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is empty"),
        (b"\n \n", "the body is empty"),
        (b"1\n\nnope\n", "line 3: Expecting value: line 1 column 1 (char 0)"),
        (b"1\nNaN", "line 2: NaN is not JSON: line 1 column 1 (char 0)"),
        (b"1\n\xff\n", "line 2: not UTF-8 at byte 0"),
        (b"1\n\x0b\n", "line 2: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_ndjson_names_the_invalid_line(data: bytes, message: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_lines(data)

    assert str(caught.value) == message


def test_a_python_value_becomes_what_it_would_be_as_json() -> None:
    assert normalize({"a": (1, 2), 3: None}) == Decoded(
        [{"a": [1, 2], "3": None}], [b'{"a": [1, 2], "3": null}']
    )


def _circle() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


def _nested(levels: int) -> list[object]:
    nested: list[object] = []
    for _ in range(levels):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object, "not a JSON value: Object of type type is not JSON serializable"),
        (math.nan, "not a JSON value: Out of range float values are not JSON compliant"),
        (_circle(), "not a JSON value: Circular reference detected"),
        (_nested(201), "nested deeper than 200 levels"),
        (_nested(50_000), "nested deeper than 200 levels"),
    ],
)
def test_a_python_value_that_is_not_json_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        normalize(value)

    assert str(caught.value).startswith(message)


def test_the_beginning_of_an_event_is_short_and_keeps_what_it_can() -> None:
    assert beginning({"a": {1}}) == '{"a": "{1}"}'
    assert beginning(_circle()) == "(an event that can't be shown: ValueError)"
    assert beginning({"a": "й\ud800"}) == '{"a": "й\ud800"}'
    assert beginning("x" * 300) == '"' + "x" * 199 + "..."


PIECES = ['"', "\\", '\\"', "[" * 150, "{", "]", "}", ":", ",", " ", "0", "12", "9" * 4301, "1e999", "-", ".", "e",
          "NaN", "-Infinity", "\n", "\ufeff", "a"]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_bytes_are_valid_or_refused_with_a_reason(text: str) -> None:
    with contextlib.suppress(InvalidEvent):
        assert decode(text.encode()) == json.loads(text.removeprefix("\ufeff"))


SLOW = {
    "escaped quotes before too deep a nesting": b'\\"' * 30_000 + b"[" * 201,
    "an open string after too deep a nesting": b"[" * 201 + b'"' + b'\\"' * 30_000,
    "many long numbers and one too long": b"[" + b"9" * 4300 + b"," + b"1" * 60_000 + b"]",
    "long numbers that begin like the wrong one": b"[0.%s1,0.%s1e999]"
    % (b"0" * 30_000, b"0" * 30_000),
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW)
def test_an_error_is_found_in_linear_time(data: bytes) -> None:
    """With quadratic time, one datagram would keep the process busy for minutes."""
    before = time.process_time()
    with contextlib.suppress(InvalidEvent):
        decode(data)

    assert time.process_time() - before < 2


# Limits for what comes from outside


def refusal(data: bytes, limit: int = 10**9) -> str:
    with pytest.raises(EventTooLarge) as caught:
        decode(data, limit)
    return str(caught.value)


@pytest.mark.parametrize("limit", [5, 199, 200, 201, 1000])
def test_an_event_may_have_as_many_bytes_as_the_limit(limit: int) -> None:
    fits, over = (b'"%s"' % (b"x" * (size - 2)) for size in (limit, limit + 1))
    text = f"an event of {limit + 1} bytes is over max_event_size ({limit} bytes)"

    assert decode(fits, limit) == "x" * (limit - 2)
    assert decode_lines(fits + b"\n1", limit).events == ["x" * (limit - 2), 1]
    assert refusal(over, limit) == text
    with pytest.raises(EventTooLarge, match=f"^line 2: {re.escape(text)}$"):
        decode_lines(b"1\n" + over, limit)
    with pytest.raises(EventTooLarge):
        normalize("x" * (limit - 1), limit)
    assert decode(over) == "x" * (limit - 1)


@pytest.mark.parametrize(
    "form",
    [
        "[%s]",
        "[ %s ]",
        '{"a": [%s]}',
        '{"[": [%s], "b\\"": "%%,,,"}',
        '["\\\\", %s]',
    ],
)
@pytest.mark.parametrize("element", ["1", "[]", "{}", '","', '"[1,2]"', "[ ]"])
def test_an_event_has_few_enough_values(
    monkeypatch: pytest.MonkeyPatch, form: str, element: str
) -> None:
    monkeypatch.setattr(codec, "MAX_VALUES", 300)
    besides = count_values(json.loads((form % element).replace("%%", "%"))) - 1
    fits, over = (
        (form % ",".join([element] * count)).replace("%%", "%").encode()
        for count in (300 - besides, 301 - besides)
    )

    assert count_values(decode(fits, 10**9)) == 300
    assert refusal(over) == "an event of more than 300 values"
    assert count_values(decode(over)) == 301


def count_values(value: object) -> int:
    """Elements and members at all levels."""
    inner = value.values() if isinstance(value, dict) else value
    parts = list(inner) if isinstance(inner, list) or isinstance(value, dict) else []
    return len(parts) + sum(map(count_values, parts))


@given(json_values(max_leaves=30), st.booleans())
def test_values_are_counted_exactly(event: object, is_indented: bool) -> None:
    data = json.dumps(event, indent=2 if is_indented else None).encode() + b" " * 200
    count = count_values(event)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "MAX_VALUES", count)
        assert decode(data, 10**9) == event
        patch.setattr(codec, "MAX_VALUES", count - 1)
        if count:
            assert refusal(data) == f"an event of more than {count - 1} values"


def test_the_most_values_are_decoded_in_a_fraction_of_a_second() -> None:
    data = b"[" + b"[]," * (codec.MAX_VALUES - 1) + b"1]"

    assert len(decode(data, 10**9)) == codec.MAX_VALUES
    assert refusal(data[:-1] + b",1]") == "an event of more than 200000 values"


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (b"\n \r\n\t\n", 0),
        (b"1", 1),
        (b"1\n2\n", 2),
        (b"\n\n1\n\n\n \n2\r\n\r\n3", 3),
        (b"\n" * 1000 + b"1" + b"\n" * 1001 + b"2", 2),
    ],
)
def test_lines_are_counted_without_the_empty_ones(data: bytes, count: int) -> None:
    assert count_lines(data) == count


@pytest.mark.parametrize("data", [b"[" * 300 + b"]" * 200_000, b"]" * 200_000 + b"[" * 300])
def test_more_closing_brackets_than_opening_ones_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode(data)
