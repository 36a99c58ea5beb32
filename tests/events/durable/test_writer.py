from __future__ import annotations

import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from daemonkit import QueueFull, Unavailable
from daemonkit.events.durable import queue as queue_module

from .helpers import FAILURE, BrokenDisk, Open, batch, edit, rows, take, until


def test_a_put_also_writes_the_acknowledgements(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "ACK_DELAY", 60.0)
    queue = opened(ack_batch=4)
    queue.put_many(batch(*range(3)))
    queue.done(take(queue, 3))
    queue.put_many(batch(3))

    assert [id for (id,) in rows(path, "SELECT id FROM batches")] == [2000]


def test_acknowledgements_without_a_sync_are_synced_soon(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(ack_batch=1)
    queue.put_many(batch(1))
    (entry,) = take(queue, 1)
    statements: list[str] = []
    queue._file.store.db.set_trace_callback(statements.append)
    queue.done([entry])
    assert statements[0] == "PRAGMA synchronous = NORMAL"
    assert statements[-2:] == ["COMMIT", "PRAGMA synchronous = FULL"]
    statements.clear()
    until(lambda: statements[-1:] == ["COMMIT"])

    assert statements[0].startswith("BEGIN")
    assert "UPDATE last" in "".join(statements)
    assert queue._file.store.value("PRAGMA synchronous") == 2


def test_a_failed_event_missing_from_its_batch_does_not_block_others(
    opened: Open, path: str
) -> None:
    queue = opened()
    queue.put_many(batch(1, 2))
    entries = take(queue, 2)
    edit(path, "UPDATE batches SET lines = x'31'")
    queue.fail(entries[1], FAILURE, None)
    queue.fail(entries[0], FAILURE, None)

    until(lambda: rows(path, "SELECT line FROM failed") == [(b"1",)])
    assert queue.problems() == []


@pytest.mark.parametrize("where", ["error", "traceback", "peer"])
def test_a_lone_surrogate_in_a_recorded_failure_is_escaped(
    opened: Open, path: str, where: str
) -> None:
    queue, text = opened(), "no \ud800"
    queue.put_many(batch(1, peers=[text]))
    failure = FAILURE._replace(**{where: text}) if where != "peer" else FAILURE
    queue.fail(queue.get(), failure, None)
    until(lambda: queue.counters()["dead"])

    assert queue.problems() == []
    assert rows(path, f"SELECT {where} FROM failed") == [("no \\ud800",)]


def test_a_failure_that_cannot_be_stored_does_not_block_others(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(1, 2, 3))
    entries = take(queue, 3)
    queue.fail(entries[0], FAILURE._replace(attempts=2**70), None)
    queue.fail(entries[1], FAILURE, None)
    queue.done(entries[2:])
    until(lambda: queue.counters()["dead"] == 2)

    assert rows(path, "SELECT * FROM batches") == []
    (first, second) = rows(path, "SELECT error, line FROM failed")
    assert first[0].startswith("(the error can't be stored: OverflowError: ")
    assert (first[1], second) == (b"1", ("ValueError: no", b"2"))
    assert queue.problems() == []


@pytest.mark.parametrize("error", [ValueError("no"), sqlite3.DataError("no"), OSError("no")])
def test_any_exception_in_a_save_is_a_problem_until_it_works(
    opened: Open, path: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened()
    queue.put_many(batch(1))
    failing = [True]
    real = queue._in_flight.write

    def write(newest: int, **options: Any) -> None:
        if failing:
            raise error
        real(newest, **options)

    monkeypatch.setattr(queue._in_flight, "write", write)
    queue.done(take(queue, 1))
    (problem,) = until(queue.problems)
    assert problem.text.startswith("the event queue's file can't be written: ")
    assert " no (" in problem.text
    failing.clear()
    until(lambda: queue.problems() == [])
    assert rows(path, "SELECT * FROM batches") == []


def test_events_are_refused_while_the_file_cannot_be_written(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level("INFO")
    changes: list[bool] = []
    queue = opened(changed=lambda: changes.append(True))
    disk = BrokenDisk(queue, monkeypatch)
    disk.error = "disk I/O error"
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            queue.put_many(batch(1))

    message = f"he event queue's file can't be written: disk I/O error ({path})"
    assert str(caught.value) == "T" + message
    assert len(queue) == 0
    assert [(p.text, p.tolerable) for p in queue.problems()] == [("t" + message, False)]
    disk.error = None
    queue.put_many(batch(1))
    assert queue.problems() == []
    assert len(changes) == 2
    assert caplog.messages == ["T" + message, "The event queue's file can be written again"]


def test_events_are_refused_while_the_disk_is_full(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level("INFO")
    queue = opened()
    message = f"he disk of the event queue is full ({path})"
    with monkeypatch.context() as patch:
        patch.setattr(queue._file, "ensure_reserve", bool)
        with pytest.raises(QueueFull, match=re.escape("T" + message)):
            queue.put_many(batch(1))
    assert [(p.text, p.tolerable) for p in queue.problems()] == [("t" + message, True)]
    queue.put_many(batch(1))

    assert queue.problems() == []
    assert caplog.messages == ["T" + message, "The disk of the event queue has space again"]


def test_events_acknowledged_after_a_disk_failure_need_nothing_written_before(
    opened: Open, monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    queue = opened()
    queue.put_many(batch(1))
    disk = BrokenDisk(queue, monkeypatch)
    disk.error = "disk I/O error"
    with pytest.raises(Unavailable):
        queue.put_many(batch(2))
    disk.error = None
    # A reader in another process keeps the log from being restarted.
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM batches").fetchall()
    with pytest.raises(Unavailable, match="can't be written: database is locked"):
        queue.put_many(batch(3))
    reader.close()
    queue.put_many(batch(4))
    alone = shutil.copy(path, tmp_path / "without-log.db")

    assert rows(str(alone), "SELECT lines FROM batches") == [(b"1",)]
    assert rows(path, "SELECT lines FROM batches") == [(b"1",), (b"4",)]


def test_the_first_results_saved_after_a_disk_failure_need_nothing_written_before(
    opened: Open, monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened()
    queue.put_many(batch(1, 2))
    disk = BrokenDisk(queue, monkeypatch)
    disk.error = "disk I/O error"
    queue.done(take(queue, 1))
    until(queue.problems)
    disk.error = None
    until(lambda: rows(path, "SELECT id FROM handled"))
    alone = shutil.copy(path, tmp_path / "without-log.db")

    assert rows(str(alone), "SELECT count FROM batches") == [(2,)]


def test_a_full_file_refuses_with_the_name_of_the_limit_and_removes_handled_events(
    opened: Open,
) -> None:
    queue = opened(disk=1024 * 1024)
    text = "x" * 10_000
    refusal = None
    while refusal is None:
        _, refusal = queue.put_some(batch(text))

    assert str(refusal) == "The event queue is full (queue_max_disk, 1048576 bytes)"
    assert queue.problems() == []
    assert 50 < len(queue) < 105
    entries = take(queue, len(queue))
    queue.done(entries)
    until(lambda: queue._in_flight.unsaved == 0)
    queue.put_many(batch(text))


def test_a_removed_or_replaced_file_refuses_events(
    opened: Open, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = opened()
    queue.put_many(batch(1))
    os.rename(path, path + ".old")
    with pytest.raises(Unavailable) as caught:
        queue.put_many(batch(2))

    message = f"{path} was removed: the event queue refuses events until a restart"
    assert str(caught.value) == message[0].upper() + message[1:]
    assert [problem.text for problem in queue.problems()] == [message]
    assert len(queue) == 1
    Path(path).touch()
    with pytest.raises(Unavailable):
        queue.put_many(batch(2))


@pytest.mark.usefixtures("checks_often")
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_removed_file_is_noticed_without_a_put(opened: Open, path: str, suffix: str) -> None:
    queue = opened()
    os.unlink(path + suffix)

    assert until(queue.problems)[0].text.startswith(f"{path}{suffix} was removed")


def test_a_bug_refuses_events_and_is_logged(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue = opened()
    monkeypatch.setattr(queue._backlog, "hand_over", lambda *_: 1 / 0)

    message = "The event queue's file can't be written: ZeroDivisionError: division by zero"
    with pytest.raises(Unavailable, match=f"^{message}"):
        queue.put_many(batch(1))
    record = caplog.records[0]
    assert record.getMessage().startswith(message)
    assert record.exc_info
    assert len(queue) == 0


def test_the_problem_of_a_failed_put_ends_without_another_put(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "AFTER_FAILURE", 0.02)
    queue = opened()
    disk = BrokenDisk(queue, monkeypatch)
    disk.error = "disk I/O error"
    with pytest.raises(Unavailable):
        queue.put_many(batch(1))
    assert queue.problems()
    disk.error = None
    until(lambda: queue.problems() == [])
