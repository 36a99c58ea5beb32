"""One slave under supervision: its state, restarts and last failure over all its runs."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from ..exceptions import Done
from ..runtime.clock import monotonic
from ..runtime.stacks import stack_of
from ..types import SlaveMaster
from .calls import Calls
from .failure import SlaveFailure
from .group import Group
from .handle import Handle
from .linked import Linked, Owner
from .restart import NEVER, Intensity, RestartHistory, Restarts
from .slave import Slave
from .slave_log import SlaveLog
from .slave_thread import SlaveThread
from .spec import SlaveSpec
from .states import (
    BACKING_OFF,
    FAILED,
    FINAL,
    FINISHED,
    RUNNING,
    STALLED,
    STARTING,
    STOPPED,
    STOPPING,
    WAITING,
    Decision,
    Ended,
    StoppingError,
    decide,
)


class Events(Protocol):
    """What is reported of slaves, on any thread."""

    def created(self, slave: SupervisedSlave, made: Slave) -> bool:
        """A run has created its Slave; returns whether it is to go on."""
        ...

    def exited(self, slave: SupervisedSlave, error: BaseException | None) -> None:
        """A run is over."""

    def changed(self) -> None:
        """The state of a slave has changed."""

    def wake(self, slave: SupervisedSlave) -> None:
        """`slave.run_due` is to be called soon."""

    def run_owned(self, owner: Owner[SupervisedSlave], spec: SlaveSpec) -> Slave | None:
        """A run starts a slave of its own."""
        ...


class SupervisedSlave(Linked["SupervisedSlave"]):
    """A slave and its runs, each on a new SlaveThread.

    It knows itself; what its runs mean for others is for the Sequencer.
    changes: notified when something has changed that concerns it; of_all: counts the restarts of
    all slaves; is_dynamic: it was added later, and is given up when it can't be created the first
    time; clock: monotonic seconds.
    """

    slave: Slave | None = None
    """What that run created, or one before it."""
    error: BaseException | None = None
    """The exception of the first attempt, if the slave had only one."""
    last_failure: SlaveFailure | None = None
    ticks = 0

    def __init__(
        self,
        spec: SlaveSpec,
        master: SlaveMaster,
        events: Events,
        changes: threading.Condition,
        of_all: Intensity,
        *,
        group: Group[SupervisedSlave] | None = None,
        owner: Owner[SupervisedSlave] | None = None,
        is_dynamic: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(spec, changes, group, owner)
        self.is_dynamic = is_dynamic
        self.handle: weakref.ref[Handle] | None = None
        """What `run_slave` returned leads there; it may have been dropped."""
        self._master = master
        self._events = events
        self._one_try = is_dynamic
        self._clock = clock
        self._of_all = of_all
        logger = logging.getLogger(f"{master.name}.{spec.name}")
        self.log = SlaveLog(logger, spec, lambda: events.wake(self), clock)
        self._state = STARTING
        self.is_failing = self._may_return = False
        self._restarts = group.restarts if group else Restarts(spec.policy, clock)
        self.history = RestartHistory()
        self.calls = None if spec.every is None else Calls(spec.every, clock)
        self.shown: Any = {}

    # What the Sequencer decides, under the lock

    def begin_run(self) -> SlaveThread:
        """Make the next run, whose thread is then to be started."""
        self._state, self.due = STARTING, -math.inf
        self.is_alive, self.is_created, self.is_down = True, False, False
        self.children = set()
        self._restarts.started()
        if self.history.started() and self.group is not None:
            self.group.restarted += 1
        self.run = None
        self.run = SlaveThread(
            self.spec,
            self._master,
            self,
            self._stalled,
            self._recovered,
            lambda: self._events.wake(self),
            self.calls,
        )
        if self.calls is not None:
            self.calls.begin_run()
        if self.spec.timeout is not None:
            self._events.wake(self)
        return self.run

    def keep_trying(self) -> None:
        """Retry the first attempt like any other: no thread was available, which may pass, and
        isn't the fault of the code that added the slave."""
        self._one_try = False

    def enter_run(self, made: Slave) -> None:
        """The run has created its Slave."""
        self.slave = made
        if self.handle is not None and (handle := self.handle()) is not None:
            handle.slave = made
        self._state, self._one_try = RUNNING, False
        self.is_created = self.is_attempted = True

    def end_run(
        self, error: BaseException | None, failure: SlaveFailure | None, *, is_closed: bool
    ) -> Ended:
        """The run is over; is_closed: no slave is restarted any more."""
        done = error if isinstance(error, Done) else None
        # A slave that returns after the daemon's own shutdown event is set did as asked.
        returned = error is None or done is not None
        asked = self.is_stopping or is_closed or (returned and self._master.shutdown.is_set())
        if done is not None or (asked and isinstance(error, StoppingError)):
            error = None
        refused = error is not None and self._one_try and not is_closed
        decision = Decision(FAILED) if refused else self._decide(error, done, asked, is_closed)
        self.is_alive = self.is_stopping = self.is_asked = self.is_overdue = False
        self.stop_until = math.inf
        # One that is restarted with others has its place in the order of the start again.
        self.is_attempted = self.is_attempted or decision.state != WAITING
        self._state, self._one_try = decision.state, False
        self._may_return = decision.state == FINISHED and done is None and not self.is_dynamic
        reason, delay = "returned", None
        if error is not None and failure is not None:
            self.last_failure, reason = failure, failure.error
        self.is_failing = error is not None
        if decision.state == BACKING_OFF:
            delay = self._restarts.next_delay()
            self._of_all.count()
            self.due = self._clock() + delay
            self.history.plan(reason, counted=True)
        elif decision.state in FINAL:
            self.is_wanted = False
        if refused:
            self.error = error
        return Ended(decision, error, delay, asked, refused, done)

    def _decide(
        self, error: BaseException | None, done: Done | None, asked: bool, is_closed: bool
    ) -> Decision:
        if done is not None:
            return Decision(FINISHED)
        if self.is_stopping and not is_closed:
            return Decision(WAITING if self.is_wanted else STOPPED)
        return decide(
            self.spec.policy,
            failed=error is not None,
            call_failed=self._state == BACKING_OFF,
            may_restart=not asked,
            own=self._restarts.intensity,
            of_all=self._of_all,
        )

    def plan_restart(self, due: float, reason: str) -> None:
        """Have it started again together with others.

        One that has returned is started again, too, as in Erlang/OTP, but none that is done, was
        stopped by name or has given up.
        """
        if not (self.is_wanted or self._may_return):
            return
        self.is_wanted, self.is_attempted, self.is_down = True, False, False
        self.due = due
        self.history.plan("" if self.run is None else reason, counted=False)
        if not self.is_alive and self.run is not None:
            self._state = WAITING

    def hold(self) -> None:
        """It can't start now, for another reason than the order of the start."""
        if self.is_wanted and self._state == STARTING:
            self._state = WAITING

    def plan_start(self, reason: str) -> None:
        """Have it started, or restarted, whatever has happened to it."""
        self.is_failing = False
        self.shown = {}
        self.is_wanted = True
        if not self.is_alive:
            self._restarts.reset()
        self.plan_restart(-math.inf, reason)

    def plan_stop(self) -> None:
        """Start it no more, until `plan_start`; a failure is no problem any more."""
        has_failed, was_wanted = self._state == FAILED, self.is_wanted
        self._may_return = self.is_wanted = False
        if not self.is_alive and (was_wanted or has_failed):
            self._state, self.is_failing, self.is_attempted = STOPPED, False, True

    def close(self) -> None:
        """Neither start nor restart it from now on; a run in progress continues."""
        if not self.is_alive and self.is_wanted:
            if self._state == BACKING_OFF and self.is_failing:
                self._state = FAILED
            else:
                self._state = STOPPED if self.run is None else FINISHED
        self.is_wanted = False

    # Called by the SlaveThread, on its thread

    def created(self, slave: Slave) -> bool:
        return self._events.created(self, slave)

    def call_ended(self, error: BaseException | None) -> None:
        self.ticks += 1
        if error is None:
            if self._state == BACKING_OFF:
                self._state, self.is_failing = RUNNING, False
                # Logging may fail, out of memory for example; the next call must come anyway.
                with suppress(BaseException):
                    self.log.call_succeeded()
                self._events.changed()
            return
        if self.spec.policy.restart == NEVER or isinstance(error, Done):
            raise error
        failure, before = SlaveFailure.of(error, self.spec.work), self.last_failure
        is_repeated = (
            self._state == BACKING_OFF and before is not None and before.error == failure.error
        )
        # The next call serves as the restart.
        self._state, self.is_failing, self.last_failure = BACKING_OFF, True, failure
        with suppress(BaseException):
            self.log.call_failed(error)
        if not is_repeated:
            self._events.changed()

    def exited(self, error: BaseException | None) -> None:
        self._events.exited(self, error)

    def run_owned(self, run: SlaveThread, spec: SlaveSpec) -> Slave | None:
        return self._events.run_owned(Owner(self, run), spec)

    # Called by the heartbeat

    def _stalled(self, age: float) -> None:
        self._events.changed()
        if (run := self.run) is not None:
            self.log.stalled(age, stack_of(run.thread))

    def _recovered(self, age: float) -> None:
        self._events.changed()
        self.log.recovered(age)

    # Called by anyone

    def run_due(self, now: float) -> float:
        """Check the heartbeat, and log what has gathered; returns when to call this again."""
        run, heartbeat_due = self.run, math.inf
        if run is not None and not run.is_over:
            heartbeat_due = run.heartbeat.run_due(now)
        return min(heartbeat_due, self.log.run_due(now))

    def release(self, shown: Any) -> None:
        """Keep only `shown` of its Slave; and if it can't be started again, no work either."""
        self.shown, self.slave = shown, None
        # Another one that has failed, or was stopped by name, can be started again.
        if self.is_orphan or self._state == FINISHED:
            self.drop_work()

    def drop_work(self) -> None:
        """Free the memory of the user's code and its arguments: it is never started again."""
        self.is_wanted, self.is_released = False, True
        self.slave, self.spec = None, self.spec.without_work()

    def running_threads(self) -> list[threading.Thread]:
        """The thread of the run, and those that it waits for."""
        run = self.run
        return [] if run is None else run.running_threads()

    # What it shows

    @property
    def state(self) -> str:
        run = self.run
        if not self.is_alive or run is None or run.is_over:
            is_down = self.is_down and self.is_wanted and not self.is_alive
            return STOPPED if is_down else self._state
        if run.heartbeat.is_stalled:
            return STALLED
        return STOPPING if self.is_asked else self._state

    def seconds_to_restart(self) -> float:
        """How long until the restart that is due next; infinity if none is."""
        is_planned = self.is_wanted and not self.is_alive and math.isfinite(self.due)
        return max(0.0, self.due - self._clock()) if is_planned else math.inf

    @property
    def restarts(self) -> int:
        """Restarts that were counted; of a member, those of its group."""
        return self.history.counted if self.group is None else self.group.restarted
