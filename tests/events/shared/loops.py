"""A loop that waits for descriptors, in place of the HTTP server's."""

from __future__ import annotations

import math
import os
import select
import threading
from collections.abc import Callable
from typing import Any

from daemonkit.runtime.clock import monotonic


class Loop:
    """See `events.entry.Loop`."""

    def __init__(self) -> None:
        self._duties: list[Callable[[float], float]] = []
        self._items: dict[int, Any] = {}
        self._read, self._write = os.pipe()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="test loop")
        self._thread.start()
        self.errors: list[BaseException] = []

    @property
    def is_current_thread(self) -> bool:
        return threading.current_thread() is self._thread

    busy = 0.0

    def add_duty(self, run_due: Callable[[float], float]) -> None:
        self._duties.append(run_due)

    def watch(self, item: Any) -> None:
        self._items[item._fileno] = item

    def forget(self, item: Any) -> None:
        self._items.pop(item._fileno, None)

    def wake(self) -> None:
        os.write(self._write, b".")

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the loop's thread, and return its result."""
        over, results = threading.Event(), []

        def once(now: float) -> float:
            if not over.is_set():
                results.append(function())
                over.set()
            return math.inf

        self._duties.append(once)
        self.wake()
        assert over.wait(10)
        self._duties.remove(once)
        return results[0]

    def close(self) -> None:
        self._over = True
        self.wake()
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        while True:
            due = min((duty(monotonic()) for duty in list(self._duties)), default=math.inf)
            if self._over:
                return
            if self._over:
                return
            poll = select.poll()
            poll.register(self._read, select.POLLIN)
            for fd, item in self._items.items():
                poll.register(fd, select.POLLIN | (select.POLLOUT if item.writable() else 0))
            timeout = None if due == math.inf else max(0.0, due - monotonic()) * 1000 + 1
            for fd, flags in poll.poll(timeout):
                if fd == self._read:
                    os.read(self._read, 4096)
                elif (item := self._items.get(fd)) is not None:
                    if flags & select.POLLIN:
                        item.handle_read_event()
                    if flags & select.POLLOUT:
                        item.handle_write_event()
                    if flags & (select.POLLHUP | select.POLLERR):
                        item.handle_close()
