"""The threads that requests are answered on, some of them kept for those who ask how we are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from waitress.task import ThreadedTaskDispatcher

PROBES = ("ping", "ready")
"""Paths that have a thread of their own, for when all others wait for somebody. One each: a health
check that hangs must not keep readiness from being told."""


class Pool:
    """Threads for requests; what waitress calls a task dispatcher."""

    def __init__(self) -> None:
        self._threads = _Threads("http")
        self._reserved = {f"/{name}": _Threads(f"http-{name}") for name in PROBES}

    def start(self, count: int) -> None:
        """Start `count` threads, and those that are kept."""
        self._threads.set_thread_count(count)
        for threads in self._reserved.values():
            threads.set_thread_count(1)

    def add_task(self, channel: Any) -> None:
        """Have the first request of a connection answered."""
        reserved = self._reserved.get(getattr(channel.requests[0], "path", ""))
        if reserved is None or self._threads.has_idle():
            self._threads.add_task(channel)
        else:
            reserved.add_task(channel)

    def shutdown(self, timeout: float) -> None:
        """Have the threads end, and wait for them at most `timeout` seconds."""
        until = time.monotonic() + timeout
        for threads in (self._threads, *self._reserved.values()):
            threads.shutdown(timeout=max(0.0, until - time.monotonic()))

    @property
    def made(self) -> list[threading.Thread]:
        """All threads there are or were."""
        return [t for threads in (self._threads, *self._reserved.values()) for t in threads.made]


class _Threads(ThreadedTaskDispatcher):
    """Waitress's threads, which can be named when one of them doesn't end."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.made: list[threading.Thread] = []

    def has_idle(self) -> bool:
        """Whether one of them has nothing to do."""
        with self.lock:
            idle = len(self.threads) - self.stop_count - self.active_count
            return bool(idle > len(self.queue))

    def add_task(self, task: Any) -> None:
        with self.lock:
            self.queue.append(task)
            # A thread of ours that adds one looks for the next itself, now that it is done.
            if len(self.queue) > 1 or threading.current_thread() not in self.made:
                self.queue_cv.notify()

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        name = f"{self._name}-{thread_no + 1}" if self._name == "http" else self._name
        thread = threading.Thread(target=target, name=name, args=(thread_no,), daemon=True)
        try:
            thread.start()
        except BaseException:
            # Whoever stops us waits for all that stand here.
            self.threads.discard(thread_no)
            raise
        self.made.append(thread)
