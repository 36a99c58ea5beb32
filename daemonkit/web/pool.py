"""The threads that answer requests, with a reserve thread for each health probe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import logger

from ..runtime.clock import monotonic
from ..runtime.failures import FailureLog, LimitedLogger

YIELD_INTERVAL = 0.001
"""Seconds between yields: at this rate they cost 5 % of the throughput, after each request 12 %."""
PROBES = ("/ping", "/ready")
"""Paths with a reserve thread each, so that they are answered while all other threads are busy and
a hanging health check doesn't block readiness."""


class Pool(ThreadedTaskDispatcher):
    """Threads that take connections from one queue and answer the first request of each.

    failures: logs what fails; name: the beginning of the threads' names.
    """

    def __init__(self, failures: FailureLog, name: str = "http") -> None:
        super().__init__()
        self.logger = LimitedLogger(logger, failures, "An HTTP thread failed")
        self._name = name
        self.started: list[threading.Thread] = []
        """All threads ever started, including those that have ended."""
        self._worker_ids: set[int] = set()
        self._reserves = {path: threading.Condition(self.lock) for path in PROBES}
        self._next_yield = 0.0
        self._stopping = False

    def start(self, count: int) -> None:
        """Start `count` threads and the reserve threads."""
        self.set_thread_count(count)
        for path in PROBES:
            self._start(f"{self._name}-{path[1:]}", self._serve_probes, path)

    def add_task(self, channel: Any) -> None:
        reserve = self._reserves.get(_path(channel))
        with self.lock:
            self.queue.append(channel)
            # A worker that queues a connection is about to take the next one itself.
            if len(self.queue) > 1 or threading.get_ident() not in self._worker_ids:
                self.queue_cv.notify()
            if reserve is not None and not self._has_enough_idle():
                reserve.notify()

    def yield_if_waiting(self) -> None:
        """Release the GIL now and then while connections wait.

        On one core, a thread would otherwise start the next request while other threads wait for
        the GIL in the middle of theirs.
        """
        if self.queue and (now := monotonic()) >= self._next_yield:
            self._next_yield = now + YIELD_INTERVAL
            time.sleep(0)

    def _has_enough_idle(self) -> bool:
        """Whether there is an idle thread for each queued connection. The caller holds the lock."""
        idle = len(self.threads) - self.stop_count - self.active_count
        return bool(idle >= len(self.queue))

    def _serve_probes(self, path: str) -> None:
        while True:
            with self.lock:
                while (channel := self._first(path)) is None:
                    if self._stopping:
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
            self._stopping = True
            for reserve in self._reserves.values():
                reserve.notify()
        return super().shutdown(cancel_pending, timeout)

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        try:
            thread = self._start(f"{self._name}-{thread_no + 1}", target, thread_no)
        except BaseException:
            # shutdown() waits for every number in this set.
            self.threads.discard(thread_no)
            raise
        self._worker_ids.add(thread.ident or 0)

    def _start(self, name: str, target: Callable[[Any], None], argument: Any) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, args=(argument,), daemon=True)
        thread.start()
        self.started.append(thread)
        return thread


def _path(channel: Any) -> str:
    """The path of a connection's first request, "" if it was refused before it had one."""
    return getattr(channel.requests[0], "path", "") if channel.requests else ""
