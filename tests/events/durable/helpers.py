"""Shared by the tests of the durable queue."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

import pytest

from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.rows import StoredBatch, StoredFailure
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Batch, Entry, FailedAttempt
from daemonkit.types import Origin

LOGGER = logging.getLogger("test")
FAILURE = FailedAttempt("ValueError: no", "Traceback ...", 1, 100.0, 100.0)
FAILED_AT = (100.0, 200.0, "ValueError: no", "Traceback ...")
"""Columns of `failed`."""

Open = Callable[..., DurableQueue]


def batch(*events: Any, source: Any = "http", peers: Sequence[str] | None = None) -> Batch:
    return Batch(
        events,
        [json.dumps(event).encode() for event in events],
        source,
        peers and list(map(Origin, peers)),
    )


def take(queue: DurableQueue, count: int) -> list[Entry]:
    return [queue.get() for _ in range(count)]


def events_of(entries: Sequence[Entry]) -> list[Any]:
    return [entry.event for entry in entries]


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 10
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return result


def close(queue: DurableQueue) -> None:
    queue.request_stop()
    assert queue.join(10)


def filled(path: str, events: int = 3) -> None:
    """Create a file with events."""
    queue = DurableQueue(path, LOGGER)
    queue.put_many(Batch(range(events), [b"%d" % n for n in range(events)]))
    close(queue)


def rows(path: str, statement: str) -> list[Any]:
    """What another process sees in the file."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


def edit(path: str, statement: str, *arguments: Any) -> None:
    """Change the file from outside."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, arguments)


def add(store: Store, id: int, *lines: bytes, peers: str | None = None) -> None:
    store.add(StoredBatch(id, len(lines), 50.0, "http", peers, b"\n".join(lines)))


def add_failed(store: Store, id: int, due: float | None, line: bytes = b"1") -> None:
    store.put_failed(StoredFailure(id, due, 3, 50.0, "udp", "::1", *FAILED_AT, line))


def open_files(path: str) -> list[str]:
    """The queue's files that this process has opened."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(name for name in found if name.startswith(path))


class BrokenDisk:
    """Makes writes of a queue fail for as long as `error` is set."""

    def __init__(self, queue: DurableQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: str | None = None
        real = queue._file.store.db

        class Connection:
            def __getattr__(_, name: str) -> Any:
                return getattr(real, name)

            def execute(_, statement: str, *arguments: Any) -> Any:
                if self.error and statement.startswith(("INSERT", "BEGIN")):
                    raise sqlite3.OperationalError(self.error)
                return real.execute(statement, *arguments)

        monkeypatch.setattr(queue._file.store, "db", Connection())
