from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from daemonkit import BatchTooLarge, QueueFull
from daemonkit.events import waiting
from daemonkit.events.durable import backlog
from daemonkit.events.durable import group_commit as group
from daemonkit.events.durable import queue as queue_module
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.rows import StoredBatch
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Batch, Entry, Failure

LOGGER = logging.getLogger("test")
FAILURE = Failure("ValueError: no", "Traceback ...", 1, 100.0, 100.0)

Open = Callable[..., DurableQueue]


def batch(*events: Any, source: Any = "http", peers: Sequence[str] | None = None) -> Batch:
    return Batch(events, [json.dumps(event).encode() for event in events], source, peers)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


@pytest.fixture
def opened(path: str) -> Iterator[Open]:
    """Opens the queue; what is open already is closed before, as at a stop."""
    queues: list[DurableQueue] = []

    def open_it(**options: Any) -> DurableQueue:
        close()
        with_meta = options.pop("with_meta", False)
        queue = DurableQueue(path, LOGGER, **options)
        queue.with_meta = with_meta
        queue.start()
        queues.append(queue)
        return queue

    def close() -> None:
        for queue in queues:
            queue.request_stop()
            assert queue.join(10)
        queues.clear()

    yield open_it
    close()


def take(queue: DurableQueue, count: int) -> list[Entry]:
    return [queue.get() for _ in range(count)]


def events_of(entries: Sequence[Entry]) -> list[Any]:
    return [entry.event for entry in entries]


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 10
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return result


def rows(path: str, statement: str) -> list[Any]:
    """What another process sees in the file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


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


def test_what_was_not_handled_comes_again_and_nothing_else(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(*range(10)))
    queue.put_many(batch(*range(10, 20)))
    entries = take(queue, 13)
    queue.done([entry for entry in entries if entry.event not in (3, 4, 12)])
    again = opened()

    assert len(again) == 10
    assert events_of(take(again, 10)) == [3, 4, 12, *range(13, 20)]


def test_an_id_is_never_used_again(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1))
    (first,) = take(queue, 1)
    queue.done([first])
    again = opened()
    again.put_many(batch(2))

    assert take(again, 1)[0].id > first.id


def test_what_is_handled_is_written_within_50_ms_though_nothing_else_happens(
    opened: Open, path: str
) -> None:
    queue = opened()
    queue.put_many(batch(1))
    entries = take(queue, 1)
    queue.done(entries)
    handled = time.monotonic()
    until(lambda: rows(path, "SELECT * FROM batches") == [])

    # On a loaded machine the thread may come late; 50 ms are what it aims at.
    assert time.monotonic() - handled < 1


def test_a_taker_waits_when_as_many_as_may_be_are_not_yet_known_to_the_file(
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


def test_a_put_takes_the_acknowledgements_along(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "ACK_DELAY", 60.0)
    queue = opened(ack_batch=4)
    queue.put_many(batch(*range(3)))
    queue.done(take(queue, 3))
    queue.put_many(batch(3))

    assert [id for (id,) in rows(path, "SELECT id FROM batches")] == [2000]


def test_threads_that_put_at_the_same_time_share_commits(opened: Open) -> None:
    queue = opened()
    commits: list[str] = []
    queue._file.store.db.set_trace_callback(commits.append)
    threads = [
        threading.Thread(target=lambda: [queue.put_many(batch(n)) for n in range(50)])
        for _ in range(8)
    ]
    with queue._lock:
        for thread in threads:
            thread.start()
        until(lambda: len(queue) == 8)
    for thread in threads:
        thread.join()

    assert len(queue) == 400
    assert commits[0].startswith("INSERT")
    assert len(commits) < 400


def test_a_thread_that_is_interrupted_leaves_the_writing_to_the_next(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    real, interrupted = queue._group._gather, []

    def gather() -> None:
        if not interrupted:
            interrupted.append(True)
            # Until another one waits for its turn.
            until(lambda: len(queue._group.puts) == 2)
            raise KeyboardInterrupt
        real()

    monkeypatch.setattr(queue._group, "_gather", gather)

    def put(event: int) -> None:
        with suppress(KeyboardInterrupt):
            queue.put_many(batch(event))

    threads = [threading.Thread(target=put, args=(n,)) for n in (1, 2)]
    threads[0].start()
    until(lambda: interrupted)
    threads[1].start()
    for thread in threads:
        thread.join(10)

    assert len(queue) == 1
    assert queue.get().event == 2
    queue.put_many(batch(3))


def test_who_shared_the_last_commit_is_waited_for_a_moment(opened: Open) -> None:
    queue = opened()
    queue._group._last = 2
    began = time.monotonic()
    queue.put_many(batch(1))
    assert time.monotonic() - began >= group.GATHERING
    queue._group._last = 2
    commits: list[str] = []
    queue._file.store.db.set_trace_callback(commits.append)
    other = threading.Thread(target=lambda: queue.put_many(batch(2)))
    with queue._lock:
        writer = threading.Thread(target=lambda: queue.put_many(batch(3)))
        writer.start()
        until(lambda: queue._group.puts)
        other.start()
        until(lambda: len(queue._group.puts) == 2)
    for thread in (writer, other):
        thread.join(10)

    assert len(commits) == 1


def test_what_was_acknowledged_without_a_sync_is_synced_soon(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(ack_batch=1)
    queue.put_many(batch(1))
    (entry,) = take(queue, 1)
    statements: list[str] = []
    queue._file.store.db.set_trace_callback(statements.append)
    queue.done([entry])
    assert statements[0] == "PRAGMA synchronous = NORMAL"
    assert statements[-2:] == ["COMMIT", "PRAGMA synchronous = FULL"]
    statements.clear()
    until(lambda: statements[-1:] == ["COMMIT"])

    assert statements[0].startswith("BEGIN")
    assert "UPDATE last" in "".join(statements)
    assert queue._file.store.value("PRAGMA synchronous") == 2


def test_what_threads_put_is_all_there_and_each_one_in_its_order(opened: Open) -> None:
    queue = opened()

    def put(thread: int) -> None:
        for number in range(0, 60, 3):
            queue.put_many(batch(*([thread, number + n] for n in range(3))))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = events_of(take(queue, 240))

    for thread_number in range(4):
        assert [n for t, n in events if t == thread_number] == list(range(60))


def test_the_size_counts_what_the_file_has_too(opened: Open) -> None:
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


def test_a_closed_queue_gives_nothing_more_and_takes_nothing(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1, 2))
    queue.close()

    with pytest.raises(waiting.QueueClosed):
        queue.get()
    with pytest.raises(QueueFull, match="^The daemon is stopping$"):
        queue.put_many(batch(3))
    assert len(queue) == 2
    assert len(opened()) == 2


def test_a_put_that_comes_behind_the_end_is_refused(opened: Open) -> None:
    queue = opened()
    queue.request_stop()
    assert queue.join(10)
    queue._waiting.closed = False

    with pytest.raises(QueueFull, match="^The daemon is stopping$"):
        queue.put_many(batch(1))


def test_what_does_not_fit_into_memory_is_read_from_the_file_in_order(
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
    monkeypatch.setattr(backlog, "READY_BYTES", 1000)
    queue = opened()
    for n in range(5):
        queue.put_many(batch(str(n) * 600))

    assert queue._waiting.ready == 2
    assert [entry.event[0] for entry in take(queue, 5)] == list("01234")


def test_a_taker_that_waits_gets_what_is_in_the_file_only(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READY_BYTES", 1000)
    queue = opened()
    queue.put_many(batch("x" * 2000))
    queue.get()
    got: list[Entry] = []
    taker = threading.Thread(target=lambda: got.append(queue.get()))
    taker.start()
    until(lambda: queue._waiting.takers)
    queue.put_many(batch(2))
    taker.join(10)

    assert events_of(got) == [2]


def test_more_events_than_a_batch_may_have_are_parted(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(*range(2500)))

    assert rows(path, "SELECT count FROM batches") == [(1000,), (1000,), (500,)]
    assert events_of(take(opened(), 2500)) == list(range(2500))


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


def test_the_circumstances_are_kept_if_the_handler_wants_them(opened: Open) -> None:
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


def test_batches_are_handed_over_as_lists(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1, 2, 3))

    assert events_of(queue.get_batch(2, 0)) == [1, 2]
    assert events_of(queue.get_batch(2, 0)) == [3]


# Failing events


def test_a_failed_event_is_tried_again_when_due_and_counts_its_attempts(
    opened: Open, path: str
) -> None:
    queue = opened(with_meta=True)
    queue.put_many(batch({"n": 1}, 2, peers=["a:1", "b:2"]))
    first = queue.get()
    first.event["spoilt"] = True
    queue.fail(first, FAILURE, 0.1)
    failed = time.monotonic()
    assert queue.get().event == 2
    again = queue.get()

    assert time.monotonic() - failed >= 0.1
    assert (again.id, again.event, again.attempt, again.failed) == (first.id, {"n": 1}, 2, 100.0)
    assert again.meta is not None
    assert (again.meta.attempt, again.meta.peer) == (2, "a:1")
    assert queue.counters()["retried"] == 1
    queue.done([again])
    until(lambda: rows(path, "SELECT * FROM failed") == [])


def test_a_dead_letter_is_kept_with_all_that_is_known(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(1, {"a": 2}, source="udp", peers=["a:1", "b:2"]))
    entries = take(queue, 2)
    queue.fail(entries[1], FAILURE._replace(attempts=3, last=200.0), None)
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
        "waiting": 0,
        "retrying": 0,
        "retried": 0,
        "dead": 1,
        "oldest_age": None,
    }


def test_attempts_go_on_after_a_new_start(opened: Open) -> None:
    queue = opened()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE, 0.05)
    again = opened()
    assert again.counters()["retrying"] == 1
    entry = again.get()

    assert (entry.event, entry.attempt) == (1, 2)
    again.fail(entry, FAILURE._replace(attempts=2, last=200.0), None)
    until(lambda: again.counters()["dead"] == 1)
    assert len(again) == 0


def test_an_event_that_fails_again_stays_one(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE, 0)
    second = queue.get()
    queue.fail(second, FAILURE._replace(attempts=2, first=100.0, last=300.0), 3600)
    until(lambda: queue.counters()["retried"] == 2)

    assert rows(path, "SELECT attempts, first_failed, last_failed FROM failed") == [
        (2, 100.0, 300.0)
    ]
    assert rows(path, "SELECT * FROM batches") == []
    assert len(queue) == 1


def test_a_line_that_was_damaged_in_the_file_is_a_dead_letter(opened: Open, path: str) -> None:
    opened().put_many(batch(1, 2, 3))
    opened().request_stop()
    db = sqlite3.connect(path)
    db.execute("UPDATE batches SET lines = ?", (b"1\n{2\n3",))
    db.commit()
    db.close()
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
def test_what_was_changed_in_the_file_keeps_no_event_from_being_handled(
    opened: Open, path: str, change: str
) -> None:
    opened(with_meta=True).put_many(batch(1, 2, 3, peers=["a:1", "b:2", "c:3"]))
    opened().request_stop()
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    queue = opened(with_meta=True)
    entries = take(queue, 3)
    queue.fail(entries[0], FAILURE, None)
    queue.done(entries[1:])

    assert events_of(entries) == [1, 2, 3]
    until(lambda: rows(path, "SELECT id FROM batches") == [])
    assert rows(path, "SELECT id, line FROM failed") == [(1000, b"1")]


def test_a_failed_event_that_is_no_longer_in_its_batch_keeps_no_other_from_being_saved(
    opened: Open, path: str
) -> None:
    queue = opened()
    queue.put_many(batch(1, 2))
    entries = take(queue, 2)
    db = sqlite3.connect(path)
    db.execute("UPDATE batches SET lines = x'31'")
    db.commit()
    db.close()
    queue.fail(entries[1], FAILURE, None)
    queue.fail(entries[0], FAILURE, None)

    until(lambda: rows(path, "SELECT line FROM failed") == [(b"1",)])
    assert queue.problems() == []


def test_a_failed_event_that_was_edited_by_hand_is_tried_again(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch([1]))
    queue.fail(queue.get(), FAILURE, 60)
    until(lambda: rows(path, "SELECT id FROM failed"))
    queue.request_stop()
    assert queue.join(10)
    db = sqlite3.connect(path)
    db.execute("UPDATE failed SET due = 'now', attempts = 'x', line = CAST(line AS TEXT)")
    db.commit()
    db.close()
    queue = opened()
    entry = queue.get()

    assert (entry.event, entry.attempt) == ([1], 1)
    queue.fail(entry, FAILURE, 60)
    until(lambda: queue.counters()["retried"])
    queue.request_stop()
    assert queue.join(10)
    db = sqlite3.connect(path)
    db.execute(f"UPDATE failed SET due = -9e999, received = 9e999, attempts = {2**63 - 1}")
    db.commit()
    db.close()
    queue = opened(with_meta=True)
    entry = queue.get()
    assert entry.attempt == 10**9 + 1
    queue.fail(entry, FAILURE._replace(attempts=entry.attempt), None)
    until(lambda: queue.counters()["dead"] == 1)


@pytest.mark.parametrize("where", ["error", "traceback", "peer"])
def test_a_lone_surrogate_in_what_is_kept_of_a_failure_is_escaped(
    opened: Open, path: str, where: str
) -> None:
    queue, text = opened(), "no \ud800"
    queue.put_many(batch(1, peers=[text]))
    failure = FAILURE._replace(**{where: text}) if where != "peer" else FAILURE
    queue.fail(queue.get(), failure, None)
    until(lambda: queue.counters()["dead"])

    assert queue.problems() == []
    assert rows(path, f"SELECT {where} FROM failed") == [("no \\ud800",)]


def test_a_failure_that_can_not_be_stored_keeps_no_other_from_being_saved(
    opened: Open, path: str
) -> None:
    queue = opened()
    queue.put_many(batch(1, 2, 3))
    entries = take(queue, 3)
    queue.fail(entries[0], FAILURE._replace(attempts=2**70), None)
    queue.fail(entries[1], FAILURE, None)
    queue.done(entries[2:])
    until(lambda: queue.counters()["dead"] == 2)

    assert rows(path, "SELECT * FROM batches") == []
    (first, second) = rows(path, "SELECT error, line FROM failed")
    assert first[0].startswith("(the error can't be stored: OverflowError: ")
    assert (first[1], second) == (b"1", ("ValueError: no", b"2"))
    assert queue.problems() == []


@pytest.mark.parametrize("error", [ValueError("no"), sqlite3.DataError("no"), OSError("no")])
def test_whatever_a_save_raises_is_a_problem_until_it_works(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened()
    queue.put_many(batch(1))
    failing = [True]
    real = queue._in_flight.write

    def write(newest: int, **options: Any) -> None:
        if failing:
            raise error
        real(newest, **options)

    monkeypatch.setattr(queue._in_flight, "write", write)
    queue.done(take(queue, 1))
    (problem,) = until(queue.problems)
    assert problem.text.startswith("the event queue's file can't be written: ")
    assert " no (" in problem.text
    failing.clear()
    until(lambda: queue.problems() == [])
    assert rows(path, "SELECT * FROM batches") == []


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("place", ["load", "catch_up_if_changed"])
def test_whatever_a_read_raises_is_a_problem_until_it_works(
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
    taker = threading.Thread(target=lambda: taken.append(queue.get()))
    taker.start()
    (problem,) = until(queue.problems)
    assert problem.text.startswith("the event queue's file can't be read: OSError: no (")
    failing.clear()
    until(lambda: queue.problems() == [])
    taker.join(10)
    assert events_of(taken) == [1]


def test_a_stop_gives_nothing_more_to_takers_whatever_comes(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READY_EVENTS", 3)
    queue = opened(ack_batch=1)
    for n in range(5):
        queue.put_many(batch(n))
    entry = queue.get()
    take(queue, 2)
    got: list[Any] = []

    def taker() -> None:
        with suppress(waiting.QueueClosed):
            got.append(queue.get())

    # It waits for the file, to read what isn't in memory, when the stop comes.
    thread = threading.Thread(target=taker)
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


def test_reading_from_the_file_stops_at_so_many_bytes(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "abcdef":
        opened().put_many(batch(text * 600))
    monkeypatch.setattr(backlog, "READY_BYTES", 1000)
    queue = opened()
    first = queue.get()
    assert queue._waiting.ready == 1
    assert len(queue) == 5

    assert "".join(e.event[0] for e in [first, *take(queue, 5)]) == "abcdef"
    assert len(queue) == 0


def test_all_that_was_read_is_counted_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    opened().put_many(batch(*range(10)))
    monkeypatch.setattr(backlog, "AT_ONCE", 10)
    queue = opened(size=10)
    queue.get()

    assert len(queue) == 9
    queue.put_many(batch(10))


def test_an_event_that_becomes_due_long_ago_or_never_is_tried(opened: Open, path: str) -> None:
    """The clock was set meanwhile, or somebody has edited the file."""
    queue = opened()
    queue.put_many(batch(1, 2))
    for entry in take(queue, 2):
        queue.fail(entry, FAILURE, 60)
    until(lambda: queue.counters()["retrying"] == 2)
    db = sqlite3.connect(path)
    db.execute("UPDATE failed SET due = CASE id WHEN 1000 THEN 1e18 ELSE -1e18 END")
    db.commit()
    db.close()

    assert queue.get().event == 2


# What other processes do


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "CHECK_INTERVAL", 0.02)


@pytest.fixture
def other(path: str, looks_often: None) -> Iterator[Callable[[], Store]]:
    stores: list[Store] = []

    def connect() -> Store:
        stores.append(Store(path, create=False, patience=5))
        return stores[-1]

    yield connect
    for store in stores:
        store.close()


def test_what_another_process_adds_is_handled_and_no_id_is_used_twice(
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


def test_what_another_process_adds_is_noticed_without_a_put(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    with store.transaction():
        store.add(StoredBatch(store.next_id(), 1, time.time(), "app", None, b"2"))

    assert queue.get().event == 2


def test_what_another_process_drops_is_not_handled(
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


def test_another_process_can_have_a_dead_letter_tried_again(
    opened: Open, other: Callable[[], Store]
) -> None:
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


def test_an_event_that_another_process_wants_tried_earlier_is_tried_once(
    opened: Open, other: Callable[[], Store]
) -> None:
    queue, store = opened(), other()
    queue.put_many(batch(1))
    queue.fail(queue.get(), FAILURE, 2)
    failed = time.monotonic()
    until(lambda: queue.counters()["retrying"])
    store.db.execute("UPDATE failed SET due = ?", (time.time(),))
    queue.done([queue.get()])
    assert time.monotonic() - failed < 1.8
    # The first time that it was due for is still in memory, and leads to nothing.
    late = threading.Timer(2.1, lambda: queue.put_many(batch(2)))
    late.start()

    assert queue.get().event == 2
    late.join()


def test_a_dead_letter_is_tried_again_though_the_rest_of_its_batch_was_dropped(
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


def test_what_was_dropped_while_it_was_in_work_does_not_come_back_when_it_fails(
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


def test_what_was_dropped_makes_room_at_once(opened: Open, other: Callable[[], Store]) -> None:
    queue, store = opened(size=4), other()
    queue.put_many(batch(1, 2, 3, 4))
    queue.fail(queue.get(), FAILURE, 3600)
    until(lambda: queue.counters()["retrying"])
    with store.transaction():
        store.mark_handled(1000, [1, 2, 3])
        store.remove_failed([1000])
    until(lambda: len(queue) == 0)
    queue.put_many(batch(5, 6, 7, 8))

    assert events_of(take(queue, 4)) == [5, 6, 7, 8]
    assert queue.counters()["retrying"] == 0
    assert queue._backlog.dropped == set()


# What goes wrong


def test_a_log_handler_that_puts_an_event_for_each_error_is_refused(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    refused: list[str] = []

    class Alarm(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(QueueFull):
                queue.put_many(batch("alarm"))
                return
            refused.append(record.getMessage())

    alarm = Alarm()
    LOGGER.addHandler(alarm)
    try:
        Broken(queue, monkeypatch).error = "disk I/O error"
        with pytest.raises(QueueFull, match="can't be written"):
            queue.put_many(batch(1))
    finally:
        LOGGER.removeHandler(alarm)

    assert len(refused) == 1


def test_a_forked_child_puts_nothing(opened: Open) -> None:
    queue = opened()
    queue._forked.is_child = True

    with pytest.raises(QueueFull, match="^A forked child can't put events on a durable queue$"):
        queue.put_many(batch(1))


def test_a_file_that_can_not_be_read_is_a_problem_though_nothing_comes(
    opened: Open, monkeypatch: pytest.MonkeyPatch, looks_often: None
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


class Broken:
    """A store whose writes fail for as long as `error` is set."""

    def __init__(self, queue: DurableQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: str | None = None
        real = queue._file.store.db

        class Connection:
            def __getattr__(_, name: str) -> Any:
                return getattr(real, name)

            def execute(_, statement: str, *arguments: Any) -> Any:
                if self.error and statement.startswith(("INSERT", "BEGIN")):
                    raise sqlite3.OperationalError(self.error)
                return real.execute(statement, *arguments)

        monkeypatch.setattr(queue._file.store, "db", Connection())


def test_an_event_that_can_not_be_written_is_refused_until_it_can(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level("INFO")
    changes: list[bool] = []
    queue = opened(changed=lambda: changes.append(True))
    disk = Broken(queue, monkeypatch)
    disk.error = "disk I/O error"
    for _ in range(2):
        with pytest.raises(QueueFull) as caught:
            queue.put_many(batch(1))

    message = f"he event queue's file can't be written: disk I/O error ({path})"
    assert str(caught.value) == "T" + message
    assert len(queue) == 0
    assert [(p.text, p.tolerable) for p in queue.problems()] == [("t" + message, False)]
    disk.error = None
    queue.put_many(batch(1))
    assert queue.problems() == []
    assert len(changes) == 2
    assert caplog.messages == ["T" + message, "The event queue's file can be written again"]


def test_what_is_acknowledged_after_the_disk_has_failed_needs_nothing_from_before(
    opened: Open, monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    queue = opened()
    queue.put_many(batch(1))
    disk = Broken(queue, monkeypatch)
    disk.error = "disk I/O error"
    with pytest.raises(QueueFull):
        queue.put_many(batch(2))
    disk.error = None
    # Another process that reads keeps the log from being begun again.
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM batches").fetchall()
    with pytest.raises(QueueFull, match="can't be written: database is locked"):
        queue.put_many(batch(3))
    reader.close()
    queue.put_many(batch(4))
    alone = shutil.copy(path, tmp_path / "without-log.db")

    assert rows(str(alone), "SELECT lines FROM batches") == [(b"1",)]
    assert rows(path, "SELECT lines FROM batches") == [(b"1",), (b"4",)]


def test_so_is_what_is_acknowledged_first_after_the_disk_has_failed(
    opened: Open, monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened()
    queue.put_many(batch(1, 2))
    disk = Broken(queue, monkeypatch)
    disk.error = "disk I/O error"
    queue.done(take(queue, 1))
    until(queue.problems)
    disk.error = None
    until(lambda: rows(path, "SELECT id FROM handled"))
    alone = shutil.copy(path, tmp_path / "without-log.db")

    assert rows(str(alone), "SELECT count FROM batches") == [(2,)]


def test_takers_wait_while_it_can_not_be_written_that_events_are_handled(
    opened: Open, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened(ack_batch=2)
    queue.put_many(batch(1, 2, 3))
    disk = Broken(queue, monkeypatch)
    disk.error = "disk I/O error"
    entries = take(queue, 2)
    taker = threading.Thread(target=queue.done, args=(entries,))
    taker.start()
    until(queue.problems)
    assert taker.is_alive()
    disk.error = None
    taker.join(10)

    assert not taker.is_alive()
    assert queue.problems() == []
    assert rows(path, "SELECT * FROM handled") == [(1000, "[[0, 1]]")]


def test_a_full_file_refuses_with_the_name_of_the_limit_and_removes_what_is_handled(
    opened: Open,
) -> None:
    queue = opened(disk=1024 * 1024)
    text = "x" * 10_000
    refusal = None
    while refusal is None:
        _, refusal = queue.put_some(batch(text))

    assert str(refusal) == "The event queue is full (queue_disk, 1048576 bytes)"
    assert queue.problems() == []
    assert 50 < len(queue) < 105
    entries = take(queue, len(queue))
    queue.done(entries)
    until(lambda: queue._in_flight.unsaved == 0)
    queue.put_many(batch(text))


def test_a_file_that_was_removed_or_replaced_takes_nothing(
    opened: Open, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = opened()
    queue.put_many(batch(1))
    os.rename(path, path + ".old")
    with pytest.raises(QueueFull) as caught:
        queue.put_many(batch(2))

    message = f"{path} was removed: the event queue refuses events until a restart"
    assert str(caught.value) == message[0].upper() + message[1:]
    assert [problem.text for problem in queue.problems()] == [message]
    assert len(queue) == 1
    Path(path).touch()
    with pytest.raises(QueueFull):
        queue.put_many(batch(2))


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_missing_file_is_noticed_without_a_put(opened: Open, path: str, suffix: str) -> None:
    queue = opened()
    os.unlink(path + suffix)

    assert until(queue.problems)[0].text.startswith(f"{path}{suffix} was removed")


def test_an_error_of_our_own_refuses_and_is_logged(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue = opened()
    monkeypatch.setattr(queue._backlog, "hand_over", lambda *_: 1 / 0)

    message = "The event queue's file can't be written: ZeroDivisionError: division by zero"
    with pytest.raises(QueueFull, match=f"^{message}"):
        queue.put_many(batch(1))
    record = caplog.records[0]
    assert record.getMessage().startswith(message)
    assert record.exc_info
    assert len(queue) == 0


def test_a_put_that_fails_is_no_problem_any_more_once_the_file_can_be_written(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened()
    disk = Broken(queue, monkeypatch)
    disk.error = "disk I/O error"
    with pytest.raises(QueueFull):
        queue.put_many(batch(1))
    assert queue.problems()
    disk.error = None
    until(lambda: queue.problems() == [])


def test_a_keeper_that_ends_is_a_problem(opened: Open) -> None:
    queue = opened()
    queue._stopping.set()
    queue._dirty.set()
    queue._thread.join()
    queue._stopping.clear()

    assert [problem.text for problem in queue.problems()] == ["the event queue is not running"]


def test_the_age_of_the_oldest_is_told_wherever_it_is(
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
