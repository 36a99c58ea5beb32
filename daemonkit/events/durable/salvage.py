"""What can still be read of a durable queue's file that is torn."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby

from .editor import FAILED, PATIENCE, Stored, failed_event, split
from .store import STRIDE, Store


def rescued(path: str, lost: Callable[[], None]) -> Iterator[Stored]:
    """What can be read of a file that is torn, oldest first.

    lost: called for each batch, and each event that had failed, that can't be read.
    Raises StartError and Broken when nothing can.
    """
    store = Store(path, create=False, patience=PATIENCE, check=False)
    with closing(store):
        places = [(id, table) for table in ("batches", "failed") for id in _reachable(store, table)]
        for _, group in groupby(sorted(places), key=lambda place: place[0] // STRIDE):
            found: list[Stored] = []
            for id, table in group:
                try:
                    found += _events_at(store, id, table)
                # ValueError: lines and peers aren't what they were.
                except (sqlite3.Error, ValueError, TypeError):
                    lost()
            yield from sorted(found, key=lambda event: event.id)


def _events_at(store: Store, id: int, table: str) -> list[Stored]:
    if table == "batches":
        batch = store.batch(id)
        return [] if batch is None else list(split(batch, _handled_if_known(store, id)))
    statement = f"SELECT {FAILED} FROM failed WHERE id = ?"
    return [failed_event(row) for row in store.db.execute(statement, (id,))]


def _reachable(store: Store, table: str) -> set[int]:
    """The ids before the first torn page and those behind the last."""
    found = set()
    for order in ("ASC", "DESC"):
        try:
            for (id,) in store.db.execute(f"SELECT id FROM {table} ORDER BY id {order}"):
                found.add(id)
            break
        except sqlite3.DatabaseError:
            continue
    return found


def _handled_if_known(store: Store, id: int) -> set[int]:
    try:
        return store.handled_of(id)
    # Rather handle some twice than lose them.
    except (sqlite3.Error, ValueError):
        return set()
