from __future__ import annotations

from typing import Any

import pytest

from daemonkit.events.durable.rows import (
    StoredBatch,
    numbers_in,
    ranges_in,
    ranges_of,
    to_failure,
    to_row,
)
from daemonkit.events.entry import Batch, FailedAttempt
from daemonkit.types import NOBODY, Origin

from .helpers import FAILURE, Open, events_of, take


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'{\n  "a":\r\n 1\n}\n', {"a": 1}),
        (b"\xef\xbb\xbf[1]", [1]),
        (b'"\\ud800\\n"', "\ud800\n"),
        (b"1.0e5", 1e5),
        ('"й\u2028"'.encode(), "й\u2028"),
    ],
)
def test_the_text_of_an_event_is_kept_whatever_its_form(
    opened: Open, line: bytes, event: Any
) -> None:
    opened().put_many(Batch([event, 7], [line, b"7"], "http"))

    assert events_of(take(opened(), 2)) == [event, 7]


@pytest.mark.parametrize(
    ("numbers", "ranges"),
    [([], []), ([3], [(3, 3)]), ([5, 1, 2, 0, 7, 8], [(0, 2), (5, 5), (7, 8)])],
)
def test_numbers_become_ranges(numbers: list[int], ranges: list[tuple[int, int]]) -> None:
    assert ranges_of(numbers) == ranges


@pytest.mark.parametrize("text", ["", "[[", "[1]", '[["a", 1]]', "[[Infinity, 0]]", "[" * 10_000])
def test_damaged_ranges_mark_nothing(text: str) -> None:
    assert ranges_in(text) == []


def test_ranges_stay_within_a_batch() -> None:
    assert numbers_in(ranges_in("[[-5, 1], [998, 99999]]")) == {0, 1, 998, 999, 1000}


@pytest.mark.parametrize("peers", [None, "[1", "[]", '{"a": 1}', "[" * 10_000])
def test_damaged_origins_are_unknown(peers: str | None) -> None:
    assert StoredBatch(1000, 2, 1.0, "udp", peers, b"1\n2").origins() == [NOBODY, NOBODY]


def test_an_event_that_fails_becomes_a_row_and_keeps_its_first_failure() -> None:
    stored = StoredBatch(1000, 2, 50.0, "udp", '["a:1", "b:2"]', b"1\n2")
    row = to_failure(stored, 1, b"2", FAILURE, 9.0)
    assert row == (1001, 9.0, 1, 50.0, "udp", "b:2", 100.0, 100.0, *FAILURE[:2], b"2")
    again = row.failed_again(FailedAttempt("\ud800", "", 2, 0.0, 200.0), None)

    assert again == (1001, None, 2, 50.0, "udp", "b:2", 100.0, 200.0, "\\ud800", "", b"2")


@pytest.mark.parametrize(
    "origin", [NOBODY, Origin("[::1]:5"), Origin("1.2.3.4:5", "shop"), Origin(None, "shop")]
)
def test_who_sent_an_event_is_stored_with_it_and_with_its_failure(origin: Origin) -> None:
    batch = to_row(Batch([1, 2], [b"1", b"2"], "http", [Origin("x"), origin]), 1000)
    assert batch.origins() == [Origin("x"), origin]
    failed = FailedAttempt("E", "", 1, 1.0, 1.0)
    assert to_failure(batch, 1, b"2", failed, None).origin == origin


@pytest.mark.parametrize("peer", ["[1", "[1, 2, 3]", "[" * 10_000, '{"a": 1}', "null", "12"])
def test_a_damaged_peer_is_shown_as_it_is_or_unknown(peer: str) -> None:
    batch = StoredBatch(1000, 1, 1.0, "udp", None, b"1")
    row = to_failure(batch, 0, b"1", FailedAttempt("E", "", 1, 1.0, 1.0), None)

    assert row._replace(peer=peer).origin in (Origin(peer), NOBODY)
