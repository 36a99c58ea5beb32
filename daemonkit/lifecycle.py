"""Signals, deadlines and the end of the process."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .exceptions import StartError
from .stacks import bottom_of, stack_of

EXIT_LOOK = 0.25
"""Seconds after which a program that is to end is at the interpreter's exit."""


class Signals:
    """Turns signals into calls on a thread of their own.

    Python runs signal handlers in the main thread, between two of its instructions: never while
    that thread is inside C code, and with whatever lock it holds. Here the interpreter's C
    handler writes the signal's number into a pipe (signal.set_wakeup_fd), and the thread that
    reads it is free to lock, log and wait.

    actions: signal number to what is called; it must not block.
    """

    name = "signals"

    def __init__(self, actions: Mapping[int, Callable[[], None]]) -> None:
        self._actions = dict(actions)
        self._old_handlers: dict[int, Any] = {}
        self._old_wakeup = -1
        self._read, self._write = -1, -1
        self._thread = threading.Thread(target=self._watch, name=self.name, daemon=True)

    def start(self) -> None:
        """Take over the signals; does nothing outside of the main thread, which alone may."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._actions:
            self._old_handlers[number] = signal.signal(number, self._handle)
        self._let_children_go()
        # Whoever started us may have blocked them, and that is inherited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._actions)
        try:
            self._thread.start()
        except RuntimeError as error:
            self.restore()
            raise StartError(f"cannot start: {error}") from None

    def _let_children_go(self) -> None:
        """Give a forked child its own signals: it would write them into the pipe it shares with us,
        and ending it would end us."""
        reference, masks = weakref.ref(self), threading.local()
        numbers = set(self._actions)

        def before() -> None:
            # Until the child has its handlers back, its signals have to wait.
            masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

        def in_parent() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

        def in_child() -> None:
            signals = reference()
            if signals is not None and signals._old_handlers:
                signals.restore()
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)

    def _handle(self, number: int, frame: object) -> None:  # noqa: ARG002
        """Has to be there for the interpreter to write to the pipe; it wrote already, unless
        somebody (an event loop, say) has put another descriptor in its place."""
        current = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        if current != self._write:
            os.write(self._write, bytes([number]))
            if current >= 0:
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def request_stop(self) -> None:
        """Give the signals back to whoever had them."""
        if self._write >= 0:
            self.restore()
            os.write(self._write, b"\0")

    def restore(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers.clear()
        signal.set_wakeup_fd(self._old_wakeup)

    def join(self, timeout: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._write >= 0:
            os.close(self._read)
            os.close(self._write)
            self._write = -1
        return True

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    def _watch(self) -> None:
        while True:
            for number in os.read(self._read, 512):
                if number == 0:
                    return
                if number in self._actions:
                    try:
                        self._actions[number]()
                    # A signal that fails must not be the last one that works.
                    except Exception as error:
                        print_if_possible(f"{signal.Signals(number).name} failed: {error!r}\n")


class Deadline:
    """Counts down from `timeout` seconds, on the monotonic clock."""

    def __init__(self, timeout: float) -> None:
        self._until = time.monotonic() + timeout

    def left(self, keep: float = 0.0) -> float:
        """Seconds left, `keep` of them reserved for what comes later; never negative."""
        return max(0.0, self._until - keep - time.monotonic())


class Coalesced:
    """Runs a function on a thread of its own; requests that come meanwhile make one more run.

    pause: seconds at least between the end of one run and the beginning of the next.
    """

    def __init__(
        self, function: Callable[[], None], name: str, logger: logging.Logger, pause: float = 0.0
    ) -> None:
        self._function = function
        self._name = name
        self._logger = logger
        self._pause = pause
        self._lock = threading.Lock()
        self._wanted = False
        self._running = False
        self._next = 0.0
        self._never = threading.Event()

    def request(self) -> None:
        """Have it run soon; never blocks."""
        with self._lock:
            self._wanted = True
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        # No thread to be had; the next request tries again.
        except RuntimeError as error:
            self._running = False
            print_if_possible(f"{self._logger.name}: no {self._name}: {error}\n")

    def _run(self) -> None:
        while True:
            self._never.wait(max(0.0, self._next - time.monotonic()))
            with self._lock:
                self._wanted = False
            try:
                self._function()
            except Exception:
                tell(self._logger, logging.ERROR, "%s failed", self._name, exc_info=True)
            self._next = time.monotonic() + self._pause
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return


def briefly(*actions: Callable[[], object]) -> None:
    """Do what may block or raise, but wait for each only a moment."""
    for action in actions:
        # A handler's lock may be held by the thread that blocks; a pipe may be full.
        thread = threading.Thread(target=lambda: _quietly(action), daemon=True)  # noqa: B023
        try:
            thread.start()
        # No thread to be had: what comes after it is the end of the process, and matters more.
        except RuntimeError:
            continue
        thread.join(0.2)


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:
        pass


def settle_output() -> None:
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


def exit_by_signal(name: str, number: int) -> NoReturn:
    """End the process as a second signal demands: status 128+n, nothing waited for."""
    try:
        print_if_possible(f"{name}: {signal.Signals(number).name} again: exiting at once\n")
    finally:
        os._exit(128 + number)


def print_if_possible(line: str) -> None:
    """Write a line to stderr, but neither wait for its reader nor raise."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("utf-8", "replace"))
    except (OSError, ValueError):
        pass


def tell(
    logger: logging.Logger, level: int, text: str, *arguments: Any, exc_info: bool = False
) -> None:
    """Log, where a handler or filter of the user's that raises must not do any harm."""
    try:
        logger.log(level, text, *arguments, exc_info=exc_info)
    except Exception:
        print_if_possible(f"{logger.name}: {text % arguments}\n")


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
        # No thread to be had: most programs end without help.
        except RuntimeError:
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
