"""The failed events of a durable queue, as an operator of the running daemon sees them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from ...exceptions import StartError, Unavailable
from ..failed import Changed, FailedEvent, FailedPage, Selection
from .database import Broken
from .editor import Editor, Stored
from .store import MAX_ID

BUSY_TIMEOUT = 5.0
"""Seconds that a request waits while the daemon writes."""


class StoredFailures:
    """Opens the file for each request, as `daemonkit events` does: the daemon may be using its own
    connection, and notices changes within half a second.

    Each method raises Unavailable if the file can't be read or written now.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def find(self, id: int) -> FailedEvent | None:
        """A failed event, None if there is none with this id."""
        if not 0 <= id <= MAX_ID:
            return None
        with self._editor() as editor:
            found = editor.find(id)
        return None if found is None or found.state == "waiting" else _shown(found)

    def page(
        self, selection: Selection, before: int | None, limit: int, *, whole: bool
    ) -> FailedPage:
        """See FailedEvents."""
        ids, state, error = selection
        assert ids is None
        with self._editor() as editor:
            rows, total = editor.latest(
                [state], error, MAX_ID if before is None else min(before, MAX_ID), limit, whole
            )
        return FailedPage(list(map(_shown, rows)), total)

    def retry(self, selection: Selection) -> Changed:
        """See FailedEvents."""
        return self._change(selection, Editor.retry, Editor.retry_all)

    def drop(self, selection: Selection) -> Changed:
        """See FailedEvents."""
        return self._change(selection, Editor.drop_failed, Editor.drop_all)

    def _change(
        self,
        selection: Selection,
        some: Callable[[Editor, Sequence[int]], set[int]],
        every: Callable[..., int],
    ) -> Changed:
        ids, state, error = selection
        with self._editor() as editor:
            if ids is None:
                return Changed(every(editor, [state], error))
            found = some(editor, [id for id in ids if 0 <= id <= MAX_ID])
        return Changed(len(found), tuple(id for id in dict.fromkeys(ids) if id not in found))

    @contextmanager
    def _editor(self) -> Iterator[Editor]:
        try:
            with closing(Editor(self._path, busy_timeout=BUSY_TIMEOUT, check=False)) as editor:
                yield editor
        except (sqlite3.Error, Broken, StartError) as error:
            raise Unavailable(f"The event queue can't be used now: {error}") from None


def _shown(event: Stored) -> FailedEvent:
    return FailedEvent(
        event.id,
        event.received,
        event.attempts,
        event.first_failed or 0.0,
        event.last_failed or 0.0,
        event.due,
        event.error,
        event.traceback,
        event.line.decode(errors="replace"),
    )
