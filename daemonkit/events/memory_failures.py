"""The failed events of a queue in memory: those to be retried, and the last dead letters."""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from ..exceptions import InvalidEvent
from ..text import shorten, timestamp
from .codec import beginning, normalize
from .entry import Entry, FailedAttempt
from .failed import Changed, FailedEvent, FailedPage, Selection, type_of
from .waiting import Waiting

DEAD_LETTERS = 100
"""How many are kept; after that the oldest are dropped."""
LONGEST_EVENT = 10_000
"""Characters of a dead letter's event that are listed."""
AT_ONCE, PAUSE = 5000, 0.001
"""Failed events that are retried or dropped together, and seconds until the next ones: puts wait
for the lock meanwhile."""
MOST_WHOLE = 32 * 1024 * 1024
"""Characters of all dead letters' events: of the oldest ones, only what is listed is kept then."""


class _Kept(NamedTuple):
    """A failed event; due: when it is retried, in Unix seconds; is_whole: its text is all there."""

    entry: Entry
    failure: FailedAttempt
    text: str
    due: float | None = None
    is_whole: bool = True


class MemoryFailures:
    """Not thread-safe but for the methods of FailedEvents, which take `lock`."""

    def __init__(self, waiting: Waiting, lock: threading.Lock) -> None:
        self.retried = 0
        """How many retries were planned, without those that were asked for."""
        self.dead = 0
        """How many there were."""
        self.memory = 0
        """Bytes of the texts of events to be retried."""
        self._waiting = waiting
        self._lock = lock
        self._last_id = 0
        self._retrying: dict[int, _Kept] = {}
        self._dead: dict[int, _Kept] = {}

    def fail(self, entry: Entry, failure: FailedAttempt, delay: float | None) -> bool:
        """Retry an event in `delay` seconds, or add it to the dead letters; returns whether it is
        a dead letter now."""
        if not entry.id:
            entry = entry._replace(id=self._last_id + 1)
        self._last_id = max(self._last_id, entry.id)
        # Once the queue is closed, nobody waits for the retry.
        if delay is not None and not self._waiting.closed:
            self.retried += 1
            again = entry._replace(attempt=entry.attempt + 1, failed=failure.first_failed)
            self._schedule(_Kept(again, failure, ""), delay)
            return False
        self.dead += 1
        self._dead[entry.id] = _dead(entry, failure)
        self._bound()
        return True

    def _schedule(self, kept: _Kept, delay: float) -> None:
        entry = kept.entry
        if (line := entry.line) is not None:
            # It is decoded anew, since the handler may have modified the event.
            entry = entry._replace(event=None)
            self.memory += len(line)
        self._retrying[entry.id] = kept._replace(entry=entry, due=time.time() + delay)
        self._waiting.put_back(entry, delay)

    def begin_retry(self, entry: Entry) -> None:
        """A retry is due."""
        with self._lock:
            self._forget(entry.id)

    def _forget(self, id: int) -> _Kept | None:
        kept = self._retrying.pop(id, None)
        if kept is not None and kept.entry.line is not None:
            self.memory -= len(kept.entry.line)
        return kept

    def _bound(self) -> None:
        while len(self._dead) > DEAD_LETTERS:
            del self._dead[next(iter(self._dead))]
        total = sum(len(kept.text) for kept in self._dead.values())
        for id, kept in self._dead.items():
            if total <= MOST_WHOLE:
                break
            if len(kept.text) > LONGEST_EVENT:
                cut = shorten(kept.text, LONGEST_EVENT)
                total -= len(kept.text) - len(cut)
                entry = kept.entry._replace(line=None)
                self._dead[id] = kept._replace(entry=entry, text=cut, is_whole=False)

    @property
    def dead_now(self) -> int:
        """How many dead letters there are now."""
        return len(self._dead)

    def listed(self) -> list[dict[str, Any]]:
        """The dead letters, as `/status` shows them."""
        return [
            {
                "id": id,
                "event": shorten(kept.text, LONGEST_EVENT),
                "error": kept.failure.error,
                "traceback": kept.failure.traceback,
                "attempts": kept.failure.attempts,
                "first_failed": timestamp(datetime.fromtimestamp(kept.failure.first_failed)),
                "last_failed": timestamp(datetime.fromtimestamp(kept.failure.last_failed)),
            }
            for id, kept in self._dead.items()
        ]

    # FailedEvents

    def find(self, id: int) -> FailedEvent | None:
        with self._lock:
            kept = self._dead.get(id) or self._retrying.get(id)
            return None if kept is None else _shown(kept)

    def page(
        self, selection: Selection, before: int | None, limit: int, *, whole: bool
    ) -> FailedPage:
        with self._lock:
            found = self._of(selection, whole=whole)
        rest = (kept for kept in found if before is None or kept.entry.id < before)
        newest = heapq.nlargest(limit, rest, key=lambda kept: kept.entry.id)
        return FailedPage(list(map(_shown, newest)), len(found))

    def retry(self, selection: Selection) -> Changed:
        return self._take(selection, lambda kept: kept.is_whole, self._retry_now)

    def drop(self, selection: Selection) -> Changed:
        return self._take(selection, lambda _: True, lambda _: None)

    def _retry_now(self, kept: _Kept) -> None:
        again = kept.entry._replace(attempt=1, failed=kept.failure.first_failed)
        self._schedule(kept._replace(entry=again, text=""), 0.0)

    def _take(
        self,
        selection: Selection,
        may: Callable[[_Kept], bool],
        use: Callable[[_Kept], None],
    ) -> Changed:
        with self._lock:
            found = self._of(selection, whole=True)
        ids = [kept.entry.id for kept in found if may(kept)]
        cut = tuple(kept.entry.id for kept in found if not may(kept))
        changed: set[int] = set()
        for start in range(0, len(ids), AT_ONCE):
            if start:
                threading.Event().wait(PAUSE)
            with self._lock:
                changed |= self._take_some(ids[start : start + AT_ONCE], use)
        known = {*changed, *cut}
        unknown = dict.fromkeys(id for id in selection.ids or () if id not in known)
        return Changed(len(changed), tuple(unknown), cut)

    def _take_some(self, ids: Sequence[int], use: Callable[[_Kept], None]) -> set[int]:
        found = self._of(Selection(tuple(ids)), whole=True)
        # One whose retry has just begun is no longer there.
        gone = self._waiting.withdraw({k.entry.id for k in found if k.due is not None})
        found = [kept for kept in found if kept.due is None or kept.entry.id in gone]
        for kept in found:
            self._dead.pop(kept.entry.id, None)
            self._forget(kept.entry.id)
            use(kept)
        return {kept.entry.id for kept in found}

    def _of(self, selection: Selection, *, whole: bool) -> list[_Kept]:
        ids, state, error = selection
        if ids is not None:
            each = (self._dead.get(id) or self._retrying.get(id) for id in dict.fromkeys(ids))
            return [kept for kept in each if kept is not None]
        wanted = error.lower()
        return [
            kept
            for kept in (self._dead if state == "dead" else self._retrying).values()
            if wanted in (kept.failure.error if whole else type_of(kept.failure.error)).lower()
        ]


def _dead(entry: Entry, failure: FailedAttempt) -> _Kept:
    """A dead letter: its JSON is kept, and not the event, which may use much more memory."""
    text, line = _text_of(entry), entry.line
    if line is None:
        # Not what the handler has put into it that isn't JSON.
        with suppress(InvalidEvent):
            line = normalize(entry.event).lines[0]
    entry = entry._replace(event=None, line=line)
    return _Kept(entry, failure, text, is_whole=line is not None)


def _text_of(entry: Entry) -> str:
    # As received, if that is known.
    line = entry.line
    return beginning(entry.event, sys.maxsize) if line is None else line.decode(errors="replace")


def _shown(kept: _Kept) -> FailedEvent:
    entry, failure = kept.entry, kept.failure
    text = kept.text or _text_of(entry)
    received = None if entry.meta is None else entry.meta.received.timestamp()
    return FailedEvent(
        entry.id,
        received,
        failure.attempts,
        failure.first_failed,
        failure.last_failed,
        kept.due,
        failure.error,
        failure.traceback,
        text,
    )
