from __future__ import annotations

import time

import pytest

from daemonkit.lifecycle.worker_slot import LONGEST_DELAY, WorkerSlot, how_ended


def test_restarts_are_delayed_more_and_more() -> None:
    slot = WorkerSlot(1)
    delays = []
    for _ in range(12):
        began = time.monotonic()
        delays.append(slot.delay())
        assert slot.start_at >= began + delays[-1]

    assert delays[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == LONGEST_DELAY


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-9, "been killed by SIGKILL"),
        (-37, "been killed by signal 37"),
        (3, "ended with exit status 3"),
    ],
)
def test_how_a_worker_ended_is_told(status: int, text: str) -> None:
    assert how_ended(status) == text
