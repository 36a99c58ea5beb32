"""The event processor: takes events from the queue and passes them to the handler."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..callables import refuse_unrun
from ..runtime.calls import call_hook
from ..runtime.clock import monotonic
from ..runtime.durations import Durations, added
from ..runtime.failures import FailureLog
from ..runtime.forks import ForkFlag, ForkGuard
from ..runtime.heartbeat import Heartbeat
from ..runtime.stacks import stack_of
from ..system.log import log_safely
from ..types import Event, EventMeta, Problem
from .codec import beginning
from .entry import NO_RETRIES, Entry, EventQueue, FailedAttempt, RetryPolicy, failure_of
from .waiting import QueueClosed
from .worker import IDLE, Worker

DeadLetterHook = Callable[[Event, FailedAttempt], object]


class Processor:
    """Threads that pass events to a handler.

    handle: called with an event, or with a list if `batch` is given, and with its EventMeta, or
    a list of them, if `with_meta`; keeps_meta: whether the queue keeps it in any case, for the log;
    threads: how many calls run at a time; batch: the most events in a list; linger: the most
    seconds a list waits after its first event; timeout: seconds until a running call counts as
    stalled; retry: when a failed event is retried; dead_letter_hooks: called with each new dead
    letter's event and failure once it is stored, on the handler's thread; redact: hides secrets in
    error texts; wake: makes the timer call `run_due` soon; changed: called when a call stalls or
    recovers.
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
        keeps_meta: bool = False,
        timeout: float | None = None,
        retry: RetryPolicy = NO_RETRIES,
        dead_letter_hooks: Sequence[DeadLetterHook] = (),
        redact: Callable[[str], str] = str,
        wake: Callable[[], None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._handle = handle
        self._logger = logger
        self._batch = batch
        self._linger = linger
        self._with_meta = with_meta
        queue.with_meta = with_meta or keeps_meta
        queue.keep_lines = retry.retries > 0
        self._retry = retry
        self._dead_letter_hooks = dead_letter_hooks
        queue.gave_up = self._call_hooks
        self._redact = redact
        self._timeout = timeout
        self._is_wanted = False
        self._failures = FailureLog(logger, wake, redact=redact)
        self._forked = ForkFlag()
        self._guard = ForkGuard()
        self._changed = changed
        names = ["events"] if threads == 1 else [f"events-{n}" for n in range(1, threads + 1)]
        self._workers = [
            Worker(name, number, len(names), is_batch=batch is not None)
            for number, name in enumerate(names, 1)
        ]
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
        """Stop once the queue has nothing more for consumers."""
        self._is_wanted = False
        self._queue.close()

    def join(self, timeout: float) -> bool:
        until = monotonic() + timeout
        for worker in self._workers:
            if worker.thread.ident is not None:
                worker.thread.join(max(0.0, until - monotonic()))
        self._failures.flush()
        return not self.running_threads()

    def running_threads(self) -> list[threading.Thread]:
        return [worker.thread for worker in self._workers if worker.thread.is_alive()]

    def problems(self) -> list[Problem]:
        """The event processor's part of the health check."""
        found = []
        if self._is_wanted and len(self.running_threads()) < len(self._workers):
            found.append(Problem("the event processor is not running"))
        if any(worker.heartbeat.is_stalled for worker in self._workers):
            found.append(Problem("the event handler is stalled"))
        return found

    @property
    def in_work(self) -> int:
        """Events that were taken from the queue and are not finished."""
        # Counted by the queue, so that an event is always either waiting or in work.
        while True:
            finished = self._handled() + self._failed()
            in_work = self._queue.taken - finished
            if finished == self._handled() + self._failed():
                return in_work

    def _handled(self) -> int:
        return sum(worker.handled for worker in self._workers)

    def _failed(self) -> int:
        return sum(worker.failed for worker in self._workers)

    def durations(self) -> tuple[list[int], float]:
        """How long the handler's calls took: how many in each bucket of `runtime.durations`, and
        the seconds of all."""
        for worker in self._workers:
            worker.cut_block()
        each = [Durations(), *(w.watch.durations for w in self._workers if w.watch)]
        return added(d.counts for d in each), sum(d.total for d in each)

    def counters(self) -> dict[str, Any]:
        """Events in work, handled and failed since the start, and stalled calls of the handler."""
        counts: dict[str, Any] = {
            "in_work": self.in_work,
            "handled": self._handled(),
            "failed": self._failed(),
        }
        if self._timeout is not None:
            counts["stalled"] = [
                {
                    "thread": worker.thread.name,
                    "seconds": round(worker.heartbeat.age(), 3),
                    "event": beginning(events),
                }
                for worker in self._workers
                if worker.heartbeat.is_stalled and (events := worker.events) is not IDLE
            ]
        return counts

    def run_due(self, now: float) -> float:
        """Log calls that stall or recover, and repeated failures; returns when to call this
        again."""
        dues = (worker.heartbeat.run_due(now) for worker in self._workers)
        return min(*dues, self._failures.run_due(now))

    def _work(self, worker: Worker) -> None:
        worker.begin(self._queue.idle)
        calls = 1
        while True:
            try:
                self._make_calls(worker, calls)
            except QueueClosed:
                return
            # Nothing may end this thread while the daemon accepts events.
            except BaseException as error:
                self._failures.log(error, "The event processor failed", then=" and continues")
            calls = worker.note_calls()

    def _make_calls(self, worker: Worker, calls: int) -> None:
        """Take events, and call the handler for them so many times; raises QueueClosed."""
        # All in one function: a call costs as much as everything else that is done per event.
        taken: Any
        events: Any
        metas: Any
        get, handle, with_meta = self._queue.get, self._handle, self._with_meta
        batch, timed, forked = self._batch, self._timeout is not None, self._forked
        done = self._queue.done if self._queue.is_durable else None
        block = worker.block = [None] * (calls if batch is None else 1)
        for _ in block:
            if batch is None:
                worker.taken = taken = get()
                count = 1
                events, metas = taken[:2] if type(taken) is Entry else (taken, None)
            else:
                worker.taken = taken = self._queue.get_batch(batch, self._linger)
                events, metas, count = _split(taken)
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
            # SystemExit, too: it must not end this thread.
            except BaseException as error:
                self._guard.end_child(error)
                idle, began = self._queue.idle.seconds, monotonic()
                try:
                    self._handle_failure(worker, events, error)
                finally:
                    # Now that a retry counts as waiting.
                    worker.failed += count
                    # Some of it may have been counted already.
                    self._queue.idle.seconds = idle + monotonic() - began
            else:
                if done is not None:
                    done([taken] if batch is None else taken)
            finally:
                if timed:
                    worker.heartbeat.pause()
                    worker.events = IDLE

    def _handle_failure(self, worker: Worker, events: Any, error: BaseException) -> None:
        entries = worker.entries()
        # A batch holds first attempts only, or a single retry.
        attempt, delay = entries[0].attempt, self._retry.delay(entries[0].attempt)
        then = "now a dead letter" if delay is None else f"retrying in {delay:g} s"
        progress = f", attempt {attempt} of {self._retry.retries + 1}; {then}"
        about = f" on {self._described(events)}{progress if self._retry.retries else ''}"
        self._failures.log(error, "The event handler failed", about)
        failure = failure_of(error, entries[0], self._redact)
        dead = [entry.event for entry in entries if self._queue.fail(entry, failure, delay)]
        if dead and delay is not None:
            text = "The daemon is stopping: not retried but now a dead letter"
            log_safely(self._logger, logging.ERROR, text)
        if dead and self._dead_letter_hooks and self._queue.flush():
            for event in dead:
                self._call_hooks(event, failure)

    def _call_hooks(self, event: Event, failure: FailedAttempt) -> None:
        about = f" on the event {beginning(event)}"
        for hook in self._dead_letter_hooks:
            call_hook(hook, "dead-letter", self._failures, event, failure, about=about)

    def _described(self, events: Any) -> str:
        what = f"{len(events)} events, beginning" if self._batch else "the event"
        return f"{what} {beginning(events)}"

    def _stalled(self, worker: Worker, silent: float) -> None:
        self._changed()
        events = worker.events
        # The call may have returned meanwhile.
        if events is not IDLE:
            self._logger.error(
                "The event handler is stalled: running for %.3g s (timeout %g s) on %s; "
                "its stack:\n%s",
                silent,
                self._timeout,
                self._described(events),
                stack_of(worker.thread),
            )

    def _recovered(self, silent: float) -> None:
        self._changed()
        self._logger.info("The event handler recovered after %.3g s", silent)


def _split(taken: list[Any]) -> tuple[list[Event], list[EventMeta | None], int]:
    pairs = [item[:2] if type(item) is Entry else (item, None) for item in taken]
    events, metas = map(list, zip(*pairs, strict=True))
    return events, metas, len(taken)
