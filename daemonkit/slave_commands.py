"""What users do with slaves while the daemon runs."""

from __future__ import annotations

from typing import Any

from .exceptions import RegistrationError
from .supervision.by_name import NOT_STARTED, ByName
from .supervision.slave import Slave
from .supervision.spec import SlaveSpec, SlaveTarget
from .supervision.supervisor import Supervisor


class SlaveCommands:
    """The part of `Daemon` that starts and stops slaves."""

    def _add_slave(self, spec: SlaveSpec) -> Slave | None:
        """Start a slave, or register it when the daemon has not started."""
        raise NotImplementedError

    @property
    def _supervisor(self) -> Supervisor | None:
        raise NotImplementedError

    def run_slave(self, target: SlaveTarget, *args: Any, **keywords: Any) -> Slave | None:
        """Start a slave in the running daemon, or with the others when it hasn't started yet.

        args, keywords: for the Slave subclass's `__init__`; of the keywords those that it doesn't
        name itself may also be options, see `slave`. Returns a handle once the slave is created,
        which stands for its current run over all restarts; None if it can't start yet. Raises
        RegistrationError, also while stopping, and what `__init__` raises; the slave is then not
        retried.
        """
        return self._add_slave(SlaveSpec.of_call(target, args, keywords))

    def stop_slave(self, name: str, timeout: float | None = None) -> bool:
        """Stop a slave, those that are bound to it and those that it owns, until `start_slave`;
        returns whether it has stopped within `timeout` seconds, by default `shutdown_timeout`.

        This and the next three raise RegistrationError for an unknown name, and unless the daemon
        runs. Called on the slave's own thread they don't wait.
        """
        return self._by_name.stop(name, timeout)

    def start_slave(self, name: str) -> bool:
        """Start a slave that doesn't run; returns whether it then does. One that can't be created
        is retried. Raises RegistrationError for a finished one that was added by `run_slave`."""
        return self._by_name.start(name)

    def restart_slave(self, name: str, timeout: float | None = None) -> bool:
        """Restart a slave, its group, and what is bound to them; returns whether it runs again
        within `timeout` seconds, by default `shutdown_timeout`. No restart is counted."""
        return self._by_name.restart(name, timeout)

    def forget_slave(self, name: str) -> None:
        """Show a slave that has ended no more, neither in `/status` nor in the health check."""
        self._by_name.forget(name)

    @property
    def _by_name(self) -> ByName:
        supervisor = self._supervisor
        if supervisor is None:
            raise RegistrationError(NOT_STARTED)
        return supervisor.by_name
