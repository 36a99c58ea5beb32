from __future__ import annotations

import sqlite3
import threading
from typing import Any

import pytest

from daemonkit.events.durable import editor as editor_module
from daemonkit.events.durable.editor import Editor, Stored
from daemonkit.events.durable.rows import STRIDE
from daemonkit.events.durable.salvage import salvage
from daemonkit.events.durable.store import STATES, Store
from daemonkit.types import Origin

from .helpers import FAILED_AT, add, add_failed


def ids(editor: Editor, *states: str) -> list[int]:
    return [event.id for event in editor.events(states or STATES)]  # type: ignore[arg-type]


def test_events_are_listed_oldest_first_without_handled_ones(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0", b"1", b"2")
    store.mark_handled(1000, [0, 1])
    add_failed(store, 1001, None, b"1")
    add(store, 2000, b"[]")
    add_failed(store, 1500, 9e9)

    assert ids(editor) == [1001, 1002, 1500, 2000]
    assert ids(editor, "waiting") == [1002, 2000]
    assert ids(editor, "retrying") == [1500]
    assert ids(editor, "dead") == [1001]
    assert [editor.count([state]) for state in STATES] == [2, 1, 1]
    assert editor.count(STATES) == 4


def test_an_event_is_found_with_everything_known_about_it(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0", b"[1]", peers='["::1:5", "::1:6"]')
    add_failed(store, 1500, 9e9, b"{}")

    assert editor.find(1001) == Stored(1001, "waiting", 50.0, "http", Origin("::1:6"), b"[1]")
    assert editor.find(1500) == Stored(
        1500, "retrying", 50.0, "udp", Origin("::1"), b"{}", 3, 9e9, *FAILED_AT
    )
    assert editor.find(1002) is editor.find(999) is editor.find(2000) is None


def test_a_failed_event_that_was_edited_by_hand_is_shown(
    store: Store, editor: Editor, path: str
) -> None:
    add_failed(store, 1000, 9e9, b'{"a": 1}')
    store.db.execute(
        "UPDATE failed SET line = CAST(line AS TEXT), due = 'now', attempts = 'x', error = x'414243'"
    )
    shown = Stored(
        1000,
        "retrying",
        50.0,
        "udp",
        Origin("::1"),
        b'{"a": 1}',
        0,
        0.0,
        100.0,
        200.0,
        "ABC",
        FAILED_AT[3],
    )

    assert list(editor.events(STATES)) == [shown]
    assert list(salvage(path, pytest.fail)) == [shown]


def test_an_event_after_a_large_batch_is_found(store: Store, editor: Editor) -> None:
    add(store, 1000, b'"%s"' % (b"x" * editor_module.BYTES_AT_ONCE))
    add(store, 2000, b"0")
    found = editor.find(2000)

    assert found is not None
    assert found.line == b"0"
    assert ids(editor) == [1000, 2000]


@pytest.mark.parametrize(("at_once", "size"), [(1, 10**6), (2, 10**6), (3, 10**6), (100, 1)])
def test_each_event_is_listed_once_however_small_the_steps_are(
    store: Store, editor: Editor, monkeypatch: pytest.MonkeyPatch, at_once: int, size: int
) -> None:
    monkeypatch.setattr(editor_module, "AT_ONCE", at_once)
    monkeypatch.setattr(editor_module, "BYTES_AT_ONCE", size)
    expected = []
    for first in range(STRIDE, 6 * STRIDE, STRIDE):
        add(store, first, *[b"%d" % n for n in range(4)])
        store.mark_handled(first, [1, 3])
        add_failed(store, first + 1, None)
        add_failed(store, first + 3, 9e9)
        expected += [first, first + 1, first + 2, first + 3]

    assert ids(editor) == expected
    assert ids(editor, "waiting", "dead") == [id for id in expected if id % STRIDE != 3]


def test_slow_reading_does_not_block_the_file_and_leaves_out_later_events(
    store: Store, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editor_module, "AT_ONCE", 1)
    add(store, 1000, b"0")
    add(store, 2000, b"0")
    events = editor.events(STATES)
    next(events)
    add(store, 3000, b"0")

    # The log could not be restarted while there is a reader.
    assert store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert [event.id for event in events] == [2000]


def test_an_event_that_fails_meanwhile_is_listed_once(
    store: Store, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, 1000, b"0", b"1")
    failed = editor._failed

    def fail_meanwhile(*arguments: Any) -> Any:
        with store.transaction():
            store.mark_handled(1000, [0])
            add_failed(store, 1000, None)
        return failed(*arguments)

    monkeypatch.setattr(editor, "_failed", fail_meanwhile)

    assert ids(editor) == [1000, 1001]


def test_failed_events_are_retried_as_if_for_the_first_time(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0")
    add_failed(store, 1500, 9e9)
    add_failed(store, 1600, None)
    add_failed(store, 1700, None)

    assert editor.retry([1500, 1600, 1000, 7]) == {1500, 1600}
    for id in (1500, 1600):
        event = editor.find(id)
        assert event is not None
        assert event.due is not None
        assert event.due < 9e9
        assert event.attempts == 0
        assert event.first_failed == 100.0
    assert ids(editor, "dead") == [1700]


def test_all_dead_letters_are_retried_once(
    store: Store, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editor_module, "AT_ONCE", 2)
    for id in range(1000, 1005):
        add_failed(store, id, None)
    add_failed(store, 1500, 9e9)
    retry = editor._retry

    def retry_and_fail_at_once(ids: list[int]) -> None:
        retry(ids)
        editor._store.db.execute("UPDATE failed SET due = NULL WHERE attempts = 0")

    monkeypatch.setattr(editor, "_retry", retry_and_fail_at_once)

    assert editor.retry_all() == 5
    assert store.failed(1500)[1:3] == (9e9, 3)  # type: ignore[index]


def test_an_event_in_a_batch_is_dropped_and_the_batch_with_its_last(
    store: Store, editor: Editor
) -> None:
    add(store, 1000, b"0", b"1", b"2")
    store.mark_handled(1000, [1])

    assert editor.drop([1000, 1001, 1003, 2000, 5]) == {1000}
    assert store.handled_of(1000) == {0, 1}
    assert editor.drop([1000, 1002]) == {1002}
    assert store.batch(1000) is None
    assert store.db.execute("SELECT * FROM handled").fetchall() == []
    assert store.next_id() == 2000


def test_an_event_that_failed_is_dropped(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0", b"1")
    store.mark_handled(1000, [0])
    add_failed(store, 1000, None)

    assert editor.drop([1000]) == {1000}
    assert ids(editor) == [1001]


def test_all_of_some_states_are_dropped(
    store: Store, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editor_module, "AT_ONCE", 2)
    monkeypatch.setattr(editor_module, "BATCHES_AT_ONCE", 2)
    for id in range(1000, 6000, STRIDE):
        add(store, id, b"0", b"1", b"2")
        store.mark_handled(id, [0])
        add_failed(store, id, None if id < 4000 else 9e9)

    assert editor.drop_all(["dead"]) == 3
    assert ids(editor, "retrying") == [4000, 5000]
    assert editor.drop_all(["waiting"]) == 10
    assert store.db.execute("SELECT * FROM handled").fetchall() == []
    assert store.next_id() == 6000
    assert editor.drop_all(STATES) == 2
    assert ids(editor) == []
    assert editor.drop_all(STATES) == editor.count(STATES) == 0


def test_added_events_come_last(store: Store, editor: Editor) -> None:
    add(store, 1000, b"0")
    add_failed(store, 3002, None)
    editor.add([b"1", b"2"])

    assert ids(editor) == [1000, 3002, 4000, 4001]
    assert store.batch(4000)[1:2] + store.batch(4000)[3:] == (2, "app", None, b"1\n2")  # type: ignore[index]


def test_a_lock_is_waited_for(store: Store, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor_module, "BUSY_TIMEOUT", 0.01)
    editor = Editor(path)
    store.db.execute("BEGIN IMMEDIATE")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        editor.add([b"1"])
    threading.Timer(0.05, lambda: store.db.execute("COMMIT")).start()
    editor._store.db.execute("PRAGMA busy_timeout = 5000")
    editor.add([b"1"])
    assert editor.count(STATES) == 1
    editor.close()
