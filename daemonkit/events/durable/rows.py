"""The rows of a durable queue's file: batches of events, and events that failed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from ...text import plain, timestamp
from ...types import NOBODY, Origin, Source
from ..codec import BOM
from ..entry import Batch, FailedAttempt

STRIDE = 1000
"""The most events in a batch. Batch ids are multiples of it, and event ids count up from there, so
the ids of two writers never overlap."""

Ranges = list[tuple[int, int]]
"""Numbers of events in a batch, from 0, as [first, last] of each run."""


def batch_of(id: int) -> int:
    """The id of the batch that an event belongs to."""
    return id - id % STRIDE


class StoredBatch(NamedTuple):
    """A row of `batches`.

    received: Unix seconds; peers: JSON, who sent each event: the peer, or the peer and the name of
    its token; lines: NDJSON.
    """

    id: int
    events: int
    received: float
    source: Source
    peers: str | None
    lines: bytes

    def texts(self) -> list[bytes]:
        """The JSON of each event."""
        return self.lines.split(b"\n")[: self.events]

    def origins(self) -> list[Origin]:
        """Who sent each event, as far as known."""
        try:
            found = json.loads(self.peers or "null")
        # Edited by hand, or damaged on the disk.
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or len(found) != self.events:
            return [NOBODY] * self.events
        return list(map(_origin_in, found))


class Due(NamedTuple):
    """When an event is retried: `due` in Unix seconds, `backoff` seconds after it failed."""

    id: int
    due: float
    backoff: float


class StoredFailure(NamedTuple):
    """A row of `failed`: an event to be retried, or a dead letter if `due` is None.

    All times are Unix seconds.
    """

    id: int
    due: float | None
    attempts: int
    received: float
    source: Source
    peer: str | None
    first_failed: float
    last_failed: float
    error: str
    traceback: str
    line: bytes

    @property
    def origin(self) -> Origin:
        """Who sent the event; in `peer`, it is as in a batch, if there is more than the peer."""
        try:
            found = json.loads(self.peer or "null")
        except (ValueError, RecursionError):
            found = None
        return _origin_in(found if isinstance(found, list) else self.peer)

    def shown(self) -> dict[str, Any]:
        """Everything about a dead letter."""
        return {
            "id": self.id,
            "event": self.line.decode(errors="replace"),
            "error": self.error,
            "traceback": self.traceback,
            "attempts": self.attempts,
            "first_failed": timestamp(datetime.fromtimestamp(self.first_failed)),
            "last_failed": timestamp(datetime.fromtimestamp(self.last_failed)),
        }

    def failed_again(self, failure: FailedAttempt, due: float | None) -> StoredFailure:
        """The row after one more attempt."""
        return self._replace(
            due=due,
            attempts=failure.attempts,
            last_failed=failure.last_failed,
            error=plain(failure.error),
            traceback=plain(failure.traceback),
        )


def to_row(batch: Batch, id: int) -> StoredBatch:
    """A batch received now, as a row."""
    lines = b"\n".join(batch.lines)
    if lines.count(b"\n") != len(batch.lines) - 1 or BOM in lines:
        # Outside of strings a line break is whitespace, and in strings JSON allows none.
        lines = b"\n".join(line.removeprefix(BOM).replace(b"\n", b" ") for line in batch.lines)
    peers = None if batch.origins is None else json.dumps(list(map(_stored, batch.origins)))
    return StoredBatch(id, len(batch.lines), time.time(), batch.source, peers, lines)


def to_failure(
    batch: StoredBatch, number: int, line: bytes, failure: FailedAttempt, due: float | None
) -> StoredFailure:
    """The row of an event that failed for the first time."""
    row = StoredFailure(
        id=batch.id + number,
        due=None,
        attempts=0,
        received=batch.received,
        source=batch.source,
        peer=_peer_column(batch.origins()[number]),
        first_failed=failure.first_failed,
        last_failed=0.0,
        error="",
        traceback="",
        line=line,
    )
    return row.failed_again(failure, due)


def _stored(origin: Origin) -> str | Origin | None:
    return origin.peer if origin.sender is None else origin


def _peer_column(origin: Origin) -> str | None:
    stored = _stored(origin)
    return json.dumps(stored) if isinstance(stored, Origin) else stored


def _origin_in(value: object) -> Origin:
    """What was stored; NOBODY if it was damaged."""
    if isinstance(value, list) and len(value) == 2:
        peer, sender = (plain(item) if isinstance(item, str) else None for item in value)
        return Origin(peer, sender)
    return Origin(plain(value)) if isinstance(value, str) else NOBODY


def ranges_in(text: str) -> Ranges:
    """Ranges from their JSON."""
    try:
        return [(max(0, int(a)), min(STRIDE, int(b))) for a, b in json.loads(text)]
    # Edited or damaged: handling an event twice is better than losing it.
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def numbers_in(ranges: Ranges) -> set[int]:
    """All numbers that the ranges contain."""
    return {number for first, last in ranges for number in range(first, last + 1)}


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """The ranges that contain these numbers and no others."""
    ordered = sorted(set(numbers))
    # The common case on a hot path: this runs for every `ack_batch` events.
    if ordered and ordered[-1] - ordered[0] < len(ordered):
        return [(ordered[0], ordered[-1])]
    ranges: Ranges = []
    for number in ordered:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ranges
