from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemonkit.events.footprint import (
    AGE_STEP,
    EVENT,
    GROUP,
    RECORD,
    WEIGHED_TOGETHER,
    Arrivals,
    footprint,
)

from ..json_values import json_values

DENSE = [
    *(
        b"[" + b"[]," * 1000 + b"1]",
        b"[" + b"{}," * 1000 + b"1]",
        b"[" + b'{"a":1},' * 1000 + b"1]",
    ),
    *(
        b"[" + b'{"":0},' * 1000 + b"1]",
        b"[" + b"1.5," * 1000 + b"1]",
        b"[" + b"999," * 1000 + b"1]",
    ),
    *(
        b"[" + b'"ab",' * 1000 + b"1]",
        b"[" * 100 + b"]" * 100,
        '["😀'.encode() + b"a" * 1000 + b'"]',
    ),
    *(b'["\\u0100' + b"a" * 1000 + b'"]', b'"abc"', b"12345", b"null", b'{"Hello": "World"}'),
    json.dumps({str(n): n for n in range(1000)}).encode(),
    *(json.dumps({str(n): n + 1000 for n in range(size)}).encode() for size in (5, 6, 10, 11, 22)),
    json.dumps([12345678901234567890] * 1000).encode(),
]


def memory_of(value: Any, seen: set[int]) -> int:
    """What a value takes; the same object once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    parts = inner if isinstance(inner, list) else ()
    return sys.getsizeof(value) + sum(memory_of(part, seen) for part in parts)


@pytest.mark.parametrize("text", DENSE, ids=lambda text: repr(text)[:20])
def test_the_estimate_is_neither_too_low_nor_far_too_high(text: bytes) -> None:
    actual = memory_of(json.loads(text), set())

    assert actual <= footprint([text]) <= 6 * actual + EVENT


@settings(deadline=None)
@given(st.lists(json_values(max_leaves=30), max_size=5))
def test_the_estimate_is_not_too_low_for_any_events(events: list[Any]) -> None:
    for ensure_ascii in (True, False):
        texts = [json.dumps(event, ensure_ascii=ensure_ascii) for event in events]
        lines = [text.encode("utf-8", "surrogatepass") for text in texts]
        actual = sum(memory_of(json.loads(text), set()) for text in texts)

        assert actual <= footprint(lines)


LINE = b'{"a": 1}'
ONE = footprint([LINE])


def filled(arrivals: Arrivals, count: int, now: float = 0.0, *, number: int = 0) -> None:
    for n in range(count):
        arrivals.add(number + n, [LINE], now, keeps_texts=False)


def test_memory_is_that_of_the_events_but_for_the_latest_few() -> None:
    arrivals = Arrivals()
    filled(arrivals, WEIGHED_TOGETHER - 1)
    assert arrivals.memory == 0
    filled(arrivals, 1)
    assert arrivals.memory == WEIGHED_TOGETHER * ONE


def test_memory_is_released_by_groups_as_they_are_taken() -> None:
    arrivals = Arrivals()
    filled(arrivals, WEIGHED_TOGETHER)
    filled(arrivals, WEIGHED_TOGETHER, AGE_STEP, number=WEIGHED_TOGETHER)
    added = 2 * WEIGHED_TOGETHER
    arrivals.drop_taken(WEIGHED_TOGETHER - 1, added)
    assert (arrivals.memory, arrivals.oldest) == (added * ONE, 0.0)
    arrivals.drop_taken(WEIGHED_TOGETHER, added)
    assert (arrivals.memory, arrivals.oldest) == (WEIGHED_TOGETHER * ONE, AGE_STEP)
    arrivals.drop_taken(added, added)
    assert (arrivals.memory, arrivals.oldest) == (0, None)


def test_events_that_were_taken_before_they_are_weighed_count_nothing() -> None:
    arrivals = Arrivals()
    filled(arrivals, WEIGHED_TOGETHER - 1)
    arrivals.drop_taken(WEIGHED_TOGETHER - 1, WEIGHED_TOGETHER - 1)
    filled(arrivals, 1, number=WEIGHED_TOGETHER - 1)

    assert arrivals.memory == 0


def test_a_large_event_has_a_group_of_its_own() -> None:
    arrivals = Arrivals()
    line = b'"%s"' % (b"x" * GROUP)
    for number in range(3):
        arrivals.add(number, [line], 0.0, keeps_texts=False)
    arrivals.drop_taken(2, 3)

    assert arrivals.memory == footprint([line])


def test_kept_texts_and_records_are_counted() -> None:
    arrivals = Arrivals()
    arrivals.add(0, [LINE] * WEIGHED_TOGETHER, 0.0, keeps_texts=True)

    assert arrivals.memory == WEIGHED_TOGETHER * (ONE + RECORD + len(LINE))
