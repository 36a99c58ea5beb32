"""Entries of the stream and failed events, as they are stored in the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...text import plain
from ..durable.rows import STRIDE, StoredBatch, StoredFailure

EPOCH = 1_577_836_800
"""Unix seconds of 2020, from which the engine counts batches in tenths of milliseconds."""
PER_SECOND = 10_000
_STORED = ("received", "source", "peer", "first_failed", "last_failed", "error", "traceback")


def batch_id(entry: bytes) -> int:
    """The id of the batch in an entry of the stream."""
    return int(entry.partition(b"-")[0]) * STRIDE


def received(id: int) -> float:
    """When an event was received, in Unix seconds, by the engine's clock."""
    return id // STRIDE / PER_SECOND + EPOCH


def fields_of(flat: Sequence[bytes] | None) -> dict[bytes, bytes]:
    """The fields of an entry, none if it was removed."""
    flat = flat or ()
    return dict(zip(flat[::2], flat[1::2], strict=True))


def batch_in(entry: bytes, fields: Mapping[bytes, bytes]) -> StoredBatch:
    """The batch in an entry; raises KeyError or ValueError if there is none."""
    # Its number is another entry's, too, unless a script has given it.
    if not entry.endswith(b"-0"):
        raise ValueError(entry)
    id = batch_id(entry)
    peers = fields.get(b"p")
    return StoredBatch(
        id,
        int(fields[b"n"]),
        received(id),
        fields[b"s"].decode(),  # type: ignore[arg-type]
        None if peers is None else peers.decode(),
        fields[b"d"],
    )


def to_json(row: StoredFailure) -> str:
    """A failed event; its id, its attempts and when it is due are stored apart."""
    facts: dict[str, Any] = {name: getattr(row, name) for name in _STORED}
    return json.dumps({**facts, "event": row.line.decode(errors="surrogateescape")})


def failure_in(id: int, text: bytes, attempts: int, due: float | None) -> StoredFailure:
    """A failed event; raises ValueError or KeyError if it isn't one."""
    found = json.loads(text)
    # A newer daemonkit may have stored more.
    facts = {name: found[name] for name in _STORED}
    line = found["event"].encode(errors="surrogateescape")
    facts["error"], facts["traceback"] = plain(facts["error"]), plain(facts["traceback"])
    return StoredFailure(id=id, due=due, attempts=attempts, line=line, **facts)
