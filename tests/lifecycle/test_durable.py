from __future__ import annotations

import logging
from pathlib import Path

import pytest

from daemonkit import StartError
from daemonkit.config.defaults import Settings
from daemonkit.events.entry import Batch
from daemonkit.events.memory import MemoryQueue
from daemonkit.lifecycle.durable import make_durable_queue, move_events


def test_events_that_were_put_before_the_start_are_moved_if_there_is_room(tmp_path: Path) -> None:
    settings = Settings(queue=str(tmp_path / "events.db"), queue_size=2)
    queue = make_durable_queue(settings, logging.getLogger("app"), name="app", changed=lambda: None)
    try:
        before = MemoryQueue(100, 2**20)
        move_events(before, queue)
        assert queue.counters()["waiting"] == 0
        before.keep_lines = True
        before.put_many(Batch([1], [b"1"], "app"))
        move_events(before, queue)
        assert queue.counters()["waiting"] == 1
        before.put_many(Batch([1, 2, 3], [b"1", b"2", b"3"], "app"))
        with pytest.raises(StartError, match="^the events that were put before the start: "):
            move_events(before, queue)
    finally:
        queue.request_stop()
        queue.join(20)
