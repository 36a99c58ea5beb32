from __future__ import annotations

import math
import threading

import pytest

from daemonkit.runtime.heartbeat import Heartbeat, ShutdownEvent

from ..clock import Clock


class Watched:
    """A Freshness with a clock of its own, and what it told."""

    def __init__(self, timeout: float | None = 10) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, float]] = []
        self.heartbeat = Heartbeat(
            timeout,
            lambda silent: self.told.append(("stalled", silent)),
            lambda silent: self.told.append(("recovered", silent)),
            lambda: self.told.append(("wake", 0)),
            self.clock,
        )

    def run_due(self) -> float:
        return self.heartbeat.run_due(self.clock.now) - self.clock.now


def test_silence_is_told_once_and_so_is_its_end() -> None:
    watched = Watched()
    watched.clock.now += 10.5

    assert watched.heartbeat.is_stalled
    assert watched.run_due() == math.inf
    watched.clock.now += 5
    assert watched.run_due() == math.inf
    watched.heartbeat.beat()
    assert not watched.heartbeat.is_stalled
    watched.run_due()
    assert watched.told == [("stalled", 10.5), ("wake", 0), ("recovered", 15.5)]


def test_it_wants_to_be_looked_at_soon_after_the_time_is_up() -> None:
    watched = Watched()
    for passed in (0, 3.3, 6.1):
        watched.clock.now = 100 + passed
        left = watched.run_due()
        assert 10 - passed < left < 10 - passed + 0.251
    watched.clock.now += left
    assert watched.run_due() == math.inf
    assert [what for what, _ in watched.told] == ["stalled"]


def test_what_rests_is_never_stalled() -> None:
    watched = Watched()
    watched.heartbeat.rest()
    watched.clock.now += 1000

    assert 10 < watched.run_due() <= 10.25
    assert watched.heartbeat.age() == 0
    watched.heartbeat.beat()
    watched.clock.now += 1000
    assert watched.heartbeat.age() == 0
    watched.heartbeat.work()
    watched.clock.now += 9
    assert not watched.heartbeat.is_stalled
    assert watched.told == []


def test_without_a_timeout_there_is_nothing_to_look_at() -> None:
    watched = Watched(None)
    watched.clock.now += 1e9

    assert watched.run_due() == math.inf
    assert not watched.heartbeat.is_stalled


@pytest.mark.parametrize("own", [True, False])
def test_only_the_slave_s_own_look_at_its_event_shows_life(own: bool) -> None:
    watched = Watched()
    event = ShutdownEvent(watched.heartbeat)
    if own:
        event.own()
    watched.clock.now += 5
    event.is_set()
    assert watched.heartbeat.age() == (0 if own else 5)
    watched.clock.now += 2
    event.wait(0.001)
    assert watched.heartbeat.age() == (0 if own else 7)


def test_a_wait_is_a_rest_from_beginning_to_end() -> None:
    watched = Watched()
    event, waiting = ShutdownEvent(watched.heartbeat), threading.Event()

    def wait() -> None:
        event.own()
        waiting.set()
        event.wait(10)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(10)
    while not watched.heartbeat._resting:
        waiting.wait(0.001)
    watched.clock.now += 100
    stalled = watched.heartbeat.is_stalled
    event.set()
    thread.join()

    assert not stalled


def test_life_shown_while_a_stall_is_being_told_is_not_missed() -> None:
    watched = Watched()
    watched.heartbeat._on_stalled = lambda silent: watched.heartbeat.beat()
    watched.clock.now += 11

    assert watched.run_due() == 0
    watched.run_due()
    assert ("recovered", 11) in watched.told
