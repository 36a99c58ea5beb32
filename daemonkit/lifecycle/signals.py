"""Signals, received safely and handled on a thread."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..exceptions import StartError
from ..runtime.clock import monotonic
from ..runtime.part import ThreadedPart
from ..system.log import log_safely, write_stderr
from ..text import error_text

# Python can be built without it.
try:
    import ctypes
except ImportError:
    ctypes = None  # type: ignore[assignment]

# In this order: once SIGTERM has its handler, SIGINT has, too.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def kernel_handler(number: int) -> int | None:
    """The address of the handler that the kernel calls for a signal, 0 for the default action.

    Python doesn't know of handlers set by C code, such as those of `faulthandler.register`. None if
    the address can't be found out.
    """
    action = ctypes.create_string_buffer(1024) if ctypes else None
    if action is None or ctypes.CDLL(None).sigaction(number, None, action):
        return None
    # `struct sigaction` begins with it.
    return ctypes.c_void_p.from_buffer(action).value or 0


class Ignoring:
    """A handler that ignores a stop signal while `is_fresh` says that it counts as an earlier one,
    and with the first one after that puts `handler` back."""

    def __init__(self, is_fresh: Callable[[], bool], handler: Any) -> None:
        self.is_fresh = is_fresh
        self._handler = handler

    def __call__(self, number: int, _frame: object) -> None:
        if not self.is_fresh():
            signal.signal(number, self._handler)
            signal.raise_signal(number)


def ignore_at_exit() -> None:
    """Keep ignoring what `Ignoring` ignores: while the interpreter is finalized, it restores the
    default action of every signal that has a handler."""
    for number in STOP_SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, Ignoring) and handler.is_fresh():
            signal.signal(number, signal.SIG_IGN)


# Before the user's module registers functions, and so called after them.
atexit.register(ignore_at_exit)


class Signals(ThreadedPart):
    """Turns signals into calls on its own thread.

    Python runs a signal handler in the main thread between two instructions: with whatever lock
    that thread holds, and never while it is inside C code. Therefore the interpreter's C handler
    writes the signal's number to a pipe (signal.set_wakeup_fd), and the thread that reads the pipe
    may lock, log and wait.

    actions: maps a signal's number to the function to call, which must not block; is_fresh: whether
    a stop signal that arrives now would count as one that was received already.
    """

    def __init__(
        self,
        actions: Mapping[int, Callable[[], None]],
        is_fresh: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__("signals", "the signal thread")
        self._is_fresh = is_fresh
        self._actions = dict(actions)
        self._old_handlers: dict[int, Any] = {}
        self._old_wakeup_fd = -1
        self._read_fd, self._write_fd = -1, -1

    def start(self) -> None:
        """Install the handlers; does nothing outside the main thread, where Python forbids it."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._old_wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._actions:
            self._old_handlers[number] = signal.signal(number, self._handle)
        self._restore_in_children()
        # A mask that blocks them may have been inherited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._actions)
        try:
            super().start()
        except (RuntimeError, MemoryError) as error:
            self.restore()
            raise StartError(f"cannot start: {error_text(error)}") from None

    def _restore_in_children(self) -> None:
        """Restore the handlers in every forked child.

        A child shares the pipe: its signals would stop this process.
        """
        reference, masks = weakref.ref(self), threading.local()
        numbers = set(self._actions)

        def before() -> None:
            # The child's signals wait until it has its handlers back.
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
        """Write the number to the pipe if another library, such as an event loop, has replaced the
        wakeup descriptor; otherwise the interpreter has already written it."""
        current = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        if current != self._write_fd:
            self._write(number)
            if current >= 0:
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def request_stop(self) -> None:
        """Restore the previous handlers and stop the thread."""
        super().request_stop()
        if self._write_fd >= 0:
            if self._is_fresh():
                for number in self._old_handlers.keys() & set(STOP_SIGNALS):
                    handler = self._old_handlers[number]
                    self._old_handlers[number] = Ignoring(self._is_fresh, handler)
            self.restore()
            self._write(0)

    def _write(self, number: int) -> None:
        # The thread reads what a full pipe holds, and then looks for a stop request.
        with suppress(BlockingIOError):
            os.write(self._write_fd, bytes([number]))

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers.clear()
        signal.set_wakeup_fd(self._old_wakeup_fd)

    def join(self, timeout: float) -> bool:
        if not super().join(timeout):
            return False
        if self._write_fd >= 0:
            os.close(self._read_fd)
            os.close(self._write_fd)
            self._write_fd = -1
        return True

    def _run(self) -> None:
        while not self._stop_requested.is_set():
            for number in os.read(self._read_fd, 512):
                if number in self._actions:
                    try:
                        self._actions[number]()
                    # One failed action must not disable the signals that follow.
                    except Exception as error:
                        write_stderr(f"{signal.Signals(number).name} failed: {error!r}\n")


class Coalesced:
    """Runs a function on its own thread; requests made during a run cause one more run.

    name: names the thread, and the function in the log; pause: minimum seconds between the end of
    one run and the start of the next.
    """

    def __init__(
        self, function: Callable[[], None], name: str, logger: logging.Logger, pause: float = 0.0
    ) -> None:
        self._function = function
        self._name = name
        self._logger = logger
        self._pause = pause
        self._lock = threading.Lock()
        self._requested = False
        self._running = False
        self._not_before = 0.0

    def request(self) -> None:
        """Run the function soon; never blocks."""
        with self._lock:
            self._requested = True
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        # No thread available: the next request tries again.
        except (RuntimeError, MemoryError) as error:
            self._running = False
            write_stderr(f"{self._logger.name}: {self._name} failed: {error_text(error)}\n")

    def _run(self) -> None:
        while True:
            # Unlike time.sleep, an event's wait also works under libfaketime.
            threading.Event().wait(max(0.0, self._not_before - monotonic()))
            with self._lock:
                self._requested = False
            try:
                self._function()
            # The user's code may raise anything, and the next request needs this thread.
            except BaseException:
                log_safely(self._logger, logging.ERROR, "%s failed", self._name, exc_info=True)
            self._not_before = monotonic() + self._pause
            with self._lock:
                if not self._requested:
                    self._running = False
                    return
