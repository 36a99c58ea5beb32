"""One life of a slave: the thread it runs on, from being made to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from ..callables import refuse_unrun
from ..runtime.eventloop import EventLoop, Stopped
from ..runtime.forks import ForkGuard
from ..runtime.heartbeat import Heartbeat, ShutdownEvent
from ..runtime.stacks import stack_of
from ..types import Master
from .slave import Cadence, Slave, SlaveSpec


class Watcher(Protocol):
    """Who is told what becomes of an incarnation, on its own thread."""

    def entered(self, slave: Slave) -> bool:
        """The slave is made; False when it is not to run any more."""
        ...

    def ticked(self, error: BaseException | None) -> None:
        """A periodic slave's call has returned or raised; raises what is to end the slave."""

    def ended(self, error: BaseException | None) -> None:
        """It has returned or raised; the thread's last act."""


class SlaveThread:
    """A slave on a thread of its own. A restart makes another one of these.

    stalled, recovered, wake: see Freshness.
    """

    def __init__(
        self,
        spec: SlaveSpec,
        master: Master,
        watcher: Watcher,
        *,
        stalled: Callable[[float], None],
        recovered: Callable[[float], None],
        wake: Callable[[], None],
    ) -> None:
        self.heartbeat = Heartbeat(spec.timeout, stalled, recovered, wake)
        self.thread = threading.Thread(target=self._body, name=spec.name, daemon=True)
        self.is_over = False
        self._spec = spec
        self._master = master
        self._watcher = watcher
        self._guard = ForkGuard()
        self._shutdown = ShutdownEvent(self.heartbeat)
        self._logger = logging.getLogger(f"{master.name}.{spec.name}")
        self._loop: EventLoop | None = None

    def request_stop(self) -> None:
        self._shutdown.set()
        if self._loop is not None:
            self._loop.cancel()

    def stack(self) -> str:
        """Where it is now; of a coroutine, where it awaits something, too."""
        return stack_of(self.thread) + ("" if self._loop is None else self._loop.awaited())

    def _body(self) -> None:
        error = self._run()
        self._guard.end_child(error)
        # For helpers that the slave has started, and that watch its event.
        self._shutdown.set()
        self.heartbeat.beat()
        self.is_over = True
        self._watcher.ended(error)

    def _run(self) -> BaseException | None:
        """Make the slave and run it; returns what it raises, a SystemExit too."""
        self._shutdown.own()
        try:
            # Made here and not by who starts it: some resources are bound to their thread.
            slave = self._spec.create(self._master, self._shutdown, self.heartbeat)
            self._guard.end_child()
            slave.started = datetime.now()
            if not self._watcher.entered(slave):
                return None
            self._logger.debug("Started")
            self.heartbeat.beat()
            if self._spec.is_async:
                self._run_async(slave)
            else:
                self._run_calls(lambda: self._call(slave), self._shutdown.wait)
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
        """Call once, or again and again until it is to stop; wait: for the next call."""
        if self._spec.every is None:
            call()
            return
        cadence = Cadence(self._spec.every)
        while not self._shutdown.is_set():
            try:
                call()
            except Stopped:
                raise
            except BaseException as error:
                self._watcher.ticked(error)
            else:
                self._watcher.ticked(None)
            wait(cadence.delay())

    def _run_async(self, slave: Slave) -> None:
        loop = self._loop = EventLoop(self._guard)

        async def call() -> None:
            refuse_unrun(await slave.run())

        def wait(seconds: float) -> None:
            until = time.monotonic() + seconds
            self.heartbeat.rest()
            try:
                loop.sleep(seconds)
            except Stopped:
                raise
            # Of a task that the slave has left running.
            except BaseException as error:
                self._watcher.ticked(error)
                self._shutdown.wait(until - time.monotonic())
            self.heartbeat.work()

        try:
            if not self._shutdown.is_set():
                self._run_calls(lambda: loop.run(call), wait)
        except Stopped:
            pass
        finally:
            loop.close()
