"""Failed events as operators see them: those to be retried, and dead letters."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from ..text import shorten, timestamp

LONGEST_SHOWN = 2000
"""Characters of an event, an error or a traceback in a list."""

FailedState = Literal["dead", "retrying"]


class Selection(NamedTuple):
    """Which failed events are meant.

    ids: these, whatever their state, or None for all in `state` whose error contains `error`,
    in any case of its letters.
    """

    ids: tuple[int, ...] | None = None
    state: FailedState = "dead"
    error: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Selection:
        """What the fields of a request mean."""
        if "ids" in asked:
            return cls(tuple(asked["ids"]))
        return cls(None, asked.get("state", "dead"), asked.get("error", ""))


class FailedEvent(NamedTuple):
    """A failed event, all times in Unix seconds; due: of its retry, None for a dead letter."""

    id: int
    received: float | None
    attempts: int
    first_failed: float
    last_failed: float
    due: float | None
    error: str
    traceback: str
    event: str

    @property
    def state(self) -> FailedState:
        return "dead" if self.due is None else "retrying"

    def shown(self, *, whole: bool, limit: int = sys.maxsize) -> dict[str, Any]:
        """As a mapping; whole: with its content, and the error's text besides its type; limit:
        characters of each text."""
        facts = {
            "id": self.id,
            "state": self.state,
            "received": _time(self.received),
            "attempts": self.attempts,
            "first_failed": _time(self.first_failed),
            "last_failed": _time(self.last_failed),
            "due": _time(self.due),
            "error": shorten(self.error, limit) if whole else type_of(self.error),
        }
        if whole:
            facts["event"] = shorten(self.event, limit)
            facts["traceback"] = shorten(self.traceback, limit)
        return facts


class FailedPage(NamedTuple):
    """Some of the failed events that were selected, the newest first; total: of all of them."""

    events: list[FailedEvent]
    total: int


class Changed(NamedTuple):
    """How many failed events were changed; unknown: ids of which there are none, cut: those that
    can't be retried, as not all of them is kept."""

    number: int
    unknown: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()


class FailedEvents(Protocol):
    """The failed events of a queue. Each method raises Unavailable if they can't be read now."""

    def find(self, id: int) -> FailedEvent | None:
        """One of them, None if there is none with this id."""

    def page(
        self, selection: Selection, before: int | None, limit: int, *, whole: bool
    ) -> FailedPage:
        """Up to `limit` of those with ids under `before`; whole: the error's text is compared, and
        otherwise only its type."""

    def retry(self, selection: Selection) -> Changed:
        """Have them retried now, as if never attempted."""

    def drop(self, selection: Selection) -> Changed:
        """Remove them."""


def type_of(error: str) -> str:
    """The type of the exception in an error's text, which may quote the event."""
    return error.partition(":")[0]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(datetime.fromtimestamp(seconds))
