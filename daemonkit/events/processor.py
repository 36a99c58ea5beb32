"""The event processor: takes events from the queue and calls the handler for each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..calls import refuse_coroutine
from ..types import Event, EventQueue, Meta
from .codec import beginning
from .intake import Tagged
from .memory import QueueClosed


class Processor:
    """Threads that hand events to a handler.

    handle: called with an event, or a list of them when `batch` is given, and with their Meta (or
    list of them) when `with_meta`; threads: how many call it at a time; batch: how many events a
    list has at most; linger: seconds after the first event at which a list is handed over at the
    latest.
    """

    name = "event processor"

    def __init__(
        self,
        queue: EventQueue,
        handle: Callable[..., Any],
        logger: logging.Logger,
        *,
        threads: int = 1,
        batch: int | None = None,
        linger: float = 0.0,
        with_meta: bool = False,
    ) -> None:
        self._queue = queue
        self._handle = handle
        self._logger = logger
        self._batch = batch
        self._linger = linger
        self.with_meta = with_meta
        names = ["events"] if threads == 1 else [f"events-{n}" for n in range(1, threads + 1)]
        self._workers = [_Worker(self._work, name) for name in names]

    def start(self) -> None:
        for worker in self._workers:
            worker.thread.start()

    def request_stop(self) -> None:
        """Finish what is queued, then stop."""
        self._queue.close()

    def join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join(max(0.0, until - time.monotonic()))
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        return [worker.thread for worker in self._workers if worker.thread.is_alive()]

    @property
    def running(self) -> bool:
        """Whether every thread of it is at work."""
        return len(self.running_threads()) == len(self._workers)

    @property
    def in_work(self) -> int:
        """Events that a handler has been given and hasn't returned from."""
        return sum(worker.in_work for worker in self._workers)

    def counters(self) -> dict[str, int]:
        """Events in work, handled and failed since the start."""
        return {
            "in_work": self.in_work,
            "handled": sum(worker.handled for worker in self._workers),
            "failed": sum(worker.failed for worker in self._workers),
        }

    def _work(self, worker: _Worker) -> None:
        while True:
            try:
                if self._batch is None:
                    self._call(worker, *self._split(self._queue.get()), 1)
                else:
                    entries = self._queue.get_batch(self._batch, self._linger)
                    events, metas = zip(*map(self._split, entries), strict=True)
                    self._call(worker, list(events), list(metas), len(entries))
            except QueueClosed:
                return
            # Nothing may end this thread while events are still taken in.
            except BaseException:
                self._logger.exception("The event processor failed and goes on")

    def _split(self, entry: Any) -> tuple[Event, Meta | None]:
        return entry if isinstance(entry, Tagged) else (entry, None)

    def _call(self, worker: _Worker, events: Any, metas: Any, count: int) -> None:
        worker.in_work = count
        try:
            result = self._handle(events, metas) if self.with_meta else self._handle(events)
            if result is not None:
                refuse_coroutine(result)
            worker.handled += count
        # A handler's SystemExit is a failed event too, not the end of the event processor.
        except BaseException:
            worker.failed += count
            what = f"{count} events, beginning" if self._batch else "the event"
            self._logger.exception("The event handler failed on %s %s", what, beginning(events))
        finally:
            worker.in_work = 0


class _Worker:
    """One thread and its counts, which no other thread writes."""

    def __init__(self, work: Callable[[_Worker], None], name: str) -> None:
        self.thread = threading.Thread(target=work, args=(self,), name=name, daemon=True)
        self.in_work = 0
        self.handled = 0
        self.failed = 0
