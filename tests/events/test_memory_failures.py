from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from daemonkit.events import memory_failures
from daemonkit.events.entry import Batch, Entry, FailedAttempt
from daemonkit.events.failed import Changed, Selection
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.memory_failures import DEAD_LETTERS, LONGEST_EVENT
from daemonkit.types import EventMeta


def failure(attempts: int = 1, error: str = "ValueError: no") -> FailedAttempt:
    return FailedAttempt(error, "Traceback ...", attempts, 1_500_000_000.25, 1.5e9 + 1.5)


ALL_DEAD, ALL_RETRYING = Selection(), Selection(state="retrying")


def ids(queue: MemoryQueue, selection: Selection = ALL_DEAD, **options: Any) -> list[int]:
    page = queue.failed_events.page(
        selection,
        options.get("before"),
        options.get("limit", 100),
        whole=options.get("whole", True),
    )
    return [event.id for event in page.events]


def with_letters(*events: Any) -> MemoryQueue:
    queue = MemoryQueue(10)
    for number, event in enumerate(events, 1):
        queue.fail(Entry(event, id=number), failure(), None)
    return queue


def test_the_last_dead_letters_are_shown_with_what_is_known() -> None:
    queue = MemoryQueue(10)
    for number in range(DEAD_LETTERS + 5):
        assert queue.fail(Entry({"n": number}), failure(3), None)
    counters = queue.counters()

    assert counters["dead"] == DEAD_LETTERS + 5
    assert [letter["event"] for letter in counters["dead_letters"]] == [
        f'{{"n": {number}}}' for number in range(5, DEAD_LETTERS + 5)
    ]
    assert counters["dead_letters"][0] == {
        "id": 6,
        "event": '{"n": 5}',
        "error": "ValueError: no",
        "traceback": "Traceback ...",
        "attempts": 3,
        "first_failed": str(datetime.fromtimestamp(1_500_000_000.25)),
        "last_failed": str(datetime.fromtimestamp(1_500_000_001.5)),
    }
    assert queue.flush()


def test_a_dead_letter_is_shown_as_received() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry({}, line=b'{"a": 1}'), failure(), None)

    assert queue.counters()["dead_letters"][0]["event"] == '{"a": 1}'


def test_a_long_dead_letter_is_listed_cut_and_shown_whole() -> None:
    queue = MemoryQueue(10)
    line = b'"%s"' % (b"x" * 2 * LONGEST_EVENT)
    queue.fail(Entry(None, line=line), failure(), None)
    queue.fail(Entry("x" * 2 * LONGEST_EVENT), failure(), None)

    for id, letter in enumerate(queue.counters()["dead_letters"], 1):
        assert letter["event"] == '"' + "x" * (LONGEST_EVENT - 1) + "..."
        assert queue.failed_events.find(id).event == line.decode()


def test_the_dead_letters_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_failures, "MOST_WHOLE", 5 * LONGEST_EVENT + 100)
    queue = MemoryQueue(10)
    for size in (2, 2, 2, 9):
        queue.fail(Entry(None, line=b"x" * size * LONGEST_EVENT), failure(), None)
        letters = [queue.failed_events.find(id) for id in range(1, queue.counters()["dead"] + 1)]
        sizes = [len(letter.event) // LONGEST_EVENT for letter in letters if letter]
        assert sizes in ([2], [2, 2], [1, 2, 2], [1, 1, 1, 1])


def test_failed_events_are_listed_newest_first_in_pages() -> None:
    queue = with_letters(*"abcd")
    page = queue.failed_events.page(ALL_DEAD, 4, 2, whole=True)

    assert ([event.id for event in page.events], page.total) == ([3, 2], 4)
    assert (page.events[0].event, page.events[0].state) == ('"c"', "dead")


def test_they_are_selected_by_their_error_or_only_by_its_type() -> None:
    queue = MemoryQueue(10)
    for number, error in enumerate(("ValueError: secret", "TimeoutError: no", "OSError"), 1):
        queue.fail(Entry(1, id=number), failure(error=error), None)

    def found(text: str, whole: bool) -> list[int]:
        return ids(queue, Selection(error=text), whole=whole)

    assert [found("SECRET", True), found("secret", False)] == [[1], []]
    assert [found("error", False), found("timeout", True)] == [[3, 2, 1], [2]]


def test_an_event_to_be_retried_is_listed_until_its_retry_begins() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry({}, id=5, line=b'{"a": 1}'), failure(), 0.0)
    (event,) = queue.failed_events.page(ALL_RETRYING, None, 10, whole=True).events
    entry = queue.get()

    assert (event.id, event.event, event.state) == (5, '{"a": 1}', "retrying")
    assert event.due is not None
    assert (entry.id, entry.event, entry.attempt) == (5, {"a": 1}, 2)
    assert ids(queue, ALL_RETRYING) == []
    assert queue.failed_events.retry(ALL_RETRYING).number == 0


def test_a_dead_letter_is_retried_as_if_never_attempted() -> None:
    queue, now = MemoryQueue(10), datetime.now(timezone.utc)
    meta = EventMeta("http", "peer", now, 3, "shop")
    queue.fail(Entry({}, meta, 5, 3, b'{"a": 1}'), failure(3), None)
    changed = queue.failed_events.retry(Selection((5, 6)))
    counters = queue.counters()
    entry = queue.get()

    assert (changed, counters["waiting"], counters["retrying"]) == (Changed(1, (6,)), 1, 1)
    assert counters["retried"] == 0, "it counts those that were planned"
    assert (entry.event, entry.attempt, entry.meta) == ({"a": 1}, 1, meta.of_attempt(1))
    assert ids(queue) == []
    assert queue.fail(entry, failure(), None)
    assert ids(queue) == [5]


def test_a_retry_that_waits_is_made_now_and_once() -> None:
    queue = MemoryQueue(10)
    queue.fail(Entry("a", id=1), failure(), 3600)
    queue.fail(Entry("b", id=2), failure(), 3600)

    assert queue.failed_events.retry(Selection((2,))).number == 1
    assert queue.get().event == "b"
    assert (len(queue), ids(queue, ALL_RETRYING)) == (1, [1])


def test_what_was_dropped_is_neither_listed_nor_retried() -> None:
    queue = with_letters("a", "b")
    queue.fail(Entry("c", id=3, line=b'"c"'), failure(), 3600)

    assert queue.failed_events.drop(Selection((1, 3))).number == 2
    assert (ids(queue), len(queue), queue._failures.memory) == ([2], 0, 0)
    assert queue.failed_events.drop(ALL_DEAD).number == 1
    assert queue.counters()["dead"] == 2, "it counts all there were"


def test_an_event_of_which_only_the_beginning_is_kept_can_t_be_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_failures, "MOST_WHOLE", LONGEST_EVENT)
    queue = with_letters("x" * 2 * LONGEST_EVENT)

    assert queue.failed_events.retry(Selection((1, 2))) == Changed(0, (2,), (1,))
    assert queue.failed_events.retry(ALL_DEAD) == Changed(0, cut=(1,))
    assert queue.failed_events.drop(ALL_DEAD) == Changed(1)


def test_a_retried_event_needs_no_room() -> None:
    """Whoever sent it was told that it was accepted."""
    queue = with_letters("a")
    queue.size = 1
    queue.put_many(Batch([1]))

    assert queue.failed_events.retry(ALL_DEAD).number == 1
    assert len(queue) == 2


def test_a_retried_event_is_what_json_makes_of_it() -> None:
    queue = with_letters("\ud800", {"a": (1, 2)})

    assert queue.failed_events.retry(ALL_DEAD).number == 2
    assert [queue.get().event, queue.get().event] == ["\ud800", {"a": [1, 2]}]


def test_what_is_no_json_any_more_can_t_be_retried() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    queue = with_letters(float("nan"), {"now": object()}, cycle, "good")

    assert queue.failed_events.retry(ALL_DEAD).number == 1
    assert queue.get().event == "good"
    assert ids(queue) == [3, 2, 1]


def test_a_dead_letter_keeps_its_text_only() -> None:
    """The event itself may use twenty times as much memory."""
    queue = with_letters([[] for _ in range(1000)])
    (kept,) = queue._failures._dead.values()

    assert kept.entry.event is None
    assert kept.text == json.dumps([[]] * 1000)


def test_many_are_retried_and_dropped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_failures, "AT_ONCE", 3)
    queue = MemoryQueue(100)
    for number in range(1, 11):
        queue.fail(Entry(number, id=number), failure(), 3600)
    retried = queue.failed_events.retry(ALL_RETRYING)
    first = [queue.get().event for _ in range(4)]

    assert (retried, sorted(first)) == (Changed(10), [1, 2, 3, 4])
    assert queue.failed_events.drop(ALL_RETRYING).number == 6
    assert len(queue) == 0
