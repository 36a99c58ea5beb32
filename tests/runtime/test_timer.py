from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator

import pytest

from daemonkit.runtime.failures import FailureLog
from daemonkit.runtime.timer import Timer

from ..events.conditions import until


class Recorder:
    """A function that a timer calls, and when it was called."""

    def __init__(self, *delays: float) -> None:
        self.delays = list(delays)
        self.calls: list[float] = []
        self.called = threading.Semaphore(0)

    def run_due(self, now: float) -> float:
        self.calls.append(now)
        self.called.release()
        delay = self.delays.pop(0) if self.delays else math.inf
        if math.isnan(delay):
            raise ValueError("no")
        return now + delay

    def wait(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.called.acquire(timeout=10)


Start = Callable[..., Timer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a timer, and stops it after the test."""
    timers: list[Timer] = []

    def start(*recorders: Recorder) -> Timer:
        timer = Timer(logging.getLogger("test"))
        for recorder in recorders:
            timer.add(recorder.run_due)
        timer.start()
        timers.append(timer)
        return timer

    yield start
    for timer in timers:
        timer.request_stop()
        assert timer.join(10)


def test_functions_are_called_when_one_is_due_and_not_before(start: Start) -> None:
    recorder = Recorder(0.05, 0.1)
    start(recorder)
    recorder.wait(3)

    first, second, third = recorder.calls
    assert second - first >= 0.05
    assert third - second >= 0.1


def test_all_functions_are_called_when_the_first_is_due(start: Start) -> None:
    early, late = Recorder(0.01), Recorder(3600)
    start(early, late)
    early.wait(2)
    late.wait(2)


def test_only_a_wake_calls_before_the_due_time(start: Start) -> None:
    recorder = Recorder()
    timer = start(recorder)
    recorder.wait()
    assert not recorder.called.acquire(timeout=0.1)
    timer.wake()
    recorder.wait()

    assert len(recorder.calls) == 2


def test_a_wake_during_a_call_is_not_lost(start: Start) -> None:
    recorder, released = Recorder(), threading.Event()
    real = recorder.run_due

    def run_due(now: float) -> float:
        due = real(now)
        released.wait(10)
        return due

    recorder.run_due = run_due  # type: ignore[method-assign]
    timer = start(recorder)
    recorder.wait()
    timer.wake()
    released.set()
    recorder.wait()


def test_a_failure_does_not_end_it(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.runtime.timer.AFTER_FAILURE", 0.01)
    recorder = Recorder(math.nan)
    start(recorder)
    recorder.wait(2)

    assert caplog.messages == ["The thread timer failed and continues"]


def test_the_death_of_the_thread_is_a_problem(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    timer = start(recorder)
    recorder.wait()
    assert timer.problems() == []
    monkeypatch.setattr(Timer, "_sleep_until", lambda self, due: False)
    timer.wake()
    assert timer.join(10)

    assert [problem.text for problem in timer.problems()] == ["the timer is not running"]


def test_what_repeats_is_logged_when_it_is_due_and_at_the_end(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("test")
    soon, late = (FailureLog(logger, interval=seconds) for seconds in (0.01, 60))
    timer = start()
    timer.watch(soon, late)
    for failures, what in ((soon, "One"), (late, "Another")):
        failures.report(logging.ERROR, what)
        failures.report(logging.ERROR, what)
    until(lambda: len(caplog.messages) == 3)
    assert caplog.messages == ["One", "Another", "One: 1 more in the last 1 s"]

    timer.request_stop()
    assert timer.join(10)
    assert caplog.messages[3:] == ["Another: 1 more in the last 1 s"]


def test_a_function_that_raises_keeps_no_other_from_being_called() -> None:
    timer, calls = Timer(logging.getLogger("test")), threading.Semaphore(0)

    def fail(now: float) -> float:
        raise ValueError("broken")

    def call(now: float) -> float:
        calls.release()
        return now + 0.01

    timer.add(fail)
    timer.add(call)
    timer.start()
    for _ in range(3):
        assert calls.acquire(timeout=10)
    timer.request_stop()
    assert timer.join(10)
