from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from daemonkit.events import waiting
from daemonkit.events.durable import backlog
from daemonkit.events.durable import queue as queue_module
from daemonkit.events.durable.backlog import Backlog
from daemonkit.events.durable.in_flight import InFlight
from daemonkit.events.durable.rows import StoredBatch, to_row
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Entry

from .helpers import FAILURE, Open, batch, close, edit, events_of, rows, take, until


def test_events_that_do_not_fit_into_memory_are_read_from_the_file_in_order(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READY_EVENTS", 10)
    monkeypatch.setattr(backlog, "AT_ONCE", 7)
    queue = opened()
    for n in range(0, 60, 4):
        queue.put_many(batch(*range(n, n + 4)))
    assert queue._waiting.ready == 12
    got = take(queue, 20)
    queue.put_many(batch(60))
    got += take(queue, 41)

    assert events_of(got) == list(range(61))
    assert len(queue) == 0
    queue.put_many(batch(61))
    assert queue._waiting.ready == 1


def test_large_events_are_not_all_kept_in_memory(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READY_MEMORY", 2000)
    queue = opened()
    for n in range(5):
        queue.put_many(batch(str(n) * 600))

    assert queue._waiting.ready == 2
    assert [entry.event[0] for entry in take(queue, 5)] == list("01234")


def test_a_waiting_consumer_gets_events_that_are_only_in_the_file(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READY_MEMORY", 2000)
    queue = opened()
    queue.put_many(batch("x" * 2000))
    queue.get()
    got: list[Entry] = []
    consumer = threading.Thread(target=lambda: got.append(queue.get()))
    consumer.start()
    until(lambda: queue._waiting.consumers)
    queue.put_many(batch(2))
    consumer.join(10)

    assert events_of(got) == [2]


def test_meta_is_kept_if_the_handler_takes_it(opened: Open) -> None:
    before = time.time()
    queue = opened(with_meta=True)
    queue.put_many(batch(1, 2, source="udp", peers=["a:1", "b:2"]))
    direct = take(queue, 2)
    read = take(opened(with_meta=True), 2)

    for entries in direct, read:
        assert [(e.meta.source, e.meta.peer, e.meta.attempt) for e in entries if e.meta] == [
            ("udp", "a:1", 1),
            ("udp", "b:2", 1),
        ]
    assert direct[0].meta == read[0].meta
    assert read[0].meta is not None
    assert before <= read[0].meta.received.timestamp() <= time.time()


def test_attempts_are_counted_across_a_restart(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE, 0.05)
    again = opened()
    assert again.counters()["retrying"] == 1
    entry = again.get()

    assert (entry.event, entry.attempt) == (1, 2)
    again.fail(entry, FAILURE._replace(attempts=2, last_failed=200.0), None)
    until(lambda: again.counters()["dead"] == 1)
    assert len(again) == 0


def test_a_line_that_was_damaged_in_the_file_is_a_dead_letter(opened: Open, path: str) -> None:
    opened().put_many(batch(1, 2, 3))
    opened().request_stop()
    edit(path, "UPDATE batches SET lines = ?", b"1\n{2\n3")
    queue = opened()

    assert events_of(take(queue, 2)) == [1, 3]
    until(lambda: queue.counters()["dead"] == 1)
    ((error, line),) = rows(path, "SELECT error, line FROM failed")
    assert error.startswith("InvalidEvent: ")
    assert line == b"{2"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET peers = '[1'",
        "UPDATE batches SET peers = '[]'",
        "UPDATE batches SET peers = CAST(x'ff' AS TEXT)",
        "UPDATE batches SET lines = CAST(lines AS TEXT)",
        "UPDATE batches SET lines = lines || x'0a' || '4'",
        "INSERT INTO handled VALUES (1000, '[[')",
        "INSERT INTO handled VALUES (1000, '[1]')",
        "INSERT INTO handled VALUES (1000, '[[Infinity, 0]]')",
        """UPDATE batches SET peers = '["\\ud800", {}, 1]'""",
        f"UPDATE batches SET peers = '{'[' * 10_000}'",
        "UPDATE batches SET peers = 1, source = x'ff', received = 9e999, count = CAST(3 AS TEXT)",
    ],
)
def test_edits_of_the_file_keep_no_event_from_being_handled(
    opened: Open, path: str, change: str
) -> None:
    opened(with_meta=True).put_many(batch(1, 2, 3, peers=["a:1", "b:2", "c:3"]))
    opened().request_stop()
    edit(path, change)
    queue = opened(with_meta=True)
    entries = take(queue, 3)
    queue.fail(entries[0], FAILURE, None)
    queue.done(entries[1:])

    assert events_of(entries) == [1, 2, 3]
    until(lambda: rows(path, "SELECT id FROM batches") == [])
    assert rows(path, "SELECT id, line FROM failed") == [(1000, b"1")]


def test_a_failed_event_that_was_edited_by_hand_is_retried(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch([1]))
    queue.fail(queue.get(), FAILURE, 60)
    until(lambda: rows(path, "SELECT id FROM failed"))
    queue.request_stop()
    assert queue.join(10)
    edit(path, "UPDATE failed SET due = 'now', attempts = 'x', line = CAST(line AS TEXT)")
    queue = opened()
    entry = queue.get()

    assert (entry.event, entry.attempt) == ([1], 1)
    queue.fail(entry, FAILURE, 60)
    until(lambda: queue.counters()["retried"])
    queue.request_stop()
    assert queue.join(10)
    edit(path, f"UPDATE failed SET due = -9e999, received = 9e999, attempts = {2**63 - 1}")
    queue = opened(with_meta=True)
    entry = queue.get()
    assert entry.attempt == 10**9 + 1
    queue.fail(entry, FAILURE._replace(attempts=entry.attempt), None)
    until(lambda: queue.counters()["dead"] == 1)


def test_reading_from_the_file_stops_at_the_limit_of_memory(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "abcdef":
        opened().put_many(batch(text * 600))
    monkeypatch.setattr(backlog, "READY_MEMORY", 2000)
    queue = opened()
    first = queue.get()
    assert queue._waiting.ready == 1
    assert len(queue) == 5

    assert "".join(e.event[0] for e in [first, *take(queue, 5)]) == "abcdef"
    assert len(queue) == 0


def test_loaded_events_are_counted_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    opened().put_many(batch(*range(10)))
    monkeypatch.setattr(backlog, "AT_ONCE", 10)
    queue = opened(size=10)
    queue.get()

    assert len(queue) == 9
    queue.put_many(batch(10))


def test_a_retry_waits_no_longer_than_its_back_off(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than an hour, too, but no longer because the clock was set back."""
    waits: list[float] = []
    monkeypatch.setattr(waiting.Waiting, "put_back", lambda self, entry, delay: waits.append(delay))
    now = time.time()
    queue = opened()
    queue.put_many(batch(1))
    queue.fail(*take(queue, 1), FAILURE._replace(last_failed=now), 7200)
    until(lambda: waits)
    close(queue)
    monkeypatch.setattr(backlog.time, "time", lambda: now - 86_400)
    opened()

    assert waits == [pytest.approx(7200, abs=60)] * 2


def test_an_event_due_long_ago_is_retried_before_one_due_far_ahead(opened: Open, path: str) -> None:
    """The clock was set meanwhile, or the file was edited."""
    queue = opened()
    queue.put_many(batch(1, 2))
    for entry in take(queue, 2):
        queue.fail(entry, FAILURE, 60)
    until(lambda: queue.counters()["retried"] == 2)
    edit(path, "UPDATE failed SET due = CASE id WHEN 1000 THEN 1e18 ELSE -1e18 END")

    assert queue.get().event == 2


def test_events_added_by_another_process_are_handled_and_no_id_is_used_twice(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1))
    with store.transaction():
        store.add(StoredBatch(store.next_id(), 2, time.time(), "app", None, b"2\n3"))
    queue.put_many(batch(4))

    entries = take(queue, 4)
    assert events_of(entries) == [1, 2, 3, 4]
    assert len({entry.id for entry in entries}) == 4


def test_events_added_by_another_process_are_noticed_without_a_put(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    with store.transaction():
        store.add(StoredBatch(store.next_id(), 1, time.time(), "app", None, b"2"))

    assert queue.get().event == 2


def test_events_dropped_by_another_process_are_not_handled(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1, 2, 3))
    queue.put_many(batch(4, 5))
    queue.put_many(batch(6))
    entry = queue.get()
    with store.transaction():
        store.mark_handled(1000, [1])
        store.remove([2000])
    until(lambda: {1001, 2000} <= queue._backlog.dropped)

    rest = take(queue, 2)
    assert events_of(rest) == [3, 6]
    queue.done([entry, *rest])
    until(lambda: store.ids(10**9) == set())


def test_another_process_can_retry_a_dead_letter(opened: Open, other: Callable[[], Store]) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE._replace(attempts=3), None)
    until(lambda: queue.counters()["dead"])
    store.db.execute("UPDATE failed SET due = ?, attempts = 0", (time.time(),))
    entry = queue.get()

    assert (entry.event, entry.attempt) == (1, 1)
    assert queue.counters()["dead"] == 0
    queue.done([entry])
    until(lambda: store.value("SELECT count(*) FROM failed") == 0)


def test_an_event_that_another_process_reschedules_earlier_is_retried_once(
    opened: Open, other: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1))
    scheduled: list[Entry] = []
    put_back = queue._waiting.put_back

    def record(entry: Entry, delay: float) -> None:
        scheduled.append(entry)
        put_back(entry, delay)

    monkeypatch.setattr(queue._waiting, "put_back", record)
    queue.fail(queue.get(), FAILURE, 3600)
    until(lambda: queue.counters()["retried"])
    store.db.execute("UPDATE failed SET due = ?", (time.time(),))
    queue.done([queue.get()])

    # The first due time is still in memory, and has no effect.
    assert len(scheduled) == 2
    assert queue._backlog.read_again(scheduled[0]) is None


def test_a_dead_letter_is_retried_although_the_rest_of_its_batch_was_dropped(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1, 2))
    queue.fail(queue.get(), FAILURE, None)
    until(lambda: store.count_failed(["dead"]))
    with store.transaction():
        store.mark_handled(1000, [1])
    until(lambda: queue._backlog.dropped)
    store.db.execute("UPDATE failed SET due = ?, attempts = 0", (time.time(),))

    assert queue.get().event == 1


def test_a_drop_is_not_undone_by_an_acknowledgement_of_the_same_batch(
    opened: Open, other: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "CHECK_INTERVAL", 60.0)
    queue, store = opened(ack_batch=2), other()
    queue.put_many(batch(*range(5)))
    entries = take(queue, 2)
    with store.transaction():
        store.mark_handled(1000, [3, 4])
    queue.done(entries)
    assert store.handled() == [(1000, [(0, 1), (3, 4)])]
    rest = queue.get()
    assert rest.event == 2
    queue.done([rest])

    until(lambda: store.ids(10**9) == set())
    assert rows(queue._file.path, "SELECT * FROM handled") == []
    assert len(opened()) == 0


def test_an_event_dropped_while_in_work_does_not_come_back_when_it_fails(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(ack_batch=1), other()
    queue.put_many(batch(1, 2, 3))
    first, second = take(queue, 2)
    queue.fail(first, FAILURE, 0)
    first = queue.get()
    with store.transaction():
        store.remove_failed([first.id])
        store.mark_handled(1000, [1])
    queue.fail(first, FAILURE, None)
    queue.fail(second, FAILURE, None)

    assert store.count_failed(["dead"]) == 0
    until(lambda: queue.counters()["dead"] == 0)


def test_a_failed_event_that_was_damaged_is_a_dead_letter_when_due(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE, None)
    until(lambda: store.count_failed(["dead"]))
    with store.transaction():
        store.db.execute("UPDATE failed SET due = ?, line = ?", (time.time(), b"{oops"))
    until(lambda: queue.counters()["retrying"])
    late = threading.Timer(0.1, lambda: queue.put_many(batch(2)))
    late.start()
    assert queue.get().event == 2
    late.join()

    until(lambda: store.count_failed(["dead"]))
    assert store.value("SELECT error FROM failed").startswith("InvalidEvent: ")


def test_dropped_events_make_room_at_once(opened: Open, other: Callable[[], Store]) -> None:
    queue, store = opened(size=4), other()
    queue.put_many(batch(1, 2, 3, 4))
    queue.fail(queue.get(), FAILURE, 3600)
    until(lambda: queue.counters()["retried"])
    with store.transaction():
        store.mark_handled(1000, [1, 2, 3])
        store.remove_failed([1000])
    until(lambda: len(queue) == 0)
    queue.put_many(batch(5, 6, 7, 8))

    assert events_of(take(queue, 4)) == [5, 6, 7, 8]
    assert queue.counters()["retrying"] == 0
    assert queue._backlog.dropped == set()


def test_the_age_of_the_oldest_event_is_known_in_memory_and_on_disk(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READY_EVENTS", 1)
    queue = opened()
    assert queue.counters()["oldest_age"] is None
    queue.put_many(batch(1))
    queue.put_many(batch(2))

    assert 0 <= queue.counters()["oldest_age"] < 5
    queue.get()
    assert 0 <= queue.counters()["oldest_age"] < 5
    queue.get()
    assert queue.counters()["oldest_age"] is None


def test_a_batch_written_after_the_close_takes_no_memory(store: Store) -> None:
    in_flight = InFlight(store)
    queue = Backlog(store, waiting.Waiting(lambda entry: entry), in_flight, lambda: False)
    queue.close()
    put = batch(1, 2)
    row = to_row(put, queue.next_id)
    store.add(row)
    queue.hand_over(put, row)

    assert in_flight.memory == 0
    assert len(queue) == 2
    assert not queue.is_loaded
