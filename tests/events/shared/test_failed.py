from __future__ import annotations

import pytest

from daemonkit import Unavailable
from daemonkit.events.failed import Changed, Selection

from ...engines import Engine
from .conftest import Node, wait_until


def fail(event: object) -> None:
    raise {"v": ValueError, "k": KeyError}[str(event)[0]](f"of {event}")


@pytest.fixture
def failing(node: Node) -> Node:
    """A node with five dead letters."""
    node.handle(fail)
    node.put("v1", "k2", "v3", "k4", "v5")
    wait_until(lambda: node.queue.counters()["dead_now"] == 5)
    return node


def test_failed_events_are_listed_in_pages_the_newest_first(failing: Node) -> None:
    events = failing.queue.failed_events
    first = events.page(Selection(), None, 2, whole=True)
    second = events.page(Selection(), first.events[-1].id, 9, whole=True)

    assert (first.total, second.total) == (5, 5)
    assert [e.event for e in first.events + second.events] == [
        *('"v5"', '"k4"', '"v3"', '"k2"', '"v1"')
    ]
    newest = first.events[0]
    assert (newest.state, newest.attempts, newest.error) == ("dead", 2, "ValueError: of v5")
    assert newest.traceback == "the traceback"
    assert newest.received is not None
    assert newest.received <= newest.first_failed + 1
    assert newest.first_failed < newest.last_failed


def test_failed_events_are_found_by_their_error(failing: Node) -> None:
    events = failing.queue.failed_events

    assert events.page(Selection(error="keyerror"), None, 9, whole=False).total == 2
    assert events.page(Selection(error="OF V"), None, 9, whole=True).total == 3
    assert events.page(Selection(error="of v"), None, 9, whole=False).total == 0
    page = events.page(Selection(error="of v"), None, 1, whole=True)
    assert (len(page.events), page.total) == (1, 3)
    assert events.page(Selection(state="retrying"), None, 9, whole=True).total == 0


def test_one_is_found_by_its_id(failing: Node) -> None:
    events = failing.queue.failed_events
    id = events.page(Selection(), None, 1, whole=True).events[0].id
    found = events.find(id)

    assert found is not None
    assert found.event == '"v5"'
    assert events.find(12345) is None


def test_failed_events_are_retried_or_dropped(failing: Node) -> None:
    events = failing.queue.failed_events
    ids = [e.id for e in events.page(Selection(), None, 9, whole=True).events]

    assert events.drop(Selection((ids[0], 5, ids[0]))) == Changed(1, (5,))
    assert events.retry(Selection((ids[1], 6))) == Changed(1, (6,))
    wait_until(lambda: failing.queue.counters()["dead"] == 6)
    assert events.drop(Selection(error="keyerror")) == Changed(2)
    assert events.retry(Selection()) == Changed(2)
    wait_until(lambda: failing.queue.counters()["dead"] == 8)
    assert events.drop(Selection()) == Changed(2)
    wait_until(lambda: failing.queue.counters()["dead_now"] == 0)
    assert len(failing.queue) == 0


def test_without_the_engine_they_are_unavailable(own_engine: Engine) -> None:
    node = Node(own_engine.address()).start()
    try:
        own_engine.kill()
        for call in (
            lambda: node.queue.failed_events.find(1),
            lambda: node.queue.failed_events.page(Selection(), None, 1, whole=True),
            lambda: node.queue.failed_events.retry(Selection()),
            lambda: node.queue.failed_events.drop(Selection((1,))),
        ):
            with pytest.raises(Unavailable, match="can't be used now: Connection"):
                call()
    finally:
        node.close()
