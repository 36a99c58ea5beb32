"""Deadlines, and the end of the process: by itself, at a deadline, or at once."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ..runtime.stacks import bottom_of, stack_of

EXIT_LOOK = 0.25
"""Seconds after which a program that is to end is at the interpreter's exit."""


class Deadline:
    """Counts down from `timeout` seconds, on the monotonic clock."""

    def __init__(self, timeout: float) -> None:
        self._until = time.monotonic() + timeout

    def left(self, keep: float = 0.0) -> float:
        """Seconds left, `keep` of them reserved for what comes later; never negative."""
        return max(0.0, self._until - keep - time.monotonic())


def briefly(*actions: Callable[[], object]) -> None:
    """Do what may block or raise, but wait for each only a moment."""
    for action in actions:
        try:
            # A handler's lock may be held by the thread that blocks; a pipe may be full.
            thread = threading.Thread(
                target=_quietly, args=(action,), name=threading.current_thread().name, daemon=True
            )
            thread.start()
        # No thread available: what comes after it is the end of the process, and matters more.
        except (RuntimeError, MemoryError):
            continue
        thread.join(0.2)


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:
        pass


def print_if_possible(line: str) -> None:
    """Write a line to stderr, but neither wait for its reader nor raise."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("utf-8", "replace"))
    except (OSError, ValueError):
        pass


def log_safely(
    logger: logging.Logger, level: int, text: str, *arguments: Any, exc_info: bool = False
) -> None:
    """Log, where a handler or filter of the user's that raises must not do any harm."""
    try:
        logger.log(level, text, *arguments, exc_info=exc_info)
    except Exception:
        print_if_possible(f"{logger.name}: {text % arguments}\n")


def flush_stdout() -> None:
    """Have the interpreter's own flush at the exit succeed, or it would change the exit status."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Nobody reads any more; what is left in the buffer goes where it hurts nobody.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def exit_now(status: int) -> NoReturn:
    """End the process at once, whatever other threads are doing, with the log written out."""
    try:
        flushes = [handler.flush for handler in logging.getLogger().handlers]
        briefly(*flushes, lambda: sys.stdout.flush())
    finally:
        os._exit(status)


def exit_by_signal(logger: logging.Logger, number: int, left: str) -> NoReturn:
    """End the process as a second signal demands: status 128+n, nothing waited for.

    left: told in the log, if that can be done in a moment.
    """
    name = signal.Signals(number).name
    try:
        print_if_possible(f"{logger.name}: {name} again: exiting at once\n")
        briefly(lambda: logger.critical("%s again: exiting at once; %s", name, left))
    finally:
        os._exit(128 + number)


class ExitWatch:
    """Ends the process at the deadline when the interpreter can't end by itself: at its exit it
    waits for every thread that isn't a daemon, those of a ThreadPoolExecutor included.

    Made by the program's main thread, in the middle of it. A program that goes on with other things
    afterwards is left alone.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._main = threading.current_thread()
        # While the program runs, its own code is at the bottom; at the interpreter's exit it isn't.
        self._program = bottom_of(self._main)

    def arm(self, deadline: Deadline, status: int) -> None:
        """From now on, end with `status` what is still at its exit at the deadline."""
        if self._main is not threading.main_thread():
            return
        try:
            threading.Thread(
                target=self._watch, args=(deadline, status), name="exit", daemon=True
            ).start()
        # No thread available: most programs end without help.
        except (RuntimeError, MemoryError):
            pass

    def _watch(self, deadline: Deadline, status: int) -> None:
        never = threading.Event()
        never.wait(EXIT_LOOK)
        # None: an interactive interpreter that waits for a line.
        if bottom_of(self._main) in (self._program, None):
            return
        never.wait(deadline.left())
        briefly(self._tell)
        exit_now(status)

    def _tell(self) -> None:
        threads = [t for t in threading.enumerate() if t is not self._main and not t.daemon]
        for thread in threads or [self._main]:
            self._logger.critical(
                "The process could not end by the deadline because of the thread %s%s; "
                "it is here:\n%s",
                thread.name,
                ", which is no daemon thread" if threads else "",
                stack_of(thread),
            )
