from __future__ import annotations

import time

import pytest

from daemonkit.events.durable.rows import StoredBatch, StoredFailure
from daemonkit.events.entry import Entry, FailedAttempt
from daemonkit.events.shared.in_flight import Failed, Held, InFlight

BASE = 5_000
FAILURE = FailedAttempt("ValueError: no", "traceback", 1, 1.0, 2.0)


def batch(base: int = BASE, count: int = 4) -> StoredBatch:
    lines = b"\n".join(b"%d" % n for n in range(count))
    return StoredBatch(base, count, 0.5, "http", None, lines)


def retry(id: int) -> StoredFailure:
    return StoredFailure(id, None, 1, 0.5, "http", None, 1.0, 2.0, "e", "t", b'"again"')


@pytest.fixture
def in_flight() -> InFlight:
    in_flight = InFlight()
    in_flight.add(Held(b"5-0", batch(), b""))
    return in_flight


def entries(*ids: int) -> list[Entry]:
    return [Entry(None, None, id) for id in ids]


def test_results_are_collected_by_entry(in_flight: InFlight) -> None:
    in_flight.add(Held(b"9-0", retry(1_003), b""))
    assert (in_flight.open, in_flight.entries, in_flight.size) == (5, 2, 7 + 7)
    in_flight.handled += entries(BASE + 2, 1_003, BASE)
    assert in_flight.unsaved == 3
    assert in_flight.collect() == []

    assert in_flight.unsettled() == [b"9-0", 1, b"", 1_003, b"5-0", 4, b"1010", b""]
    assert (in_flight.open, in_flight.unsaved) == (2, 3)
    in_flight.settled()
    assert (in_flight.unsaved, in_flight.holds(b"9-0"), in_flight.holds(b"5-0")) == (0, False, True)
    in_flight.handled += entries(BASE + 1, BASE + 3)
    in_flight.collect()
    assert in_flight.unsettled() == [b"5-0", 4, b"", b""]
    in_flight.settled()
    assert (in_flight.open, in_flight.entries, in_flight.size) == (0, 0, 0)


def test_results_that_could_not_be_saved_are_saved_later(in_flight: InFlight) -> None:
    in_flight.handled += entries(BASE)
    in_flight.collect()
    in_flight.handled += entries(BASE + 1)
    in_flight.collect()

    assert in_flight.unsettled() == [b"5-0", 4, b"1100", b""]
    assert in_flight.unsaved == 2


def test_a_failed_event_is_held_until_the_engine_has_it(in_flight: InFlight) -> None:
    failed = Failed(BASE + 1, FAILURE, 0.5)
    in_flight.failures.append(failed)
    assert in_flight.collect() == [failed]
    assert in_flight.collect() == [failed], "until it is saved"
    held = in_flight.held_by(BASE + 1)
    assert held is not None
    row = held.failed(failed.id, FAILURE)

    assert (row.line, row.attempts, row.error, row.received) == (b"1", 1, "ValueError: no", 0.5)
    in_flight.failed(failed)
    assert (in_flight.failures, in_flight.open, in_flight.unsaved) == ([], 3, 0)


def test_a_retry_that_fails_again_keeps_its_first_failure(in_flight: InFlight) -> None:
    held = Held(b"9-0", retry(1_003), b"")
    in_flight.add(held)
    row = held.failed(1_003, FAILURE._replace(attempts=2, last_failed=9.0))

    assert (row.line, row.attempts, row.first_failed, row.last_failed) == (b'"again"', 2, 1.0, 9.0)
    in_flight.failures.append(Failed(1_003, FAILURE, None))
    in_flight.failed(in_flight.failures[0])
    assert not in_flight.holds(b"9-0")


def test_an_entry_that_is_handled_in_part_has_the_rest_open() -> None:
    in_flight = InFlight()
    in_flight.add(Held(b"5-0", batch(), b"1101"))

    assert in_flight.open == 1
    assert in_flight.holds_event(BASE + 2)
    assert not in_flight.holds_event(99)


def test_what_was_abandoned_is_not_held_but_still_reported(in_flight: InFlight) -> None:
    in_flight.abandon()
    assert (in_flight.open, in_flight.holds(b"5-0"), in_flight.holds_event(BASE)) == (
        0,
        False,
        False,
    )
    in_flight.handled += entries(BASE)
    in_flight.collect()

    assert in_flight.unsettled() == [b"5-0", 4, b"1000", b""]
    in_flight.settled()
    assert (in_flight.open, in_flight.unsaved) == (0, 0)
    in_flight.failures.append(Failed(BASE + 1, FAILURE, None))
    assert in_flight.held_by(BASE + 1) is None
    in_flight.failed(in_flight.failures[0])
    assert in_flight.failures == []


def test_many_results_are_collected_quickly() -> None:
    in_flight = InFlight()
    for number in range(100):
        in_flight.add(Held(b"%d-0" % number, batch(number * 1000, 1000), b""))
    in_flight.handled += entries(*range(100_000))
    began = time.perf_counter()
    in_flight.collect()
    in_flight.settled()

    assert in_flight.open == 0
    assert time.perf_counter() - began < 10


def test_only_entries_of_which_all_waits_are_released(in_flight: InFlight) -> None:
    in_flight.add(Held(b"6-0", batch(6_000), b"0100"))
    in_flight.add(Held(b"7-0", batch(7_000), b""))
    in_flight.add(Held(b"9-0", retry(1_003), b""))
    in_flight.handled += entries(7_000)
    in_flight.collect()
    waiting = entries(BASE + 2, BASE + 3, 6_000, 6_002, 6_003, 7_001, 7_002, 7_003, 1_003, 42)
    released, kept = in_flight.release(waiting)

    assert released == [b"6-0", b"9-0"]
    # Of the first, two events are in a handler's hands; of the other one, a result isn't saved.
    assert kept == entries(BASE + 2, BASE + 3, 7_001, 7_002, 7_003)
    assert (in_flight.entries, in_flight.open, in_flight.size) == (2, 7, 14)
    in_flight.settled()
    assert in_flight.release(entries(7_001, 7_002, 7_003)) == ([b"7-0"], [])
