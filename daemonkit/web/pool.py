"""The threads that requests are answered on, and one more each for those who ask how we are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from waitress.task import ThreadedTaskDispatcher

YIELD_EVERY = 0.001
"""Seconds; more often would cost an eighth of the requests, and this a twentieth."""
PROBES = ("/ping", "/ready")
"""Paths that have a thread in reserve, for when all others wait for somebody. One each: a health
check that hangs must not keep readiness from being known."""


class Pool(ThreadedTaskDispatcher):
    """Threads that take connections from one queue, to answer the first request of each."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[threading.Thread] = []
        """All threads there are or were, to be named when one of them doesn't end."""
        self._takers: set[int] = set()
        self._reserves = {path: threading.Condition(self.lock) for path in PROBES}
        self._next_yield = 0.0
        self._is_over = False

    def start(self, count: int) -> None:
        """Start `count` threads, and those in reserve."""
        self.set_thread_count(count)
        for path in PROBES:
            self._start(f"http-{path[1:]}", self._serve_probes, path)

    def add_task(self, channel: Any) -> None:
        reserve = self._reserves.get(_path(channel))
        with self.lock:
            self.queue.append(channel)
            # A thread that adds one when it is done takes the next one itself.
            if len(self.queue) > 1 or threading.get_ident() not in self._takers:
                self.queue_cv.notify()
            if reserve is not None and not self.has_idle():
                reserve.notify()

    def let_others_go_first(self) -> None:
        """Yield now and then while connections wait: on one core, a thread would otherwise go on
        with the next one while others wait for the interpreter in the middle of theirs."""
        if self.queue and (now := time.monotonic()) >= self._next_yield:
            self._next_yield = now + YIELD_EVERY
            time.sleep(0)

    def has_idle(self) -> bool:
        """Whether there are threads enough for all that is queued; for who has the lock."""
        idle = len(self.threads) - self.stop_count - self.active_count
        return bool(idle >= len(self.queue))

    def _serve_probes(self, path: str) -> None:
        while True:
            with self.lock:
                while (channel := self._first(path)) is None:
                    if self._is_over:
                        return
                    self._reserves[path].wait()
                self.queue.remove(channel)
            try:
                channel.service()
            except BaseException:
                self.logger.exception("Exception when servicing %r", channel)

    def _first(self, path: str) -> Any:
        return next((channel for channel in self.queue if _path(channel) == path), None)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> Any:
        with self.lock:
            self._is_over = True
            for reserve in self._reserves.values():
                reserve.notify()
        return super().shutdown(cancel_pending, timeout)

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        try:
            thread = self._start(f"http-{thread_no + 1}", target, thread_no)
        except BaseException:
            # Whoever stops us waits for all that are in there.
            self.threads.discard(thread_no)
            raise
        self._takers.add(thread.ident or 0)

    def _start(self, name: str, target: Callable[[Any], None], argument: Any) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, args=(argument,), daemon=True)
        thread.start()
        self.made.append(thread)
        return thread


def _path(channel: Any) -> str:
    """The path of a connection's first request; one that was refused may have none."""
    return getattr(channel.requests[0], "path", "") if channel.requests else ""
