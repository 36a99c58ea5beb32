from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from daemonkit.events.entry import Entry
from daemonkit.events.waiting import QueueClosed, Waiting

from .conditions import until


def make(*items: Any, load: Callable[[], bool] | None = None) -> Waiting:
    waiting = Waiting(lambda entry: entry, load)
    waiting.add(items, len(items))
    return waiting


@contextmanager
def consumers(waiting: Waiting, count: int = 1) -> Iterator[list[Any]]:
    """Consumers that are waiting; at the end, what they got, None for QueueClosed."""
    got: list[Any] = []

    def consume() -> None:
        try:
            got.append(waiting.get())
        except QueueClosed:
            got.append(None)

    threads = [threading.Thread(target=consume, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: waiting.consumers == count)
    yield got
    for thread in threads:
        thread.join(10)


def test_entries_come_out_in_order() -> None:
    waiting = make(1, 2)
    waiting.add([3], 1)

    assert [waiting.get() for _ in range(3)] == [1, 2, 3]


def test_head_returns_the_next_entry_and_keeps_it() -> None:
    waiting = make(1, 2)

    assert (waiting.head(), waiting.ready, len(waiting)) == (1, 2, 2)
    assert make().head() is None


def test_a_consumer_waits_for_an_entry() -> None:
    waiting = make()
    with consumers(waiting) as got:
        waiting.add([7], 1)

    assert got == [7]


def test_adding_several_wakes_as_many_consumers() -> None:
    waiting = make()
    with consumers(waiting, 3) as got:
        waiting.add([1, 2, 3], 3)

    assert sorted(got) == [1, 2, 3]


def test_many_producers_and_consumers_lose_and_duplicate_nothing() -> None:
    waiting = make()
    taken: list[list[int]] = [[] for _ in range(4)]
    adding = threading.Lock()

    def produce(start: int) -> None:
        for number in range(start, start + 5000):
            with adding:
                waiting.add([number], 1)

    def consume(into: list[int]) -> None:
        try:
            while True:
                into.append(waiting.get())
        except QueueClosed:
            pass

    consuming = [threading.Thread(target=consume, args=[into]) for into in taken]
    producing = [threading.Thread(target=produce, args=[n * 5000]) for n in range(4)]
    for thread in consuming + producing:
        thread.start()
    for thread in producing:
        thread.join()
    waiting.close(drain=True)
    for thread in consuming:
        thread.join()

    assert sorted(sum(taken, [])) == list(range(20_000))
    assert waiting.taken == 20_000


# Batches


def test_a_batch_is_handed_out_when_full() -> None:
    assert make(1, 2, 3).get_batch(2, linger=60) == [1, 2]


def test_a_batch_lingers_until_it_is_full() -> None:
    waiting = make(1)
    late = threading.Timer(0.02, waiting.add, [[2], 1])
    late.start()

    assert waiting.get_batch(2, linger=60) == [1, 2]
    late.join()


def test_a_batch_lingers_no_longer_than_allowed() -> None:
    before = time.monotonic()

    assert make(1).get_batch(2, linger=0.05) == [1]
    assert time.monotonic() - before >= 0.05


# Closing


def test_a_closed_queue_is_drained_first() -> None:
    waiting = make(1)
    waiting.close(drain=True)

    assert waiting.get() == 1
    with pytest.raises(QueueClosed):
        waiting.get()


def test_closing_wakes_every_consumer() -> None:
    waiting = make()
    with consumers(waiting, 3) as got:
        waiting.close(drain=True)

    assert got == [None] * 3


def test_closing_ends_the_linger() -> None:
    waiting = make(1)
    waiting.close(drain=True)

    assert waiting.get_batch(10, linger=60) == [1]


def test_without_draining_nothing_more_is_handed_out_or_accepted() -> None:
    waiting = make(1, 2)
    waiting.get()
    waiting.put_back(Entry(3), 0)
    waiting.close(drain=False)
    waiting.put_back(Entry(4), 0)

    assert not waiting.add([5], 1)
    with pytest.raises(QueueClosed):
        waiting.get()
    assert (len(waiting), waiting.taken) == (0, 1)


class Interrupted(deque[int]):
    """Lets a consumer take an entry after each one that is discarded."""

    take: Callable[[], None]

    def pop(self) -> int:  # type: ignore[override]
        discarded = super().pop()
        self.take()
        return discarded


def test_an_entry_taken_while_the_rest_is_discarded_is_the_next_in_order() -> None:
    taken: list[int] = []
    waiting = make()
    waiting._items = items = Interrupted()
    items.take = lambda: taken.append(waiting.get()) if waiting.ready else None
    waiting.add(range(10), 10)

    assert waiting.discard() == [5, 6, 7, 8, 9]
    assert taken == [0, 1, 2, 3, 4]
    assert (waiting.ready, waiting.taken) == (0, 5)


# Retries


def events_of(entries: Sequence[Entry]) -> list[Any]:
    return [entry.event for entry in entries]


def test_a_retry_waits_until_it_is_due_and_then_comes_first() -> None:
    waiting = make()
    waiting.put_back(Entry(1), 0.05)
    before = time.monotonic()
    assert (waiting.retrying, len(waiting)) == (1, 1)
    first = waiting.get()
    assert time.monotonic() - before >= 0.05
    waiting.add([Entry(2)], 1)
    waiting.put_back(first, 0)

    assert events_of([waiting.get(), waiting.get()]) == [1, 2]


def test_a_retry_that_is_not_due_does_not_delay_others() -> None:
    waiting = make()
    waiting.put_back(Entry(1), 3600)
    waiting.add([2], 1)

    assert waiting.get() == 2


def test_a_waiting_consumer_gets_a_retry_that_is_due_earlier() -> None:
    waiting = make()
    waiting.put_back(Entry(1), 3600)
    with consumers(waiting) as got:
        waiting.put_back(Entry(2), 0.02)

    assert events_of(got) == [2]


def test_retries_due_at_the_same_time_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = make()
    monkeypatch.setattr("daemonkit.events.waiting.monotonic", lambda: 100.0)
    for number in (3, 1, 2):
        waiting.put_back(Entry({"n": number}), 0)

    assert events_of([waiting.get() for _ in range(3)]) == [{"n": 3}, {"n": 1}, {"n": 2}]


def test_a_retry_is_handed_out_alone() -> None:
    waiting = make(1, 2)
    for number in (3, 4):
        waiting.put_back(Entry(number, failed=1.0), 0)

    batches = [waiting.get_batch(10, 0) for _ in range(3)]
    assert [events_of(batch) for batch in batches[:2]] == [[3], [4]]
    assert batches[2] == [1, 2]


def test_a_lingering_batch_leaves_out_retries() -> None:
    waiting = make(1)
    late = threading.Timer(0.02, waiting.put_back, [Entry(2, failed=1.0), 0])
    late.start()

    assert waiting.get_batch(2, 0.1) == [1]
    late.join()
    assert events_of(waiting.get_batch(2, 0)) == [2]


def test_a_closed_queue_hands_out_retries_at_once() -> None:
    waiting = make()
    waiting.put_back(Entry(1), 3600)
    waiting.close(drain=True)

    assert waiting.get().event == 1


def test_a_retry_is_prepared_or_dropped() -> None:
    waiting = Waiting(lambda entry: entry._replace(attempt=5) if entry.event else None)
    waiting.put_back(Entry(0), 0)
    waiting.put_back(Entry(1), 0)

    assert waiting.get() == Entry(1, attempt=5)
    assert waiting.taken == 1


# Loading


def test_more_is_loaded_when_nothing_is_left() -> None:
    stored = [[1, 2], [3]]

    def load() -> bool:
        if not stored:
            return False
        waiting.add(items := stored.pop(0), len(items))
        return True

    waiting = make(load=load)

    assert waiting.get() == 1
    assert stored == [[3]]
    assert waiting.get_batch(3, 0) == [2, 3]


def test_a_waiting_consumer_loads_again_only_on_request() -> None:
    stored: list[int] = []
    loads: list[bool] = []

    def load() -> bool:
        loads.append(bool(stored))
        if stored:
            waiting.add([stored.pop()], 1)
        return loads[-1]

    waiting = make(load=load)
    with consumers(waiting) as got:
        stored.append(1)
        waiting.request_load()

    assert got == [1]
    assert loads == [False, True]


def test_a_consumer_that_wakes_without_an_entry_loads_again() -> None:
    """As when another consumer has taken the entry that woke it."""
    stored: list[int] = []

    def load() -> bool:
        if not stored:
            return False
        waiting.add([stored.pop()], 1)
        return True

    waiting = make(load=load)
    with consumers(waiting) as got:
        stored.append(1)
        with waiting._changed:
            waiting._changed.notify_all()

    assert got == [1]


def test_entries_stored_during_a_load_are_not_missed() -> None:
    stored: list[int] = []

    def load() -> bool:
        if stored:
            waiting.add([stored.pop()], 1)
            return True
        # Another thread stores something just after this check.
        stored.append(1)
        waiting.request_load()
        return False

    waiting = make(load=load)
    got: list[int] = []
    consumer = threading.Thread(target=lambda: got.append(waiting.get()), daemon=True)
    consumer.start()
    consumer.join(10)

    assert got == [1]


# The count of taken entries


def test_taken_entries_are_counted_as_soon_as_they_no_longer_wait() -> None:
    waiting = make(1, 2, 3)
    waiting.put_back(Entry(4), 0)
    counts = []
    for _ in range(4):
        waiting.get()
        counts.append((waiting.taken, len(waiting)))

    assert counts == [(1, 3), (2, 2), (3, 1), (4, 0)]


def test_an_entry_counts_as_taken_while_others_are_being_added() -> None:
    waiting = make()
    counts: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        waiting.get()
        counts.append(waiting.taken)

    waiting.add(items(), 1)

    assert counts == [1]


def test_forgotten_entries_do_not_count_as_taken() -> None:
    waiting = make(1, 2, 3)
    waiting.get_batch(3, 0)
    waiting.forget(2)

    assert waiting.taken == 1


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed() -> None:
    waiting = make(1)
    waiting.pause()
    with consumers(waiting) as got:
        waiting.add([2], 1)
        waiting.put_back(Entry(3, id=3), 0.0)
        assert (got, waiting.ready) == ([], 2)
        waiting.resume()

    assert len(got) == 1


def test_a_pause_keeps_a_consumer_from_filling_its_batch() -> None:
    waiting = make(1)
    batches: list[Any] = []
    thread = threading.Thread(target=lambda: batches.append(waiting.get_batch(3, 3600)))
    thread.start()
    until(lambda: waiting.consumers == 1)
    waiting.pause()
    waiting.resume()
    waiting.add([2, 3], 2)
    thread.join(10)

    assert batches == [[1, 2, 3]]


def test_closing_a_paused_queue_drains_it_and_without_draining_ends_it() -> None:
    drained, ended = make(1), make(1)
    for waiting, drain in ((drained, True), (ended, False)):
        waiting.pause()
        waiting.close(drain=drain)

    assert drained.get() == 1
    for waiting in (drained, ended):
        with pytest.raises(QueueClosed):
            waiting.get()


def test_a_closed_queue_can_t_be_paused() -> None:
    waiting = make(1)
    waiting.close(drain=True)
    waiting.pause()

    assert (waiting.is_paused, waiting.get()) == (False, 1)


def test_an_entry_that_can_t_be_prepared_is_not_in_work() -> None:
    def fail(entry: Entry) -> Entry:
        raise ValueError("damaged")

    waiting = Waiting(fail)
    waiting.put_back(Entry(1, id=1), 0.0)
    with pytest.raises(ValueError, match="damaged"):
        waiting.get()

    assert waiting.taken == 0
