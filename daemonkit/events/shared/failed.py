"""The failed events in the engine, as operators see them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...exceptions import Unavailable
from ..durable.rows import StoredFailure
from ..failed import Changed, FailedEvent, FailedPage, Selection, type_of
from .engine import Engine, EngineAway, Link
from .records import failure_in
from .scripts import DROP, RETRY

AT_ONCE = 500
"""Events read or changed together: others wait for the engine meanwhile."""
REQUEST_TIMEOUT = 5.0


class FailureStore:
    """Reads and changes failed events; each method may raise EngineAway."""

    def __init__(self, engine: Engine, link: Link) -> None:
        self._prefix = engine.prefix
        self._link = link

    def find(self, id: int) -> StoredFailure | None:
        """One of them."""
        found = self.rows([id])
        return found[0] if found else None

    def rows(self, ids: Sequence[int]) -> list[StoredFailure]:
        """Those of these that there are, in the same order."""
        if not ids:
            return []
        call, prefix = self._link.call, self._prefix
        texts = call("HMGET", f"{prefix}failed", *ids)
        attempts = call("HMGET", f"{prefix}attempts", *ids)
        dead = call("ZMSCORE", f"{prefix}dead", *ids)
        dues = call("ZMSCORE", f"{prefix}due", *ids)
        found = []
        for id, text, attempt, is_dead, due in zip(ids, texts, attempts, dead, dues, strict=True):
            # One whose retry has begun is due already.
            at = None if is_dead else float(due or 0) / 1000
            try:
                found.append(failure_in(id, text, int(attempt or 0), at))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def ids(self, state: str) -> list[int]:
        """The ids of those in a state, the newest first."""
        call, prefix = self._link.call, self._prefix
        if state == "dead":
            found = call("ZRANGE", f"{prefix}dead", 0, -1)
        else:
            found = call("ZRANGE", f"{prefix}due", 0, -1) + call("HKEYS", f"{prefix}queued")
        return sorted({int(id) for id in found}, reverse=True)

    def retry(self, ids: Sequence[int]) -> set[int]:
        """Have them retried now; returns those that there are."""
        return {int(id) for part in _parts(ids) for id in self._link.run(RETRY, *part)}

    def drop(self, ids: Sequence[int], *, only_failed: bool = True) -> set[int]:
        """Remove them; returns those that there were."""
        return {
            int(id) for part in _parts(ids) for id in self._link.run(DROP, int(only_failed), *part)
        }


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


class EngineFailures:
    """FailedEvents; any thread may use it. Each method raises Unavailable if the engine is away."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._link = Link(engine)
        self._failures = FailureStore(engine, self._link)

    def find(self, id: int) -> FailedEvent | None:
        """See FailedEvents."""
        with self._store() as store:
            row = store.find(id)
        return None if row is None else shown(row)

    def page(
        self, selection: Selection, before: int | None, limit: int, *, whole: bool
    ) -> FailedPage:
        """See FailedEvents."""
        assert selection.ids is None
        with self._store() as store:
            ids = store.ids(selection.state)
            if not selection.error:
                after = [id for id in ids if before is None or id < before]
                return FailedPage(list(map(shown, store.rows(after[:limit]))), len(ids))
            rows = _matching(store, ids, selection.error, whole=whole)
        found = [row for row in rows if before is None or row.id < before]
        return FailedPage(list(map(shown, found[:limit])), len(rows))

    def retry(self, selection: Selection) -> Changed:
        """See FailedEvents."""
        with self._store() as store:
            ids = _selected(store, selection)
            return _changed(selection, store.retry(ids))

    def drop(self, selection: Selection) -> Changed:
        """See FailedEvents."""
        with self._store() as store:
            ids = _selected(store, selection)
            return _changed(selection, store.drop(ids))

    @contextmanager
    def _store(self) -> Iterator[FailureStore]:
        if not self._lock.acquire(timeout=REQUEST_TIMEOUT):
            raise Unavailable("The event queue is busy")
        try:
            yield self._failures
        except EngineAway as error:
            raise Unavailable(f"The event queue can't be used now: {error}") from None
        finally:
            # The next one may be much later, when the engine has closed it.
            self._link.close()
            self._lock.release()


def _selected(store: FailureStore, selection: Selection) -> list[int]:
    if selection.ids is not None:
        return list(dict.fromkeys(selection.ids))
    ids = store.ids(selection.state)
    if not selection.error:
        return ids
    return [row.id for row in _matching(store, ids, selection.error, whole=True)]


def _matching(
    store: FailureStore, ids: Sequence[int], error: str, *, whole: bool
) -> list[StoredFailure]:
    wanted = error.lower()
    return [
        row
        for part in _parts(ids)
        for row in store.rows(part)
        if wanted in (row.error if whole else type_of(row.error)).lower()
    ]


def _changed(selection: Selection, found: set[int]) -> Changed:
    unknown = (id for id in dict.fromkeys(selection.ids or ()) if id not in found)
    return Changed(len(found), tuple(unknown))


def shown(row: StoredFailure) -> FailedEvent:
    """A failed event as operators see it."""
    return FailedEvent(
        row.id,
        row.received,
        row.attempts,
        row.first_failed,
        row.last_failed,
        row.due,
        row.error,
        row.traceback,
        row.line.decode(errors="replace"),
    )
