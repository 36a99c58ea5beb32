from __future__ import annotations

import logging

from daemonkit.events.entry import Batch, Entry
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.processor import Processor
from daemonkit.events.waiting import Idle
from daemonkit.events.worker import Worker
from daemonkit.system.handling import NOTHING, Handled
from daemonkit.types import EventMeta

from .conditions import until

LOGGER = logging.getLogger("test")


def test_calls_are_noted_once_whatever_the_events_of_a_batch() -> None:
    counts = []
    for is_batch in (False, True):
        worker = Worker("events", 1, 1, is_batch=is_batch)
        worker.begin(Idle())
        worker.handled = 3
        worker.note_calls()
        worker.failed = 2
        worker.note_calls()
        worker.note_calls()
        assert worker.watch is not None
        counts.append(sum(worker.watch.durations.counts))

    assert counts == [5, 2]


def test_events_have_numbers_apart_from_those_of_other_threads_or_their_own() -> None:
    worker = Worker("events-2", 2, 3, is_batch=True)
    worker.handled, worker.failed = 4, 1
    worker.taken = ["a", Entry("b", id=7), Entry("c")]

    assert [entry.id for entry in worker.entries()] == [17, 7, 23]
    assert worker.describe() == Handled(17, 23, None)


def test_a_sender_is_named_if_all_events_are_its() -> None:
    def described(*senders: str | None) -> str | None:
        worker = Worker("events", 1, 1, is_batch=True)
        worker.taken = [
            Entry(1, EventMeta("http", "p", None, 1, sender))  # type: ignore[arg-type]
            for sender in senders
        ]
        return worker.describe().sender

    assert [described("a", "a"), described("a", "b"), described(None)] == ["a", None, None]


def test_between_events_nothing_is_being_handled_and_nothing_is_kept() -> None:
    queue = MemoryQueue(100)
    processor = Processor(queue, lambda event: None, LOGGER)
    processor.start()
    queue.put_many(Batch([{}]))
    until(lambda: processor._handled() == 1 and queue._waiting.consumers == 1)
    (worker,) = processor._workers

    assert worker.taken is NOTHING
    processor.request_stop()
    assert processor.join(10)


def test_a_block_of_calls_can_be_cut_short_by_another_thread() -> None:
    worker = Worker("events", 1, 1, is_batch=False)
    worker.block = [None] * 5
    made = 0
    for _ in worker.block:
        made += 1
        if made == 2:
            worker.cut_block()

    assert made == 2
