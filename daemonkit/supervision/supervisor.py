"""Starts, supervises and stops all slaves."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..exceptions import RegistrationError
from ..runtime.agenda import Agenda
from ..runtime.clock import kernel_timeout, monotonic
from ..runtime.failures import FailureLog
from ..runtime.timer import AFTER_FAILURE, Timer
from ..types import Problem, SlaveMaster
from .by_name import ByName
from .dependencies import Dependencies
from .exits import Exits
from .group import Group
from .handle import Handle
from .linked import Owner
from .restart import Intensity
from .sequencer import Sequencer
from .slave import Slave
from .slave_graph import SlaveGraph
from .slave_status import problem_of
from .spec import SlaveSpec
from .states import StoppingError
from .stop_limits import StopLimits
from .supervised_slave import SupervisedSlave


class Supervisor:
    """All slaves of a daemon.

    timer: runs restarts and heartbeat checks; of_all: limits the restarts of all slaves together;
    stop_timeout: seconds that a slave has for stopping while the daemon runs, unless it has its
    own; gave_up, done: called with the reason when the daemon is to stop, because slaves have
    failed for good or because one that ends it is done; changed: called when the state of a slave
    changes; freeze: makes a copy of what `/status` shows; clock: monotonic seconds. Raises
    RegistrationError for an unknown name in `after`, a circular dependency, or members of a group
    that don't go together.
    """

    name = "slaves"

    def __init__(
        self,
        specs: Sequence[SlaveSpec],
        master: SlaveMaster,
        timer: Timer,
        *,
        of_all: Intensity,
        stop_timeout: float,
        gave_up: Callable[[str], None],
        done: Callable[[str], None],
        changed: Callable[[], None],
        freeze: Callable[[object], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._master = master
        self._timer = timer
        self._of_all = of_all
        self._clock = clock
        self._groups: dict[str, Group[SupervisedSlave]] = {}
        self._graph = graph = SlaveGraph(timer.wake)
        limits = StopLimits(stop_timeout, clock)
        self._sequencer = Sequencer(graph, master.logger, limits, self._refused, clock)
        self._starter, self._stopper = self._sequencer.starter, self._sequencer.stopper
        self._exits = exits = Exits(
            graph, self._sequencer, gave_up=gave_up, done=done, changed=changed, freeze=freeze
        )
        self.created, self.exited, self.changed = exits.created, exits.exited, exits.changed
        self.by_name = ByName(graph, self._sequencer, exits, timer, master.logger, stop_timeout)
        graph.dependencies = Dependencies({spec.name: spec.after for spec in specs})
        for spec in specs:
            self._put(spec, self._group_of(spec))
        timer.add(self._run_due)
        self._failures = FailureLog(master.logger)
        self.is_impatient = False
        """Whether it waits no longer for slaves that have used up their `stop_timeout`."""
        self._is_aborted = False
        self._woken: set[SupervisedSlave] = set()
        self._visits: Agenda[SupervisedSlave] = Agenda()

    def _refused(self, slave: SupervisedSlave, error: BaseException) -> None:
        self._exits.refused(slave, error)

    def _group_of(self, spec: SlaveSpec) -> Group[SupervisedSlave] | None:
        if spec.group is None:
            return None
        group = self._groups.get(spec.group)
        # A slave may take the place of the only member, or of those of an earlier run.
        if group is None or all(
            name == spec.name or member.is_orphan for name, member in group.members.items()
        ):
            group = self._groups[spec.group] = Group(spec.group, spec.policy, self._clock)
        group.check(spec.name, spec.policy)
        return group

    def _put(
        self,
        spec: SlaveSpec,
        group: Group[SupervisedSlave] | None,
        owner: Owner[SupervisedSlave] | None = None,
        *,
        is_dynamic: bool = False,
    ) -> SupervisedSlave:
        graph = self._graph
        slave = SupervisedSlave(
            spec,
            self._master,
            self,
            threading.Condition(graph.lock),
            self._of_all,
            group=group,
            owner=owner,
            is_dynamic=is_dynamic,
            clock=self._clock,
        )
        graph.slaves[spec.name] = slave
        if group is not None:
            group.members[spec.name] = slave
        if owner is not None:
            owner.slave.children.add(slave)
        return slave

    # Starting

    def start(self) -> None:
        """Start the registered slaves; returns once each was created or has failed to be."""
        graph = self._graph
        with graph.changing():
            graph.is_started = True
            registered = list(graph.slaves.values())
            self._starter.consider(*registered)
        for slave in registered:
            self._starter.wait_until_settled(slave, lambda: self._is_aborted)

    def abort_start(self) -> None:
        """Make `start` return at once, because the daemon is to stop."""
        with self._graph.changing():
            self._is_aborted = True
            for slave in self._graph.slaves.values():
                slave.changes.notify_all()

    def add(self, spec: SlaveSpec, owner: Owner[SupervisedSlave] | None = None) -> Slave | None:
        """Add a slave; if the others have started, start it and return a handle once it is created.

        owner: the run that it belongs to. None if the others have not started, or it can't start
        yet. Raises RegistrationError for a name in use, for wrong dependencies, and while what it
        would belong to is stopping; also what the slave's `__init__` raises, and then the slave is
        not retried.
        """
        graph = self._graph
        with graph.changing():
            caller = graph.current()
            added = self._checked(spec, owner, caller)
            if not graph.is_started:
                return None
            handle = Handle()
            added.handle = weakref.ref(handle)
            self._starter.consider(added)
            # In the same change: what others may wait for is checked by it.
            if caller is not None:
                caller.awaited = added
        self._starter.wait_until_settled(added, lambda: graph.is_closed)
        with graph.lock:
            error, added.error = added.error, None
        if error is not None:
            raise error
        if handle.slave is None:
            if graph.is_closed:
                raise _not_started("the daemon", spec)
            return None
        return handle.proxy()

    def run_owned(self, owner: Owner[SupervisedSlave], spec: SlaveSpec) -> Slave | None:
        """A run starts a slave of its own; see `add`."""
        return self.add(spec, owner)

    def _checked(
        self, spec: SlaveSpec, owner: Owner[SupervisedSlave] | None, caller: SupervisedSlave | None
    ) -> SupervisedSlave:
        """Check a slave that is to be added, and put it beside the others."""
        graph, name = self._graph, spec.name
        if graph.is_closed:
            raise _not_started("the daemon", spec)
        if owner is not None and not owner.is_running:
            raise _not_started(f"the slave {owner.slave.name}", spec)
        replaced = graph.slaves.get(name)
        if replaced is not None and not replaced.is_final:
            raise RegistrationError(
                f"a slave named {name!r} already exists; choose another by name="
            )
        if replaced is not None and not replaced.is_over:
            raise RegistrationError(
                f"the slave {name!r} has ended, but what belonged to it hasn't yet"
            )
        graph.dependencies.check(name, spec.after)
        graph.check_bound(spec)
        if caller is not None and not caller.is_created:
            self._check_waits(spec, caller)
        group = self._group_of(spec)
        if group is not None and group.failed not in (None, replaced):
            raise RegistrationError(
                f"the group {spec.group!r} has failed; start {group.failed.name!r} first"
            )
        if replaced is not None:
            self._exits.forget(replaced)
        graph.dependencies.put(name, spec.after)
        added = self._put(spec, group, owner, is_dynamic=graph.is_started)
        # What was bound to an earlier slave of that name is bound to this one.
        bound = [other for other in graph.with_belonging([added]) if other is not added]
        self._sequencer.restart(bound, f"{name} was added")
        return added

    def _check_waits(self, spec: SlaveSpec, creator: SupervisedSlave) -> None:
        """Refuse a slave that would start after the one that waits for it in its `__init__`."""
        for other in spec.after:
            if self._starter.waits_for(self._graph.slaves[other], creator):
                raise RegistrationError(
                    f"the slave {spec.name!r} starts after {other!r}, which waits for it: the "
                    f"__init__ of {creator.name!r} adds it; do that in run()"
                )

    # Stopping

    def stop_restarting(self) -> None:
        """Neither start nor restart slaves from now on; those that run continue."""
        self.abort_start()
        graph = self._graph
        with graph.changing():
            graph.is_closed = True
            for slave in graph.slaves.values():
                slave.close()
                slave.changes.notify_all()

    def request_stop(self) -> None:
        """Restart no more slaves; `join` asks them to stop, in order."""
        self.stop_restarting()

    def join(self, timeout: float) -> bool:
        """Ask the slaves to stop, in order, and wait; a slave with a `stop_timeout` that doesn't
        keep to it is not waited for."""
        graph, until = self._graph, self._clock() + timeout
        with graph.changing():
            self._stopper.stop_all(timeout)
        while (now := self._clock()) < until:
            with graph.changing():
                due = self._stopper.expire(now)
            with graph.lock:
                if graph.alive <= len(self._stopper.given_up):
                    self.is_impatient = graph.alive > 0
                    break
                graph.changes.wait(kernel_timeout(min(due, until) - self._clock()))
        for slave in self.slaves():
            if slave.run is not None and not slave.is_alive and slave.run.thread.is_alive():
                slave.run.thread.join(max(0.0, until - self._clock()))
        return not self.running_threads()

    # Called by the slaves and the timer

    def wake(self, slave: SupervisedSlave) -> None:
        """Have its `run_due` called soon."""
        self._woken.add(slave)
        self._timer.wake()

    def _run_due(self, now: float) -> float:
        due = self._sequencer.run_due(now)
        to_visit = set(self._visits.take(now))
        while self._woken:
            to_visit.add(self._woken.pop())
        for slave in to_visit:
            try:
                next_due = slave.run_due(now)
            # A handler of the log may raise, and again here; the others' turn comes anyway.
            except Exception as error:
                next_due = now + AFTER_FAILURE
                with suppress(Exception):
                    what = f"The check of the slave {slave.name} failed"
                    self._failures.log(error, what, then="; it is repeated")
            self._visits.note(slave, next_due)
        return min(due, self._visits.next)

    # What it shows

    def slaves(self) -> list[SupervisedSlave]:
        """The current slaves."""
        with self._graph.lock:
            return list(self._graph.slaves.values())

    def unsettled(self) -> list[str]:
        """Names of the slaves that are being created."""
        return [s.name for s in self.slaves() if s.is_wanted and not s.is_attempted]

    def running_threads(self) -> list[threading.Thread]:
        """Those of the slaves, and those that they wait for."""
        return [thread for slave in self.slaves() for thread in slave.running_threads()]

    def problems(self) -> list[Problem]:
        """The problems of all slaves."""
        return [problem for slave in self.slaves() if (problem := problem_of(slave)) is not None]


def _not_started(what: str, spec: SlaveSpec) -> StoppingError:
    return StoppingError(f"{what} is stopping: {spec.name} is not started")
