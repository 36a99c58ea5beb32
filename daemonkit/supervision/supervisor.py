"""Starts, supervises and stops all slaves."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial

from ..exceptions import RegistrationError
from ..runtime.clock import monotonic
from ..runtime.timer import Timer
from ..types import Problem, SlaveMaster
from .dependencies import Dependencies
from .slave import Slave, SlaveSpec
from .states import FINAL
from .supervised_slave import SupervisedSlave

KEPT = 100
"""Finished slaves, and failed ones, that are still shown."""


class DaemonStopping(RegistrationError):
    """A slave is not started, because the daemon is stopping."""


class Supervisor:
    """All slaves of a daemon.

    timer: runs restarts and heartbeat checks; gave_up: called with the reason when a critical slave
    has failed for good; changed: called when the state of a slave changes. Raises RegistrationError
    for an unknown name in `after`, or a circular dependency.
    """

    name = "slaves"

    def __init__(
        self,
        specs: Sequence[SlaveSpec],
        master: SlaveMaster,
        timer: Timer,
        *,
        gave_up: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        Dependencies({spec.name: spec.after for spec in specs})
        self._on_changed = changed
        self._timer = timer
        self._supervise = partial(
            SupervisedSlave,
            master=master,
            changed=self._slave_changed,
            wake=timer.wake,
            gave_up=gave_up,
        )
        timer.add(self._run_due)
        self._changes = threading.Condition()
        self._slaves = [self._supervise(spec) for spec in specs]
        self._started = False
        self._start_aborted = False
        self._stopping = False

    # Starting

    def start(self) -> None:
        """Start the registered slaves; returns once each was created or has failed to be."""
        with self._changes:
            self._started = True
            registered = list(self._slaves)
        by_name = {slave.name: slave for slave in registered}
        started: set[str] = set()

        def ready() -> list[SupervisedSlave]:
            return [
                slave
                for slave in registered
                if slave.name not in started and all(by_name[n].settled for n in slave.spec.after)
            ]

        def is_over() -> bool:
            return self._start_aborted or all(slave.settled for slave in registered)

        while not is_over():
            for slave in ready():
                started.add(slave.name)
                slave.start()
            self._timer.wake()
            with self._changes:
                self._changes.wait_for(lambda: is_over() or ready())

    def abort_start(self) -> None:
        """Make `start` return at once, because the daemon is to stop."""
        with self._changes:
            self._start_aborted = True
            self._changes.notify_all()

    def add(self, spec: SlaveSpec) -> Slave | None:
        """Add a slave; if the others have started, start it and return it once it is created.

        None if the others have not started, or no thread is available yet. Raises RegistrationError
        for a name in use, for an unknown name in `after`, and while stopping; also what the slave's
        `__init__` raises, and then the slave is not retried.
        """
        stopping = DaemonStopping(f"the daemon is stopping: {spec.name} is not started")
        with self._changes:
            if self._stopping:
                raise stopping
            others = [s for s in self._slaves if s.name != spec.name or not s.is_final]
            names = [other.name for other in others]
            if spec.name in names:
                raise RegistrationError(
                    f"a slave named {spec.name!r} already exists; choose another by name="
                )
            # A new slave can't close a cycle: no other slave depends on it yet.
            Dependencies({**dict.fromkeys(names, ()), spec.name: spec.after})
            earlier = [other for other in others if other.name in spec.after]
            added = self._supervise(spec, one_try=self._started)
            self._slaves = [*_without_oldest(others), added]
            if not self._started:
                return None
            self._changes.wait_for(lambda: self._stopping or all(s.settled for s in earlier))
        added.start()
        self._timer.wake()
        with self._changes:
            self._changes.wait_for(lambda: added.settled)
            error, added.error = added.error, None
            if error is not None:
                self._slaves.remove(added)
        if error is not None:
            raise error
        if added.slave is None and self._stopping:
            raise stopping
        return added.slave

    # Stopping

    def stop_restarting(self) -> None:
        """Neither start nor restart slaves from now on; those that run continue."""
        self.abort_start()
        with self._changes:
            self._stopping = True
            for slave in self._slaves:
                slave.stop_restarting()
            self._changes.notify_all()

    def request_stop(self) -> None:
        """Restart no more slaves; `join` asks them to stop, in order."""
        self.stop_restarting()

    def join(self, timeout: float) -> bool:
        until = monotonic() + timeout
        self._stop_in_order(until)
        for slave in self.slaves():
            slave.join(max(0.0, until - monotonic()))
        return not self.running_threads()

    def _stop_in_order(self, until: float) -> None:
        """Ask each slave to stop once those that started after it have stopped.

        A slave that doesn't stop delays each one that waits for it by an equal share of the time.
        """
        slaves = {slave.name: slave for slave in self.slaves()}
        positions = {name: position for position, name in enumerate(slaves)}
        dependencies = Dependencies(
            {
                name: [other for other in slave.spec.after if other in slaves]
                for name, slave in slaves.items()
            }
        )
        order = dependencies.stop_order()
        order.prepare()
        deadlines: dict[str, float] = {}
        while order.is_active():
            for name in sorted(order.get_ready(), key=lambda name: -positions[name]):
                now = monotonic()
                share = max(0.0, until - now) / (1 + dependencies.depth(name))
                slaves[name].request_stop(share)
                deadlines[name] = now + share

            def done(at: float) -> list[str]:
                return [n for n, end in deadlines.items() if slaves[n].is_over or end <= at]

            with self._changes:
                while not done(now := monotonic()):
                    self._changes.wait(max(0.0, min(deadlines.values()) - now))
            for name in done(monotonic()):
                del deadlines[name]
                order.done(name)

    # Called by the slaves and the timer

    def _slave_changed(self) -> None:
        with self._changes:
            self._changes.notify_all()
        self._on_changed()

    def _run_due(self, now: float) -> float:
        return min((slave.run_due(now) for slave in self.slaves()), default=math.inf)

    # What it shows

    def slaves(self) -> list[SupervisedSlave]:
        """The current slaves."""
        with self._changes:
            return list(self._slaves)

    def unsettled(self) -> list[str]:
        """Names of the slaves that are being created."""
        return [s.name for s in self.slaves() if not s.settled and not s.is_over]

    def running_threads(self) -> list[threading.Thread]:
        return [thread for slave in self.slaves() for thread in slave.running_threads()]

    def problems(self) -> list[Problem]:
        """The problems of all slaves."""
        return [problem for slave in self.slaves() if (problem := slave.problem()) is not None]


def _without_oldest(slaves: list[SupervisedSlave]) -> list[SupervisedSlave]:
    """All but the oldest finished and failed slaves, where there are more than KEPT of them."""
    dropped: list[SupervisedSlave] = []
    for state in FINAL:
        final = [slave for slave in slaves if slave.is_final and slave.state == state]
        dropped += final[: max(0, len(final) - KEPT)]
    return [slave for slave in slaves if slave not in dropped]
