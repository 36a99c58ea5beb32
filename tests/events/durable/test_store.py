from __future__ import annotations

import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemonkit import StartError
from daemonkit.events.durable import database
from daemonkit.events.durable.database import MIGRATIONS, Broken
from daemonkit.events.durable.file import Location
from daemonkit.events.durable.lock import FileLock
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.reserve import Reserve
from daemonkit.events.durable.rows import StoredBatch, ranges_of
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Batch

LOGGER = logging.getLogger("test")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


@pytest.fixture
def spool(path: str) -> Iterator[Callable[[], DurableQueue]]:
    opened: list[DurableQueue] = []

    def open_it() -> DurableQueue:
        opened.append(DurableQueue(path, LOGGER))
        return opened[-1]

    yield open_it
    for queue in opened:
        close(queue)


def close(queue: DurableQueue) -> None:
    queue.request_stop()
    assert queue.join(10)


def filled(path: str, events: int = 3) -> None:
    """A file with events, closed."""
    queue = DurableQueue(path, LOGGER)
    queue.put_many(Batch(range(events), [b"%d" % n for n in range(events)]))
    close(queue)


def test_a_commit_is_on_the_disk(path: str) -> None:
    store = Store(path, create=True, patience=1)

    assert store.value("PRAGMA journal_mode") == "wal"
    assert store.value("PRAGMA synchronous") == 2
    store.close()


@pytest.mark.parametrize(
    ("numbers", "ranges"),
    [([], []), ([3], [(3, 3)]), ([5, 1, 2, 0, 7, 8], [(0, 2), (5, 5), (7, 8)])],
)
def test_numbers_become_ranges(numbers: list[int], ranges: list[tuple[int, int]]) -> None:
    assert ranges_of(numbers) == ranges


def test_what_is_handled_of_a_batch_is_not_counted(path: str) -> None:
    store = Store(path, create=True, patience=1)
    store.add(StoredBatch(1000, 5, 1.0, "http", None, b"1\n2\n3\n4\n5"))
    store.add(StoredBatch(2000, 1, 1.0, "http", None, b"6"))
    store.mark_handled(1000, [0, 2, 3])

    assert store.count() == 3
    assert store.count(1000) == 1
    assert store.next_id() == 3000
    store.close()


def test_a_transaction_that_fails_changes_nothing(path: str) -> None:
    store = Store(path, create=True, patience=1)
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


# Files that are not what they should be


@pytest.mark.parametrize("content", [b"not a database, but quite long a text" * 200, b"\0" * 9000])
def test_what_is_no_database_is_moved_aside_and_told(
    path: str, content: bytes, spool: Callable[[], DurableQueue], caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).write_bytes(content)
    queue = spool()

    (message,) = caplog.messages
    aside = re.fullmatch(
        rf"The event queue {path} can't be read \(.+\): moved it to "
        rf"({path}\.broken-\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d) and started an empty one",
        message,
    )
    assert aside, message
    assert Path(aside[1]).read_bytes() == content
    queue.put_many(Batch([1], [b"1"]))


def test_two_that_are_moved_aside_in_one_second_are_both_kept(
    path: str, spool: Callable[[], DurableQueue]
) -> None:
    for text in ("first", "second", "third"):
        Path(path).write_text(text * 1000)
        close(spool())
        os.unlink(path)

    kept = [file.read_text()[:5] for file in Path(path).parent.glob("events.db.broken-*")]
    assert sorted(kept) == ["first", "secon", "third"]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_torn_database_is_moved_aside(
    path: str, damage: str, spool: Callable[[], DurableQueue], caplog: pytest.LogCaptureFixture
) -> None:
    filled(path, 50_000)
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if damage == "cut":
            file.truncate(size // 2)
        else:
            file.seek(4096)
            file.write(b"\xa5" * (size // 2))
    queue = spool()

    assert "can't be read" in caplog.text
    assert len(queue) == 0


def test_an_empty_file_is_an_empty_queue(
    path: str, spool: Callable[[], DurableQueue], caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).touch()

    assert len(spool()) == 0
    assert caplog.messages == []


def test_the_database_of_another_program_is_left_alone(path: str) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    before = Path(path).read_bytes()

    with pytest.raises(StartError) as caught:
        DurableQueue(path, LOGGER)
    assert str(caught.value) == f"{path} is the database of another program, not an event queue"
    assert Path(path).read_bytes() == before


def test_a_newer_format_is_left_alone(path: str) -> None:
    filled(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()

    with pytest.raises(
        StartError, match=r"has format 7, and this version of daemonkit supports up to 1;"
    ):
        DurableQueue(path, LOGGER)


def test_an_older_format_is_brought_to_the_present_one_with_its_events(
    path: str,
    spool: Callable[[], DurableQueue],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    filled(path)
    caplog.set_level("INFO")
    step = "ALTER TABLE failed ADD COLUMN note TEXT;\nUPDATE last SET id = id + 5000;\n"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, step))
    queue = spool()

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
def test_a_place_where_no_file_can_be_is_told(tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / where)

    with pytest.raises(StartError, match=rf"^cannot open the event queue {path}: {message}$"):
        DurableQueue(path, LOGGER)


def test_a_place_that_can_not_be_written_to_is_told(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda name, _: name == path)
    with pytest.raises(StartError, match="the folder .+ can't be written to$"):
        DurableQueue(path, LOGGER)
    Path(path).touch()
    monkeypatch.setattr(os, "access", lambda name, _: name != path)
    with pytest.raises(StartError, match="the file can't be read and written$"):
        DurableQueue(path, LOGGER)


def test_only_who_may_make_a_file_makes_one(path: str) -> None:
    with pytest.raises(StartError, match="there is no such file$"):
        Store(path, create=False, patience=1)
    assert not os.path.exists(path)


def test_a_database_that_another_process_holds_is_told(path: str) -> None:
    filled(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StartError, match="database is locked"):
        Store(path, create=False, patience=0.01)
    db.close()


def test_a_look_through_a_large_file_ends_in_time(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, 50_000)
    monkeypatch.setattr(database, "CHECK_SECONDS", -1)

    Store(path, create=False, patience=1).close()


def test_broken_says_what_is_broken(path: str) -> None:
    Path(path).write_text("text" * 1000)

    with pytest.raises(Broken, match="file is not a database"):
        Store(path, create=False, patience=1)


# The owner


def test_a_second_owner_is_told_who_the_first_is(path: str) -> None:
    owner = FileLock(path, "billing")
    try:
        with pytest.raises(StartError) as caught:
            FileLock(path, "other")
    finally:
        owner.release()

    assert re.fullmatch(
        rf"the event queue {path} is in use by process {os.getpid()} \(billing, since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\); each daemon needs its own file \(master\.queue\)",
        str(caught.value),
    )
    FileLock(path, "other").release()


def test_a_failed_opening_leaves_the_file_to_others(path: str) -> None:
    Path(path).mkdir()
    with pytest.raises(StartError):
        DurableQueue(path, LOGGER)
    Path(path).rmdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.close()
    for _ in range(2):
        with pytest.raises(StartError, match="another program"):
            DurableQueue(path, LOGGER)


def test_a_child_that_lives_on_does_not_keep_the_lock(path: str) -> None:
    program = """
import os, sys
from daemonkit.events.durable.lock import FileLock
lock = FileLock(sys.argv[1], "parent")
if not os.fork():
    # Until the test has seen that the lock is free.
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    parent = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE)
    assert parent.wait(10) == 0
    try:
        FileLock(path, "next").release()
    finally:
        assert parent.stdin is not None
        parent.stdin.close()


def test_a_place_knows_what_has_become_of_its_files(path: str) -> None:
    Path(path).touch()
    Path(path + "-wal").touch()
    place = Location(path)
    assert place.problem() == ""
    os.unlink(path + "-wal")
    assert place.problem() == f"{path}-wal was removed"
    Path(path + ".new").touch()
    os.replace(path + ".new", path)
    assert place.problem() == f"{path} was replaced"


def test_room_is_reserved_and_released(path: str) -> None:
    reserve = Reserve(path, 100_000)
    assert reserve.take()
    assert os.stat(path + "-reserve").st_blocks * 512 >= 100_000
    reserve.release()
    assert os.stat(path + "-reserve").st_size == 0
    assert not reserve.take_with(2**50)
    assert reserve.is_held
    reserve.close()
