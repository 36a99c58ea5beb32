"""Putting into files, in a process of its own: `python -m tests.benchmarks.puts WHOSE FOLDER SECONDS`.

Threads put one event at a time into a new file in FOLDER, where each is on the disk when its put
returns. Prints the puts per second.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huey.storage import SqliteStorage
from litequeue import LiteQueue
from persistqueue import SQLiteQueue

from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Batch

from .load import EVENT

THREADS = 8
LOSSY = "huey, no fsync"
FULL = 2
"""PRAGMA synchronous: a commit returns when it is on the disk."""


@dataclass(frozen=True)
class File:
    """A queue in a new file.

    put: puts the event; count: returns how many the file holds, once all are put; connection: the
    one that writes.
    """

    put: Callable[[], object]
    count: Callable[[], int]
    connection: sqlite3.Connection


def daemonkit(folder: Path) -> File:
    path = str(folder / "events.db")
    queue = DurableQueue(path, logging.getLogger("benchmark"), size=10**9)
    queue.start()
    batch = Batch([{"Hello": "World"}], [EVENT])

    def count() -> int:
        queue.request_stop()
        if not queue.join(30):
            sys.exit("the queue did not stop")
        store = Store(path, create=False, busy_timeout=1.0)
        try:
            return store.count()
        finally:
            store.close()

    return File(lambda: queue.put_many(batch), count, queue._file.store.db)


def persist_queue(folder: Path) -> File:
    queue = SQLiteQueue(str(folder), multithreading=True, auto_commit=True)
    assert queue._putter is not None
    return File(lambda: queue.put(EVENT), lambda: SQLiteQueue(str(folder)).size, queue._putter)


def litequeue(folder: Path) -> File:
    path = folder / "queue.db"
    # One for all threads: with one each, they sleep while they wait for the lock.
    queue = LiteQueue(path)
    queue.conn.execute("PRAGMA synchronous = FULL")
    text = EVENT.decode()
    return File(lambda: queue.put(text), lambda: LiteQueue(path).qsize(), queue.conn)


def huey(folder: Path, fsync: bool = True) -> File:
    path = str(folder / "huey.db")
    storage = SqliteStorage(filename=path, fsync=fsync)
    return File(
        lambda: storage.enqueue(EVENT),
        lambda: int(SqliteStorage(filename=path).queue_size()),
        storage.conn,
    )


FILES: dict[str, Callable[[Path], File]] = {
    "daemonkit": daemonkit,
    "persist-queue": persist_queue,
    "litequeue": litequeue,
    "huey": huey,
    LOSSY: lambda folder: huey(folder, fsync=False),
}


def put_rate(whose: str, folder: Path, seconds: float) -> float:
    """Put for a while from all threads, and check that all of it is in the file."""
    file = FILES[whose](folder)
    synchronous = file.connection.execute("PRAGMA synchronous").fetchone()[0]
    if (synchronous == FULL) != (whose != LOSSY):
        sys.exit(f"{whose}: PRAGMA synchronous is {synchronous}")
    puts, ends = [0] * THREADS, [0.0] * THREADS
    together = threading.Barrier(THREADS + 1)

    def work(number: int) -> None:
        put, done = file.put, 0
        together.wait()
        while time.perf_counter() < until:
            put()
            done += 1
        puts[number], ends[number] = done, time.perf_counter()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    until = (began := time.perf_counter()) + seconds
    together.wait()
    for thread in threads:
        thread.join()
    if (count := file.count()) != sum(puts):
        sys.exit(f"{whose}: {sum(puts)} puts, and {count} events in the file")
    return sum(puts) / (max(ends) - began)


if __name__ == "__main__":
    print(put_rate(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
