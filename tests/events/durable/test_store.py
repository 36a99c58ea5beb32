from __future__ import annotations

import pytest

from daemonkit.events.durable.editor import Editor
from daemonkit.events.durable.rows import STRIDE, StoredBatch, StoredFailure
from daemonkit.events.durable.store import MAX_ID, STATES, Store

from .helpers import add


def test_handled_events_of_a_batch_are_not_counted(path: str) -> None:
    store = Store(path, create=True, busy_timeout=1)
    store.add(StoredBatch(1000, 5, 1.0, "http", None, b"1\n2\n3\n4\n5"))
    store.add(StoredBatch(2000, 1, 1.0, "http", None, b"6"))
    store.mark_handled(1000, [0, 2, 3])

    assert store.count() == 3
    assert store.count(1000) == 1
    assert store.next_id() == 3000
    store.close()


def test_marks_of_a_daemon_do_not_bring_back_dropped_events(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0", b"1", b"2")
    editor.drop([1002])
    store.mark_handled(1000, [0])
    assert store.handled_of(1000) == {0, 2}
    store.mark_handled(1000, [0, 1])
    assert store.batch(1000) is None

    add(store, 2000, b"0", b"1")
    editor.drop([2000, 2001])
    store.mark_handled(2000, [0])
    assert store.db.execute("SELECT * FROM handled").fetchall() == []
    assert store.count() == 0


def test_marks_of_a_missing_batch_are_ignored(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0", b"1")
    store.mark_handled(1000, [0])
    store.remove([1000])

    assert store.count() == editor.count(STATES) == 0


def test_a_row_is_read_as_it_was_written(store: Store) -> None:
    waiting = StoredBatch(1000, 2, 1.5, "udp", '["a:1", null]', b"1\n2")
    failed = StoredFailure(2000, None, 3, 1.5, "http", "a:1", 2.5, 3.5, "no", "Traceback", b"[]")
    store.add(waiting)
    store.put_failed(failed)
    store.put_failed(failed._replace(id=3000, due=9.5, peer=None))

    assert list(store.batches()) == [waiting]
    assert store.batch(1000) == waiting
    assert store.failed(2000) == failed
    assert list(store.failures(-1, MAX_ID, ["retrying"])) == [
        failed._replace(id=3000, due=9.5, peer=None)
    ]
    assert store.due() == [(3000, 9.5, 6.0)]
    assert store.batch(2000) is store.failed(1000) is None


def test_ids_continue_after_the_newest_batch_is_removed(store: Store) -> None:
    add(store, 1000, b"1")
    add(store, 2000, b"2")
    store.remove([1000], with_newest=False)
    assert store.value("SELECT id FROM last") == 0
    store.remove([2000])

    assert store.newest() == -1
    assert store.next_id() == 3000


@pytest.mark.parametrize("count", [3, 20])
def test_few_and_many_batches_are_removed(store: Store, count: int) -> None:
    for n in range(1, count + 2):
        add(store, n * STRIDE, b"1")
    store.remove([n * STRIDE for n in range(1, count + 1)])

    assert store.ids(MAX_ID) == {(count + 1) * STRIDE}


def test_a_snapshot_does_not_change_meanwhile(store: Store, editor: Editor) -> None:
    with store.snapshot():
        assert store.count() == 0
        editor.add([b"1"])
        assert store.count() == 0

    assert store.count() == 1
