from __future__ import annotations

from collections.abc import Iterable

import pytest

from daemonkit import InvalidEvent
from daemonkit.events.durable.in_flight import InFlight
from daemonkit.events.durable.rows import Due
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Entry
from daemonkit.events.footprint import RECORD, footprint

from .helpers import FAILURE, add, add_failed

NEWEST = 10**9


@pytest.fixture
def in_flight(store: Store) -> InFlight:
    """A batch of three, and one of one, in memory."""
    in_flight = InFlight(store)
    for id, lines in ((1000, (b"0", b"1", b"2")), (2000, (b"33",))):
        add(store, id, *lines)
        batch = store.batch(id)
        assert batch is not None
        in_flight.add_batch(batch, len(lines), set())
    return in_flight


def done(in_flight: InFlight, ids: Iterable[int]) -> None:
    in_flight.handled += [Entry(None, id=id) for id in ids]


def save(store: Store, in_flight: InFlight) -> list[tuple[int, float | None]]:
    with store.transaction():
        in_flight.collect()
        in_flight.write(NEWEST)
    return [(failed.id, failed.due) for failed in in_flight.written()]


def test_handled_events_are_marked_and_whole_batches_removed(
    store: Store, in_flight: InFlight
) -> None:
    done(in_flight, [2000, 1002, 1000])
    assert in_flight.unsaved == 3
    assert save(store, in_flight) == []

    assert store.handled() == [(1000, [(0, 0), (2, 2)])]
    assert store.ids(NEWEST) == {1000}
    assert in_flight.unsaved == 0
    assert not in_flight.has_unsaved
    done(in_flight, [1001])
    save(store, in_flight)
    assert store.ids(NEWEST) == set()
    assert store.db.execute("SELECT * FROM handled").fetchall() == []
    assert in_flight.memory == 0


def test_memory_is_counted_until_a_batch_is_handled(store: Store, in_flight: InFlight) -> None:
    three, one = footprint([b"0\n1\n2"]) + 3 * RECORD, footprint([b"33"]) + RECORD
    assert in_flight.memory == three + one
    assert in_flight.received(2000) == 50.0
    done(in_flight, [2000])
    in_flight.collect()

    assert in_flight.memory == three
    assert in_flight.received(2000) is None
    assert in_flight.received(1002) == 50.0


def test_results_that_could_not_be_written_are_retried(store: Store, in_flight: InFlight) -> None:
    done(in_flight, [1000])
    in_flight.fail(Entry(None, id=2000), FAILURE, None)
    in_flight.collect()
    store.db.execute("BEGIN")
    in_flight.write(NEWEST)
    store.db.execute("ROLLBACK")
    assert in_flight.unsaved == 2
    assert in_flight.has_unsaved

    assert save(store, in_flight) == [(2000, None)]
    assert store.handled() == [(1000, [(0, 0)])]
    assert store.failed(2000) is not None


def test_a_retry_goes_from_scheduled_to_in_work_to_handled(
    store: Store, in_flight: InFlight
) -> None:
    add_failed(store, 3000, 9e9)
    in_flight.schedule(3000, 9e9)
    assert in_flight.is_scheduled(3000, 9e9)
    assert not in_flight.is_scheduled(3000, 8e9)
    assert in_flight.scheduled == 1
    in_flight.begin_retry(3000)
    assert in_flight.scheduled == 0
    # It is in the file as scheduled, and is not scheduled a second time.
    assert in_flight.reschedule([Due(3000, 9e9, 1.0)]) == []
    done(in_flight, [3000])
    save(store, in_flight)

    assert store.failed(3000) is None
    assert in_flight.reschedule([Due(3000, 9e9, 1.0)]) == [(3000, 9e9, 1.0)]


def test_a_retry_that_fails_is_scheduled_again(store: Store, in_flight: InFlight) -> None:
    add_failed(store, 3000, 9e9)
    in_flight.schedule(3000, 9e9)
    in_flight.begin_retry(3000)
    in_flight.fail(Entry(None, id=3000), FAILURE._replace(attempts=4), None)

    assert save(store, in_flight) == [(3000, None)]
    row = store.failed(3000)
    assert row is not None
    assert (row.attempts, row.due, row.first_failed) == (4, None, 100.0)


def test_scheduled_retries_follow_the_file(in_flight: InFlight) -> None:
    for id in (1, 2, 3):
        in_flight.schedule(id, 10.0)

    events = [Due(id, due, 1.0) for id, due in ((2, 10.0), (3, 11.0), (4, 12.0))]
    assert in_flight.reschedule(events) == events[1:]
    assert not in_flight.is_scheduled(1, 10.0)
    assert in_flight.is_scheduled(2, 10.0)
    in_flight.unschedule(2)
    assert in_flight.scheduled == 1


def test_batches_missing_in_the_file_are_dropped(store: Store, in_flight: InFlight) -> None:
    done(in_flight, [1000])
    in_flight.collect()

    assert in_flight.drop_missing({2000}) == {1001, 1002}
    assert in_flight.memory == footprint([b"33"]) + RECORD
    in_flight.fail(Entry(None, id=1001), FAILURE, None)
    assert save(store, in_flight) == []


def test_marks_of_another_process_are_kept(store: Store, in_flight: InFlight) -> None:
    assert in_flight.apply_marks(1000, [1]) == {1001}
    assert in_flight.apply_marks(1000, [1]) == set()
    assert in_flight.apply_marks(5000, [1]) == set()
    done(in_flight, [1000])
    save(store, in_flight)

    assert store.handled() == [(1000, [(0, 1)])]


def test_a_damaged_event_is_a_dead_letter(store: Store, in_flight: InFlight) -> None:
    in_flight.note_damaged(1001, InvalidEvent("no"))
    assert in_flight.has_unsaved

    assert save(store, in_flight) == [(1001, None)]
    row = store.failed(1001)
    assert row is not None
    assert (row.error, row.line) == ("InvalidEvent: no", b"1")
    assert store.handled() == [(1000, [(1, 1)])]


def test_touch_writes_something_in_any_case(store: Store, in_flight: InFlight) -> None:
    statements: list[str] = []
    store.db.set_trace_callback(statements.append)
    in_flight.write(NEWEST)
    assert statements == []
    in_flight.write(NEWEST, touch=True)

    assert statements.pop() == "UPDATE last SET id = id"
    done(in_flight, [1000])
    in_flight.collect()
    in_flight.write(NEWEST, touch=True)
    assert not any("last" in statement for statement in statements)
