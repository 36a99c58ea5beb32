from __future__ import annotations

import logging
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.supervision.slave import SlaveSpec
from daemonkit.supervision.supervised_slave import SupervisedSlave

from ..clock import Clock


class Supervised:
    """A supervised slave with a clock that a test moves, and what it reported."""

    def __init__(self, target: Any, **options: Any) -> None:
        self.clock, self.master = Clock(), Daemon("app")
        self.reports: list[str] = []
        spec = SlaveSpec.make(target, "slave", {"name": "work", **options})
        self.slave = SupervisedSlave(
            spec,
            self.master,
            changed=lambda: self.reports.append(self.slave.state),
            wake=lambda: self.reports.append("wake"),
            gave_up=self.reports.append,
            clock=self.clock,
        )

    def run(self) -> SupervisedSlave:
        """Start the slave and wait until its thread has ended."""
        self.slave.start()
        assert self.slave.join(10)
        return self.slave


def fail() -> None:
    raise ValueError("no")


def test_a_child_waits_its_back_off_and_is_then_started_again() -> None:
    supervised = Supervised(fail, backoff=(4, 4))
    slave = supervised.run()
    due = slave.run_due(supervised.clock.now)
    assert (slave.state, due, supervised.reports[-2:]) == (
        "backing off",
        104,
        ["wake", "backing off"],
    )
    slave.run_due(103.9)
    assert slave.restarts == 0
    slave.run_due(104)
    slave.join(10)
    assert slave.restarts == 1


@pytest.mark.parametrize(("target", "state"), [(fail, "failed"), (lambda: None, "finished")])
def test_one_that_waits_when_it_is_to_stop_is_over(target: Any, state: str) -> None:
    supervised = Supervised(target, restart="always", backoff=(4, 4))
    slave = supervised.run()
    assert slave.state == "backing off"
    slave.request_stop()
    supervised.clock.now += 10

    assert slave.run_due(supervised.clock.now) == float("inf")
    assert (slave.state, slave.restarts, slave.is_final) == (state, 0, True)
    assert slave.join(0)


def test_a_return_is_no_trouble_even_after_an_earlier_failure() -> None:
    errors = [ValueError("no")]

    def work() -> None:
        if errors:
            raise errors.pop()

    supervised = Supervised(work, restart="always", backoff=(4, 4))
    slave = supervised.run()
    assert slave.problem() is not None
    slave.run_due(104)
    slave.join(10)

    assert (slave.state, slave.restarts, slave.problem()) == ("backing off", 1, None)


def test_one_that_never_started_is_over_when_it_is_to_stop() -> None:
    slave = Supervised(fail).slave
    slave.request_stop()
    slave.start()

    assert (slave.state, slave.is_final, slave.settled) == ("finished", True, True)


def test_a_return_after_the_daemon_s_own_shutdown_is_final_and_a_failure_is_not() -> None:
    for target, state in ((lambda: None, "finished"), (fail, "backing off")):
        supervised = Supervised(target, restart="always")
        supervised.master.stop()

        assert supervised.run().state == state
        assert "the slave work gave up" not in supervised.reports


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
    stopping = Supervised(lambda: None, restart=restart, backoff=(4, 4))
    stopping.master.stop()
    stopping.run()
    asked = Supervised(lambda slave: slave.shutdown.wait(), restart=restart)
    asked.slave.start()
    asked.slave.request_stop()
    assert asked.slave.join(10)
    assert caplog.messages == []

    Supervised(lambda: None, restart=restart, backoff=(4, 4)).run()
    assert caplog.messages == [message]


def test_a_call_that_fails_ends_a_periodic_slave_that_is_never_to_be_restarted() -> None:
    supervised = Supervised(fail, every=0.01, restart="never")

    assert supervised.run().state == "failed"
    assert supervised.reports[-2:] == ["the slave work gave up", "failed"]


def refuse(*arguments: object, **options: object) -> str:
    raise MemoryError


def test_without_memory_for_logging_it_is_restarted_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.supervision.slave_log._outcome", refuse)
    supervised = Supervised(fail)
    slave = supervised.run()

    assert slave.state == "backing off"
    assert supervised.reports[-2:] == ["wake", "backing off"]
    assert slave.problem() is not None


def test_without_memory_for_logging_a_failed_call_the_next_comes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.supervision.slave_log._outcome", refuse)
    slave = Supervised(fail, every=1).slave
    slave.call_ended(MemoryError())

    assert slave.state == "backing off"


def test_a_call_that_fails_changes_the_state_once_and_so_does_one_that_succeeds() -> None:
    supervised = Supervised(fail, every=1)
    slave, errors = supervised.slave, [ValueError("a"), ValueError("a"), ValueError("b"), None]
    for error in [*errors, None]:
        slave.call_ended(error)

    assert supervised.reports == ["backing off", "backing off", "running"]
    assert slave.ticks == 5


def shown(status: Any) -> Any:
    """What is shown of a slave whose `status()` returns `status`."""

    class Own(Slave):
        def run(self) -> None: ...

        def status(self) -> Any:
            return status

    return Supervised(Own).run().status()


def test_a_status_that_forgets_super_still_shows_name_start_and_state() -> None:
    own = shown({"hits": 3})

    assert (own["name"], own["state"], own["hits"]) == ("work", "finished", 3)
    assert own["started"] is not None


def test_an_override_of_status_wins_over_what_is_known() -> None:
    own = shown({"state": "mine"})

    assert (own["state"], own["restarts"]) == ("mine", 0)


@pytest.mark.parametrize("status", ["fine", None, [1, 2]])
def test_a_status_that_is_no_mapping_is_shown_beside_what_is_known(status: Any) -> None:
    own = shown(status)

    assert (own["name"], own["state"], own["status"]) == ("work", "finished", status)


def test_a_status_that_is_a_coroutine_is_refused() -> None:
    async def status() -> None: ...

    with pytest.raises(TypeError, match="^it returned a coroutine"):
        shown(status())


def test_a_pending_restart_is_shown() -> None:
    supervised = Supervised(fail, backoff=(4, 4))
    slave = supervised.run()
    supervised.clock.now += 1

    assert slave.status()["next_restart_in"] == 3
    slave.request_stop()
    assert "next_restart_in" not in slave.status()
