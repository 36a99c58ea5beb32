"""Signals, deadlines and the end of the process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn


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
        self._thread.start()

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
                    self._actions[number]()


class Deadline:
    """Counts down from `timeout` seconds, on the monotonic clock."""

    def __init__(self, timeout: float) -> None:
        self._until = time.monotonic() + timeout

    def left(self, keep: float = 0.0) -> float:
        """Seconds left, `keep` of them reserved for what comes later; never negative."""
        return max(0.0, self._until - keep - time.monotonic())


class Coalesced:
    """Runs a function on a thread of its own; requests that come meanwhile make one more run."""

    def __init__(self, function: Callable[[], None], name: str, logger: logging.Logger) -> None:
        self._function = function
        self._name = name
        self._logger = logger
        self._lock = threading.Lock()
        self._wanted = False
        self._running = False

    def request(self) -> None:
        """Have it run soon; never blocks."""
        with self._lock:
            self._wanted = True
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return
                self._wanted = False
            try:
                self._function()
            except Exception:
                self._logger.exception("%s failed", self._name)


def stack_of(thread: threading.Thread) -> str:
    """Where a thread is now, as a traceback's text."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame else "(no stack)\n"


def briefly(*actions: Callable[[], object]) -> None:
    """Do what may block or raise, but wait for each only a moment."""
    for action in actions:
        # A handler's lock may be held by the thread that blocks; a pipe may be full.
        thread = threading.Thread(target=lambda: _quietly(action), daemon=True)  # noqa: B023
        thread.start()
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
    line = f"{name}: {signal.Signals(number).name} again: exiting at once\n"
    try:
        briefly(lambda: os.write(2, line.encode()))
    finally:
        os._exit(128 + number)
