from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from daemonkit import StartError
from daemonkit.events.durable import database
from daemonkit.events.durable.database import MIGRATIONS, Broken, Database
from daemonkit.events.durable.editor import Editor
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.rows import StoredBatch
from daemonkit.events.durable.store import STATES, Store

from .helpers import LOGGER, Open, edit, filled


def test_a_commit_is_on_the_disk(path: str) -> None:
    store = Store(path, create=True, busy_timeout=1)

    assert store.value("PRAGMA journal_mode") == "wal"
    assert store.value("PRAGMA synchronous") == 2
    store.close()


def test_a_transaction_that_fails_changes_nothing(path: str) -> None:
    store = Store(path, create=True, busy_timeout=1)
    batch = StoredBatch(1000, 1, 1.0, "http", None, b"1")

    def add_twice() -> None:
        with store.transaction():
            store.add(batch)
            store.add(batch)

    with pytest.raises(sqlite3.IntegrityError):
        add_twice()
    assert store.count() == 0
    store.add(batch)
    store.close()


def test_the_database_of_another_program_is_left_alone(path: str) -> None:
    edit(path, "CREATE TABLE customers (name TEXT)")
    before = Path(path).read_bytes()

    with pytest.raises(StartError) as caught:
        DurableQueue(path, LOGGER)
    assert str(caught.value) == f"{path} is the database of another program, not an event queue"
    assert Path(path).read_bytes() == before


def test_a_newer_format_is_left_alone(path: str) -> None:
    filled(path)
    edit(path, "PRAGMA user_version = 7")

    with pytest.raises(
        StartError, match=r"has format 7, and this version of daemonkit supports up to 1;"
    ):
        DurableQueue(path, LOGGER)


def test_an_older_format_is_migrated_with_its_events(
    path: str,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    filled(path)
    caplog.set_level("INFO")
    step = "ALTER TABLE failed ADD COLUMN note TEXT;\nUPDATE last SET id = id + 5000;\n"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, step))
    queue = opened()

    assert queue._file.store.value("PRAGMA user_version") == 2
    assert queue._file.store.value("SELECT id FROM last") == 5000
    assert [queue.get().event for _ in range(3)] == [0, 1, 2]
    assert caplog.messages[0] == (f"Migrated the event queue {path} from format 1")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("missing/events.db", r"there is no folder .+/missing"),
        ("folder", "it is a folder"),
    ],
)
def test_a_path_where_no_file_can_be_is_an_error(tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / where)

    with pytest.raises(StartError, match=rf"^cannot open the event queue {path}: {message}$"):
        DurableQueue(path, LOGGER)


def test_a_path_without_write_permission_is_an_error(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda name, _: name == path)
    with pytest.raises(StartError, match="the folder .+ can't be written to$"):
        DurableQueue(path, LOGGER)
    Path(path).touch()
    monkeypatch.setattr(os, "access", lambda name, _: name != path)
    with pytest.raises(StartError, match="the file can't be read and written$"):
        DurableQueue(path, LOGGER)


def test_a_missing_file_is_created_only_on_request(path: str) -> None:
    with pytest.raises(StartError, match="there is no such file$"):
        Store(path, create=False, busy_timeout=1)
    assert not os.path.exists(path)


def test_a_locked_database_is_an_error(path: str) -> None:
    filled(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StartError, match="database is locked"):
        Store(path, create=False, busy_timeout=0.01)
    db.close()


def test_checking_a_large_file_ends_in_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 100_000)
    # The last page, which only an uninterrupted check reaches.
    with open(path, "r+b") as file:
        file.seek(-database.PAGE_SIZE, os.SEEK_END)
        file.write(b"\xa5" * database.PAGE_SIZE)
    with pytest.raises(Broken):
        Store(path, create=False, busy_timeout=1)
    monkeypatch.setattr(database, "CHECK_SECONDS", -1)
    monkeypatch.setattr(database, "CHECK_STEPS", 1)

    Store(path, create=False, busy_timeout=1).close()


def test_a_damaged_file_is_an_error_with_its_reason(path: str) -> None:
    Path(path).write_text("text" * 1000)

    with pytest.raises(Broken, match="file is not a database"):
        Store(path, create=False, busy_timeout=1)


def test_several_processes_may_add_to_a_new_file_at_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wal, gate = Store._use_wal, threading.Barrier(12)

    def use_wal_together(self: Store, until: float) -> None:
        use_wal(self, until)
        # All have seen a file without tables.
        gate.wait(10)

    def add_some() -> None:
        editor = Editor(path, create=True)
        for _ in range(5):
            editor.add([b"1", b"2"])
        editor.close()

    monkeypatch.setattr(Store, "_use_wal", use_wal_together)
    threads = [threading.Thread(target=add_some) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    editor = Editor(path)

    assert editor.count(STATES) == 120
    editor.close()


def test_a_file_that_another_process_is_creating_is_not_mistaken_for_a_foreign_one(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = Store.value

    def create_after_the_first_check(self: Store, statement: str, *arguments: Any) -> Any:
        found = value(self, statement, *arguments)
        monkeypatch.setattr(Store, "value", value)
        Store(path, create=False, busy_timeout=5).close()
        return found

    monkeypatch.setattr(Store, "value", create_after_the_first_check)
    editor = Editor(path, create=True)

    assert editor.count(STATES) == 0
    editor.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277, 0o777])
def test_the_files_of_a_queue_are_its_owner_s_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        opened = Database(str(tmp_path / "events.db"), create=True, busy_timeout=1)
        with opened.transaction():
            opened.db.execute("INSERT INTO last VALUES (1)")
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        opened.close()
    finally:
        os.umask(before)

    assert modes == dict.fromkeys(["events.db", "events.db-wal", "events.db-shm"], 0o600)
