"""Deadlines, and how the process exits: by itself, at a deadline, or at once."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from ..runtime.clock import monotonic
from ..runtime.stacks import bottom_of, stack_of
from ..system.log import write_stderr

ACTION_TIMEOUT = 0.2
"""Seconds to wait for an action that may block."""
EXIT_DELAY = 0.25
"""Seconds after which a program that has no more work has reached the interpreter's exit."""


class Deadline:
    """Counts down from `timeout` seconds on the monotonic clock."""

    def __init__(self, timeout: float) -> None:
        self._until = monotonic() + timeout

    def left(self, keep: float = 0.0) -> float:
        """Seconds left, not counting `keep` seconds reserved for later; never negative."""
        return max(0.0, self._until - keep - monotonic())


def run_best_effort(*actions: Callable[[], object]) -> None:
    """Run each action, but wait only briefly for it and ignore its exceptions.

    An action may block: another thread may hold a log handler's lock, or a pipe may be full.
    """
    for action in actions:
        # Without a thread the action is skipped: the process is about to exit.
        with suppress(RuntimeError, MemoryError):
            thread = threading.Thread(
                target=_run_suppressed,
                args=(action,),
                name=threading.current_thread().name,
                daemon=True,
            )
            thread.start()
            thread.join(ACTION_TIMEOUT)


def _run_suppressed(action: Callable[[], object]) -> None:
    with suppress(Exception):
        action()


def flush_stdout() -> None:
    """Flush stdout, discarding what its reader no longer takes.

    The interpreter's own flush at exit would change the exit status if it failed.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


def exit_now(status: int) -> NoReturn:
    """Flush the log and stdout, then exit without waiting for any thread."""
    try:
        run_best_effort(*_flushes())
    finally:
        os._exit(status)


def _flushes() -> list[Callable[[], object]]:
    return [*(handler.flush for handler in logging.getLogger().handlers), flush_stdout]


def exit_by_signal(logger: logging.Logger, number: int, left: str) -> NoReturn:
    """Exit at once with status 128 + `number`, as a second signal demands.

    left: what is left undone, for the log.
    """
    name = signal.Signals(number).name
    try:
        write_stderr(f"{logger.name}: {name} again: exiting at once\n")
        run_best_effort(lambda: logger.critical("%s again: exiting at once; %s", name, left))
    finally:
        os._exit(128 + number)


class ExitWatch:
    """Ends the process at a deadline if the interpreter's exit blocks.

    At its exit the interpreter waits for every non-daemon thread, including those of a
    ThreadPoolExecutor. Create it in the program's main thread. A program that continues with other
    work is left alone.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._main = threading.current_thread()
        # The outermost frame is the program's while it runs, and Python's own at the exit.
        self._program = bottom_of(self._main)

    def arm(self, deadline: Deadline, status: int) -> None:
        """Start watching: exit with `status` if the exit still blocks at the deadline."""
        if self._main is not threading.main_thread():
            return
        # Without a thread there is no watch: most programs exit by themselves.
        with suppress(RuntimeError, MemoryError):
            # Both now, as Python 3.12 starts none during its exit; one is for a report that blocks.
            for delay in (0.0, ACTION_TIMEOUT):
                threading.Thread(
                    target=self._watch, args=(deadline, status, delay), name="exit", daemon=True
                ).start()

    def _watch(self, deadline: Deadline, status: int, delay: float) -> None:
        # Unlike time.sleep, an event's wait also works under libfaketime.
        never = threading.Event()
        never.wait(EXIT_DELAY)
        # None: an interactive interpreter that waits for input.
        if bottom_of(self._main) in (self._program, None):
            return
        never.wait(deadline.left() + delay)
        if not delay:
            for action in (self._report_blocking, *_flushes()):
                _run_suppressed(action)
        exit_now(status)

    def _report_blocking(self) -> None:
        pooled = _pool_threads()
        threads = [
            (thread, "thread of a pool" if thread in pooled else "non-daemon thread")
            for thread in threading.enumerate()
            if thread is not self._main and (thread in pooled or not thread.daemon)
        ]
        for thread, kind in threads or [(self._main, "thread")]:
            self._logger.critical(
                "The process did not exit by the deadline because of the %s %s:\n%s",
                kind,
                thread.name,
                stack_of(thread),
            )


def _pool_threads() -> set[threading.Thread]:
    """The threads of every ThreadPoolExecutor: Python waits even for those that are daemons, as
    they are if a daemon thread has started them."""
    module = sys.modules.get("concurrent.futures.thread")
    return set(getattr(module, "_threads_queues", ()))
