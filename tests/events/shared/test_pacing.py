from __future__ import annotations

import pytest

from daemonkit.events.shared import pacing as module
from daemonkit.events.shared.pacing import MOST, PAUSE, Pacing


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_while_the_loop_has_no_time_to_spare_less_is_taken(now: list[float]) -> None:
    pacing, busy = Pacing(), [0.0]
    pacing.yields_to = lambda: busy[0]
    assert (pacing.pause(), pacing.most(1000)) == (0.0, 1000)
    now[0], busy[0] = now[0] + 1, busy[0] + 0.95
    assert (pacing.pause(), pacing.most(1000), pacing.most(7)) == (PAUSE, MOST, 7)
    now[0] += 0.01
    assert pacing.pause() == PAUSE, "for a while"
    now[0], busy[0] = now[0] + 1, busy[0] + 0.8
    assert (pacing.pause(), pacing.most(1000)) == (0.0, 1000)


def test_events_that_can_not_wait_are_taken(now: list[float]) -> None:
    pacing, busy = Pacing(), [0.0]
    pacing.yields_to = lambda: busy[0]
    pacing.pause()
    now[0], busy[0] = now[0] + 1, busy[0] + 1
    assert pacing.pause() == PAUSE
    pacing.yields_to = lambda: None
    assert pacing.pause() == 0.0
