from __future__ import annotations

import pytest

from daemonkit import BatchTooLarge, QueueFull, Unavailable
from daemonkit.events.bounded import Bounded, daemon_stopping
from daemonkit.events.entry import Batch, Entry, Load
from daemonkit.events.waiting import QueueClosed, Waiting


@pytest.fixture
def waiting() -> Waiting:
    waiting = Waiting(lambda entry: entry)
    waiting.add([1, 2], 2)
    return waiting


def test_room_is_what_the_size_leaves(waiting: Waiting) -> None:
    queue = Bounded(5, waiting)
    assert (len(queue), queue.room().events) == (2, 3)
    queue.size = 1
    assert queue.room().events == 0
    queue.size = 3
    waiting.put_back(Entry(3), 3600)
    assert (len(queue), queue.room().events) == (3, 0)


def test_a_full_queue_names_its_size(waiting: Waiting) -> None:
    refusal = Bounded(2, waiting).refusal_of(Load(1))

    assert type(refusal) is QueueFull
    assert (str(refusal), refusal.retry_after) == ("The event queue is full (2 events)", 1)


def test_a_batch_that_can_never_fit_is_distinguished_from_a_full_queue(waiting: Waiting) -> None:
    refusal = Bounded(2, waiting).refusal_of(Load(3))

    assert type(refusal) is BatchTooLarge
    assert str(refusal) == "3 events at once are more than the queue holds (queue_size is 2)"


def test_a_closed_queue_has_no_room_and_is_not_full(waiting: Waiting) -> None:
    queue = Bounded(5, waiting)
    waiting.close(drain=True)
    refusal = queue.refusal_of(Load(1))

    assert queue.room().events == 0
    assert type(refusal) is Unavailable
    assert (str(refusal), refusal.retry_after) == ("The daemon is stopping", 5)
    assert str(daemon_stopping()) == str(refusal)


def test_as_many_events_fit_as_there_is_room_for(waiting: Waiting) -> None:
    queue = Bounded(4, waiting)
    fits, refusal = queue._room_for_some(Batch([1] * 3))

    assert queue._room_for_some(Batch([1] * 2)) == (2, None)
    assert (fits, str(refusal)) == (2, "The event queue is full (4 events)")
    # More than the queue could ever hold: the first of them still fit.
    assert type(queue._room_for_some(Batch([1] * 100))[1]) is QueueFull


def test_entries_are_taken_and_counted(waiting: Waiting) -> None:
    queue = Bounded(4, waiting)
    assert (queue.get(), queue.taken) == (1, 1)
    assert (queue.get_batch(2, 0), queue.taken) == ([2], 2)
    waiting.close(drain=True)

    with pytest.raises(QueueClosed):
        queue.get()
