"""One slave under supervision: its state, restarts and last failure over all its runs."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from ..callables import refuse_unrun
from ..runtime.clock import monotonic
from ..runtime.stacks import stack_of
from ..text import timestamp
from ..types import Problem, SlaveMaster
from .failure import SlaveFailure
from .restart import NEVER, Restarts
from .slave import Slave, SlaveSpec
from .slave_log import SlaveLog
from .slave_thread import SlaveThread
from .states import BACKING_OFF, FAILED, FINAL, FINISHED, RUNNING, STALLED, STARTING, decide

KEPT_RESTARTS = 10
"""Restarts that `/status` shows."""
PROBLEMS = {FAILED: "has failed", STALLED: "is stalled", BACKING_OFF: "is backing off"}


class SupervisedSlave:
    """A slave and its runs, each on a new SlaveThread.

    changed: called after a change of state; wake: called to have `run_due` called soon; gave_up:
    called with the reason when the slave is critical and has failed for good; one_try: give up when
    the slave can't be created the first time; clock: monotonic seconds. The callables must not
    block.
    """

    def __init__(
        self,
        spec: SlaveSpec,
        master: SlaveMaster,
        *,
        changed: Callable[[], None],
        wake: Callable[[], None],
        gave_up: Callable[[str], None],
        one_try: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.slave: Slave | None = None
        self.settled = False
        """Whether the first attempt to create the slave is over."""
        self.error: BaseException | None = None
        """The exception of the first attempt, if the slave had only one."""
        self.ticks = 0
        self.restarts = 0
        self.last_failure: SlaveFailure | None = None
        self._master = master
        self._on_changed = changed
        self._wake = wake
        self._on_gave_up = gave_up
        self._one_try = one_try
        self._clock = clock
        logger = logging.getLogger(f"{master.name}.{spec.name}")
        self._log = SlaveLog(logger, spec, wake, clock)
        self._lock = threading.Lock()
        self._state = STARTING
        self._is_failing = False
        self._restarts_stopped = False
        self._slave_thread: SlaveThread | None = None
        self._restarts = Restarts(spec.policy, clock)
        self._due = math.inf
        self._reason = ""
        self._history: deque[dict[str, Any]] = deque(maxlen=KEPT_RESTARTS)

    # Called by the supervisor

    def start(self) -> None:
        """Start the slave on a new thread; an error counts as a failure of the slave."""
        with self._lock:
            error = self._start_thread()
        if error is not None:
            self._thread_refused(error)

    def stop_restarting(self) -> None:
        """Neither start nor restart the slave from now on."""
        with self._lock:
            self._restarts_stopped = True
            if self._state == BACKING_OFF and self.is_over:
                self._state, self._due = FAILED if self._is_failing else FINISHED, math.inf
            elif self._state == STARTING and self._slave_thread is None:
                self._state = FINISHED
            self.settled = True

    def request_stop(self, timeout: float = math.inf) -> None:
        """Ask the slave to stop within `timeout` seconds; never blocks."""
        self.stop_restarting()
        slave_thread = self._slave_thread
        if slave_thread is not None:
            slave_thread.request_stop(timeout)

    def join(self, timeout: float) -> bool:
        slave_thread = self._slave_thread
        if slave_thread is not None and slave_thread.thread.is_alive():
            slave_thread.thread.join(timeout)
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        slave_thread = self._slave_thread
        return [] if slave_thread is None else slave_thread.running_threads()

    def run_due(self, now: float) -> float:
        """Restart the slave if that is due, and check its heartbeat; returns when to call again."""
        error = None
        with self._lock:
            if self._due <= now:
                self.restarts += 1
                self._history.append({"time": timestamp(datetime.now()), "reason": self._reason})
                error = self._start_thread()
        if error is not None:
            self._thread_refused(error)
        slave_thread, heartbeat_due = self._slave_thread, math.inf
        if slave_thread is not None and not slave_thread.is_over:
            heartbeat_due = slave_thread.heartbeat.run_due(now)
        return min(self._due, heartbeat_due, self._log.run_due(now))

    def _start_thread(self) -> BaseException | None:
        """Start the next run; returns the error that kept the thread from starting."""
        if self._restarts_stopped:
            return None
        self._state, self._due = STARTING, math.inf
        self._restarts.started()
        callbacks = self._stalled, self._recovered, self._wake
        try:
            slave_thread = SlaveThread(self.spec, self._master, self, *callbacks)
            self._slave_thread = slave_thread
            slave_thread.thread.start()
        # RuntimeError at the limit of threads, or MemoryError.
        except BaseException as error:
            self._slave_thread = None
            return error
        return None

    def _thread_refused(self, error: BaseException) -> None:
        # The shortage may pass, and isn't the fault of the code that added the slave.
        self._one_try = False
        self.exited(error)

    # Called by the SlaveThread, on its thread

    def created(self, slave: Slave) -> bool:
        with self._lock:
            # Not kept then: `Supervisor.add` must not return a slave that will not run.
            if self._restarts_stopped:
                return False
            self.slave = slave
            self._state = RUNNING
            self.settled = True
        self._on_changed()
        return True

    def call_ended(self, error: BaseException | None) -> None:
        self.ticks += 1
        if error is None:
            if self._state == BACKING_OFF:
                self._state, self._is_failing = RUNNING, False
                self._log.call_succeeded()
                self._on_changed()
            return
        if self.spec.policy.restart == NEVER:
            raise error
        failure, before = SlaveFailure.of(error, self.spec.work), self.last_failure
        is_repeated = (
            self._state == BACKING_OFF and before is not None and before.error == failure.error
        )
        # The next call serves as the restart.
        self._state, self._is_failing, self.last_failure = BACKING_OFF, True, failure
        # Logging may fail, out of memory for example; the next call must come anyway.
        with suppress(BaseException):
            self._log.call_failed(error)
        if not is_repeated:
            self._on_changed()

    def exited(self, error: BaseException | None) -> None:
        failure = None if error is None else SlaveFailure.of(error, self.spec.work)
        delay = None
        with self._lock:
            is_refused = self._one_try and not self.settled
            # A slave that returns after the daemon's own shutdown event is set did as asked.
            asked = self._restarts_stopped or (error is None and self._master.shutdown.is_set())
            decision = decide(
                self.spec.policy,
                failed=error is not None,
                call_failed=self._state == BACKING_OFF,
                may_restart=not asked and not is_refused,
                exhausted=self._restarts.is_exhausted,
            )
            self._state, self._is_failing, self._reason = decision.state, False, "returned"
            if failure is not None:
                self._is_failing, self.last_failure, self._reason = True, failure, failure.error
            if decision.state == BACKING_OFF:
                delay = self._restarts.next_delay()
                self._due = self._clock() + delay
            if is_refused:
                self.error = error
            self.settled = True
        # Logging may fail, out of memory for example; the rest must happen anyway.
        with suppress(BaseException):
            if not is_refused:
                self._log.exited(error, self.restarts + 1, delay, expected=asked)
            if decision.gave_up:
                self._log.gave_up(decision.gave_up)
        if decision.gave_up and self.spec.critical:
            self._on_gave_up(f"the slave {self.name} gave up")
        if delay is not None:
            self._wake()
        self._on_changed()

    # Called by the heartbeat

    def _stalled(self, age: float) -> None:
        self._on_changed()
        slave_thread = self._slave_thread
        if slave_thread is not None:
            self._log.stalled(age, stack_of(slave_thread.thread))

    def _recovered(self, age: float) -> None:
        self._on_changed()
        self._log.recovered(age)

    # What it shows

    @property
    def state(self) -> str:
        slave_thread = self._slave_thread
        if slave_thread is None or slave_thread.is_over:
            return self._state
        return STALLED if slave_thread.heartbeat.is_stalled else self._state

    @property
    def is_over(self) -> bool:
        """Whether no run is in progress; the last run's thread may still be ending."""
        return self._slave_thread is None or self._slave_thread.is_over

    @property
    def is_final(self) -> bool:
        """Whether the slave neither runs nor will run again."""
        return self._state in FINAL and self.is_over

    def problem(self) -> Problem | None:
        """The slave's problem for the health check, if it has one."""
        state = self.state
        if state not in PROBLEMS or (state == BACKING_OFF and not self._is_failing):
            return None
        tolerable = state == BACKING_OFF or not self.spec.critical
        return Problem(f"the slave {self.name} {PROBLEMS[state]}", tolerable)

    def status(self) -> Any:
        """What `/status` shows: the slave's own `status()`; if that is a mapping, `fallback_status`
        adds the missing keys."""
        own = {} if self.slave is None else refuse_unrun(self.slave.status())
        return {**self.fallback_status(), **own} if isinstance(own, Mapping) else own

    def fallback_status(self) -> dict[str, Any]:
        """What is known about the slave without calling its `status()`."""
        slave, slave_thread = self.slave, self._slave_thread
        failure, due = self.last_failure, self._due
        last_heartbeat = None
        if slave_thread is not None:
            last_heartbeat = datetime.now() - timedelta(seconds=slave_thread.heartbeat.age())
        shown: dict[str, Any] = {
            "name": self.name,
            "started": None if slave is None else timestamp(slave.started),
            "state": self.state,
            "restarts": self.restarts,
            "last_error": None if failure is None else failure.status(),
            "last_heartbeat": timestamp(last_heartbeat),
            "last_restarts": list(self._history),
        }
        if self.spec.every is not None:
            shown["ticks"] = self.ticks
        if due < math.inf:
            shown["next_restart_in"] = round(max(0.0, due - self._clock()), 3)
        return shown
