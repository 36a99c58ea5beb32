from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from daemonkit import EventMeta
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.entry import Batch, Entry, EventQueue, FailedAttempt, RetryPolicy
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.processor import Processor
from daemonkit.system.handling import handled_now
from daemonkit.text import error_text
from daemonkit.types import Origin, Problem

from .conditions import until

LOGGER = logging.getLogger("test")


def process(events: list[Any], handle: Callable[..., Any], **options: Any) -> Processor:
    """Run events through a processor to the end."""
    queue = MemoryQueue(1000)
    processor = Processor(queue, handle, LOGGER, **options)
    queue.put_many(Batch(events, (), "http", [Origin("peer")] * len(events)))
    processor.start()
    processor.request_stop()
    assert processor.join(10)
    return processor


def test_each_event_is_handled_once_and_in_order() -> None:
    handled: list[int] = []
    processor = process([1, 2, 3], handled.append)

    assert handled == [1, 2, 3]
    assert processor.counters() == {"in_work": 0, "handled": 3, "failed": 0}


def test_meta_is_passed_to_a_handler_that_takes_it() -> None:
    handled: list[tuple[int, str]] = []
    process([1], lambda event, meta: handled.append((event, meta.peer)), with_meta=True)

    assert handled == [(1, "peer")]


def test_batches_are_lists_of_events_and_of_metas() -> None:
    handled: list[Any] = []
    process(
        [1, 2, 3],
        lambda events, metas: handled.append((events, [meta.source for meta in metas])),
        batch=2,
        with_meta=True,
    )

    assert handled == [([1, 2], ["http", "http"]), ([3], ["http"])]


def test_four_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(4)
    processor = process([1, 2, 3, 4], lambda event: together.wait(10), threads=4)

    assert processor.counters()["handled"] == 4


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_failing_handler_is_logged_with_the_event_and_the_next_is_handled(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[Any] = []

    def handle(event: Any) -> None:
        if event == {"bad": "й" * 300}:
            raise error
        handled.append(event)

    processor = process([{"bad": "й" * 300}, 2], handle)

    assert handled == [2]
    assert processor.counters() == {"in_work": 0, "handled": 1, "failed": 1}
    (record,) = caplog.records
    beginning = '{"bad": "' + "й" * 191 + "..."
    assert record.getMessage() == f"The event handler failed on the event {beginning}"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_failing_batch_is_counted_whole(caplog: pytest.LogCaptureFixture) -> None:
    processor = process([1, 2], lambda events: 1 / 0, batch=2)

    assert processor.counters()["failed"] == 2
    message = "The event handler failed on 2 events, beginning [1, 2]"
    assert [record.getMessage() for record in caplog.records] == [message]


def test_the_processor_shows_events_in_work_and_running_threads() -> None:
    release, entered = threading.Event(), threading.Event()

    def handle(event: Any) -> None:
        entered.set()
        release.wait(10)

    queue = MemoryQueue(10)
    processor = Processor(queue, handle, LOGGER)
    assert processor.problems() == []
    queue.put_many(Batch([1]))
    processor.start()
    entered.wait(10)
    processor.request_stop()

    assert not processor.join(0.01)
    assert processor.in_work == 1
    assert [thread.name for thread in processor.running_threads()] == ["events"]
    release.set()
    assert processor.join(10)


@pytest.mark.parametrize("batch", [None, 2])
def test_an_event_is_always_either_waiting_or_in_work(batch: int | None) -> None:
    """Also between `get` and the call of the handler."""
    queue = MemoryQueue(10)
    seen: list[tuple[int, int]] = []
    processor = Processor(
        queue, lambda event: seen.append((len(queue), processor.in_work)), LOGGER, batch=batch
    )
    for name in ("get", "get_batch"):
        real = getattr(queue, name)

        def take(*arguments: Any, real: Callable[..., Any] = real) -> Any:
            taken = real(*arguments)
            seen.append((len(queue), processor.in_work))
            return taken

        setattr(queue, name, take)
    queue.put_many(Batch([1, 2]))
    assert (len(queue), processor.in_work) == (2, 0)
    processor.start()
    processor.request_stop()
    assert processor.join(10)

    expected = [(1, 1), (1, 1), (0, 1), (0, 1)] if batch is None else [(0, 2), (0, 2)]
    assert seen == expected
    assert processor.in_work == 0


def test_a_failed_event_is_always_either_in_work_or_waiting_for_its_retry() -> None:
    queue = MemoryQueue(10)
    seen: list[int] = []

    def see(*_: Any) -> None:
        seen.append(len(queue) + processor.in_work)

    real = queue.fail
    queue.fail = lambda *arguments: (see(), real(*arguments), see())[1]  # type: ignore[method-assign]
    processor = Processor(queue, lambda event: 1 / 0, LOGGER, retry=RetryPolicy(1, 0))
    queue.put_many(Batch([1], [b"1"]))
    processor.start()
    until(lambda: queue.counters()["dead"])
    processor.request_stop()
    assert processor.join(10)

    assert min(seen) == 1
    assert processor.in_work == 0


def test_in_work_is_exact_although_events_finish_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another event finishes and the next is taken before each of the first six reads."""
    finished = 0

    def count(taken: int) -> int:
        nonlocal finished
        finished += finished < 6
        return finished + taken

    monkeypatch.setattr(MemoryQueue, "taken", property(lambda queue: count(1)))
    monkeypatch.setattr(Processor, "_handled", lambda processor: count(0))

    assert Processor(MemoryQueue(1), print, LOGGER).in_work == 1


def test_events_dropped_by_another_process_are_not_in_work(tmp_path: Path) -> None:
    queue = DurableQueue(str(tmp_path / "events.db"), LOGGER)
    queue.start()
    queue.put_many(Batch(range(5), [b"%d" % number for number in range(5)]))
    first = queue.get()
    queue._backlog.dropped.update({first.id + 1, first.id + 3})

    assert (queue.get().event, queue.taken) == (2, 2)
    assert ([entry.event for entry in queue.get_batch(5, 0)], queue.taken) == ([4], 3)
    queue.request_stop()
    assert queue.join(10)


def test_two_thousand_failures_in_a_row_are_two_lines_and_all_are_counted_and_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handle(event: int) -> None:
        raise ValueError(f"no {event}")

    queue = MemoryQueue(2000)
    processor = Processor(queue, handle, LOGGER)
    run_to_the_end(queue, processor, *range(2000))

    assert processor.counters()["failed"] == 2000
    letters = queue.counters()["dead_letters"]
    assert all(f"ValueError: no {letter['event']}" in letter["traceback"] for letter in letters)
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]
    assert [re.sub(r" in the last .*:\d+,", ",", m) for m in caplog.messages] == [
        "The event handler failed on the event 0",
        "The event handler failed: 1,999 more, last on the event 1999: ValueError: no 1999",
    ]


def test_an_event_that_the_handler_modified_does_not_end_the_processor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled: list[Any] = []

    def handle(event: Any) -> None:
        event["seen"] = {1}
        handled.append(event)
        raise ValueError("no")

    processor = process([{}, {}], handle)

    assert len(handled) == 2
    assert processor.counters()["failed"] == 2
    assert [re.sub(r" in the last .*:\d+,", ",", m) for m in caplog.messages] == [
        'The event handler failed on the event {"seen": "{1}"}',
        'The event handler failed: 1 more, last on the event {"seen": "{1}"}: ValueError: no',
    ]


def test_a_queue_that_fails_once_does_not_end_the_processor(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = MemoryQueue.get, []

    def fail_once(self: MemoryQueue) -> Any:
        if not failed:
            failed.append(True)
            raise OSError("disk")
        return real(self)

    monkeypatch.setattr(MemoryQueue, "get", fail_once)
    handled: list[Any] = []
    process([1], handled.append)

    assert handled == [1]
    assert caplog.messages == ["The event processor failed and continues"]


def test_a_stall_on_null_is_logged_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    processor = Processor(MemoryQueue(1), print, LOGGER, timeout=5)
    worker = processor._workers[0]
    worker.thread.start()
    worker.events = None
    processor._stalled(worker, 6)
    processor.request_stop()

    assert processor.join(10)
    assert "running for 6 s (timeout 5 s) on the event null; its stack:\n" in caplog.text


def test_a_running_call_stalls_and_recovers_and_between_calls_there_is_no_stall(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    changes: list[int] = []
    entered, release = threading.Event(), threading.Event()

    def handle(event: int) -> None:
        entered.set()
        release.wait(30)

    queue = MemoryQueue(10)
    processor = Processor(
        queue, handle, LOGGER, timeout=0.01, changed=lambda: changes.append(len(caplog.messages))
    )
    assert processor._workers[0].heartbeat.age() == 0
    processor.start()
    queue.put_many(Batch([7], (), "http", [Origin("peer")]))
    assert entered.wait(30)
    until(processor.problems)
    processor.run_due(time.monotonic())
    (shown,) = processor.counters()["stalled"]
    problems = processor.problems()
    release.set()
    until(lambda: processor.counters()["handled"] == 1)
    until(lambda: processor._workers[0].heartbeat.age() == 0)
    processor.run_due(time.monotonic())
    idle = processor.problems()
    processor.request_stop()

    assert processor.join(30)
    assert problems == [Problem("the event handler is stalled")]
    assert (shown["thread"], shown["event"], idle) == ("events", "7", [])
    assert changes == [0, 1]
    assert caplog.messages[0].startswith("The event handler is stalled: running for ")
    assert caplog.messages[1].startswith("The event handler recovered after ")


def test_a_stall_that_is_over_before_it_is_logged_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    processor = Processor(MemoryQueue(1), print, LOGGER, batch=2, timeout=5)
    processor._stalled(processor._workers[0], 6)

    assert caplog.messages == []


# Failed events


def test_a_failed_event_is_retried_and_then_becomes_a_dead_letter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempts: list[tuple[Any, int]] = []

    def handle(event: Any, meta: EventMeta) -> None:
        attempts.append((event, meta.attempt))
        if event == "bad":
            raise ValueError("no: s3cret")

    queue = MemoryQueue(10)
    processor = Processor(
        queue,
        handle,
        LOGGER,
        with_meta=True,
        retry=RetryPolicy(2, 0.01),
        redact=lambda text: text.replace("s3cret", "***"),
    )
    queue.put_many(Batch(["bad", "good"], [b'"bad"', b'"good"'], "http"))
    processor.start()
    until(lambda: queue.counters()["dead"])
    processor.request_stop()
    assert processor.join(10)

    assert attempts == [("bad", 1), ("good", 1), ("bad", 2), ("bad", 3)]
    assert processor.counters() == {"in_work": 0, "handled": 1, "failed": 3}
    (letter,) = queue.counters()["dead_letters"]
    assert (letter["event"], letter["error"], letter["attempts"]) == (
        '"bad"',
        "ValueError: no: ***",
        3,
    )
    assert letter["traceback"].startswith("Traceback (most recent call last):")
    assert letter["traceback"].endswith("ValueError: no: ***\n")
    assert [re.sub(r" at \S+:\d+,", ",", message) for message in caplog.messages] == [
        'The event handler failed on the event "bad", attempt 1 of 3; retrying in 0.01 s',
        "The event handler failed: 2 more in the last 1 s, "
        'last on the event "bad", attempt 3 of 3; now a dead letter: ValueError: no: ***',
    ]


def test_each_event_of_a_failed_batch_is_retried_alone() -> None:
    batches: list[list[Any]] = []

    def handle(events: list[Any]) -> None:
        batches.append(list(events))
        events.sort()
        if 2 in events:
            raise ValueError("no")

    queue = MemoryQueue(10)
    processor = Processor(queue, handle, LOGGER, batch=3, retry=RetryPolicy(1, 0))
    queue.put_many(Batch([3, 2, 1], [b"3", b"2", b"1"]))
    processor.start()
    until(lambda: queue.counters()["dead"])
    processor.request_stop()
    assert processor.join(10)

    assert batches[0] == [3, 2, 1]
    assert sorted(batches[1:]) == [[1], [2], [3]]
    assert processor.counters()["handled"] == 2
    assert queue.counters()["dead"] == 1


def test_events_of_a_durable_queue_are_done_once_handled_and_not_before() -> None:
    calls: list[Any] = []
    handled: list[Any] = []

    class Durable(MemoryQueue):
        is_durable = True

        def done(self, entries: Sequence[Entry]) -> None:
            calls.append((list(entries), list(handled)))

    for batch in (None, 2):
        calls.clear()
        handled.clear()
        queue = Durable(10)
        processor = Processor(
            queue, handled.extend if batch else handled.append, LOGGER, batch=batch
        )
        queue.put_many(Batch([1, 2]))
        processor.start()
        processor.request_stop()
        assert processor.join(10)
        expected = [([1, 2], [1, 2])] if batch else [([1], [1]), ([2], [1, 2])]
        assert calls == expected


# Hooks for dead letters


@pytest.fixture(params=["memory", "durable"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventQueue]:
    if request.param == "memory":
        queue: EventQueue = MemoryQueue(10)
    else:
        queue = DurableQueue(str(tmp_path / "events.db"), LOGGER)
    queue.start()
    yield queue
    queue.request_stop()
    assert queue.join(10)


def stored(queue: EventQueue) -> int:
    """Dead letters, as another process sees them if the queue is durable."""
    if not isinstance(queue, DurableQueue):
        return int(queue.counters()["dead"])
    with closing(sqlite3.connect(queue._file.path)) as db:
        return int(db.execute("SELECT count(*) FROM failed WHERE due IS NULL").fetchone()[0])


def stored_ids(queue: EventQueue) -> list[int]:
    """The ids of the dead letters, likewise."""
    if not isinstance(queue, DurableQueue):
        return [letter["id"] for letter in queue.counters()["dead_letters"]]
    with closing(sqlite3.connect(queue._file.path)) as db:
        return [row[0] for row in db.execute("SELECT id FROM failed WHERE due IS NULL")]


def refuse(event: Any) -> None:
    raise ValueError("no")


def run_to_the_end(
    queue: EventQueue, processor: Processor, *events: Any, attempts: int = 1
) -> None:
    """Handle events until each has had this many attempts."""
    queue.put_many(Batch(events, [json.dumps(event).encode() for event in events]))
    processor.start()
    until(lambda: processor._handled() + processor._failed() == len(events) * attempts)
    processor.request_stop()
    assert processor.join(10)


@pytest.mark.parametrize("retries", [0, 1])
def test_each_dead_letter_is_passed_to_the_hooks_once_it_is_stored(
    queue: EventQueue, retries: int
) -> None:
    calls: list[Any] = []

    def hook(event: Any, failure: FailedAttempt) -> None:
        calls.append((event, stored(queue), failure, threading.current_thread().name))

    processor = Processor(
        queue, refuse, LOGGER, retry=RetryPolicy(retries, 0), dead_letter_hooks=[hook]
    )
    run_to_the_end(queue, processor, 1, {"a": 2}, attempts=retries + 1)

    assert [call[:2] for call in calls] == [(1, 1), ({"a": 2}, 2)]
    _, _, failure, thread = calls[0]
    assert (failure.error, failure.attempts, thread) == ("ValueError: no", retries + 1, "events")
    assert failure.first <= failure.last <= datetime.now(timezone.utc)


def test_each_event_of_a_failed_batch_is_passed_to_each_hook(queue: EventQueue) -> None:
    calls: list[Any] = []
    hooks = [lambda event, failure, n=n: calls.append((n, event)) for n in (1, 2)]
    processor = Processor(queue, refuse, LOGGER, batch=2, dead_letter_hooks=hooks)
    run_to_the_end(queue, processor, 3, 4)

    assert calls == [(1, 3), (2, 3), (1, 4), (2, 4)]
    assert stored(queue) == 2


@pytest.mark.parametrize(
    "error",
    [ValueError("hook"), SystemExit(3), KeyboardInterrupt()],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_in_a_hook_is_logged_and_stops_nothing(
    queue: EventQueue, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    def hook(event: Any, failure: FailedAttempt) -> None:
        calls.append(event)
        raise error

    processor = Processor(queue, refuse, LOGGER, dead_letter_hooks=[hook, hook])
    run_to_the_end(queue, processor, 1, 2)

    assert calls == [1, 1, 2, 2]
    assert processor.counters() == {"in_work": 0, "handled": 0, "failed": 2}
    logged = [record for record in caplog.records if "dead-letter hook" in record.message]
    assert [re.sub(r" at \S+:\d+,", ",", record.message) for record in logged] == [
        "The dead-letter hook hook failed on the event 1",
        f"The dead-letter hook hook failed: 3 more in the last 1 s, last on the event 2: {error_text(error)}",
    ]
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[1] is error


def test_a_dead_letter_hook_that_returns_unrun_work_has_failed(
    queue: EventQueue, caplog: pytest.LogCaptureFixture
) -> None:
    async def hook(event: Any, failure: FailedAttempt) -> None:
        pytest.fail("it ran")

    run_to_the_end(queue, Processor(queue, refuse, LOGGER, dead_letter_hooks=[hook]), 1)

    assert "TypeError: it returned a coroutine, which nothing awaits" in caplog.text


def test_an_event_that_will_be_retried_is_not_a_dead_letter(queue: EventQueue) -> None:
    failed: list[Any] = []

    def fail_once(event: Any) -> None:
        if not failed:
            failed.append(event)
            raise ValueError("no")

    hooks = [lambda event, failure: pytest.fail("called")]
    policy = RetryPolicy(1, 0)
    processor = Processor(queue, fail_once, LOGGER, retry=policy, dead_letter_hooks=hooks)
    run_to_the_end(queue, processor, 1, attempts=2)

    assert failed == [1]
    assert stored(queue) == 0


@pytest.mark.parametrize("status", [0, 7])
def test_a_child_that_a_hook_forks_ends_there(
    queue: EventQueue, tmp_path: Path, status: int
) -> None:
    file = tmp_path / "calls"
    ended: list[int] = []

    def hook(event: Any, failure: FailedAttempt) -> None:
        child = os.fork() if event == 1 else -1
        with file.open("a") as calls:
            calls.write(f"{event} ")
        if child > 0:
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if child == 0 and status:
            raise SystemExit(status)

    processor = Processor(queue, refuse, LOGGER, dead_letter_hooks=[hook, hook])
    run_to_the_end(queue, processor, 1, 2)

    assert ended == [status, status]
    assert file.read_text() == "1 1 1 1 2 2 "


def test_hooks_wait_until_the_dead_letter_can_be_stored(tmp_path: Path) -> None:
    path, order = str(tmp_path / "events.db"), []
    queue = DurableQueue(path, LOGGER)
    queue.start()
    processor = Processor(
        queue,
        refuse,
        LOGGER,
        dead_letter_hooks=[lambda event, failure: order.append("called")],
    )
    queue.put_many(Batch([1], [b"1"]))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        processor.start()
        until(queue.problems)
        order.append("released")
        db.execute("ROLLBACK")
    until(lambda: len(order) == 2)
    for part in (processor, queue):
        part.request_stop()
        assert part.join(10)

    assert order == ["released", "called"]


def test_hooks_are_not_called_for_a_dead_letter_that_could_not_be_stored(
    queue: EventQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "flush", lambda: False)
    hooks = [lambda event, failure: pytest.fail("called")]
    processor = Processor(queue, refuse, LOGGER, dead_letter_hooks=hooks)
    run_to_the_end(queue, processor, 1)

    assert processor.counters()["failed"] == 1


def test_failures_after_the_file_was_closed_are_not_stored(tmp_path: Path) -> None:
    queue = DurableQueue(str(tmp_path / "events.db"), LOGGER)
    queue.start()
    queue.put_many(Batch([1], [b"1"]))
    entry = queue.get()
    queue.request_stop()
    assert queue.join(10)

    assert queue.flush()
    queue.fail(entry, FailedAttempt("ValueError: no", "", 1, 100.0, 100.0), None)
    assert not queue.flush()


class Lines(logging.Handler):
    """The lines that are logged, with the events that their threads handle."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        handled = handled_now()
        suffix = "" if handled is None else handled.suffix()
        self.lines.append(re.sub(r" at \S+:\d+,", ",", record.getMessage()) + suffix)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    LOGGER.addHandler(handler)
    LOGGER.setLevel("INFO")
    yield handler.lines
    LOGGER.removeHandler(handler)
    LOGGER.setLevel("NOTSET")


def test_each_line_of_a_call_has_the_event_s_id_which_its_retries_and_its_dead_letter_keep(
    queue: EventQueue, lines: list[str]
) -> None:
    def handle(event: str) -> None:
        LOGGER.info("on %s", event)
        if event == "bad":
            raise ValueError(event)

    retry = RetryPolicy(1, 0.01)
    hooks = [lambda event, failure: LOGGER.info("given up")]
    processor = Processor(queue, handle, LOGGER, retry=retry, dead_letter_hooks=hooks)
    queue.put_many(Batch(["one", "bad"], [b'"one"', b'"bad"']))
    processor.start()
    until(lambda: processor._failed() == 2)
    processor.request_stop()
    assert processor.join(10)

    queue.flush()
    (bad,) = stored_ids(queue)
    assert re.fullmatch(r"on one \[event \d+\]", lines[0])
    assert [line for line in lines if "on bad" in line or "given up" in line] == [
        *[f"on bad [event {bad}]"] * 2,
        f"given up [event {bad}]",
    ]
    assert f'on the event "bad", attempt 1 of 2; retrying in 0.01 s [event {bad}]' in str(lines)
    found = queue.failed_events.find(bad)
    assert found is not None
    assert found.id == bad


def test_the_ids_of_several_threads_and_of_batches_do_not_collide(lines: list[str]) -> None:
    """Three threads that each handle a list of two, twice, at the same time."""
    barrier = threading.Barrier(3)

    def handle(events: list[int]) -> None:
        barrier.wait(10)
        LOGGER.info("%d", len(events))

    queue = MemoryQueue(100)
    processor = Processor(queue, handle, LOGGER, threads=3, batch=2)
    queue.put_many(Batch(list(range(12))))
    processor.start()
    processor.request_stop()
    assert processor.join(10)

    assert sorted(lines) == [
        *("2 [events 1 to 4]", "2 [events 2 to 5]", "2 [events 3 to 6]"),
        *("2 [events 7 to 10]", "2 [events 8 to 11]", "2 [events 9 to 12]"),
    ]


@pytest.mark.parametrize("batch", [None, 3])
def test_the_sender_is_logged_although_the_handler_does_not_ask_for_it(
    batch: int | None, lines: list[str]
) -> None:
    queue = MemoryQueue(100)

    def handle(events: Any) -> None:
        LOGGER.info("a")
        LOGGER.info("b")

    processor = Processor(queue, handle, LOGGER, batch=batch, keeps_meta=True)
    assert queue.with_meta
    shop, other = Origin("peer", "shop"), Origin("peer", "other")
    queue.put_many(Batch([1, 2, 3], [], "http", [shop] * 3))
    queue.put_many(Batch([4, 5, 6], [], "http", [shop, other, shop]))
    processor.start()
    processor.request_stop()
    assert processor.join(10)

    if batch:
        assert lines == [
            *("a [events 1 to 3 from shop]", "b [events 1 to 3 from shop]"),
            *("a [events 4 to 6]", "b [events 4 to 6]"),
        ]
    else:
        assert lines[:2] == ["a [event 1 from shop]", "b [event 1 from shop]"]
        assert lines[-4:-2] == ["a [event 5 from other]", "b [event 5 from other]"]
