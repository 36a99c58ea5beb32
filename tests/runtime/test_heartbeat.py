from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest

from daemonkit.runtime.heartbeat import Heartbeat, ShutdownEvent

from ..clock import Clock


class Watched:
    """A heartbeat with a clock that a test moves, and what it reported."""

    def __init__(self, timeout: float | None = 10) -> None:
        self.clock = Clock()
        self.reports: list[tuple[str, float]] = []
        self.heartbeat = Heartbeat(
            timeout,
            lambda age: self.reports.append(("stalled", age)),
            lambda age: self.reports.append(("recovered", age)),
            lambda: self.reports.append(("wake", 0)),
            self.clock,
        )

    def run_due(self) -> float:
        return self.heartbeat.run_due(self.clock.now) - self.clock.now


def test_a_stall_is_reported_once_and_so_is_its_end() -> None:
    watched = Watched()
    watched.clock.now += 10.5

    assert watched.heartbeat.is_stalled
    assert watched.run_due() == math.inf
    watched.clock.now += 5
    assert watched.run_due() == math.inf
    watched.heartbeat.beat()
    assert not watched.heartbeat.is_stalled
    for _ in range(2):
        watched.run_due()
    assert watched.reports == [("stalled", 10.5), ("wake", 0), ("recovered", 15.5)]


def test_run_due_is_due_soon_after_the_timeout() -> None:
    watched = Watched()
    for passed in (0, 3.3, 6.1):
        watched.clock.now = 100 + passed
        left = watched.run_due()
        assert 10 - passed < left < 10 - passed + 0.251
    watched.clock.now += left
    assert watched.run_due() == math.inf
    assert [what for what, _ in watched.reports] == ["stalled"]


def test_a_paused_thread_is_never_stalled() -> None:
    watched = Watched()
    watched.heartbeat.pause()
    watched.clock.now += 1000

    assert 10 < watched.run_due() <= 10.25
    assert watched.heartbeat.age() == 0
    watched.heartbeat.beat()
    watched.clock.now += 1000
    assert watched.heartbeat.age() == 0
    watched.heartbeat.resume()
    watched.clock.now += 9
    assert not watched.heartbeat.is_stalled
    watched.clock.now += 2
    assert watched.heartbeat.is_stalled
    assert watched.reports == []


def test_without_a_timeout_it_is_never_due() -> None:
    watched = Watched(None)
    watched.clock.now += 1e9

    assert watched.run_due() == math.inf
    assert not watched.heartbeat.is_stalled


def test_a_beat_while_a_stall_is_being_reported_is_not_missed() -> None:
    watched = Watched()
    watched.heartbeat._on_stalled = lambda age: watched.heartbeat.beat()
    watched.clock.now += 11

    assert watched.run_due() == 0
    watched.run_due()
    assert ("recovered", 11) in watched.reports


CALLS: list[Callable[[ShutdownEvent], object]] = [
    lambda event: event.is_set(),
    lambda event: event.wait(0.001),
]


@pytest.mark.parametrize("call", CALLS, ids=["is_set", "wait"])
def test_is_set_and_wait_count_as_heartbeats_on_the_slave_s_thread(
    call: Callable[[ShutdownEvent], object],
) -> None:
    watched = Watched()
    event = ShutdownEvent(watched.heartbeat)
    event.bind()
    watched.clock.now += 5
    call(event)

    assert watched.heartbeat.age() == 0


@pytest.mark.parametrize("call", CALLS, ids=["is_set", "wait"])
def test_is_set_and_wait_are_not_heartbeats_on_another_thread(
    call: Callable[[ShutdownEvent], object],
) -> None:
    watched = Watched()
    event = ShutdownEvent(watched.heartbeat)
    event.bind()
    watched.clock.now += 5
    helper = threading.Thread(target=call, args=(event,))
    helper.start()
    helper.join()

    assert watched.heartbeat.age() == 5


def wait_for_waiter(event: threading.Event) -> None:
    """Wait until a thread is inside `event.wait`."""
    while not event._cond._waiters:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)


def test_a_helper_that_waits_for_the_event_does_not_pause_the_heartbeat() -> None:
    watched = Watched()
    event = ShutdownEvent(watched.heartbeat)
    event.bind()
    helper = threading.Thread(target=event.wait, args=(10,))
    helper.start()
    wait_for_waiter(event)
    watched.clock.now += 11
    stalled = watched.heartbeat.is_stalled
    event.set()
    helper.join()

    assert stalled


def test_the_heartbeat_is_paused_during_the_slave_s_wait() -> None:
    watched = Watched()
    event = ShutdownEvent(watched.heartbeat)

    def slave() -> None:
        event.bind()
        event.wait(10)

    thread = threading.Thread(target=slave)
    thread.start()
    wait_for_waiter(event)
    watched.clock.now += 100
    stalled = watched.heartbeat.is_stalled
    event.set()
    thread.join()

    assert not stalled
    watched.clock.now += 11
    assert watched.heartbeat.is_stalled
