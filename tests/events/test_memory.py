from __future__ import annotations

import threading
import time
from datetime import datetime

import pytest

from daemonkit import BatchTooLarge, QueueFull
from daemonkit.events import memory
from daemonkit.events.entry import Batch, Entry, Failure
from daemonkit.events.memory import DEAD_LETTERS, MemoryQueue
from daemonkit.events.waiting import QueueClosed


def test_entries_come_out_in_order() -> None:
    queue = MemoryQueue(10)
    queue.put_many(Batch([1]))
    queue.put_many(Batch([2, 3]))

    assert [queue.get(), queue.get(), queue.get()] == [1, 2, 3]


def test_a_full_queue_refuses_and_says_its_size() -> None:
    queue = MemoryQueue(2)
    queue.put_many(Batch([1, 2]))

    with pytest.raises(QueueFull, match=r"^The event queue is full \(2 events\)$"):
        queue.put_many(Batch([3]))


def test_a_batch_goes_in_whole_or_not_at_all() -> None:
    queue = MemoryQueue(3)
    queue.put_many(Batch([1]))

    with pytest.raises(QueueFull):
        queue.put_many(Batch([2, 3, 4]))
    assert len(queue) == 1


def test_a_batch_that_never_fits_is_told_apart_from_a_full_queue() -> None:
    with pytest.raises(
        BatchTooLarge, match=r"^3 events at once are more than the queue holds \(queue_size is 2\)$"
    ):
        MemoryQueue(2).put_many(Batch([1, 2, 3]))


def test_as_many_go_in_as_there_is_room_for() -> None:
    queue = MemoryQueue(3)
    queue.put_many(Batch([1]))

    assert queue.put_some(Batch([2])) == (1, None)
    assert queue.put_some(Batch([])) == (0, None)
    count, refusal = queue.put_some(Batch([3, 4, 5]))
    assert count == 1
    assert str(refusal) == "The event queue is full (3 events)"
    assert [queue.get() for _ in range(3)] == [1, 2, 3]


def test_none_goes_into_a_closed_queue() -> None:
    queue = MemoryQueue(3)
    queue.close()
    count, refusal = queue.put_some(Batch([1]))

    assert count == 0
    assert str(refusal) == "The daemon is stopping"
    assert refusal is not None
    assert refusal.retry_after == 5


def test_a_queue_made_smaller_than_what_it_holds_takes_nothing() -> None:
    queue = MemoryQueue(3)
    queue.put_many(Batch([1, 2, 3]))
    queue.size = 1

    assert queue.put_some(Batch([4]))[0] == 0
    with pytest.raises(QueueFull):
        queue.put_many(Batch([4]))


def test_putting_several_wakes_as_many_takers() -> None:
    queue = MemoryQueue(10)
    got: list[int] = []
    takers = [
        # So that one which isn't woken doesn't keep the tests from ending.
        threading.Thread(target=lambda: got.append(queue.get()), daemon=True)
        for _ in range(3)
    ]
    for taker in takers:
        taker.start()
    while queue._waiting.takers < 3:
        time.sleep(0.001)
    queue.put_some(Batch([1, 2, 3]))
    for taker in takers:
        taker.join(10)

    assert sorted(got) == [1, 2, 3]


def test_get_waits_for_an_entry() -> None:
    queue = MemoryQueue(1)
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.append(queue.get()))
    taker.start()
    while not queue._waiting.takers:
        time.sleep(0.001)
    queue.put_many(Batch([7]))
    taker.join()

    assert got == [7]


def test_a_closed_queue_is_run_empty_first() -> None:
    queue = MemoryQueue(2)
    queue.put_many(Batch([1]))
    queue.close()

    assert queue.get() == 1
    with pytest.raises(QueueClosed):
        queue.get()


def test_closing_wakes_every_taker() -> None:
    queue = MemoryQueue(1)
    ended = threading.Semaphore(0)

    def take() -> None:
        with pytest.raises(QueueClosed):
            queue.get()
        ended.release()

    takers = [threading.Thread(target=take) for _ in range(3)]
    for taker in takers:
        taker.start()
    while queue._waiting.takers < 3:
        time.sleep(0.001)
    queue.close()
    for taker in takers:
        taker.join()

    assert all(ended.acquire(blocking=False) for _ in takers)


def test_a_batch_is_handed_over_when_full() -> None:
    queue = MemoryQueue(10)
    queue.put_many(Batch([1, 2, 3]))

    assert queue.get_batch(2, linger=60) == [1, 2]


def test_a_batch_lingers_for_more_but_no_longer_than_told() -> None:
    queue = MemoryQueue(10)
    queue.put_many(Batch([1]))
    before = time.monotonic()
    late = threading.Timer(0.05, queue.put_many, [Batch([2])])
    late.start()
    batch = queue.get_batch(10, linger=0.2)
    took = time.monotonic() - before
    late.join()

    assert batch == [1, 2]
    assert 0.2 <= took < 1


def test_closing_ends_the_linger() -> None:
    queue = MemoryQueue(10)
    queue.put_many(Batch([1]))
    queue.close()

    assert queue.get_batch(10, linger=60) == [1]


def test_many_producers_and_consumers_lose_and_double_nothing() -> None:
    queue = MemoryQueue(1_000_000)
    taken: list[list[int]] = [[] for _ in range(4)]

    def produce(start: int) -> None:
        for number in range(start, start + 5000):
            queue.put_many(Batch([number]))

    def consume(into: list[int]) -> None:
        try:
            while True:
                into.append(queue.get())
        except QueueClosed:
            pass

    consumers = [threading.Thread(target=consume, args=[into]) for into in taken]
    producers = [threading.Thread(target=produce, args=[n * 5000]) for n in range(4)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join()
    queue.close()
    for thread in consumers:
        thread.join()

    assert sorted(sum(taken, [])) == list(range(20_000))


def test_a_closed_queue_takes_nothing_more() -> None:
    queue = MemoryQueue(2)
    queue.close()

    with pytest.raises(QueueFull, match="^The daemon is stopping$") as caught:
        queue.put_many(Batch([1]))
    with pytest.raises(QueueFull):
        queue.put_many(Batch([1]))
    assert caught.value.retry_after == 5


# Failing events


def failure(attempts: int = 1) -> Failure:
    return Failure("ValueError: no", "Traceback ...", attempts, 1_500_000_000.25, 1_500_000_001.5)


def test_an_event_is_tried_again_when_due_before_those_that_wait() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry(1), failure(), 0.05)
    began = time.monotonic()
    assert queue.counters()["retrying"] == 1
    assert len(queue) == 1
    again = queue.get()
    assert time.monotonic() - began >= 0.05
    queue.put_many(Batch([2]))
    queue.fail(again, failure(2), 0)
    third = queue.get()

    assert (again.event, again.attempt, again.failed) == (1, 2, 1_500_000_000.25)
    assert (third.event, third.attempt) == (1, 3)
    assert queue.get() == 2
    assert queue.counters()["retried"] == 2


def test_what_is_due_later_does_not_keep_others_waiting() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry(1), failure(), 3600)
    queue.put_many(Batch([2]))

    assert queue.get() == 2


def test_a_taker_that_waits_is_told_of_what_is_due_earlier() -> None:
    queue = MemoryQueue(10)
    got: list[Entry] = []
    queue.fail(Entry(1), failure(), 3600)
    taker = threading.Thread(target=lambda: got.append(queue.get()))
    taker.start()
    while not queue._waiting.takers:
        time.sleep(0.001)
    queue.fail(Entry(2), failure(), 0.02)
    taker.join(10)

    assert [entry.event for entry in got] == [2]


def test_an_event_is_tried_again_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = MemoryQueue(10)
    queue.keep_lines = queue.with_meta = True
    queue.put_many(Batch([{"a": 1}], [b'{"a": 1}'], "udp", ["peer"]))
    entry = queue.get()
    entry.event.clear()
    queue.fail(entry, failure(), 0)
    again = queue.get()

    assert again.event == {"a": 1}
    assert (again.meta.source, again.meta.peer, again.meta.attempt) == ("udp", "peer", 2)


def test_one_that_is_tried_again_comes_alone() -> None:
    queue = MemoryQueue(10)
    queue.put_many(Batch([1, 2]))
    queue.fail(Entry(3), failure(), 0)
    queue.fail(Entry(4), failure(), 0)

    batches = [queue.get_batch(10, 0) for _ in range(3)]
    assert [entry.event for entry in (*batches[0], *batches[1])] == [3, 4]
    assert batches[2] == [1, 2]


def test_a_batch_that_waits_for_more_leaves_out_what_is_tried_again() -> None:
    queue = MemoryQueue(10)
    queue.put_many(Batch([1]))
    late = threading.Timer(0.02, queue.fail, [Entry(2), failure(), 0])
    late.start()

    assert queue.get_batch(2, 0.1) == [1]
    assert [entry.event for entry in queue.get_batch(2, 0)] == [2]
    late.join()


def test_a_closed_queue_tries_once_more_at_once() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry(1), failure(), 3600)
    queue.close()
    entry = queue.get()
    queue.fail(entry, failure(2), 3600)

    assert (entry.event, entry.attempt) == (1, 2)
    assert queue.counters()["dead"] == 1
    with pytest.raises(QueueClosed):
        queue.get()


def test_events_that_are_tried_again_take_room() -> None:
    queue = MemoryQueue(1)
    queue.fail(Entry(1), failure(), 3600)

    with pytest.raises(QueueFull):
        queue.put_many(Batch([2]))


def test_the_last_dead_letters_are_shown_with_what_is_known() -> None:
    queue = MemoryQueue(10)
    for number in range(DEAD_LETTERS + 5):
        queue.fail(Entry({"n": number}), failure(3), None)
    counters = queue.counters()

    assert counters["dead"] == DEAD_LETTERS + 5
    assert [letter["event"] for letter in counters["dead_letters"]] == [
        f'{{"n": {number}}}' for number in range(5, DEAD_LETTERS + 5)
    ]
    assert counters["dead_letters"][0] == {
        "event": '{"n": 5}',
        "error": "ValueError: no",
        "traceback": "Traceback ...",
        "attempts": 3,
        "first_failed": str(datetime.fromtimestamp(1_500_000_000.25)),
        "last_failed": str(datetime.fromtimestamp(1_500_000_001.5)),
    }


def test_a_dead_letter_is_shown_as_it_came() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry({}, line=b'{"a": 1}'), failure(), None)

    assert queue.counters()["dead_letters"][0]["event"] == '{"a": 1}'


def test_the_age_of_the_oldest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(memory.time, "monotonic", lambda: now)
    queue = MemoryQueue(10)
    assert queue.counters()["oldest_age"] is None
    queue.put_many(Batch([1, 2]))
    now += 5
    queue.put_many(Batch([3]))
    now += 1

    ages = []
    for _ in range(3):
        ages.append(queue.counters()["oldest_age"])
        queue.get()
    assert ages == [6.0, 6.0, 1.0]
    assert queue.counters()["oldest_age"] is None
    queue.put_many(Batch([4]))
    assert queue.counters()["oldest_age"] == 0.0
