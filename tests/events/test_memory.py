from __future__ import annotations

from typing import Any

import pytest

from daemonkit import BatchTooLarge, QueueFull, Unavailable
from daemonkit.events import memory
from daemonkit.events.entry import Batch, Entry, FailedAttempt
from daemonkit.events.footprint import GROUP, SMALL, footprint
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.waiting import QueueClosed
from daemonkit.types import Origin

from ..clock import Clock


def failure(attempts: int = 1) -> FailedAttempt:
    return FailedAttempt("ValueError: no", "Traceback ...", attempts, 1_500_000_000.25, 1.5e9 + 1.5)


def filled(size: int, *events: Any) -> MemoryQueue:
    queue = MemoryQueue(size)
    queue.put_many(Batch(events))
    return queue


def test_a_batch_is_added_whole_or_not_at_all() -> None:
    queue = filled(3, 1)
    with pytest.raises(QueueFull, match=r"^The event queue is full \(3 events\)$"):
        queue.put_many(Batch([2, 3, 4]))
    queue.put_many(Batch([5, 6]))

    assert [queue.get() for _ in range(len(queue))] == [1, 5, 6]


def test_a_batch_that_can_never_fit_is_distinguished_from_a_full_queue() -> None:
    with pytest.raises(BatchTooLarge, match=r"^3 events at once are more than the queue holds"):
        MemoryQueue(2).put_many(Batch([1, 2, 3]))


def test_as_many_are_added_as_there_is_room_for() -> None:
    queue = filled(3, 1)

    assert queue.put_some(Batch([2])) == (1, None)
    assert queue.put_some(Batch([])) == (0, None)
    count, refusal = queue.put_some(Batch([3, 4, 5]))
    assert (count, str(refusal)) == (1, "The event queue is full (3 events)")
    assert [queue.get() for _ in range(3)] == [1, 2, 3]


def test_a_queue_made_smaller_than_its_content_accepts_nothing() -> None:
    queue = filled(3, 1, 2, 3)
    queue.size = 1

    assert queue.put_some(Batch([4]))[0] == 0
    with pytest.raises(QueueFull):
        queue.put_many(Batch([4]))


def test_a_closed_queue_accepts_nothing_and_is_not_full() -> None:
    queue = MemoryQueue(2)
    queue.close()
    with pytest.raises(Unavailable, match="^The daemon is stopping$") as caught:
        queue.put_many(Batch([1]))
    count, refusal = queue.put_some(Batch([1]))

    assert (count, str(refusal)) == (0, "The daemon is stopping")
    assert type(caught.value) is type(refusal) is Unavailable


def test_entries_have_only_what_the_processor_needs() -> None:
    queue = MemoryQueue(10)
    batch = Batch([{"a": 1}], [b'{"a": 1}'], "udp", [Origin("peer", "token")])
    queue.put_many(batch)
    queue.keep_lines = True
    queue.put_many(batch)
    queue.with_meta = True
    queue.put_many(batch)
    queue.put_many(batch._replace(origins=None))

    assert queue.get() == {"a": 1}
    assert queue.get() == Entry({"a": 1}, None, 0, 1, b'{"a": 1}')
    entry, without_peer = queue.get(), queue.get()
    assert (entry.meta.source, entry.meta.peer, entry.line) == ("udp", "peer", b'{"a": 1}')
    assert (entry.meta.sender, without_peer.meta.sender) == ("token", None)
    assert without_peer.meta.peer is None


def test_events_put_before_the_start_can_be_moved_to_another_queue() -> None:
    queue = MemoryQueue(10)
    queue.keep_lines = True
    queue.put_many(Batch([1, 2], [b"1", b"2"]))

    assert [(entry.event, entry.line) for entry in queue.drained()] == [(1, b"1"), (2, b"2")]
    assert queue.lost_at_exit() == 0


def test_waiting_events_are_lost_at_exit() -> None:
    assert filled(3, 1, 2).lost_at_exit() == 2


# Failed events


def test_a_retry_counts_its_attempts_and_keeps_the_time_of_the_first_failure() -> None:
    queue = MemoryQueue(10)
    assert not queue.fail(Entry(1), failure(), 0)
    second = queue.get()
    assert not queue.fail(second, failure(2), 0)
    third = queue.get()

    assert (second.event, second.attempt, second.failed) == (1, 2, 1_500_000_000.25)
    assert (third.event, third.attempt) == (1, 3)
    assert queue.counters()["retried"] == 2


def test_a_retried_event_is_as_received() -> None:
    queue = MemoryQueue(10)
    queue.keep_lines = queue.with_meta = True
    queue.put_many(Batch([{"a": 1}], [b'{"a": 1}'], "udp", [Origin("peer", "token")]))
    entry = queue.get()
    entry.event.clear()
    queue.fail(entry, failure(), 0)
    again = queue.get()

    assert again.event == {"a": 1}
    assert (again.meta.source, again.meta.peer, again.meta.attempt) == ("udp", "peer", 2)


def test_a_closed_queue_retries_once_more_at_once() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry(1), failure(), 3600)
    queue.close()
    entry = queue.get()

    assert (entry.event, entry.attempt) == (1, 2)
    assert queue.fail(entry, failure(2), 3600), "it is a dead letter now"
    assert queue.counters()["dead"] == 1
    with pytest.raises(QueueClosed):
        queue.get()


def test_events_that_wait_for_a_retry_take_room() -> None:
    queue = MemoryQueue(1)
    queue.fail(Entry(1), failure(), 3600)

    assert queue.counters()["retrying"] == 1
    with pytest.raises(QueueFull):
        queue.put_many(Batch([2]))


# The age of the oldest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(memory, "monotonic", clock)
    return clock


def ages(queue: MemoryQueue) -> list[float | None]:
    """The age of the oldest, before each event is taken and at the end."""
    found = []
    for _ in range(len(queue)):
        found.append(queue.counters()["oldest_age"])
        queue.get()
    return [*found, queue.counters()["oldest_age"]]


def test_the_age_of_the_oldest_is_shown(clock: Clock) -> None:
    queue = filled(10, 1, 2)
    clock.now += 5
    queue.put_many(Batch([3]))
    clock.now += 1

    assert ages(queue) == [6.0, 6.0, 1.0, None]
    queue.put_many(Batch([4]))
    assert ages(queue) == [0.0, None]


def test_a_queue_that_is_never_empty_still_knows_its_oldest_event(clock: Clock) -> None:
    queue = filled(10, 0)
    for number in range(1, 50):
        clock.now += 1
        queue.put_many(Batch([number]))
        queue.get()
    clock.now += 3

    assert len(queue._arrivals._groups) <= 2, "also if nobody asks for the age"
    assert ages(queue) == [3.0, None]


def test_events_put_within_a_tenth_of_a_second_share_their_age(clock: Clock) -> None:
    """Recording the time of each would cost memory and time per put."""
    queue = MemoryQueue(1000)
    for number in range(26):
        queue.put_many(Batch([number]))
        clock.now += 1 / 128

    assert ages(queue) == [0.203] * 13 + [0.102] * 13 + [None]


# Memory


def lines_of(*texts: bytes) -> Batch:
    return Batch(list(texts), list(texts))


def test_waiting_events_may_use_so_much_memory() -> None:
    line = b'"%s"' % (b"x" * GROUP)
    size = footprint([line])
    queue = MemoryQueue(100, 3.5 * size)
    for _ in range(3):
        queue.put_many(lines_of(line))
    with pytest.raises(
        QueueFull, match=r"waiting events use 3 MiB of memory \(queue_memory is 4 MiB\)$"
    ):
        queue.put_many(lines_of(line))
    assert queue.counters()["memory"] == 3 * size
    queue.get()
    queue.put_many(lines_of(line))
    assert [queue.get() for _ in range(3)] == [line] * 3
    assert queue.counters()["memory"] == 0


def test_an_event_that_needs_more_than_all_of_it_can_never_fit() -> None:
    line = b'"%s"' % (b"x" * 2 * 2**20)
    with pytest.raises(
        BatchTooLarge,
        match=r"^it would take 2 MiB of memory, more than all waiting events may use "
        r"\(queue_memory is 1 MiB\)$",
    ):
        MemoryQueue(100, 2**20).put_many(lines_of(line))


def test_small_events_fill_the_memory_too() -> None:
    line = b'{"a": 1}'
    queue = MemoryQueue(10**6, 100_000)
    while queue.put_some(lines_of(line))[0]:
        pass

    assert queue.counters()["memory"] == pytest.approx(100_000, rel=0.3)
    fits, refusal = queue.put_some(lines_of(line))
    assert (fits, type(refusal)) == (0, QueueFull)


def test_the_first_events_are_added_that_find_memory() -> None:
    line = b'"%s"' % (b"x" * SMALL)
    queue = MemoryQueue(100, 2.5 * footprint([line]))
    fits, refusal = queue.put_some(lines_of(*[line] * 4))

    assert (fits, type(refusal)) == (2, QueueFull)


def test_events_that_wait_for_a_retry_use_memory() -> None:
    line = b'"%s"' % (b"x" * SMALL)
    queue = MemoryQueue(100, 1.5 * footprint([line]))
    queue.keep_lines = True
    queue.put_many(Batch([1], [line]))
    queue.fail(queue.get(), failure(), 0)
    assert queue.counters()["memory"] == len(line)
    with pytest.raises(QueueFull):
        queue.put_many(Batch([1], [line]))
    assert queue.get().event == "x" * SMALL
    assert queue.counters()["memory"] == 0
