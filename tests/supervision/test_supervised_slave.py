from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.supervision.slave import SlaveSpec
from daemonkit.supervision.supervised_slave import SupervisedSlave

from ..clock import Clock


class Parent:
    """A supervisor that only notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def changed(self, child: SupervisedSlave) -> None:
        self.told.append(child.state)

    def wake(self) -> None:
        self.told.append("wake")

    def gave_up(self, child: SupervisedSlave) -> None:
        self.told.append("gave up")


class Family:
    """A child with a clock that a test moves, under a supervisor that doesn't act."""

    def __init__(self, target: Any, **options: Any) -> None:
        self.clock, self.parent, self.master = Clock(), Parent(), Daemon("app")
        spec = SlaveSpec.make(target, "slave", **{"name": "work", **options})
        self.child = SupervisedSlave(spec, self.master, self.parent, clock=self.clock)

    def live(self) -> SupervisedSlave:
        """Start the child and wait until its thread has ended."""
        self.child.start()
        assert self.child.join(10)
        return self.child


def fail() -> None:
    raise ValueError("no")


def test_a_child_waits_its_back_off_and_is_then_started_again() -> None:
    family = Family(fail, backoff=(4, 4))
    child = family.live()
    due = child.run_due(family.clock.now)
    assert (child.state, due, family.parent.told[-2:]) == (
        "waiting to restart",
        104,
        ["wake", "waiting to restart"],
    )
    child.run_due(103.9)
    assert child.restarts == 0
    child.run_due(104)
    child.join(10)
    assert child.restarts == 1


@pytest.mark.parametrize(("target", "state"), [(fail, "failed"), (lambda: None, "finished")])
def test_one_that_waits_when_it_is_to_stop_is_over(target: Any, state: str) -> None:
    family = Family(target, restart="always", backoff=(4, 4))
    child = family.live()
    assert child.state == "waiting to restart"
    child.request_stop()
    family.clock.now += 10

    assert child.run_due(family.clock.now) == float("inf")
    assert (child.state, child.restarts, child.is_final) == (state, 0, True)
    assert child.join(0)


def test_a_return_is_no_trouble_even_after_an_earlier_failure() -> None:
    errors = [ValueError("no")]

    def work() -> None:
        if errors:
            raise errors.pop()

    family = Family(work, restart="always", backoff=(4, 4))
    child = family.live()
    assert child.problem() is not None
    child.run_due(104)
    child.join(10)

    assert (child.state, child.restarts, child.problem()) == ("waiting to restart", 1, None)


def test_one_that_never_started_is_over_when_it_is_to_stop() -> None:
    child = Family(fail).child
    child.request_stop()
    child.start()

    assert (child.state, child.is_final, child.settled) == ("finished", True, True)


def test_a_return_after_the_daemon_s_own_shutdown_is_final_and_a_failure_is_not() -> None:
    for target, state in ((lambda: None, "finished"), (fail, "waiting to restart")):
        family = Family(target, restart="always")
        family.master.stop()

        assert family.live().state == state
        assert "gave up" not in family.parent.told


@pytest.mark.parametrize(
    ("restart", "message"),
    [
        ("on-failure", "The slave work returned"),
        ("never", "The slave work returned"),
        ("always", "The slave work returned; restart 1 in 4 s"),
    ],
)
def test_a_return_is_logged_unless_it_was_asked_for(
    restart: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stopping = Family(lambda: None, restart=restart, backoff=(4, 4))
    stopping.master.stop()
    stopping.live()
    asked = Family(lambda slave: slave.shutdown.wait(), restart=restart)
    asked.child.start()
    asked.child.request_stop()
    assert asked.child.join(10)
    assert caplog.messages == []

    Family(lambda: None, restart=restart, backoff=(4, 4)).live()
    assert caplog.messages == [message]


def test_out_of_memory_for_telling_it_is_restarted_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> str:
        raise MemoryError

    monkeypatch.setattr("daemonkit.supervision.supervised_slave.error_text", refuse)
    monkeypatch.setattr("daemonkit.supervision.supervised_slave._what_happened", refuse)
    child = Family(fail).live()

    assert child.state == "waiting to restart"
    assert child.last_failure is not None
    assert (child.last_failure.error, child.last_failure.place) == ("ValueError", "")
    assert child.problem() is not None


def test_out_of_memory_for_logging_a_failed_call_the_next_comes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> str:
        raise MemoryError

    monkeypatch.setattr("daemonkit.supervision.supervised_slave._what_happened", refuse)
    child = Family(fail, every=1).child
    child.ticked(MemoryError())

    assert child.state == "waiting to restart"


def test_a_call_that_fails_again_in_the_same_way_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    family = Family(fail, every=1)
    child, errors = family.child, [ValueError("a")] * 61 + [ValueError("b"), None]
    for error in errors:
        child.ticked(error)
        family.clock.now += 1

    assert caplog.messages == [
        "The slave work failed; it is called again as planned",
        "The slave work still fails (60 more times): ValueError: a",
        "The slave work failed; it is called again as planned",
        "The slave work works again",
    ]
    assert child.ticks == 63


def test_a_call_that_fails_ends_a_periodic_slave_that_is_never_to_be_restarted() -> None:
    family = Family(fail, every=0.01, restart="never")

    assert family.live().state == "failed"
    assert family.parent.told[-2:] == ["gave up", "failed"]


def test_the_place_of_an_error_is_the_slave_s_own_line() -> None:
    def work() -> None:
        int("x" * int("1"))
        "".join([1])  # type: ignore[list-item]

    family = Family(work, critical=False, restart="never")
    failure = family.live().last_failure

    assert failure is not None
    line = work.__code__.co_firstlineno + 1
    assert failure.place == f"{__file__}:{line} in work"
    assert failure.error.startswith("ValueError: invalid literal")


def test_an_error_from_elsewhere_has_the_place_it_came_from() -> None:
    family = Family(threading.Event().wait, name="wait", critical=False, restart="never")
    child = family.child
    try:
        fail()
    except ValueError as error:
        child.ended(error)

    assert child.last_failure is not None
    assert child.last_failure.place.endswith("in fail")


def test_an_override_of_status_wins_over_what_is_known() -> None:
    class Own(Slave):
        def run(self) -> None: ...

        def status(self) -> dict[str, Any]:
            return {"state": "mine"}

    status = Family(Own).live().status()

    assert (status["state"], status["restarts"]) == ("mine", 0)
