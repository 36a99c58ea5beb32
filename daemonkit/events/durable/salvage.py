"""Reads what is left of a damaged file of a durable queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby

from .editor import BUSY_TIMEOUT, Stored, failed_event, split
from .rows import batch_of
from .store import Store


def salvage(path: str, lost: Callable[[], None]) -> Iterator[Stored]:
    """The readable events of a damaged file, oldest first.

    lost: called for each batch or failed event that can't be read.
    Raises StartError or Broken if nothing can be read.
    """
    store = Store(path, create=False, busy_timeout=BUSY_TIMEOUT, check=False)
    with closing(store):
        found = [(id, _waiting) for id in store.reachable("batches")]
        found += [(id, _failed) for id in store.reachable("failed")]
        found.sort(key=lambda item: item[0])
        # The failed events of a batch are between the others.
        for _, group in groupby(found, key=lambda item: batch_of(item[0])):
            events: list[Stored] = []
            for id, read in group:
                try:
                    events += read(store, id)
                # ValueError, TypeError: damaged values.
                except (sqlite3.Error, ValueError, TypeError):
                    lost()
            yield from sorted(events, key=lambda event: event.id)


def _waiting(store: Store, id: int) -> list[Stored]:
    batch = store.batch(id)
    if batch is None:
        return []
    try:
        handled = store.handled_of(id)
    # Handling events twice is better than losing them.
    except (sqlite3.Error, ValueError):
        handled = set()
    return list(split(batch, handled))


def _failed(store: Store, id: int) -> list[Stored]:
    row = store.failed(id)
    return [] if row is None else [failed_event(row)]
