from __future__ import annotations

import pytest

from daemonkit import InvalidEvent
from daemonkit.events.durable.rows import StoredBatch, StoredFailure
from daemonkit.events.durable.unpacking import retry_of, unpack


def test_the_unhandled_events_of_a_batch_are_unpacked() -> None:
    batch = StoredBatch(4000, 4, 1.5, "udp", '["a:1", "b:2", null, "d:4"]', b'1\n"x"\n{oops\n[4]')
    size, entries, damaged = unpack(batch, {0}, with_meta=True)

    assert size == 4
    assert [(e.event, e.id, e.attempt) for e in entries] == [("x", 4001, 1), ([4], 4003, 1)]
    assert [e.meta.peer for e in entries if e.meta is not None] == ["b:2", "d:4"]
    assert list(damaged) == [2]
    assert isinstance(damaged[2], InvalidEvent)
    assert [e.meta for e in unpack(batch, {0}, with_meta=False)[1]] == [None, None]


def test_a_failed_event_is_unpacked_for_its_next_attempt() -> None:
    row = StoredFailure(7, 9.0, 2, 1.5, "http", "a:1", 3.0, 4.0, "e", "t", b'"x"')
    entry = retry_of(row, with_meta=True)

    assert (entry.event, entry.id, entry.attempt, entry.failed) == ("x", 7, 3, 3.0)
    assert entry.meta is not None
    assert (entry.meta.peer, entry.meta.attempt) == ("a:1", 3)
    assert retry_of(row, with_meta=False).meta is None
    with pytest.raises(InvalidEvent):
        retry_of(row._replace(line=b"{oops"), with_meta=False)
