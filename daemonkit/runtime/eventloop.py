"""An asyncio event loop for the coroutines of one thread."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: Call | None = None

    def run(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call `function` and await the result in a new task.

        Raises the task's exception, or the one that left the loop; Stopped after `cancel`.
        """
        if self._loop is None:
            self._loop = self._asyncio.new_event_loop()
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
        """Let the other tasks run for a while; see `run`."""
        self.run(lambda: self._asyncio.sleep(seconds))

    def cancel(self) -> None:
        """Cancel the running coroutine and all later ones; may be called from any thread."""
        with self._lock:
            self._cancelled = True
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        """Cancel the remaining tasks, then close the loop."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            loop.run_until_complete(self._finish(loop))
        finally:
            self._asyncio.set_event_loop(None)
            loop.close()

    def awaited(self) -> str:
        """The running coroutine's line, and those of the coroutines it awaits."""
        task = self._task
        return "" if task is None else awaited_in(task.get_coro())

    def _complete(self, loop: asyncio.AbstractEventLoop, task: Call) -> BaseException | None:
        with self._lock:
            self._task = task
            if self._cancelled:
                task.cancel()
        try:
            return loop.run_until_complete(task)
        except BaseException as error:
            self._guard.end_child(error)
            raise
        finally:
            with self._lock:
                self._task = None

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
        for task in tasks:
            task.cancel()
        if tasks:
            await self._asyncio.wait(tasks)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
