"""An asyncio event loop for the coroutines of one thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .cancellation import Cancellation
from .clock import LONGEST_WAIT, monotonic
from .forks import ForkGuard
from .stacks import awaited_in

if TYPE_CHECKING:
    import asyncio

    Call = asyncio.Task[BaseException | None]


class Stopped(Exception):
    """The coroutine was cancelled by `EventLoop.cancel`."""


class EventLoop:
    """Runs one coroutine after another in the same asyncio loop.

    An exception that leaves the loop itself, such as a SystemExit in another task, closes the
    loop with all its tasks; the next coroutine runs in a new one.
    """

    def __init__(self, guard: ForkGuard) -> None:
        # Imported here: it takes a tenth of the start-up time, and few daemons use coroutines.
        import asyncio  # noqa: PLC0415

        self._asyncio = asyncio
        self._guard = guard
        self._lock = threading.Lock()
        self._cancelled = False
        self._until = math.inf
        self._is_woken = False
        self._wake_sleep: Callable[[], None] | None = None
        self._running: asyncio.AbstractEventLoop | None = None
        self._cancellation: Cancellation | None = None
        self._ending_threads: Collection[threading.Thread] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: Call | None = None

    def run(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call `function` and await the result in a new task.

        Raises the task's exception, or the one that left the loop; Stopped after `cancel`.
        """
        if self._loop is None:
            self._loop = self._asyncio.new_event_loop()
            # Other loops than asyncio's own have a clock that nothing replaces.
            with suppress(AttributeError):
                self._loop.time = monotonic  # type: ignore[method-assign]
            self._asyncio.set_event_loop(self._loop)
        error: BaseException | None
        try:
            error = self._complete(self._loop, self._loop.create_task(self._call(function)))
        # The task's own: no other task's cancellation leaves the loop.
        except self._asyncio.CancelledError as cancellation:
            error = cancellation
        except BaseException as fatal:
            error = fatal
            # An error while closing must not hide this one.
            with suppress(BaseException):
                self.close()
        if self._cancelled and isinstance(error, self._asyncio.CancelledError):
            raise Stopped
        if error is not None:
            raise error

    def sleep(self, seconds: float) -> None:
        """Let the other tasks run for a while, or until `wake`; see `run`."""
        self.run(lambda: self._sleep(seconds))

    async def _sleep(self, seconds: float) -> None:
        woken = self._asyncio.Event()
        with self._lock:
            self._wake_sleep = woken.set
            if self._is_woken:
                woken.set()
        try:
            loop = self._asyncio.get_running_loop()
            timer = loop.call_later(min(seconds, LONGEST_WAIT), woken.set)
            await woken.wait()
            timer.cancel()
        finally:
            with self._lock:
                self._wake_sleep, self._is_woken = None, False

    def wake(self) -> None:
        """End the present `sleep`, or else the next one; may be called from any thread."""
        with self._lock:
            self._is_woken = True
            if self._running is not None and self._wake_sleep is not None:
                self._running.call_soon_threadsafe(self._wake_sleep)

    def cancel(self, timeout: float = math.inf) -> None:
        """Cancel the running coroutine and all later ones; may be called from any thread.

        timeout: seconds after which they should be over. A coroutine that swallows the cancellation
        is cancelled again, see `Cancellation`.
        """
        with self._lock:
            self._cancelled = True
            self._until = monotonic() + timeout
            if self._running is not None:
                self._running.call_soon_threadsafe(self._cancel_running)

    def close(self) -> None:
        """Cancel the remaining tasks, then close the loop."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            with self._runs(loop):
                loop.run_until_complete(self._finish(loop))
        finally:
            self._asyncio.set_event_loop(None)
            loop.close()

    def awaited(self) -> str:
        """The running coroutine's line, and those of the coroutines it awaits; while the loop
        closes, those of the remaining tasks."""
        task, cancellation = self._task, self._cancellation
        tasks = [task] if task is not None else cancellation.pending() if cancellation else []
        return "".join(awaited_in(task.get_coro()) for task in tasks)

    def executor_threads(self) -> list[threading.Thread]:
        """Threads that `close` waits for, as of `asyncio.to_thread`."""
        return [thread for thread in list(self._ending_threads) if thread.is_alive()]

    def _complete(self, loop: asyncio.AbstractEventLoop, task: Call) -> BaseException | None:
        self._task = task
        try:
            with self._runs(loop):
                if self._cancelled:
                    task.cancel()
                return loop.run_until_complete(task)
        except BaseException as error:
            self._guard.end_child(error)
            raise
        finally:
            self._task = None

    @contextmanager
    def _runs(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """While the loop runs, `cancel` takes effect at once."""
        with self._lock:
            self._running = loop
        try:
            yield
        finally:
            with self._lock:
                self._running = None
            if self._cancellation is not None:
                self._cancellation.close()
                self._cancellation = None

    def _cancel_running(self) -> None:
        """In the loop's thread."""
        if self._cancellation is not None:
            self._cancellation.limit(self._until)
        elif self._running is not None and self._task is not None:
            self._cancellation = Cancellation(self._running, [self._task], self._until)

    async def _call(self, function: Callable[[], Awaitable[object]]) -> BaseException | None:
        # Returned, because a SystemExit raised in a task also leaves the loop.
        try:
            await function()
        # A forked child exits here: closing the loop would affect what it shares with the parent.
        except BaseException as error:
            self._guard.end_child(error)
            return error
        self._guard.end_child()
        return None

    async def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        """Clean up as asyncio.run does."""
        tasks = self._asyncio.all_tasks() - {self._asyncio.current_task()}
        if tasks:
            self._cancellation = Cancellation(loop, tasks, self._until)
            await self._asyncio.wait(tasks)
        await loop.shutdown_asyncgens()
        # Waits for functions that run in it, without a limit.
        executor = getattr(loop, "_default_executor", None)
        self._ending_threads = getattr(executor, "_threads", ())
        await loop.shutdown_default_executor()
