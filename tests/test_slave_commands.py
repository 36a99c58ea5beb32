from __future__ import annotations

import pytest

from daemonkit import Daemon, RegistrationError, Slave
from daemonkit.slave_commands import SlaveCommands
from daemonkit.testing import running


def test_the_daemon_has_the_commands() -> None:
    assert issubclass(Daemon, SlaveCommands)
    with pytest.raises(NotImplementedError):
        SlaveCommands()._supervisor  # noqa: B018
    with pytest.raises(NotImplementedError):
        SlaveCommands().run_slave(lambda: None, name="job")


def test_a_daemon_that_is_a_subclass_commands_its_slaves_from_run() -> None:
    seen: list[object] = []

    class Worker(Slave):
        def run(self) -> None:
            self.shutdown.wait()

    class Master(Daemon):
        def run(self) -> None:
            worker = self.run_slave(Worker)
            assert worker is not None
            seen.append((worker.name, self.restart_slave("Worker"), self.stop_slave("Worker")))
            self.forget_slave("Worker")
            with pytest.raises(RegistrationError):
                self.start_slave("Worker")
            self.stop()

    master = Master()
    with running(master) as client:
        assert master.shutdown.wait(20)

    assert seen == [("Worker", True, True)]
    assert client.exit_status == 0
