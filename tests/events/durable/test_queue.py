from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from daemonkit import BatchTooLarge, QueueFull, Unavailable
from daemonkit.events import waiting
from daemonkit.events.durable import backlog
from daemonkit.events.durable import queue as queue_module
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.entry import Entry

from .helpers import (
    FAILURE,
    LOGGER,
    BrokenDisk,
    Open,
    batch,
    close,
    edit,
    events_of,
    rows,
    take,
    until,
)


def test_events_come_out_in_order_and_are_in_the_file_until_handled(
    opened: Open, path: str
) -> None:
    queue = opened()
    queue.put_many(batch(1, {"a": [2]}))
    queue.put_many(batch(None))
    assert len(queue) == 3
    assert rows(path, "SELECT count, source, lines FROM batches") == [
        (2, "http", b'1\n{"a": [2]}'),
        (1, "http", b"null"),
    ]
    entries = take(queue, 3)

    assert events_of(entries) == [1, {"a": [2]}, None]
    assert len(queue) == 0
    queue.done(entries)
    until(lambda: rows(path, "SELECT * FROM batches") == [])


def test_only_unhandled_events_are_taken_again_after_a_restart(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(*range(10)))
    queue.put_many(batch(*range(10, 20)))
    entries = take(queue, 13)
    queue.done([entry for entry in entries if entry.event not in (3, 4, 12)])
    again = opened()

    assert len(again) == 10
    assert events_of(take(again, 10)) == [3, 4, 12, *range(13, 20)]


def test_an_id_is_never_reused(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1))
    (first,) = take(queue, 1)
    queue.done([first])
    again = opened()
    again.put_many(batch(2))

    assert take(again, 1)[0].id > first.id


def test_results_are_saved_soon_although_nothing_else_happens(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "CHECK_INTERVAL", 60.0)
    queue = opened()
    queue.put_many(batch(1))
    queue.done(take(queue, 1))

    until(lambda: rows(path, "SELECT * FROM batches") == [])


def test_a_consumer_waits_when_ack_batch_results_are_unsaved(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "ACK_DELAY", 60.0)
    queue = opened(ack_batch=4)
    queue.put_many(batch(*range(8)))
    entries = take(queue, 8)
    queue.done(entries[:3])
    assert rows(path, "SELECT * FROM handled") == []
    queue.done(entries[3:4])

    assert rows(path, "SELECT * FROM handled") == [(1000, "[[0, 3]]")]


def test_queue_size_includes_events_only_in_the_file(opened: Open) -> None:
    opened().put_many(batch(1, 2))
    queue = opened(size=3)

    with pytest.raises(QueueFull, match=r"^The event queue is full \(3 events\)$"):
        queue.put_many(batch(3, 4))
    with pytest.raises(BatchTooLarge):
        queue.put_many(batch(3, 4, 5, 6))
    count, refusal = queue.put_some(batch(3, 4))
    assert (count, str(refusal)) == (1, "The event queue is full (3 events)")
    assert queue.put_some(batch(5))[0] == 0
    assert events_of(take(queue, 3)) == [1, 2, 3]


def test_a_closed_queue_hands_out_and_accepts_nothing(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1, 2))
    queue.close()

    with pytest.raises(waiting.QueueClosed):
        queue.get()
    with pytest.raises(Unavailable, match="^The daemon is stopping$"):
        queue.put_many(batch(3))
    assert len(queue) == 2
    assert len(opened()) == 2


def test_a_put_after_the_stop_is_refused(opened: Open) -> None:
    queue = opened()
    queue.request_stop()
    assert queue.join(10)
    queue._waiting.closed = False

    with pytest.raises(Unavailable, match="^The daemon is stopping$"):
        queue.put_many(batch(1))


def test_batches_are_passed_as_lists(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1, 2, 3))

    assert events_of(queue.get_batch(2, 0)) == [1, 2]
    assert events_of(queue.get_batch(2, 0)) == [3]


def test_a_failed_event_is_retried_when_due_and_counts_its_attempts(
    opened: Open, path: str
) -> None:
    queue = opened(with_meta=True)
    queue.put_many(batch({"n": 1}, 2, peers=["a:1", "b:2"]))
    first = queue.get()
    first.event["spoilt"] = True
    failed = time.monotonic()
    queue.fail(first, FAILURE, 0.1)
    assert queue.get().event == 2
    again = queue.get()

    assert time.monotonic() - failed >= 0.1
    assert (again.id, again.event, again.attempt, again.failed) == (first.id, {"n": 1}, 2, 100.0)
    assert again.meta is not None
    assert (again.meta.attempt, again.meta.peer) == (2, "a:1")
    assert queue.counters()["retried"] == 1
    queue.done([again])
    until(lambda: rows(path, "SELECT * FROM failed") == [])


@pytest.mark.parametrize("is_retry", [False, True])
@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_failed_event_counts_as_waiting_before_its_failure_is_saved(
    opened: Open, path: str, is_retry: bool, is_dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    queue.put_many(batch(1))
    entry = queue.get()
    if is_retry:
        queue.fail(entry, FAILURE, 0)
        entry = queue.get()
    # Only `flush` saves.
    monkeypatch.setattr(queue_module, "ACK_DELAY", 3600)
    queue.fail(entry, FAILURE, 3600)
    assert (len(queue), queue.counters()["retrying"]) == (1, 1)

    if is_dropped:
        edit(path, "DELETE FROM batches")
        edit(path, "DELETE FROM failed")
    queue.flush()
    left = 0 if is_dropped else 1
    assert (len(queue), queue.counters()["retrying"]) == (left, left)


def test_a_dead_letter_keeps_everything_known_about_it(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(1, {"a": 2}, source="udp", peers=["a:1", "b:2"]))
    entries = take(queue, 2)
    queue.fail(entries[1], FAILURE._replace(attempts=3, last_failed=200.0), None)
    until(lambda: queue.counters()["dead"])

    (row,) = rows(
        path,
        "SELECT id, due, attempts, source, peer, first_failed, last_failed, error, traceback, line"
        " FROM failed",
    )
    assert row == (
        *(1001, None, 3, "udp", "b:2", 100.0, 200.0),
        *("ValueError: no", "Traceback ...", b'{"a": 2}'),
    )
    queue.done(entries[:1])
    assert opened().counters() == {
        "received": 0,
        "waiting": 0,
        "retrying": 0,
        "retried": 0,
        "dead": 1,
        "dead_now": 1,
        "oldest_age": None,
    }


def test_an_event_that_fails_again_stays_one_row(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE, 0)
    second = queue.get()
    queue.fail(second, FAILURE._replace(attempts=2, first_failed=100.0, last_failed=300.0), 3600)
    until(lambda: queue.counters()["retried"] == 2)

    assert rows(path, "SELECT attempts, first_failed, last_failed FROM failed") == [
        (2, 100.0, 300.0)
    ]
    assert rows(path, "SELECT * FROM batches") == []
    assert len(queue) == 1


@pytest.mark.usefixtures("checks_often")
@pytest.mark.parametrize("place", ["load_if_needed", "catch_up_if_changed"])
def test_any_exception_in_a_read_is_a_problem_until_it_works(
    opened: Open, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    opened().put_many(batch(1))
    queue = opened()
    failing = [True]
    real = getattr(queue._backlog, place)

    def read() -> None:
        if failing:
            raise OSError("no")
        real()

    monkeypatch.setattr(queue._backlog, place, read)
    taken: list[Entry] = []
    consumer = threading.Thread(target=lambda: taken.append(queue.get()))
    consumer.start()
    (problem,) = until(queue.problems)
    assert problem.text.startswith("the event queue's file can't be read: OSError: no (")
    failing.clear()
    until(lambda: queue.problems() == [])
    consumer.join(10)
    assert events_of(taken) == [1]


def test_consumers_get_nothing_after_a_stop(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "READY_EVENTS", 3)
    queue = opened(ack_batch=1)
    for n in range(5):
        queue.put_many(batch(n))
    entry = queue.get()
    take(queue, 2)
    got: list[Any] = []

    def consumer() -> None:
        with suppress(waiting.QueueClosed):
            got.append(queue.get())

    # At the stop it waits for the file, to read what isn't in memory.
    thread = threading.Thread(target=consumer)
    with queue._lock:
        thread.start()
        queue.close()
    thread.join(10)
    queue.fail(entry, FAILURE, 60.0)

    assert got == []
    with pytest.raises(waiting.QueueClosed):
        queue.get()
    assert queue.counters()["dead"] == 0
    assert opened().counters()["retrying"] == 1


def test_a_log_handler_that_puts_an_event_for_each_error_is_refused(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    refused: list[str] = []

    class Alarm(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(Unavailable):
                queue.put_many(batch("alarm"))
                return
            refused.append(record.getMessage())

    alarm = Alarm()
    LOGGER.addHandler(alarm)
    try:
        BrokenDisk(queue, monkeypatch).error = "disk I/O error"
        with pytest.raises(Unavailable, match="can't be written"):
            queue.put_many(batch(1))
    finally:
        LOGGER.removeHandler(alarm)

    assert len(refused) == 1


def test_a_forked_child_cannot_put_events(opened: Open) -> None:
    queue = opened()
    queue._forked.is_child = True

    with pytest.raises(Unavailable, match="^A forked child can't put events on a durable queue$"):
        queue.put_many(batch(1))


def test_an_unreadable_file_is_a_problem_even_when_idle(
    opened: Open, monkeypatch: pytest.MonkeyPatch, checks_often: None
) -> None:
    queue = opened()
    real = queue._file.store.value
    broken = [True]

    def value(statement: str, *arguments: Any) -> Any:
        if broken:
            raise sqlite3.OperationalError("disk I/O error")
        return real(statement, *arguments)

    monkeypatch.setattr(queue._file.store, "value", value)
    (problem,) = until(queue.problems)
    assert problem.text.startswith("the event queue's file can't be read: disk I/O error (")
    broken.clear()
    until(lambda: queue.problems() == [])


def test_consumers_wait_while_results_cannot_be_saved(
    opened: Open, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened(ack_batch=2)
    queue.put_many(batch(1, 2, 3))
    disk = BrokenDisk(queue, monkeypatch)
    disk.error = "disk I/O error"
    entries = take(queue, 2)
    consumer = threading.Thread(target=queue.done, args=(entries,))
    consumer.start()
    until(queue.problems)
    assert consumer.is_alive()
    disk.error = None
    consumer.join(10)

    assert not consumer.is_alive()
    assert queue.problems() == []
    assert rows(path, "SELECT * FROM handled") == [(1000, "[[0, 1]]")]


def test_the_keeper_waits_for_something_to_do(path: str) -> None:
    waits: list[float | None] = []

    class Dirty(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return super().wait(timeout)

    queue = DurableQueue(path, LOGGER)
    queue._dirty = Dirty()
    queue.start()
    until(lambda: waits)
    close(queue)

    assert waits[0] is not None
    assert waits[0] <= queue_module.CHECK_INTERVAL


def test_a_thread_that_dies_is_a_problem(opened: Open) -> None:
    queue = opened()
    queue._stop_requested.set()
    queue._dirty.set()
    queue._thread.join()
    queue._stop_requested.clear()

    assert [problem.text for problem in queue.problems()] == ["the event queue is not running"]


def test_an_event_counts_as_received_and_as_waiting_at_the_same_moment(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    seen: list[tuple[int, int, int]] = []

    def look() -> None:
        counters = queue.counters()
        seen.append((len(queue), counters["received"], counters["waiting"]))

    write, publish = queue._writer.write, queue._publish
    monkeypatch.setattr(queue._writer, "write", lambda puts: look() or write(puts))
    monkeypatch.setattr(queue._writer, "_publish", lambda *a: look() or publish(*a))
    queue.put_many(batch(1, 2))
    look()
    take(queue, 1)
    look()

    assert seen == [(2, 0, 0), (2, 0, 0), (2, 2, 2), (1, 2, 1)]


def test_the_status_is_shown_although_the_file_can_t_be_read(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(queue._backlog, "oldest_on_disk", fail)

    assert queue.counters()["oldest_age"] is None


def test_a_quick_look_does_not_read_the_file(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened()
    monkeypatch.setattr(queue._backlog, "oldest_on_disk", lambda: 1 / 0)

    assert queue.counters(quick=True)["oldest_age"] is None
