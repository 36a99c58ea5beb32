"""Signals: taken over safely, turned into calls, and storms of them into one or two."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ..exceptions import StartError
from ..text import error_text
from .exit import log_safely, print_if_possible


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
        except (RuntimeError, MemoryError) as error:
            self.restore()
            raise StartError(f"cannot start: {error_text(error)}") from None

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
        # No thread available; the next request tries again.
        except (RuntimeError, MemoryError) as error:
            self._running = False
            print_if_possible(f"{self._logger.name}: no {self._name}: {error_text(error)}\n")

    def _run(self) -> None:
        while True:
            self._never.wait(max(0.0, self._next - time.monotonic()))
            with self._lock:
                self._wanted = False
            try:
                self._function()
            except Exception:
                log_safely(self._logger, logging.ERROR, "%s failed", self._name, exc_info=True)
            self._next = time.monotonic() + self._pause
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return
