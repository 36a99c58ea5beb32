"""One slave under supervision: its state, its restarts, and what went wrong last."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..runtime.ratelimit import RateLimit
from ..text import error_text, timestamp
from ..types import Master, Problem
from .restart import NEVER, Restarts
from .slave import Slave, SlaveSpec
from .slave_thread import SlaveThread

STARTING = "starting"
RUNNING = "running"
WAITING = "waiting to restart"
STALLED = "stalled"
FINISHED = "finished"
FAILED = "failed"
FINAL = (FINISHED, FAILED)

KEPT_RESTARTS = 10
"""Restarts that `/status` shows."""
REPEAT_INTERVAL = 60.0
"""Seconds between two lines about a periodic slave's calls that fail in the same way."""


@dataclass(frozen=True)
class Failure:
    """What a slave raised, when, and where: `file:line in function`."""

    error: str
    time: datetime
    place: str

    def shown(self) -> dict[str, Any]:
        return {"error": self.error, "time": timestamp(self.time), "place": self.place}


class Parent(Protocol):
    """Who is told what becomes of a child; nothing here may block."""

    def changed(self, child: SupervisedSlave) -> None:
        """Its state is another one."""

    def wake(self) -> None:
        """There is something to tend to sooner than was said."""

    def gave_up(self, child: SupervisedSlave) -> None:
        """It has ended for good by a failure, and is critical."""


class SupervisedSlave:
    """A slave and its incarnations, one after another (a child, as Erlang/OTP's supervisors say).

    one_try: when it can't be made the first time, give up and leave it at that; clock: monotonic
    seconds.
    """

    def __init__(
        self,
        spec: SlaveSpec,
        master: Master,
        parent: Parent,
        *,
        one_try: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.slave: Slave | None = None
        self.settled = False
        """Whether its first incarnation has been made, or that has failed."""
        self.error: BaseException | None = None
        """What kept its first incarnation from being made, if it had only one try."""
        self.ticks = 0
        self.restarts = 0
        self.last_failure: Failure | None = None
        self._master = master
        self._parent = parent
        self._one_try = one_try
        self._clock = clock
        self._logger = logging.getLogger(f"{master.name}.{spec.name}")
        self._lock = threading.Lock()
        self._state = STARTING
        self._failing = False
        self._restarts_stopped = False
        self._slave_thread: SlaveThread | None = None
        self._counted = Restarts(spec.policy, clock)
        self._due = math.inf
        self._reason = ""
        self._history: deque[dict[str, Any]] = deque(maxlen=KEPT_RESTARTS)
        self._repeats = RateLimit(REPEAT_INTERVAL, clock)

    # What the supervisor calls

    def start(self) -> None:
        """Start it on a thread of its own; what goes wrong is a failure of the slave's."""
        with self._lock:
            error = self._begin()
        if error is not None:
            self._thread_refused(error)

    def stop_restarting(self) -> None:
        """Restart it no more, and start it no more."""
        with self._lock:
            self._restarts_stopped = True
            if self._state == WAITING and self.is_over:
                self._state, self._due = FAILED if self._failing else FINISHED, math.inf
            elif self._state == STARTING and self._slave_thread is None:
                self._state = FINISHED
            self.settled = True

    def request_stop(self) -> None:
        """Tell it to stop; never blocks."""
        self.stop_restarting()
        slave_thread = self._slave_thread
        if slave_thread is not None:
            slave_thread.request_stop()

    def join(self, timeout: float) -> bool:
        for thread in self.running_threads():
            thread.join(timeout)
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        slave_thread = self._slave_thread
        alive = slave_thread is not None and slave_thread.thread.is_alive()
        return [slave_thread.thread] if slave_thread is not None and alive else []

    def run_due(self, now: float) -> float:
        """Restart it if that is due, tell whether it shows life; returns when to call again."""
        error = None
        with self._lock:
            if self._due <= now:
                self.restarts += 1
                self._history.append({"time": timestamp(datetime.now()), "reason": self._reason})
                error = self._begin()
        if error is not None:
            self._thread_refused(error)
        slave_thread, fresh = self._slave_thread, math.inf
        if slave_thread is not None and not slave_thread.is_over:
            fresh = slave_thread.heartbeat.run_due(now)
        return min(self._due, fresh)

    def _begin(self) -> BaseException | None:
        """Start the next incarnation; returns why its thread can't be started."""
        if self._restarts_stopped:
            return None
        self._state, self._due = STARTING, math.inf
        self._counted.began()
        try:
            slave_thread = SlaveThread(
                self.spec,
                self._master,
                self,
                stalled=self._stalled,
                recovered=self._recovered,
                wake=self._parent.wake,
            )
            self._slave_thread = slave_thread
            slave_thread.thread.start()
        # RuntimeError when the limit of threads is reached, MemoryError.
        except BaseException as error:
            self._slave_thread = None
            return error
        return None

    def _thread_refused(self, error: BaseException) -> None:
        # The machine's trouble, which may pass, and nothing that the caller has done.
        self._one_try = False
        self.ended(error)

    # What its incarnation calls, on its own thread

    def entered(self, slave: Slave) -> bool:
        with self._lock:
            self.slave = slave
            if self._restarts_stopped:
                return False
            self._state = RUNNING
            self.settled = True
        self._parent.changed(self)
        return True

    def ticked(self, error: BaseException | None) -> None:
        self.ticks += 1
        if error is None:
            if self._state == WAITING:
                self._state, self._failing = RUNNING, False
                self._logger.info("The slave %s works again", self.name)
                self._parent.changed(self)
            return
        if self.spec.policy.restart == NEVER:
            raise error
        failure, before = self._failure(error), self.last_failure
        still = self._state == WAITING and before is not None and before.error == failure.error
        # The next call is its restart: it may well succeed, and until one does, health shows it.
        self._state, self._failing, self.last_failure = WAITING, True, failure
        try:
            self._tell_failed_call(error, failure, still=still)
        # Out of memory, say: the next call must come all the same.
        except BaseException:
            pass
        if not still:
            self._parent.changed(self)

    def ended(self, error: BaseException | None) -> None:
        failure = None if error is None else self._failure(error)
        delay = None
        with self._lock:
            self._failing, self._reason = failure is not None, "returned"
            if failure is not None:
                self.last_failure, self._reason = failure, failure.error
            only_try = self._one_try and not self.settled
            wanted = self._counted.wanted(error is not None) and not only_try
            # A slave that has watched the daemon's own shutdown isn't wanted back.
            done = error is None and self._master.shutdown.is_set()
            if wanted and not self._restarts_stopped and not done:
                delay = self._counted.delay()
            if delay is not None:
                self._state, self._due = WAITING, self._clock() + delay
            # A periodic slave whose last call failed stays failed.
            elif error is not None or self._state == WAITING or (wanted and not done):
                self._state = FAILED
            else:
                self._state = FINISHED
            asked = self._restarts_stopped or done
            gave_up = self._state == FAILED and not self._restarts_stopped
            if only_try:
                self.error = error
            self.settled = True
        try:
            if not only_try:
                self._tell(error, delay, asked=asked, gave_up=gave_up, wanted=wanted)
        # Out of memory, say: what follows must be done all the same.
        except BaseException:
            pass
        if gave_up and self.spec.critical and not only_try:
            self._parent.gave_up(self)
        if delay is not None:
            self._parent.wake()
        self._parent.changed(self)

    def _failure(self, error: BaseException) -> Failure:
        try:
            return Failure(error_text(error), datetime.now(), self.spec.place_of(error))
        # Out of memory, say: that it failed must be known all the same.
        except BaseException:
            return Failure(type(error).__name__, datetime.now(), "")

    def _tell_failed_call(self, error: BaseException, failure: Failure, *, still: bool) -> None:
        if not still:
            self._repeats = RateLimit(REPEAT_INTERVAL, self._clock)
            self._repeats.allow()
            what = _what_happened(error)
            self._logger.error(
                "The slave %s %s; it is called again as planned", self.name, what, exc_info=error
            )
        elif (held := self._repeats.allow()) is not None:
            self._logger.error(
                "The slave %s still fails (%d more times): %s", self.name, held + 1, failure.error
            )

    def _tell(
        self,
        error: BaseException | None,
        delay: float | None,
        *,
        asked: bool,
        gave_up: bool,
        wanted: bool,
    ) -> None:
        what = _what_happened(error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            what += ", which ends the slave and not the daemon"
        if delay is not None:
            what += f"; restart {self.restarts + 1} in {delay:.2g} s"
        if error is not None:
            self._logger.error("The slave %s %s", self.name, what, exc_info=error)
        elif not asked:
            self._logger.info("The slave %s %s", self.name, what)
        if gave_up:
            policy = self.spec.policy
            times = f"{policy.max_restarts} restarts within {policy.within:g} s were not enough"
            self._logger.critical(
                "The slave %s gave up: %s; %s",
                self.name,
                times if wanted else "it is not to be restarted",
                "the daemon stops" if self.spec.critical else "it stays down",
            )

    # What it shows

    @property
    def state(self) -> str:
        slave_thread = self._slave_thread
        if (
            slave_thread is not None
            and not slave_thread.is_over
            and slave_thread.heartbeat.is_stalled
        ):
            return STALLED
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs now; its thread may still be about to end."""
        return self._slave_thread is None or self._slave_thread.is_over

    @property
    def is_final(self) -> bool:
        """Whether it neither runs nor will again."""
        return self._state in FINAL and self.is_over

    def problem(self) -> Problem | None:
        """What the health check has to say of it."""
        state = self.state
        if state == FAILED:
            return Problem(f"the slave {self.name} has failed", tolerable=not self.spec.critical)
        if state == STALLED:
            return Problem(f"the slave {self.name} is stalled", tolerable=not self.spec.critical)
        if state == WAITING and self._failing:
            return Problem(f"the slave {self.name} is waiting to restart", tolerable=True)
        return None

    def status(self) -> Any:
        """What the slave's own `status()` returns, with what is known of it where that is a
        mapping."""
        slave = self.slave
        if slave is None:
            return self.fallback_status()
        shown = slave.status()
        if not isinstance(shown, dict):
            return shown
        known = self._known()
        return {**shown, **{key: known[key] for key in known if key not in shown}}

    def fallback_status(self) -> dict[str, Any]:
        """What can be said of the slave without asking it."""
        started = None if self.slave is None else self.slave.started
        return {"name": self.name, "started": timestamp(started), **self._known()}

    def _known(self) -> dict[str, Any]:
        failure, slave_thread, due = self.last_failure, self._slave_thread, self._due
        seen = None
        if slave_thread is not None:
            seen = datetime.now() - timedelta(seconds=slave_thread.heartbeat.age())
        known: dict[str, Any] = {
            "state": self.state,
            "restarts": self.restarts,
            "last_error": None if failure is None else failure.shown(),
            "last_heartbeat": timestamp(seen),
            "last_restarts": list(self._history),
        }
        if self.spec.every is not None:
            known["ticks"] = self.ticks
        if due < math.inf:
            known["restarts_in"] = round(max(0.0, due - self._clock()), 3)
        return known

    def _stalled(self, silent: float) -> None:
        self._parent.changed(self)
        slave_thread = self._slave_thread
        if slave_thread is not None:
            self._logger.error(
                "The slave %s is stalled: it has shown no life for %.3g s (timeout %g s); "
                "it is here:\n%s",
                self.name,
                silent,
                self.spec.timeout,
                slave_thread.stack(),
            )

    def _recovered(self, silent: float) -> None:
        self._parent.changed(self)
        self._logger.info("The slave %s shows life again, after %.3g s", self.name, silent)


def _what_happened(error: BaseException | None) -> str:
    if error is None:
        return "returned"
    if isinstance(error, SystemExit):
        return f"raised SystemExit({error.code!r})"
    if isinstance(error, MemoryError):
        return "ran out of memory"
    return "failed" if isinstance(error, Exception) else f"raised {type(error).__name__}"
