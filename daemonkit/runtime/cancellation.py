"""Cancels asyncio tasks, and again those that have swallowed it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from .clock import monotonic

if TYPE_CHECKING:
    import asyncio

    Task = asyncio.Task[Any]

CHECK_INTERVAL = 0.1
"""Seconds between two checks whether a cancellation was swallowed."""
ROUNDS = 10
"""Iterations of the loop in which tasks are cancelled that a swallowing task has just created."""
_SUSPENDED = (
    ("cr_frame", "cr_await"),
    ("gi_frame", "gi_yieldfrom"),
    ("ag_frame", "ag_await"),
)
"""Attributes of coroutines, of generators and of async generators."""


class Place(NamedTuple):
    """Where a task is suspended: the instruction in each frame, and the object it waits for."""

    frames: list[tuple[Any, int]]
    awaited: Any

    @classmethod
    def of(cls, task: Task) -> Place:
        """Where `task` is now; it must not be running."""
        frames: list[tuple[Any, int]] = []
        item: Any = task.get_coro()
        while True:
            for frame_name, awaited_name in _SUSPENDED:
                if (frame := getattr(item, frame_name, None)) is not None:
                    frames.append((frame.f_code, frame.f_lasti))
                    item = getattr(item, awaited_name)
                    break
            else:
                return cls(frames, item)


class Cancellation:
    """Cancels tasks, and again as long as that has no effect.

    A task that cleans up must not be interrupted, and from outside it looks like one that has
    swallowed the cancellation. So a task is cancelled again only

    - if it waits where it was cancelled, but for another object: it goes on as before, like a loop
      around `asyncio.wait_for` before Python 3.12;
    - when half of the time left until `until` has passed, with all tasks of the loop.

    Create and call it in the loop's thread. until: monotonic seconds, infinite for no deadline.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tasks: Iterable[Task], until: float = math.inf
    ) -> None:
        # Imported here, as in `eventloop`.
        import asyncio  # noqa: PLC0415

        self._loop = loop
        self._all_tasks = asyncio.all_tasks
        self._tasks = set(tasks)
        self._before = self._all_tasks(loop)
        # Of all, because a cancellation goes on to the tasks that a cancelled one waits for.
        self._places = {task: Place.of(task) for task in self._before}
        self._spared = {asyncio.current_task(loop)}
        for task in self._tasks:
            task.cancel()
        self.limit(until)
        self._handle = loop.call_later(CHECK_INTERVAL, self._check)

    def limit(self, until: float) -> None:
        """Change when the tasks are to be over."""
        self._until = until
        self._repeat_at = math.inf
        if until != math.inf:
            now = monotonic()
            self._repeat_at = now + max(CHECK_INTERVAL, (until - now) / 2)

    def pending(self) -> list[Task]:
        """The tasks that aren't over yet; may be called from any thread."""
        return [task for task in self._tasks if not task.done()]

    def close(self) -> None:
        """Cancel no more."""
        self._handle.cancel()

    def _check(self) -> None:
        pending = self.pending()
        if not pending:
            return
        self._handle = self._loop.call_later(CHECK_INTERVAL, self._check)
        if monotonic() >= self._repeat_at:
            self.limit(self._until)
            self._cancel_again(pending, {*self._spared})
        elif swallowing := [task for task in self._cancelled(pending) if self._goes_on(task)]:
            self._cancel_again(swallowing, {*self._spared, *self._before})

    def _cancelled(self, pending: list[Task]) -> set[Task]:
        """The tasks that were cancelled; of those that others wait for only from Python 3.11 on."""
        others = (task for task in self._before if not task.done())
        return {*pending, *(task for task in others if getattr(task, "cancelling", int)())}

    def _goes_on(self, task: Task) -> bool:
        before, now = self._places[task], Place.of(task)
        return now.frames == before.frames and now.awaited is not before.awaited

    def _cancel_again(self, tasks: list[Task], seen: set[Task | None]) -> None:
        """Cancel `tasks`, and those that aren't in `seen`."""
        for task in tasks:
            self._places[task] = Place.of(task)
            task.cancel()
        self._cancel_unseen(tasks, {*seen, *tasks}, ROUNDS)

    def _cancel_unseen(self, tasks: list[Task], seen: set[Task | None], rounds: int) -> None:
        # Before Python 3.12, `wait_for` swallows a cancellation if its own task is done first: that
        # one has to be cancelled between its creation and its first step.
        if all(task.done() or Place.of(task).frames != self._places[task].frames for task in tasks):
            return
        for task in self._all_tasks(self._loop) - seen:
            seen.add(task)
            task.cancel()
        if rounds:
            self._loop.call_soon(self._cancel_unseen, tasks, seen, rounds - 1)
