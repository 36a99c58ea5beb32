"""An event loop for the coroutines of one thread."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from .forks import ForkGuard
from .stacks import awaited_in

if TYPE_CHECKING:
    import asyncio

    Outcome = asyncio.Task[BaseException | None]


class Stopped(Exception):
    """`EventLoop.cancel` has cancelled what was to run."""


class EventLoop:
    """Runs coroutines one after another on its thread, all in one event loop.

    Only what leaves the loop itself, such as a SystemExit raised in another task, ends that loop
    with everything in it; the next coroutine gets a new one.
    """

    def __init__(self, guard: ForkGuard) -> None:
        # Imported late: it takes a tenth of the start-up time, and few daemons have coroutines.
        import asyncio  # noqa: PLC0415

        self._asyncio = asyncio
        self._guard = guard
        self._lock = threading.Lock()
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: Outcome | None = None

    def run(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call `function` and await the result, in a task of its own: a cancellation that it ends
        by is its own. Raises what it raises, or what leaves the loop; Stopped after `cancel`."""
        if self._loop is None:
            self._loop = self._asyncio.new_event_loop()
            self._asyncio.set_event_loop(self._loop)
        error: BaseException | None
        try:
            error = self._complete(self._loop, self._loop.create_task(self._outcome(function)))
        # Its own: no other's leaves the loop.
        except self._asyncio.CancelledError as cancellation:
            error = cancellation
        except BaseException as left:
            error = left
            # What goes wrong with the old loop matters less than why it ends.
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
        """Cancel what runs, and all that is run from now on; may be called from any thread."""
        with self._lock:
            self._cancelled = True
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        """Cancel the tasks that are left, and close the loop."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            loop.run_until_complete(self._finish(loop))
        finally:
            self._asyncio.set_event_loop(None)
            loop.close()

    def awaited(self) -> str:
        """Where the coroutine is now, and those that it awaits."""
        task = self._task
        return "" if task is None else awaited_in(task.get_coro())

    def _complete(self, loop: asyncio.AbstractEventLoop, task: Outcome) -> BaseException | None:
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

    async def _outcome(self, function: Callable[[], Awaitable[object]]) -> BaseException | None:
        # Returned, since a task that raises SystemExit raises it out of the loop, too.
        try:
            await function()
        # In here: a child that ended the event loop would end what it shares with the parent's.
        except BaseException as error:
            self._guard.end_child(error)
            return error
        self._guard.end_child()
        return None

    async def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        """What asyncio.run does at its end."""
        tasks = self._asyncio.all_tasks() - {self._asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await self._asyncio.wait(tasks)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
