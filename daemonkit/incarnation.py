"""One life of a slave: the thread it runs on, from being made to its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from .calls import refuse_coroutine
from .forks import ForkGuard
from .freshness import Freshness, ShutdownEvent
from .slave import Cadence, Slave, SlaveSpec
from .stacks import awaited_in, stack_of
from .types import Master

if TYPE_CHECKING:
    import asyncio


class Watcher(Protocol):
    """Who is told what becomes of an incarnation, on its own thread."""

    def entered(self, slave: Slave) -> bool:
        """The slave is made; False when it is not to run any more."""
        ...

    def ticked(self, error: Exception | None) -> None:
        """A periodic slave's call has returned or raised; raises what is to end the slave."""

    def ended(self, error: BaseException | None) -> None:
        """It has returned or raised; the thread's last act."""


class Incarnation:
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
        self.freshness = Freshness(spec.timeout, stalled, recovered, wake)
        self.thread = threading.Thread(target=self._body, name=spec.name, daemon=True)
        self.is_over = False
        self._spec = spec
        self._master = master
        self._watcher = watcher
        self._guard = ForkGuard()
        self._shutdown = ShutdownEvent(self.freshness)
        self._logger = logging.getLogger(f"{master.name}.{spec.name}")
        self._lock = threading.Lock()
        self._async_task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def request_stop(self) -> None:
        with self._lock:
            self._shutdown.set()
            if self._async_task is not None:
                loop, task = self._async_task
                loop.call_soon_threadsafe(task.cancel)

    def stack(self) -> str:
        """Where it is now; of a coroutine, where it awaits something, too."""
        text = stack_of(self.thread)
        with self._lock:
            if self._async_task is not None:
                text += awaited_in(self._async_task[1].get_coro())
        return text

    def _body(self) -> None:
        error = self._run()
        self._guard.end_child(error)
        # For helpers that the slave has started, and that watch its event.
        self._shutdown.set()
        self.freshness.beat()
        self.is_over = True
        self._watcher.ended(error)

    def _run(self) -> BaseException | None:
        """Make the slave and run it; returns what it raises, a SystemExit too."""
        self._shutdown.own()
        try:
            # Made here and not by who starts it: some resources are bound to their thread.
            slave = self._spec.create(self._master, self._shutdown, self.freshness)
            self._guard.end_child()
            slave.started = datetime.now()
            if not self._watcher.entered(slave):
                return None
            self._logger.debug("Started")
            self.freshness.beat()
            if self._spec.is_async:
                self._run_async(slave)
            elif self._spec.every is None:
                self._call(slave)
            else:
                self._tick_until_stopped(slave, Cadence(self._spec.every))
            self._logger.debug("Finished")
        except BaseException as error:
            return error
        return None

    def _call(self, slave: Slave) -> None:
        try:
            refuse_coroutine(slave.run())
        except BaseException as error:
            self._guard.end_child(error)
            raise
        self._guard.end_child()

    async def _call_async(self, slave: Slave) -> None:
        try:
            await slave.run()
        # In here: a child that ended the event loop would end what it shares with the parent's.
        except BaseException as error:
            self._guard.end_child(error)
            raise
        self._guard.end_child()

    def _tick_until_stopped(self, slave: Slave, cadence: Cadence) -> None:
        while not self._shutdown.is_set():
            try:
                self._call(slave)
            except Exception as error:
                self._watcher.ticked(error)
            else:
                self._watcher.ticked(None)
            self._shutdown.wait(cadence.delay())

    def _run_async(self, slave: Slave) -> None:
        # Imported late: it takes a tenth of the start-up time, and few daemons have coroutines.
        import asyncio  # noqa: PLC0415

        async def run() -> None:
            task = asyncio.current_task()
            assert task is not None
            with self._lock:
                if self._shutdown.is_set():
                    return
                self._async_task = (asyncio.get_running_loop(), task)
            try:
                if self._spec.every is None:
                    await self._call_async(slave)
                else:
                    await self._tick_async(slave, Cadence(self._spec.every), asyncio.sleep)
            finally:
                with self._lock:
                    self._async_task = None

        try:
            asyncio.run(run())
        except asyncio.CancelledError:
            if not self._shutdown.is_set():
                raise

    async def _tick_async(
        self, slave: Slave, cadence: Cadence, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        while not self._shutdown.is_set():
            self.freshness.work()
            try:
                await self._call_async(slave)
            except Exception as error:
                self._watcher.ticked(error)
            else:
                self._watcher.ticked(None)
            self.freshness.rest()
            await sleep(cadence.delay())
