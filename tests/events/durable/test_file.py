from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from daemonkit import StartError
from daemonkit.events.durable.file import File, FileIdentity
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.entry import Batch

from .helpers import LOGGER, Open, close, edit, filled, open_files


@pytest.mark.parametrize("content", [b"not a database, but quite long a text" * 200, b"\0" * 9000])
def test_a_file_that_is_not_a_database_is_moved_aside_and_logged(
    path: str, content: bytes, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).write_bytes(content)
    queue = opened()

    (message,) = caplog.messages
    aside = re.fullmatch(
        rf"The event queue {path} can't be read \(.+\): moved it to "
        rf"({path}\.broken-\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d) and started an empty one",
        message,
    )
    assert aside, message
    assert Path(aside[1]).read_bytes() == content
    queue.put_many(Batch([1], [b"1"]))


def test_files_moved_aside_in_the_same_second_are_all_kept(path: str, opened: Open) -> None:
    for text in ("first", "second", "third"):
        Path(path).write_text(text * 1000)
        close(opened())
        os.unlink(path)

    kept = [file.read_text()[:5] for file in Path(path).parent.glob("events.db.broken-*")]
    assert sorted(kept) == ["first", "secon", "third"]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_database_is_moved_aside(
    path: str, damage: str, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    filled(path, 50_000)
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if damage == "cut":
            file.truncate(size // 2)
        else:
            file.seek(4096)
            file.write(b"\xa5" * (size // 2))
    queue = opened()

    assert "can't be read" in caplog.text
    assert len(queue) == 0


def test_an_empty_file_is_an_empty_queue(
    path: str, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).touch()

    assert len(opened()) == 0
    assert caplog.messages == []


def test_a_file_that_failed_to_open_is_unlocked(path: str) -> None:
    Path(path).mkdir()
    with pytest.raises(StartError):
        DurableQueue(path, LOGGER)
    Path(path).rmdir()
    edit(path, "CREATE TABLE t (x)")
    for _ in range(2):
        with pytest.raises(StartError, match="another program"):
            DurableQueue(path, LOGGER)


def test_removed_and_replaced_files_are_recognized(path: str) -> None:
    Path(path).touch()
    Path(path + "-wal").touch()
    identity = FileIdentity(path)
    assert identity.problem() == ""
    os.unlink(path + "-wal")
    assert identity.problem() == f"{path}-wal was removed"
    Path(path + ".new").touch()
    os.replace(path + ".new", path)
    assert identity.problem() == f"{path} was replaced"


def test_a_closed_file_leaves_nothing_open(path: str) -> None:
    file = File(path, "app", 2**30, LOGGER)
    suffixes = [name.removeprefix(path) for name in open_files(path)]
    assert suffixes == ["", "-lock", "-reserve", "-shm", "-wal"]
    file.close()

    assert open_files(path) == []


def test_an_identity_that_is_checked_without_its_log(path: str) -> None:
    Path(path).touch()
    identity = FileIdentity(path)
    Path(path + "-wal").touch()

    assert identity.problem(with_log=False) == ""
    assert identity.problem() == f"{path}-wal was replaced"
