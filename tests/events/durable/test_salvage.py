from __future__ import annotations

from pathlib import Path

import pytest

from daemonkit import StartError
from daemonkit.events.durable.rows import STRIDE
from daemonkit.events.durable.salvage import salvage
from daemonkit.events.durable.store import Store

from .helpers import add, add_failed


def test_the_readable_events_of_a_damaged_file_are_salvaged(store: Store, path: str) -> None:
    for id in range(1000, 101_000, STRIDE):
        add(store, id, b'"%s"' % (b"x" * 3000), b"%d" % id)
        store.mark_handled(id, [0])
    for id in (1000, 1500):
        add_failed(store, id, None, b"%d" % id)
    store.close()
    data = bytearray(Path(path).read_bytes())
    damaged = data.index(b"50000") // 4096 * 4096
    data[damaged : damaged + 4096] = b"\xff" * 4096
    Path(path).write_bytes(data)
    lost: list[None] = []
    events = list(salvage(path, lambda: lost.append(None)))

    assert [event.id for event in events[:4]] == [1000, 1001, 1500, 2001]
    assert events[-1].line == b"100000"
    assert 90 < len(events) < 102
    assert [event.id for event in events] == sorted(event.id for event in events)


def test_without_a_file_none_is_made(path: str) -> None:
    with pytest.raises(StartError, match=r": there is no such file$"):
        list(salvage(path, lambda: None))

    assert not Path(path).exists()
