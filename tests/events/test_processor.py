from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from daemonkit import EventMeta
from daemonkit.events.entry import Batch, Entry, RetryPolicy
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.processor import Processor

LOGGER = logging.getLogger("test")


def process(events: list[Any], handle: Callable[..., Any], **options: Any) -> Processor:
    """Run events through a processor to the end."""
    queue = MemoryQueue(1000)
    processor = Processor(queue, handle, LOGGER, **options)
    queue.put_many(Batch(events, (), "http", ["peer"] * len(events)))
    processor.start()
    processor.request_stop()
    assert processor.join(10)
    return processor


def test_each_event_is_handled_once_and_in_order() -> None:
    handled: list[int] = []
    processor = process([1, 2, 3], handled.append)

    assert handled == [1, 2, 3]
    assert processor.counters() == {"in_work": 0, "handled": 3, "failed": 0}


def test_meta_is_given_to_a_handler_that_wants_it() -> None:
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


def test_four_threads_work_at_a_time() -> None:
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


def test_it_tells_what_is_in_work_and_which_threads_still_run() -> None:
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


def test_an_event_that_the_handler_spoilt_does_not_end_the_processor(
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
    assert caplog.messages == ['The event handler failed on the event {"seen": "{1}"}'] * 2


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
    assert caplog.messages == ["The event processor failed and goes on"]


def test_a_stall_on_null_is_told_as_any_other(caplog: pytest.LogCaptureFixture) -> None:
    processor = Processor(MemoryQueue(1), print, LOGGER, timeout=5)
    worker = processor._workers[0]
    worker.thread.start()
    worker.in_work, worker.events = 1, None
    processor._stalled(worker, 6)
    processor.request_stop()

    assert processor.join(10)
    assert "(timeout 5 s) on the event null; it is here:" in caplog.text


def test_a_stall_that_is_over_before_it_is_told_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    processor = Processor(MemoryQueue(1), print, LOGGER, batch=2, timeout=5)
    processor._stalled(processor._workers[0], 6)

    assert caplog.messages == []


# Failing events


def test_a_failing_event_is_handled_again_and_then_is_a_dead_letter(
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
    while not queue.counters()["dead"]:
        threading.Event().wait(0.002)
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
    assert caplog.messages == [
        'The event handler failed on the event "bad", attempt 1 of 3; the next one in 0.01 s',
        'The event handler failed on the event "bad", attempt 2 of 3; the next one in 0.02 s',
        'The event handler failed on the event "bad", attempt 3 of 3; it is now a dead letter',
    ]


def test_of_a_failing_batch_each_event_is_tried_alone() -> None:
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
    while not queue.counters()["dead"]:
        threading.Event().wait(0.002)
    processor.request_stop()
    assert processor.join(10)

    assert batches[0] == [3, 2, 1]
    assert sorted(batches[1:]) == [[1], [2], [3]]
    assert processor.counters()["handled"] == 2
    assert queue.counters()["dead"] == 1


def test_the_wait_is_doubled_up_to_an_hour() -> None:
    policy = RetryPolicy(20, 1.5)

    assert [policy.delay(n) for n in (1, 2, 3, 4)] == [1.5, 3.0, 6.0, 12.0]
    assert policy.delay(20) == 3600
    assert policy.delay(21) is None
    assert RetryPolicy(10**6, 1.0).delay(10**6) == 3600


def test_a_durable_queue_is_told_what_was_handled_and_not_before() -> None:
    told: list[Any] = []
    handled: list[Any] = []

    class Durable(MemoryQueue):
        is_durable = True

        def done(self, entries: Sequence[Entry]) -> None:
            told.append((list(entries), list(handled)))

    for batch in (None, 2):
        told.clear()
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
        assert told == expected
