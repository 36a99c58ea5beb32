from __future__ import annotations

from daemonkit.supervision.linked import Owner
from daemonkit.supervision.spec import SlaveSpec

from .slaves import Worker, supervisor_of


def test_an_owner_is_running_until_that_run_is_to_stop_or_has_ended() -> None:
    supervisor = supervisor_of(SlaveSpec.make(Worker, "slave", {}))
    (slave,) = supervisor.slaves()
    supervisor.start()
    run = slave.run
    assert run is not None
    owner = Owner(slave, run)
    assert (owner.is_running, slave.is_up, slave.is_final) == (True, True, False)
    slave.is_stopping = True
    assert (owner.is_running, slave.is_up) == (False, False)
    slave.is_stopping = False
    supervisor.by_name.restart("Worker")
    supervisor.timer.functions[0](0)
    assert slave.run is not run
    assert (owner.is_running, slave.is_up) == (False, True)
    supervisor.request_stop()

    assert supervisor.join(20)
    assert (slave.is_up, slave.is_final) == (False, True)
