"""One run of a slave on its thread, from creating the slave to its exit."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from ..callables import refuse_unrun
from ..runtime.clock import monotonic
from ..runtime.eventloop import EventLoop, Stopped
from ..runtime.forks import ForkGuard
from ..runtime.heartbeat import Heartbeat, ShutdownEvent
from ..runtime.stacks import AwaitingThread
from ..types import SlaveMaster
from .calls import Calls
from .slave import Slave
from .spec import SlaveSpec, SlaveTarget


class Observer(Protocol):
    """Is called by a SlaveThread, on that thread."""

    def created(self, slave: Slave) -> bool:
        """The slave was created; returns whether it is to run."""
        ...

    def call_ended(self, error: BaseException | None) -> None:
        """A call of a periodic slave returned or raised; raises what is to end the slave."""

    def exited(self, error: BaseException | None) -> None:
        """The slave returned or raised; the thread's last call."""

    def run_owned(self, run: SlaveThread, spec: SlaveSpec) -> Slave | None:
        """The run starts a slave of its own; see `Slave.run_slave`."""
        ...


class SlaveThread:
    """A slave on its own thread. A restart makes a new one.

    stalled, recovered, wake: see Heartbeat; calls: those of a periodic slave.
    """

    def __init__(
        self,
        spec: SlaveSpec,
        master: SlaveMaster,
        observer: Observer,
        stalled: Callable[[float], None],
        recovered: Callable[[float], None],
        wake: Callable[[], None],
        calls: Calls | None = None,
    ) -> None:
        self.heartbeat = Heartbeat(spec.timeout, stalled, recovered, wake)
        self.thread = AwaitingThread(target=self._main, name=spec.name, daemon=True)
        self.is_over = False
        """Whether the slave has exited; the thread itself may still be ending."""
        self._spec = spec
        self._master = master
        self._observer = observer
        self._turn = threading.Lock()
        """Taken by the thread when it begins, or before by what keeps it from running."""
        self._guard = ForkGuard()
        self._calls = calls
        self._shutdown = ShutdownEvent(self.heartbeat, None if calls is None else calls.wake)
        self._logger = logging.getLogger(f"{master.name}.{spec.name}")
        self._loop: EventLoop | None = None

    def refuse(self) -> bool:
        """Keep the thread from running the slave; False if it does already."""
        return self._turn.acquire(blocking=False)

    def request_stop(self, timeout: float = math.inf) -> None:
        """Ask the slave to stop within `timeout` seconds."""
        self._shutdown.set()
        if self._loop is not None:
            self._loop.cancel(timeout)

    def running_threads(self) -> list[threading.Thread]:
        """The thread while it runs, and those that its event loop waits for."""
        if not self.thread.is_alive():
            return []
        return [self.thread, *(self._loop.executor_threads() if self._loop is not None else ())]

    def _main(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        error = self._run()
        self._guard.end_child(error)
        # The slave's own helper threads may be waiting for it.
        self._shutdown.set()
        self.heartbeat.beat()
        self.is_over = True
        self._observer.exited(error)
        # Their memory is not to be kept together with what `/status` shows of this run.
        self._spec, self._loop, self.thread.awaited = self._spec.without_work(), None, str
        # Its traceback leads to this frame, and so to itself.
        del error

    def _run_owned(
        self, target: SlaveTarget, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Slave | None:
        return self._observer.run_owned(self, SlaveSpec.of_call(target, args, keywords))

    def _run(self) -> BaseException | None:
        """Create the slave and run it; returns the exception that ended it, even SystemExit."""
        self._shutdown.bind()
        try:
            # On this thread, because some resources can only be used where they were created.
            slave = self._spec.create(self._master, self._shutdown, self.heartbeat, self._run_owned)
            self._guard.end_child()
            slave.started = datetime.now()
            if not self._observer.created(slave):
                return None
            self._logger.debug("Started")
            self.heartbeat.beat()
            if self._spec.is_async:
                self._run_async(slave)
            else:
                self._run_calls(lambda: self._call(slave), self._wait)
            self._logger.debug("Finished")
        except BaseException as error:
            return error
        return None

    def _call(self, slave: Slave) -> None:
        try:
            refuse_unrun(slave.run())
        except BaseException as error:
            self._guard.end_child(error)
            raise
        self._guard.end_child()

    def _run_calls(self, call: Callable[[], None], wait: Callable[[float], object]) -> None:
        """Call once, or periodically until a stop is requested; wait: for the next call."""
        calls = self._calls
        if calls is None:
            call()
            return
        while not self._shutdown.is_set():
            if (delay := calls.delay()) > 0:
                wait(delay)
                continue
            calls.begin_call()
            try:
                call()
            except Stopped:
                raise
            except BaseException as error:
                calls.end_call(succeeded=False)
                self._observer.call_ended(error)
            else:
                calls.end_call(succeeded=True)
                self._observer.call_ended(None)
            # Other tasks of an event loop have their turn even if the next call is due already.
            wait(0.0)

    def _wait(self, seconds: float) -> None:
        assert self._calls is not None
        self.heartbeat.pause()
        try:
            self._calls.sleep(seconds)
        finally:
            self.heartbeat.resume()

    def _run_async(self, slave: Slave) -> None:
        loop = self._loop = EventLoop(self._guard)
        self.thread.awaited = loop.awaited
        if self._calls is not None:
            self._calls.use_loop(loop.wake)

        async def call() -> None:
            refuse_unrun(await slave.run())

        def wait(seconds: float) -> None:
            until = monotonic() + seconds
            self.heartbeat.pause()
            try:
                loop.sleep(seconds)
            except Stopped:
                raise
            # From a task that the slave left running.
            except BaseException as error:
                self._observer.call_ended(error)
                self._wait(until - monotonic())
            self.heartbeat.resume()

        try:
            if not self._shutdown.is_set():
                self._run_calls(lambda: loop.run(call), wait)
        except Stopped:
            pass
        finally:
            loop.close()
