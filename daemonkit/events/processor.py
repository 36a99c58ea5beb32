"""The event processor: takes events from the queue and calls the handler for each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..callables import refuse_unrun
from ..runtime.forks import ForkFlag, ForkGuard
from ..runtime.heartbeat import Heartbeat
from ..runtime.stacks import stack_of
from ..types import Event, EventMeta, Problem
from .codec import beginning
from .entry import ONCE, Entry, EventQueue, RetryPolicy, failure_of
from .waiting import QueueClosed


class Processor:
    """Threads that hand events to a handler.

    handle: called with an event, or a list of them when `batch` is given, and with their Meta (or
    list of them) when `with_meta`; threads: how many call it at a time; batch: how many events a
    list has at most; linger: seconds after the first event at which a list is handed over at the
    latest; timeout: seconds after which a call that hasn't returned is stalled; retry: how often a
    failing event is handled again; redact: hides secrets in what is kept of an error; wake: called
    to have `tend` called soon; changed: called when a call stalls or goes on.
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
        timeout: float | None = None,
        retry: RetryPolicy = ONCE,
        redact: Callable[[str], str] = str,
        wake: Callable[[], None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._handle = handle
        self._logger = logger
        self._batch = batch
        self._linger = linger
        queue.with_meta = self._with_meta = with_meta
        queue.keep_lines = retry.retries > 0
        self._retry = retry
        self._redact = redact
        self._timeout = timeout
        self._is_wanted = False
        self._forked = ForkFlag()
        self._guard = ForkGuard()
        self._changed = changed
        names = ["events"] if threads == 1 else [f"events-{n}" for n in range(1, threads + 1)]
        self._workers = [_Worker(name) for name in names]
        for worker in self._workers:
            worker.thread = threading.Thread(
                target=self._work, args=(worker,), name=worker.name, daemon=True
            )
            worker.heartbeat = Heartbeat(
                timeout, partial(self._stalled, worker), self._recovered, wake
            )
            worker.heartbeat.pause()

    def start(self) -> None:
        for worker in self._workers:
            worker.thread.start()
        self._is_wanted = True

    def request_stop(self) -> None:
        """Finish what is queued, then stop."""
        self._is_wanted = False
        self._queue.close()

    def join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join(max(0.0, until - time.monotonic()))
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        return [worker.thread for worker in self._workers if worker.thread.is_alive()]

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        found = []
        if self._is_wanted and len(self.running_threads()) < len(self._workers):
            found.append(Problem("the event processor is not running"))
        if any(worker.heartbeat.is_stalled for worker in self._workers):
            found.append(Problem("the event handler is stalled"))
        return found

    @property
    def in_work(self) -> int:
        """Events that a handler has been given and hasn't returned from."""
        return sum(worker.in_work for worker in self._workers)

    def counters(self) -> dict[str, Any]:
        """Events in work, handled and failed since the start, and where a handler is stalled."""
        counts: dict[str, Any] = {
            "in_work": self.in_work,
            "handled": sum(worker.handled for worker in self._workers),
            "failed": sum(worker.failed for worker in self._workers),
        }
        if self._timeout is not None:
            counts["stalled"] = [
                {
                    "thread": worker.thread.name,
                    "seconds": round(worker.heartbeat.age(), 3),
                    "event": beginning(worker.events),
                }
                for worker in self._workers
                if worker.heartbeat.is_stalled
            ]
        return counts

    def run_due(self, now: float) -> float:
        """Tell of handlers that are stalled or go on; returns when to call this again."""
        return min(worker.heartbeat.run_due(now) for worker in self._workers)

    def _work(self, worker: _Worker) -> None:
        # One function, without calls of its own between one event and the next.
        taken: Any
        events: Any
        metas: Any
        get, handle, with_meta = self._queue.get, self._handle, self._with_meta
        batch, timed, forked = self._batch, self._timeout is not None, self._forked
        done = self._queue.done if self._queue.is_durable else None
        while True:
            try:
                if batch is None:
                    taken, count = get(), 1
                    events, metas = taken[:2] if type(taken) is Entry else (taken, None)
                else:
                    taken = self._queue.get_batch(batch, self._linger)
                    events, metas, count = _parted(taken)
                worker.in_work = count
                if timed:
                    worker.events = events
                    worker.heartbeat.resume()
                try:
                    result = handle(events, metas) if with_meta else handle(events)
                    if result is not None:
                        refuse_unrun(result)
                    if forked.is_child:
                        self._guard.end_child()
                    worker.handled += count
                # A handler's SystemExit is a failed event too, not the end of the event processor.
                except BaseException as error:
                    self._guard.end_child(error)
                    worker.failed += count
                    self._failed([taken] if batch is None else taken, events, error)
                else:
                    if done is not None:
                        done([taken] if batch is None else taken)
                finally:
                    worker.in_work = 0
                    if timed:
                        worker.heartbeat.pause()
                        worker.events = None
            except QueueClosed:
                return
            # Nothing may end this thread while events are still taken in.
            except BaseException:
                self._logger.exception("The event processor failed and goes on")

    def _failed(self, taken: list[Any], events: Any, error: BaseException) -> None:
        entries = [item if type(item) is Entry else Entry(item) for item in taken]
        # One that is tried again comes alone.
        attempt, delay = entries[0].attempt, self._retry.delay(entries[0].attempt)
        then = "it is now a dead letter" if delay is None else f"the next one in {delay:g} s"
        tried = f", attempt {attempt} of {self._retry.retries + 1}; {then}"
        self._logger.error(
            "The event handler failed on %s%s",
            self._which(events),
            tried if self._retry.retries else "",
            exc_info=error,
        )
        failure = failure_of(error, entries[0], self._redact)
        for entry in entries:
            self._queue.fail(entry, failure, delay)

    def _which(self, events: Any) -> str:
        what = f"{len(events)} events, beginning" if self._batch else "the event"
        return f"{what} {beginning(events)}"

    def _stalled(self, worker: _Worker, silent: float) -> None:
        self._changed()
        # It may have gone on meanwhile.
        if worker.in_work:
            events = worker.events
            self._logger.error(
                "The event handler is stalled: it has been at work for %.3g s (timeout %g s) "
                "on %s; it is here:\n%s",
                silent,
                self._timeout,
                self._which(events),
                stack_of(worker.thread),
            )

    def _recovered(self, silent: float) -> None:
        self._changed()
        self._logger.info("The event handler goes on, after %.3g s", silent)


def _parted(taken: list[Any]) -> tuple[list[Event], list[EventMeta | None], int]:
    pairs = [item[:2] if type(item) is Entry else (item, None) for item in taken]
    events, metas = map(list, zip(*pairs, strict=True))
    return events, metas, len(taken)


class _Worker:
    """One thread and its counts, which no other thread writes."""

    thread: threading.Thread
    heartbeat: Heartbeat

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_work = 0
        self.handled = 0
        self.failed = 0
        self.events: Any = None
