"""A daemon's life: the order in which its parts start and stop, under one deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .calls import error_text, function_name
from .events.intake import Intake
from .events.processor import Processor
from .exceptions import DaemonkitError, StartError
from .juggler import Outbox
from .lifecycle import Deadline, briefly, stack_of
from .supervisor import Supervisor
from .types import Component, EventQueue, Hook
from .udp import UdpListener
from .web.server import Server

STOPPED_BY_DEADLINE = 4
PATIENCE = 2.0
"""Seconds after which the log tells what stopping waits for."""
GRACE = 0.5
"""Seconds past the deadline for naming what did not stop."""


@dataclass(frozen=True)
class Parts:
    """The running parts of a daemon."""

    queue: EventQueue
    intake: Intake
    server: Server
    processor: Processor
    supervisor: Supervisor
    udp: UdpListener
    outbox: Outbox


class Life:
    """Starts the parts, runs the main function, stops the parts.

    shutdown: set by whoever wants it to end; timeout: seconds that stopping may take; run: called
    in the main thread; ready: called when all has started; routes: called with the reason for which
    users' routes are closed, or None; reason: tells why it ends; exit_process: called with the exit
    status when a thread blocks that the process would wait for.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        logger: logging.Logger,
        shutdown: threading.Event,
        timeout: float,
        run: Callable[[], Any],
        ready: Callable[[], None],
        routes: Callable[[str | None], None],
        reason: Callable[[], str],
        start_hooks: Sequence[Hook],
        stop_hooks: Sequence[Hook],
        exit_process: Callable[[int], Any],
    ) -> None:
        self._parts = parts
        self._logger = logger
        self._shutdown = shutdown
        self._timeout = timeout
        self._run = run
        self._ready = ready
        self._routes = routes
        self._reason = reason
        self._start_hooks = start_hooks
        self._stop_hooks = stop_hooks
        self._exit_process = exit_process
        self._main_thread = threading.current_thread()
        self._started = threading.Event()
        self._workers_stopped = threading.Event()
        self._ended = threading.Event()
        self._deadline = Deadline(timeout)
        self._failure = ""
        self._unstopped: list[str] = []
        self._waiting_for: Component | None = None

    def live(self) -> int:
        """From the first part's start to the last one's end; returns the exit status.

        Raises StartError when a start hook fails, after stopping what had started.
        """
        threading.Thread(target=self._stop_when_told, name="shutdown", daemon=True).start()
        try:
            self._start()
        except BaseException:
            self._failure = "the start failed"
            self._shutdown.set()
            raise
        else:
            self._started.set()
            if not self._shutdown.is_set():
                self._run_main()
        finally:
            self._shutdown.set()
            self._started.set()
            status = self._end()
        return status

    def _start(self) -> None:
        parts = self._parts
        parts.intake.hold()
        self._routes("The daemon is starting")
        for start in (
            parts.server.start,
            self._call_start_hooks,
            lambda: self._routes(None),
            parts.processor.start,
            parts.intake.open,
            parts.supervisor.start,
            parts.udp.start,
        ):
            if self._shutdown.is_set():
                return
            try:
                start()
            except DaemonkitError:
                raise
            # No thread or descriptor to be had, as a rule.
            except Exception as error:
                self._logger.exception("The start failed")
                raise StartError(f"cannot start: {error_text(error)}") from error
        self._logger.debug("Started")
        self._ready()

    def _stop_when_told(self) -> None:
        """Stop the workers; on a thread of its own, for the main thread is busy in `run`."""
        self._shutdown.wait()
        self._deadline = deadline = Deadline(self._timeout)
        parts, share = self._parts, self._share
        try:
            threading.Thread(target=self._enforce_deadline, name="deadline", daemon=True).start()
            self._logger.info("Stopping: %s", self._failure or self._reason())
            if self._started.wait(deadline.left(keep=5 * share)):
                self._stop(parts.udp, deadline.left(keep=5 * share))
                parts.intake.close()
                self._stop(parts.processor, deadline.left(keep=4 * share))
                self._stop(parts.supervisor, deadline.left(keep=3 * share))
        finally:
            self._workers_stopped.set()

    def _enforce_deadline(self) -> None:
        """On a thread that waits for nothing else, not even for the log: it may be what hangs."""
        deadline = Deadline(self._timeout + GRACE)
        if self._ended.wait(min(PATIENCE, deadline.left())):
            return
        briefly(self._tell_waiting)
        if self._ended.wait(deadline.left()):
            return
        briefly(
            lambda: self._report_blocked(self._main_thread, "the main thread"),
            lambda: self._logger.critical(
                "Stopped by the deadline of %g s; still running: %s",
                self._timeout,
                ", ".join([*self._unstopped, self._main_thread.name]),
            ),
        )
        self._exit_process(STOPPED_BY_DEADLINE)

    def _end(self) -> int:
        """The main thread's half of stopping; returns the exit status."""
        parts, share = self._parts, self._share
        self._workers_stopped.wait()
        self._routes("The daemon is stopping")
        for hook in reversed(self._stop_hooks):
            call_hook(hook, "stop", self._logger)
        self._stop(parts.outbox, self._deadline.left(keep=2 * share))
        self._stop(parts.server, self._deadline.left(keep=share))
        left = len(parts.queue) + parts.processor.in_work
        if left:
            self._logger.error("%d events were left unhandled", left)
        if self._unstopped:
            self._logger.critical(
                "Stopped by the deadline of %g s; still running: %s",
                self._timeout,
                ", ".join(self._unstopped),
            )
            self._exit_process(STOPPED_BY_DEADLINE)
        self._logger.debug("Stopped")
        self._ended.set()
        if self._unstopped or left:
            return STOPPED_BY_DEADLINE
        return 1 if self._failure else 0

    @property
    def _share(self) -> float:
        # A part that hangs leaves this many seconds to each one after it.
        return min(0.5, self._timeout / 20)

    def _run_main(self) -> None:
        try:
            self._run()
        # SystemExit too: whatever ends run() before its time is a failure to be told.
        except BaseException:
            self._failure = "run() failed"
            self._logger.critical("run() failed", exc_info=True)
            return
        if not self._shutdown.is_set():
            self._logger.debug("run() has returned; the daemon goes on until it is stopped")
        self._shutdown.wait()

    def _stop(self, part: Component, timeout: float) -> None:
        self._waiting_for = part
        try:
            part.request_stop()
            if part.join(timeout):
                return
        # One part that can't be stopped must not keep the others from it.
        except Exception:
            self._logger.exception("Stopping the part %r failed", part.name)
        finally:
            self._waiting_for = None
        threads = part.running_threads()
        self._unstopped += [thread.name for thread in threads] or [part.name]
        for thread in threads:
            self._report_blocked(thread, part.name)

    def _tell_waiting(self) -> None:
        part = self._waiting_for
        threads = [self._main_thread] if part is None else part.running_threads()
        self._logger.info(
            "Waiting for %s (%s); another signal exits at once",
            ", ".join(thread.name for thread in threads),
            "run() or a hook" if part is None else part.name,
        )

    def _report_blocked(self, thread: threading.Thread, what: str) -> None:
        self._logger.error(
            "The thread %s (%s) did not stop in time; it is here:\n%s",
            thread.name,
            what,
            stack_of(thread),
        )

    def _call_start_hooks(self) -> None:
        for hook in self._start_hooks:
            if self._shutdown.is_set():
                return
            error = call_hook(hook, "start", self._logger)
            if error is not None:
                raise StartError(
                    f"the start hook {function_name(hook)} failed: {error_text(error)}"
                )


def call_hook(hook: Hook, kind: str, logger: logging.Logger) -> BaseException | None:
    """Call a hook; what it raises, SystemExit included, is logged and returned."""
    try:
        hook()
    except BaseException as error:
        logger.exception("The %s hook %s failed", kind, function_name(hook))
        return error
    return None
