"""Starting, watching and stopping slaves."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import datetime
from typing import Any

from .calls import error_text, refuse_coroutine
from .exceptions import RegistrationError
from .slave import Cadence, Slave, SlaveSpec, timestamp
from .types import Master

KEPT_FINISHED = 100
"""Finished slaves that are still shown."""
STARTING, RUNNING, FINISHED, FAILED = "starting", "running", "finished", "failed"


class SlaveThread:
    """One slave on its thread: what state it is in, and the error that brought it there."""

    def __init__(self, spec: SlaveSpec, master: Master) -> None:
        self.name = spec.name
        self.state = STARTING
        self.slave: Slave | None = None
        self.error: str | None = None
        self.ticks = 0
        self._spec = spec
        self._master = master
        self._logger = logging.getLogger(f"{master.name}.{spec.name}")
        self._thread = threading.Thread(target=self._body, name=spec.name, daemon=True)
        self._shutdown = threading.Event()
        self._lock = threading.Lock()
        self._async_task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def start(self) -> None:
        """Make the slave and start its thread; raises what its `__init__` raises."""
        try:
            self.slave = self._spec.create(self._master, self._shutdown)
            with self._lock:
                # It may have been told to stop while it was being made.
                if self._shutdown.is_set():
                    self.state = FINISHED
                else:
                    self._thread.start()
        except BaseException as error:
            self._fail(error)
            raise

    def request_stop(self) -> None:
        with self._lock:
            self._shutdown.set()
            if self._async_task is not None:
                loop, task = self._async_task
                loop.call_soon_threadsafe(task.cancel)

    def join(self, timeout: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    @property
    def ended(self) -> bool:
        """Whether its thread is over, or never came to be."""
        return self.state in (FINISHED, FAILED) and not self._thread.is_alive()

    def status(self) -> Any:
        """What the slave's own `status()` returns, with its state where that is a mapping."""
        if self.slave is None:
            shown: Any = {"name": self.name, "started": None}
        else:
            shown = self.slave.status()
        if isinstance(shown, dict):
            known: dict[str, Any] = {"state": self.state}
            if self._spec.every is not None:
                known["ticks"] = self.ticks
            if self.error is not None:
                known["error"] = self.error
            shown = {**shown, **{key: value for key, value in known.items() if key not in shown}}
        return shown

    def fallback_status(self) -> dict[str, Any]:
        """What can be said of the slave without asking it."""
        started = None if self.slave is None else self.slave.started
        return {"name": self.name, "started": timestamp(started), "state": self.state}

    def _body(self) -> None:
        assert self.slave is not None
        self.slave.started = datetime.now()
        self.state = RUNNING
        self._logger.debug("Started")
        try:
            if self._spec.is_async:
                asyncio.run(self._async_body(self.slave))
            elif self._spec.every is None:
                refuse_coroutine(self.slave.run())
            else:
                self._tick_until_stopped(self.slave, Cadence(self._spec.every))
        # A slave's SystemExit or KeyboardInterrupt must not pass for a clean end either.
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._shutdown.is_set():
                self._finish()
            else:
                self._fail(error)
        else:
            self._finish()

    def _finish(self) -> None:
        # A periodic slave whose last tick failed stays failed.
        if self.state == RUNNING:
            self.state = FINISHED
        self._logger.debug("Finished")

    def _fail(self, error: BaseException) -> None:
        self.state = FAILED
        self.error = error_text(error)
        self._logger.error("The slave %s failed", self.name, exc_info=error)

    def _tick_until_stopped(self, slave: Slave, cadence: Cadence) -> None:
        while not self._shutdown.is_set():
            try:
                refuse_coroutine(slave.run())
            except Exception as error:
                self._tick_failed(error)
            else:
                self._tick_done()
            self._shutdown.wait(cadence.delay())

    async def _async_body(self, slave: Slave) -> None:
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            if self._shutdown.is_set():
                return
            self._async_task = (asyncio.get_running_loop(), task)
        try:
            if self._spec.every is None:
                await slave.run()
            else:
                await self._tick_async(slave, Cadence(self._spec.every))
        finally:
            with self._lock:
                self._async_task = None

    async def _tick_async(self, slave: Slave, cadence: Cadence) -> None:
        while not self._shutdown.is_set():
            try:
                await slave.run()
            except Exception as error:
                self._tick_failed(error)
            else:
                self._tick_done()
            await asyncio.sleep(cadence.delay())

    def _tick_done(self) -> None:
        self.ticks += 1
        if self.state == FAILED:
            self.state, self.error = RUNNING, None
            self._logger.info("The slave %s works again", self.name)

    def _tick_failed(self, error: BaseException) -> None:
        # The next tick may well succeed; until one does, health shows the failure.
        self.ticks += 1
        self._fail(error)


class Supervisor:
    """All the slaves of a daemon."""

    name = "slaves"

    def __init__(self, specs: list[SlaveSpec], master: Master) -> None:
        self._master = master
        self._lock = threading.Lock()
        self._started = False
        self._stopping = False
        self._threads = [SlaveThread(spec, master) for spec in specs]

    def start(self) -> None:
        """Start every registered slave; one that can't be made is shown as failed."""
        with self._lock:
            self._started = True
            threads = list(self._threads)
        for thread in threads:
            if self._stopping:
                return
            try:
                thread.start()
            # SystemExit too. It is logged, and shown as failed.
            except BaseException:
                continue

    def add(self, spec: SlaveSpec) -> Slave | None:
        """Add a slave; it starts at once if the others have, and is then returned.

        Raises RegistrationError for a name that is in use, or when the daemon is stopping, and
        what the slave's `__init__` raises.
        """
        thread = SlaveThread(spec, self._master)
        with self._lock:
            if self._stopping:
                raise RegistrationError(f"the daemon is stopping: {spec.name} is not started")
            for other in self._threads:
                if other.name == spec.name and not other.ended:
                    raise RegistrationError(
                        f"a slave named {spec.name!r} is there already; choose another by name="
                    )
            self._threads = [other for other in self._threads if other.name != spec.name]
            finished = [other for other in self._threads if other.state == FINISHED]
            for oldest in finished[:-KEPT_FINISHED]:
                self._threads.remove(oldest)
            self._threads.append(thread)
            started = self._started
        if started:
            thread.start()
        return thread.slave

    def request_stop(self) -> None:
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
        for thread in reversed(threads):
            thread.request_stop()

    def join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        for thread in reversed(self.threads()):
            thread.join(max(0.0, until - time.monotonic()))
        return not self.running_threads()

    def threads(self) -> list[SlaveThread]:
        """The slaves there are now."""
        with self._lock:
            return list(self._threads)

    def running_threads(self) -> list[threading.Thread]:
        return [thread for slave in self.threads() for thread in slave.running_threads()]

    def problems(self) -> list[str]:
        """One line for each slave that has failed."""
        return [
            f"the slave {thread.name} has failed"
            for thread in self.threads()
            if thread.state == FAILED
        ]
