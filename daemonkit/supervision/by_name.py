"""Stops, starts, restarts and forgets slaves by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial

from ..exceptions import RegistrationError
from ..runtime.stacks import stack_of
from ..runtime.timer import Timer
from ..text import describe
from .calls import Calls
from .dependencies import nearest
from .exits import Exits
from .restart import is_seconds
from .sequencer import Sequencer
from .slave_graph import SlaveGraph
from .states import FINISHED, StoppingError, UnknownSlave
from .supervised_slave import SupervisedSlave

NOT_STARTED = "no slaves run yet: the daemon has not started"


class ByName:
    """What is done to single slaves while the daemon runs, like terminate_child, restart_child and
    delete_child in Erlang/OTP.

    timeout: seconds to wait unless a call has its own; none waits on a thread that would wait for
    itself. Each raises RegistrationError for an unknown name, and while the daemon is stopping.
    """

    def __init__(
        self,
        graph: SlaveGraph,
        sequencer: Sequencer,
        exits: Exits,
        timer: Timer,
        logger: logging.Logger,
        timeout: float,
    ) -> None:
        self._logger = logger
        self._graph = graph
        self._sequencer = sequencer
        self._starter = sequencer.starter
        self._exits = exits
        self._timer = timer
        self._timeout = timeout

    def stop(self, name: str, timeout: float | None = None) -> bool:
        """Stop a slave, and what belongs to it, until it is started again; returns whether it has
        stopped within `timeout` seconds."""
        seconds = self._checked(timeout)
        with self._graph.changing():
            slave = self._find(name)
            slave.plan_stop()
            self._sequencer.take_down([slave], "stop_slave")
            if slave.is_dynamic and slave.is_final:
                self._graph.afterwards(partial(self._exits.keep, slave))
            seconds = self._patience([slave], seconds)
        self._exits.changed()
        return self._starter.wait_for(slave, lambda: slave.is_over, seconds)

    def start(self, name: str) -> bool:
        """Start a slave that doesn't run, and what is bound to it; returns whether it then runs.

        One that can't be created is retried like at the start of the daemon. With it, a group that
        has failed starts again.
        """
        with self._graph.changing():
            slave = self._find(name)
            self._check_can_start(slave)
            together = [slave]
            if not slave.is_alive or slave.is_stopping:
                if slave.group is not None and slave.group.failed is not None:
                    together = list(slave.group.members.values())
                self._plan_start(slave, together, "start_slave")
            seconds = self._patience(together, self._timeout)
        self._starter.wait_until_settled(slave, lambda: self._graph.is_closed, seconds)
        return slave.is_up

    def restart(self, name: str, timeout: float | None = None) -> bool:
        """Restart a slave, its group, and what belongs to them, without counting it; returns
        whether it runs again within `timeout` seconds."""
        return self.restarted(name, timeout) is True

    def restarted(self, name: str, timeout: float | None = None) -> bool | None:
        """The same; returns None if it hasn't been started again yet, and False if it has, but
        doesn't run any more."""
        seconds = self._checked(timeout)
        with self._graph.changing():
            slave = self._find(name)
            self._check_can_start(slave)
            before = slave.run
            together = [slave] if slave.group is None else list(slave.group.members.values())
            self._plan_start(slave, together, "restart_slave")
            seconds = self._patience(together, seconds)
        self._exits.changed()

        def runs_again() -> bool:
            return slave.is_up and slave.run is not before

        def has_ended_again() -> bool:
            return not slave.is_alive and (slave.is_final or slave.run is not before)

        self._starter.wait_for(slave, lambda: runs_again() or has_ended_again(), seconds)
        if runs_again():
            return True
        return False if has_ended_again() else None

    def forget(self, name: str) -> None:
        """Show a slave that has ended no more, in `/status` or in the health check."""
        with self._graph.changing():
            slave = self._find(name)
            if slave.is_alive or not slave.is_out:
                raise RegistrationError(f"the slave {name!r} is {slave.state}; stop it first")
            for other in reversed(self._graph.with_belonging([slave])):
                if not (other.is_out and other.is_over):
                    raise RegistrationError(
                        f"the slave {other.name!r} belongs to {name!r} and is {other.state}; "
                        "stop that first"
                    )
            self._exits.forget(slave)
            self._log("Forgetting the slave %s", slave)
        self._exits.changed()

    def pause(self, name: str, by: str) -> bool:
        """Suspend a periodic slave's calls; returns whether they weren't suspended already."""
        return self._calls_of(name).pause(by)

    def resume(self, name: str) -> bool:
        """Make a periodic slave's calls again; returns whether they were suspended."""
        return self._calls_of(name).resume()

    def run_now(self, name: str) -> bool:
        """Have a periodic slave called once, now, besides its schedule; returns whether that isn't
        after a call that runs."""
        with self._graph.lock:
            slave = self._find(name)
            calls = self._calls_of(name)
            if not slave.is_up:
                raise RegistrationError(f"the slave {name!r} is {slave.state}")
        return calls.request()

    def stack(self, name: str) -> str:
        """The present stack of a slave's thread."""
        # Above all while the daemon stops and one of them doesn't.
        slave = self._graph.slaves.get(name)
        if slave is None:
            raise UnknownSlave(f"there is no slave {name!r}{nearest(name, self._graph.slaves)}")
        run = slave.run
        return "(no stack)\n" if run is None else stack_of(run.thread)

    def _calls_of(self, name: str) -> Calls:
        calls = self._find(name).calls
        if calls is None:
            raise RegistrationError(f"the slave {name!r} isn't called periodically (every)")
        return calls

    def _find(self, name: str) -> SupervisedSlave:
        slaves = self._graph.slaves
        if not self._graph.is_started:
            raise RegistrationError(NOT_STARTED)
        if self._graph.is_closed:
            raise StoppingError("the daemon is stopping, and all slaves with it")
        if name not in slaves:
            raise UnknownSlave(f"there is no slave {name!r}{nearest(str(name), slaves)}")
        return slaves[name]

    def _check_can_start(self, slave: SupervisedSlave) -> None:
        owner, name = slave.owner, slave.name
        # Finished ones are released a moment after they are seen to be finished.
        if slave.is_released or (slave.is_dynamic and slave.is_final and slave.state == FINISHED):
            raise RegistrationError(
                f"the slave {name!r} was added by run_slave and has ended; add it again"
            )
        if owner is not None and not owner.is_running:
            raise RegistrationError(
                f"the slave {name!r} belongs to a run of {owner.slave.name!r} that has ended"
            )
        self._graph.check_bound(slave.spec)

    def _plan_start(
        self, slave: SupervisedSlave, together: Sequence[SupervisedSlave], reason: str
    ) -> None:
        group = slave.group if len(together) > 1 else None
        if not slave.is_alive:
            self._log(f"Starting the slave %s: {reason}", slave)
        slave.plan_start(reason)
        if slave.group is not None and slave.group.failed is not None:
            slave.group.failed.plan_start(reason)
            slave.group.failed = None
        self._sequencer.restart(together, reason, group=group)

    def _log(self, text: str, slave: SupervisedSlave) -> None:
        self._graph.afterwards(lambda: self._logger.info(text, slave.name))

    def _checked(self, timeout: float | None) -> float:
        if timeout is None:
            return self._timeout
        if not is_seconds(timeout):
            raise RegistrationError(f"timeout must be a number of seconds, not {describe(timeout)}")
        return timeout

    def _patience(self, slaves: Iterable[SupervisedSlave], seconds: float) -> float:
        """Seconds to wait: none on a thread that would wait for itself."""
        caller = self._graph.current()
        # Its thread restarts slaves, too: it is the one of `on_health_change`.
        if self._timer.is_current_thread:
            return 0.0
        if caller is None:
            return seconds
        together = self._graph.with_belonging(slaves)
        is_waited_for = caller in together or (
            not caller.is_created
            and any(self._starter.waits_for(slave, caller) for slave in together)
        )
        return 0.0 if is_waited_for else seconds
