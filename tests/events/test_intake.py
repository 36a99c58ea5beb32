from __future__ import annotations

import json
import threading
from itertools import chain
from typing import Any

import pytest

from daemonkit import BatchTooLarge, InvalidEvent, QueueFull, Unavailable
from daemonkit.events.codec import Decoded
from daemonkit.events.entry import Batch, Entry
from daemonkit.events.footprint import SMALL, footprint
from daemonkit.events.intake import Intake
from daemonkit.events.memory import MemoryQueue
from daemonkit.types import Origin


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(2)


def decoded(*events: Any) -> Decoded:
    return Decoded(list(events), [json.dumps(event).encode() for event in events])


def requests(*batches: list[Any]) -> tuple[Decoded, list[int]]:
    return decoded(*chain(*batches)), list(map(len, batches))


def put_each(intake: Intake, *arguments: Any) -> Any:
    """The refusals, which a queue in memory knows at once."""
    found: list[Any] = []
    intake.put_each(*arguments, found.append)
    (refusals,) = found
    return refusals


@pytest.fixture
def intake(queue: MemoryQueue) -> Intake:
    return Intake(queue, 2**20)


def test_an_event_has_meta_only_if_the_handler_takes_it(intake: Intake, queue: MemoryQueue) -> None:
    queue.with_meta = True
    intake.put_many(decoded({"a": 1}), "udp", Origin("[::1]:9"))
    queue.with_meta = False
    intake.put_many(decoded(None), "app")
    tagged = queue.get()

    assert isinstance(tagged, Entry)
    assert (tagged.meta.source, tagged.meta.peer, tagged.meta.attempt) == ("udp", "[::1]:9", 1)
    assert tagged.meta.received.tzinfo is not None
    assert queue.get() is None


def test_received_and_refused_events_are_counted(intake: Intake) -> None:
    intake.put_many(decoded(1, 2), "http")
    with pytest.raises(QueueFull):
        intake.put_many(decoded(3), "http")

    assert intake.counters() == {"received": 2, "refused": 1}


def test_of_several_events_those_that_find_room_are_accepted(
    intake: Intake, queue: MemoryQueue
) -> None:
    queue.with_meta = True
    count, refusal = intake.put_some(
        decoded(1, 2, 3), "udp", lambda: list(map(Origin, ["a:1", "b:2", "c:3"]))
    )

    assert count == 2
    assert str(refusal) == "The event queue is full (2 events)"
    assert intake.counters() == {"received": 2, "refused": 1}
    assert [(e.event, e.meta.source, e.meta.peer) for e in (queue.get(), queue.get())] == [
        (1, "udp", "a:1"),
        (2, "udp", "b:2"),
    ]


def test_each_request_is_queued_whole_or_not_at_all(intake: Intake, queue: MemoryQueue) -> None:
    queue.with_meta = True
    refusals = put_each(
        intake,
        *requests([1], [2, 3], [4, 5, 6], [7]),
        "http",
        lambda: list(map(Origin, ["a:1", "b:2", "c:3", "d:4"])),
    )

    assert [str(refusal) for refusal in refusals] == [
        "None",
        "The event queue is full (2 events)",
        "3 events at once are more than the queue holds (queue_size is 2)",
        "None",
    ]
    assert intake.counters() == {"received": 2, "refused": 5}
    assert [(e.event, e.meta.peer) for e in (queue.get(), queue.get())] == [(1, "a:1"), (7, "d:4")]


def test_batches_that_fit_are_queued_together(intake: Intake, queue: MemoryQueue) -> None:
    assert put_each(intake, *requests([1], [2]), "http", lambda: pytest.fail("asked")) == [
        None,
        None,
    ]
    assert intake.counters() == {"received": 2, "refused": 0}
    assert (queue.get(), queue.get()) == (1, 2)


def test_requests_refused_by_the_disk_are_not_retried_one_by_one(
    intake: Intake, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def refuse(batch: Batch) -> None:
        tried.append(len(batch.events))
        raise Unavailable("The disk is away")

    monkeypatch.setattr(queue, "put_many", refuse)
    refusals = put_each(intake, *requests([1], [2]), "http", list)

    assert [str(refusal) for refusal in refusals] == ["The disk is away"] * 2
    assert tried == [2]
    assert intake.counters() == {"received": 0, "refused": 2}


def test_events_without_room_on_the_disk_are_refused_together(
    intake: Intake, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def refuse(batch: Batch) -> None:
        tried.append(len(batch.events))
        raise QueueFull("The disk is full")

    monkeypatch.setattr(queue, "put_many", refuse)
    refusals = put_each(intake, *requests([1], [2, 3, 4], [5]), "http", list)

    assert [str(refusal)[:20] for refusal in refusals] == [
        "The disk is full",
        "3 events at once are",
        "The disk is full",
    ]
    assert tried == [5, 2]
    assert intake.counters() == {"received": 0, "refused": 5}


def test_requests_are_refused_once_a_queue_on_another_machine_has_answered(
    intake: Intake, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    found: list[Any] = []
    monkeypatch.setattr(queue, "put_later", lambda *arguments: asked.append(arguments))
    intake.put_each(*requests([1], [2, 3, 4]), "http", list, found.append)
    (batch, answer) = asked.pop()
    assert (batch.lines, found) == ([b"1", b"2", b"3", b"4"], [])

    answer(QueueFull("full there"))
    (batch, answer) = asked.pop()
    assert (batch.lines, found) == ([b"1"], [])

    answer(None)
    assert [str(refusal)[:20] for refusal in found.pop()] == ["None", "3 events at once are"]
    assert intake.details()["sources"] == {"http": 1}
    assert intake.details()["refusals"] == {"too_large": 3}


def test_a_closed_intake_accepts_no_batch(intake: Intake) -> None:
    intake.close()
    refusals = put_each(
        intake, *requests([1], [2, 3]), "http", lambda: list(map(Origin, ["a:1", "b:2"]))
    )

    assert [str(refusal) for refusal in refusals] == ["The daemon is stopping"] * 2
    assert intake.counters() == {"received": 0, "refused": 3}


def test_senders_are_looked_up_only_if_the_handler_takes_meta(
    intake: Intake, queue: MemoryQueue
) -> None:
    assert intake.put_some(decoded(1), "udp", lambda: pytest.fail("asked")) == (1, None)
    assert queue.get() == 1


def test_a_closed_intake_accepts_none_of_several(intake: Intake) -> None:
    intake.close()
    count, refusal = intake.put_some(
        decoded(1, 2), "udp", lambda: list(map(Origin, ["a:1", "b:2"]))
    )

    assert count == 0
    assert str(refusal) == "The daemon is stopping"
    assert intake.counters() == {"received": 0, "refused": 2}


def test_while_starting_only_the_starting_thread_may_queue(intake: Intake) -> None:
    def start() -> None:
        intake.hold()
        intake.put_many(decoded(1), "app")

    starting = threading.Thread(target=start)
    starting.start()
    starting.join()

    for source in ("http", "app"):
        with pytest.raises(Unavailable, match="^The daemon is starting$") as caught:
            intake.put_many(decoded(2), source)  # type: ignore[arg-type]
        assert (type(caught.value), caught.value.retry_after) == (Unavailable, 1)
    intake.open()
    intake.put_many(decoded(2), "http")
    assert intake.counters()["received"] == 2


def test_a_closed_intake_stays_closed(intake: Intake) -> None:
    intake.close()
    intake.open()

    for source in ("http", "udp", "app"):
        with pytest.raises(Unavailable, match="^The daemon is stopping$") as caught:
            intake.put_many(decoded(1), source)  # type: ignore[arg-type]
        assert (type(caught.value), caught.value.retry_after) == (Unavailable, 5)


def test_a_closed_intake_refuses_the_starting_thread_too(intake: Intake) -> None:
    intake.hold()
    intake.close()

    with pytest.raises(Unavailable, match="^The daemon is stopping$"):
        intake.put_many(decoded(1), "app")


def test_another_queue_can_be_used(intake: Intake, queue: MemoryQueue) -> None:
    other = MemoryQueue(2)
    intake.use(other)
    intake.put_many(decoded(1), "app")

    assert (len(queue), len(other)) == (0, 1)


def test_a_batch_that_the_queue_could_never_hold_is_not_decoded(
    intake: Intake, queue: MemoryQueue
) -> None:
    queue.size = 2
    with pytest.raises(BatchTooLarge, match="^3 events at once are more"):
        intake.decode_lines(b"not\nJSON\n\n\nat all\n")
    assert intake.counters()["refused"] == 3
    assert intake.decode_lines(b"\n1\n \n2\n").events == [1, 2]


def test_each_request_is_refused_that_finds_no_memory(intake: Intake, queue: MemoryQueue) -> None:
    large = "x" * SMALL
    (line,) = decoded(large).lines
    queue.size, queue.memory_limit = 100, 2.5 * footprint([line])
    events, counts = requests([large], [large, large], [large], [1])
    refusals = put_each(intake, events, counts, "http", list)

    assert [type(refusal) for refusal in refusals] == [
        type(None),
        QueueFull,
        type(None),
        type(None),
    ]
    assert intake.counters() == {"received": 3, "refused": 2}


def test_events_are_counted_by_source_and_refusals_by_reason(queue: MemoryQueue) -> None:
    intake = Intake(queue, 20)
    queue.size = 4
    intake.put_value(1)
    intake.put_many(decoded(2), "http")
    put_each(intake, *requests([3], [4, 5, 6]), "http", list)
    intake.put_some(decoded(7, 8), "udp", list)
    for refused in (
        lambda: intake.put_value(object()),
        lambda: intake.put_value("x" * 20),
        lambda: intake.decode_one(b"{"),
        lambda: intake.decode_lines(b"1\n{"),
        lambda: intake.decode_lines(b"1\n2\n3\n4\n5\n6"),
    ):
        with pytest.raises((InvalidEvent, BatchTooLarge)):
            refused()
    intake.close()
    with pytest.raises(Unavailable):
        intake.put_value(1)

    assert intake.details() == {
        "sources": {"app": 1, "http": 2, "udp": 1},
        "refusals": {"full": 4, "invalid": 3, "too_large": 7, "unavailable": 1},
    }
