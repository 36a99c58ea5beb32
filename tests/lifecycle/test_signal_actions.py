from __future__ import annotations

import logging
import signal
import threading

import pytest

from daemonkit.lifecycle import signal_actions as module
from daemonkit.lifecycle.signal_actions import SAME_SIGNAL, StopSignals, signal_actions

LOGGER = logging.getLogger("app")


class Exited(Exception):
    pass


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> StopSignals:
    def exit_by_signal(logger: logging.Logger, number: int, left: str) -> None:
        raise Exited(number, left)

    monkeypatch.setattr(module, "exit_by_signal", exit_by_signal)
    return StopSignals(threading.Event(), LOGGER, lambda: 7)


def test_the_first_signal_sets_shutdown_and_is_the_reason(stop: StopSignals) -> None:
    assert stop.reason == "stop() was called"

    stop.receive(signal.SIGINT)

    assert stop._shutdown.is_set()
    assert stop.reason == "received SIGINT"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_counts_from_half_a_second_on(
    stop: StopSignals, monkeypatch: pytest.MonkeyPatch, second: signal.Signals
) -> None:
    now = 10.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    assert not stop.request.is_fresh()
    stop.receive(signal.SIGTERM)
    now += SAME_SIGNAL - 0.01
    assert stop.request.is_fresh()
    stop.receive(second)
    now += 0.01

    assert not stop.request.is_fresh()
    with pytest.raises(Exited) as raised:
        stop.receive(second)
    assert raised.value.args == (second, "7 events are left unhandled")
    assert (SAME_SIGNAL, stop.reason) == (0.5, "received SIGTERM")


def test_sigusr1_logs_the_stacks_whatever_the_level(
    stop: StopSignals, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "level", logging.ERROR)
    reloads: list[int] = []
    actions = signal_actions(stop, lambda: reloads.append(1), LOGGER)
    actions[signal.SIGUSR1]()
    for thread in threading.enumerate():
        if thread.name == "stacks":
            thread.join(30)
    actions[signal.SIGHUP]()

    (record,) = caplog.records
    assert (record.levelname, record.name, reloads) == ("INFO", "app", [1])
    assert record.getMessage().startswith("received SIGUSR1: ")
    assert "test_sigusr1_logs_the_stacks_whatever_the_level" in record.getMessage()


def test_sigusr1_is_left_to_a_program_that_handles_it(stop: StopSignals) -> None:
    ours = set(signal_actions(stop, lambda: None, LOGGER))
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        without = set(signal_actions(stop, lambda: None, LOGGER))
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert ours == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
    assert without == ours - {signal.SIGUSR1}
