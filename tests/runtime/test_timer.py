from __future__ import annotations

import logging
import math
import threading
import time

import pytest

from daemonkit.runtime.timer import Timer


class Watching:
    """A watch over a function that notes when it is called."""

    def __init__(self, *dues: float) -> None:
        self.dues = list(dues)
        self.calls: list[float] = []
        self.called = threading.Semaphore(0)
        self.watch = Timer(logging.getLogger("test"))
        self.watch.add(self.run_due)
        self.watch.start()

    def run_due(self, now: float) -> float:
        self.calls.append(now)
        self.called.release()
        due = self.dues.pop(0) if self.dues else math.inf
        if math.isnan(due):
            raise ValueError("no")
        return now + due

    def end(self) -> None:
        self.watch.request_stop()
        assert self.watch.join(10)


def test_it_calls_when_something_is_due_and_not_before() -> None:
    watching = Watching(0.05, 0.1)
    for _ in range(3):
        assert watching.called.acquire(timeout=10)
    watching.end()

    first, second, third = watching.calls
    assert 0.05 <= second - first < 1
    assert 0.1 <= third - second < 1


def test_a_wake_calls_at_once_and_nothing_else_does() -> None:
    watching = Watching()
    assert watching.called.acquire(timeout=10)
    assert not watching.called.acquire(timeout=0.1)
    watching.watch.wake()
    assert watching.called.acquire(timeout=10)
    watching.end()

    assert len(watching.calls) == 2


def test_a_failure_does_not_end_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.runtime.timer.AFTER_TROUBLE", 0.01)
    watching = Watching(math.nan)
    for _ in range(2):
        assert watching.called.acquire(timeout=10)
    watching.end()

    assert caplog.messages == ["The thread watch failed and goes on"]


def test_that_it_is_gone_is_a_problem_unless_it_was_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watching = Watching()
    assert watching.watch.problems() == []
    monkeypatch.setattr(Timer, "_sleep_until", lambda self, due: False)
    watching.watch.wake()
    while watching.watch.running_threads():
        time.sleep(0.001)
    lost = [problem.text for problem in watching.watch.problems()]
    watching.end()

    assert lost == ["the watch is not running"]
    assert watching.watch.problems() == []
