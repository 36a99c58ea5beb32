from __future__ import annotations

import pytest

from daemonkit.events.shared import pacing as module
from daemonkit.events.shared.pacing import MOST, MOST_ENTRIES, PAUSE, Pacing, Portions


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


def entries(count: int, events: int, size: int) -> list[tuple[bytes, list[bytes]]]:
    fields = [b"n", b"%d" % events, b"d"]
    return [(b"1-0", [*fields, b"x" * (size - len(b"".join(fields)))]) for _ in range(count)]


def test_how_much_is_read_follows_from_what_was_read() -> None:
    portions = Portions(2**26)
    assert portions.most(1000, 2**26) == 1, "as long as nothing is known"
    for _ in range(100):
        portions.note(entries(1, 1, 100))
    assert portions.most(1000, 2**26) == MOST_ENTRIES
    portions.note(entries(2, 500, 100))
    assert portions.most(1000, 2**26) == 2
    assert portions.most(100, 2**26) == 1
    for _ in range(3):
        portions.note(entries(1, 1, 100))
    assert 2 < portions.most(1000, 2**26) < 6
    portions.note(entries(1, 1, 2**25))
    assert portions.most(1000, 2**26) == 2, "by their size, if that is less"
    portions.note([(b"1-0", None)])
