from __future__ import annotations

import threading

import pytest

from daemonkit import QueueFull
from daemonkit.events.intake import Intake, Tagged
from daemonkit.events.memory import MemoryQueue


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(2)


@pytest.fixture
def intake(queue: MemoryQueue) -> Intake:
    return Intake(queue)


def test_an_event_carries_its_circumstances_only_when_wanted(
    intake: Intake, queue: MemoryQueue
) -> None:
    intake.put({"a": 1}, "udp", "[::1]:9")
    intake.with_meta = False
    intake.put(None, "app")
    tagged = queue.get()

    assert isinstance(tagged, Tagged)
    assert (tagged.meta.source, tagged.meta.peer, tagged.meta.attempt) == ("udp", "[::1]:9", 1)
    assert tagged.meta.received.tzinfo is not None
    assert queue.get() is None


def test_received_and_refused_events_are_counted(intake: Intake) -> None:
    intake.put_many([1, 2], "http")
    with pytest.raises(QueueFull):
        intake.put(3, "http")

    assert intake.counters() == {"received": 2, "refused": 1}


def test_while_starting_only_the_starting_thread_may_queue(intake: Intake) -> None:
    holder = threading.Thread(target=lambda: (intake.hold(), intake.put(1, "app")))
    holder.start()
    holder.join()

    for source in ("http", "app"):
        with pytest.raises(QueueFull, match="^The daemon is starting$"):
            intake.put(2, source)  # type: ignore[arg-type]
    intake.open()
    intake.put(2, "http")
    assert intake.counters()["received"] == 2


def test_a_closed_intake_refuses_everyone_for_good(intake: Intake) -> None:
    intake.close()
    intake.open()

    for source in ("http", "udp", "app"):
        with pytest.raises(QueueFull, match="^The daemon is stopping$") as caught:
            intake.put(1, source)  # type: ignore[arg-type]
        assert caught.value.retry_after == 5
