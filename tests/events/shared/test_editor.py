from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from daemonkit import StartError
from daemonkit.events.durable.store import STATES
from daemonkit.events.shared.editor import SharedEditor

from ...engines import Engine
from .conftest import NodeMaker, wait_until


@pytest.fixture
def editor(engine: Engine) -> Iterator[SharedEditor]:
    """An editor of a queue with 2,501 waiting events and none that failed."""
    editor = SharedEditor(f"{engine.address()}?name=app", create=True)
    for first in (0, 1000, 2000):
        editor.add([b"%d" % n for n in range(first, first + 1000) if n <= 2500])
    yield editor
    editor.close()


def test_events_are_listed_counted_and_found(editor: SharedEditor) -> None:
    found = list(editor.events(STATES))

    assert [event.line for event in found] == [b"%d" % n for n in range(2501)]
    assert {event.state for event in found} == {"waiting"}
    assert editor.count(STATES) == editor.count(["waiting"]) == 2501
    assert editor.count(["dead"]) == 0
    assert editor.find(found[1700].id) == found[1700]
    assert editor.find(found[2500].id + 1) is None
    assert editor.find(1) is None


def test_events_are_listed_in_the_order_of_their_ids_whatever_their_state(
    editor: SharedEditor, make_node: NodeMaker
) -> None:
    node = make_node()

    def fail_some(event: int) -> None:
        if event % 10 == 0:
            raise ValueError(event)

    node.handle(fail_some)
    wait_until(lambda: node.queue.counters()["dead_now"] == 251)
    wait_until(lambda: not len(node.queue))
    node.close()
    editor.add([b"9001", b"9002"])
    dead = list(editor.events(["dead"]))
    every = list(editor.events(STATES))

    assert [event.line for event in dead] == [b"%d" % n for n in range(0, 2501, 10)]
    assert [event.id for event in every] == sorted(event.id for event in every)
    assert len(every) == 253
    assert editor.count(STATES) == 253
    assert editor.find(dead[3].id) == dead[3]
    assert editor.retry([dead[0].id, 17]) == {dead[0].id}
    assert editor.count(["retrying"]) == 1
    assert [event.state for event in editor.events(["retrying"])] == ["retrying"]
    assert editor.retry_all() == 250
    assert editor.drop([dead[0].id, every[-1].id, 17]) == {dead[0].id, every[-1].id}
    assert editor.drop_all(["retrying"]) == 250
    assert [event.line for event in editor.events(STATES)] == [b"9001"]


def test_waiting_events_are_dropped_one_by_one_or_all(
    editor: SharedEditor, make_node: NodeMaker, client: redis.Redis
) -> None:
    found = list(editor.events(STATES))
    ids = [event.id for event in found]

    assert editor.drop(ids[10:2400]) == set(ids[10:2400])
    assert editor.count(STATES) == 111
    assert [e.id for e in editor.events(STATES)] == ids[:10] + ids[2400:]
    node = make_node()
    node.handle()
    wait_until(lambda: len(node.handled) == 111)
    node.close()
    editor.add([b"1"] * 7)
    assert editor.drop_all(STATES) == 7
    assert client.xlen("{daemonkit:app}:stream") == 0
    assert client.hlen("{daemonkit:app}:handled") == 0


def test_the_only_queue_needs_no_name(editor: SharedEditor, engine: Engine) -> None:
    other = SharedEditor(engine.address())
    assert other.count(STATES) == 2501
    other.close()


def test_several_queues_need_one(editor: SharedEditor, engine: Engine) -> None:
    SharedEditor(f"{engine.address()}?name=b%7D", create=True).close()
    with pytest.raises(StartError, match=r"several event queues in .* \(app, b}\); name one: "):
        SharedEditor(engine.address())


@pytest.mark.parametrize("query", ["", "?name=other"])
def test_a_missing_queue_is_an_error(engine: Engine, query: str) -> None:
    with pytest.raises(StartError, match="there is no event queue"):
        SharedEditor(engine.address() + query)


def test_a_newer_layout_is_an_error(editor: SharedEditor, engine: Engine) -> None:
    with engine.client() as client:
        client.set("{daemonkit:app}:layout", 5)
    with pytest.raises(StartError, match="has layout 5, made by a newer daemonkit"):
        SharedEditor(engine.address())


def test_an_engine_that_is_away_is_an_error(own_engine: Engine) -> None:
    editor = SharedEditor(f"{own_engine.address()}?name=app", create=True)
    own_engine.kill()
    with pytest.raises(StartError, match=r"the event queue redis://\S+ can't be used: "):
        editor.count(STATES)
    editor.close()
