from __future__ import annotations

import pytest

from daemonkit.supervision.spec import SlaveSpec
from daemonkit.supervision.supervised_slave import SupervisedSlave

from ..clock import Clock
from .slaves import Unstarted, Worker, supervisor_of


@pytest.fixture
def clock() -> Clock:
    return Clock(100)


def chain(clock: Clock, **options: float) -> tuple[Unstarted, list[SupervisedSlave]]:
    """Slaves a, b, c that start after one another, as if they ran."""
    specs = [
        SlaveSpec.make(Worker, "slave", {"name": name, "after": after, **options})  # type: ignore[typeddict-item]
        for name, after in (("a", ()), ("b", ("a",)), ("c", ("b",)))
    ]
    supervisor = supervisor_of(*specs, clock=clock)
    slaves = supervisor.slaves()
    for slave in slaves:
        slave.is_alive = slave.is_created = slave.is_attempted = True
    return supervisor, slaves


def end(supervisor: Unstarted, slave: SupervisedSlave) -> None:
    slave.is_alive = slave.is_stopping = slave.is_asked = False
    if not slave.blockers:
        supervisor._sequencer.stopper.unblock(slave)


def asked(slaves: list[SupervisedSlave]) -> str:
    return "".join(slave.name for slave in slaves if slave.is_asked)


def test_each_is_asked_once_those_after_it_have_ended(clock: Clock) -> None:
    supervisor, slaves = chain(clock)
    supervisor._sequencer.stopper.stop(slaves, "")
    assert asked(slaves) == "c"
    end(supervisor, slaves[2])
    assert asked(slaves) == "b"
    end(supervisor, slaves[1])
    assert asked(slaves) == "a"


@pytest.mark.parametrize("middle", ["runs on", "has ended before", "ends by itself"])
def test_the_order_holds_beyond_one_that_is_not_asked(clock: Clock, middle: str) -> None:
    supervisor, slaves = chain(clock)
    a, b, c = slaves
    b.is_alive = middle != "has ended before"
    supervisor._sequencer.stopper.stop([a, c] if middle == "runs on" else slaves, "")
    if middle == "ends by itself":
        end(supervisor, b)
    assert asked(slaves) == "c"
    end(supervisor, c)
    assert asked(slaves) == "a"
    assert [slave.blockers for slave in slaves] == [0, 0, 0]


def test_one_that_does_not_stop_in_time_is_named_with_those_that_wait(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, slaves = chain(clock, stop_timeout=2)
    stopper = supervisor._sequencer.stopper
    with supervisor._graph.changing():
        stopper.stop(slaves, "")
        assert stopper.expire(101) == 102
    clock.now = 102
    with supervisor._graph.changing():
        stopper.expire(102)
    assert asked(slaves) == "bc"
    assert caplog.messages == ["The slave c has not stopped in time; no longer waiting for it: b"]
    assert {slave.name for slave in stopper.overdue} == {"c"}


def test_the_stop_of_the_daemon_shortens_the_time_of_those_asked_before(clock: Clock) -> None:
    supervisor, slaves = chain(clock)
    stopper = supervisor._sequencer.stopper
    stopper.stop(slaves, "")
    assert slaves[2].stop_until == 125
    stopper.stop_all(10)
    assert slaves[2].stop_until == 109
