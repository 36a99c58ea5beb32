"""The lifecycle of a daemon: the order in which its parts start and stop, under one deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..callables import function_name, refuse_unrun
from ..config.defaults import Settings
from ..exceptions import DaemonkitError, StartError
from ..monitoring.health import DRAINING, RUNNING, STOPPED, STOPPING, Health
from ..runtime.calls import call_hook
from ..runtime.forks import ForkGuard
from ..supervision.states import StoppingError
from ..system.log import log_safely
from ..text import error_text
from .exit import Deadline, run_best_effort
from .parts import Parts, Program
from .stopping import StopOrder
from .waits import Waits

STOPPED_BY_DEADLINE = 4
REPORT_AFTER = 2.0
"""Seconds of stopping after which the log names what is waited for."""
GRACE = 0.5
"""Seconds past the deadline for naming what did not stop."""


class Lifecycle:
    """Starts the parts, runs the main function, stops the parts.

    make_parts: called once, when signals and the deadline are already watched; health: enters the
    phases; exit_process: called with the exit status when a thread blocks that the process would
    wait for.
    """

    def __init__(
        self,
        program: Program,
        make_parts: Callable[[], Parts],
        health: Health,
        settings: Settings,
        exit_process: Callable[[int], Any],
    ) -> None:
        self._program = program
        self._make_parts = make_parts
        self._health = health
        self._drain_delay = settings.drain_delay
        self._timeout = settings.shutdown_timeout
        self._exit_process = exit_process
        self._logger = program.logger
        self._shutdown = program.shutdown
        self._waits = Waits(health.changed)
        self._stop_order = StopOrder(program, health, self._waits, settings)
        self._main_thread = threading.current_thread()
        self._guard = ForkGuard()
        self._started = threading.Event()
        self._workers_stopped = threading.Event()
        self._failure = self._finished = ""
        self._failure_status = 1

    def run(self) -> int:
        """Run from the start of the first part to the end of the last; returns the exit status.

        Raises StartError when a part or a start hook fails, after stopping what had started.
        """
        self._health.waiting_for = self._waited_for
        try:
            self._start()
        except BaseException as error:
            if isinstance(error, DaemonkitError):
                log_safely(self._logger, logging.CRITICAL, "%s", error)
                self._failure_status = error.exit_status
            self._failure = "the start failed"
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

    def give_up(self, reason: str) -> None:
        """Stop in order, with exit status 1; no effect if the daemon is already stopping."""
        if not self._shutdown.is_set():
            if self._stop_order.parts is not None:
                self._stop_order.parts.alerting.gave_up(reason)
            self._failure = reason
            self._shutdown.set()

    def finish(self, reason: str) -> None:
        """Stop in order, with exit status 0; no effect if the daemon is already stopping."""
        if not self._shutdown.is_set():
            self._finished = reason
            self._shutdown.set()

    @property
    def deadline(self) -> Deadline:
        """When stopping must be over; before it begins, as if it began with the start."""
        return self._stop_order.deadline

    # Starting

    def _start(self) -> None:
        # Even if it is to stop already: these threads are what stops it.
        self._attempt(self._start_own_threads)
        for start in self._start_steps():
            if self._shutdown.is_set():
                return
            self._attempt(start)
        if not self._shutdown.is_set():
            self._health.enter(RUNNING)
            self._logger.info("Started")

    def _attempt(self, start: Callable[[], object]) -> None:
        try:
            start()
        except DaemonkitError:
            raise
        # Usually there is no thread or descriptor available.
        except Exception as error:
            log_safely(self._logger, logging.ERROR, "The start failed", exc_info=True)
            raise StartError(f"cannot start: {error_text(error)}") from error

    def _start_steps(self) -> Iterator[Callable[[], object]]:
        yield self._make
        parts = self._stop_order.parts
        assert parts is not None
        yield parts.notifier.start
        yield parts.timer.start
        yield parts.queue.start
        for server in parts.servers():
            yield server.start
        yield self._call_start_hooks
        yield lambda: parts.web.open_or_close(None)
        yield parts.processor.start
        yield parts.intake.open
        yield parts.server.admit
        yield self._start_slaves
        if parts.udp is not None:
            yield parts.udp.start

    def _start_own_threads(self) -> None:
        """Start both now: when they are needed, there may be no thread available."""
        try:
            for target, name in (
                (self._watch_deadline, "deadline"),
                # The last one: if it doesn't start, nothing else stops the workers.
                (self._stop_on_request, "shutdown"),
            ):
                threading.Thread(target=target, name=name, daemon=True).start()
        except BaseException:
            self._workers_stopped.set()
            raise

    def _make(self) -> None:
        with self._waits.waiting_for("the sockets"):
            self._stop_order.parts = parts = self._make_parts()
        parts.intake.hold()
        parts.web.open_or_close("The daemon is starting")

    def _start_slaves(self) -> None:
        assert self._stop_order.parts is not None
        supervisor = self._stop_order.parts.supervisor
        with self._waits.waiting_for(lambda: [f"slaves ({', '.join(supervisor.unsettled())})"]):
            supervisor.start()

    def _call_start_hooks(self) -> None:
        for hook in self._program.start_hooks:
            if self._shutdown.is_set():
                return
            name = f"the start hook {function_name(hook)}"
            with self._waits.waiting_for(name):
                error = call_hook(hook, "start", self._logger)
            if error is not None:
                raise StartError(f"{name} failed: {error_text(error)}")

    def _run_main(self) -> None:
        try:
            with self._waits.waiting_for("run()"):
                refuse_unrun(self._program.run())
                self._guard.end_child()
        # SystemExit too: whatever ends run() early is a failure to be logged.
        except BaseException as error:
            self._guard.end_child(error)
            # It was about to start a slave when the signal came.
            if isinstance(error, StoppingError):
                self._logger.info("run() has ended: %s", error)
                return
            log_safely(self._logger, logging.CRITICAL, "run() failed", exc_info=True)
            self.give_up("run() failed")
            # Also if it is stopping already.
            self._failure = self._failure or "run() failed"
            return
        if not self._shutdown.is_set():
            self._logger.debug("run() has returned; the daemon keeps running until it is stopped")
        self._shutdown.wait()

    # Stopping

    def _stop_on_request(self) -> None:
        """Stop the workers; on a thread of its own, since `run` may keep the main thread busy."""
        self._shutdown.wait()
        order = self._stop_order
        order.deadline = Deadline(self._timeout)
        try:
            # Readiness first. A start that isn't over yet was never ready, and ends early.
            self._health.enter(DRAINING if self._started.is_set() else STOPPING)
            if order.parts is not None:
                order.parts.supervisor.abort_start()
                for server in order.parts.servers():
                    server.drain()
            reason = self._failure or self._finished or self._program.stop_reason()
            log_safely(self._logger, logging.INFO, "Stopping: %s", reason)
            # The other half is for what the main thread has to stop.
            if self._started.wait(order.deadline.left(keep=self._timeout / 2)):
                order.walk(in_main=False)
        finally:
            self._workers_stopped.set()

    def _end(self) -> int:
        """The main thread's part of stopping; returns the exit status."""
        self._workers_stopped.wait()
        order = self._stop_order
        order.walk(in_main=True)
        if order.is_blocked:
            self._exit_process(STOPPED_BY_DEADLINE)
        if order.is_blocked or order.left:
            status = STOPPED_BY_DEADLINE
        else:
            status = self._failure_status if self._failure else 0
        log_safely(
            self._logger, logging.INFO, "Stopped" + (f", exit status {status}" if status else "")
        )
        order.ended.set()
        return status

    def _watch_deadline(self) -> None:
        """On a thread that waits for nothing else, not even for the log, which may be what
        hangs."""
        self._shutdown.wait()
        ended, deadline = self._stop_order.ended, Deadline(self._timeout + GRACE)
        if ended.wait(min(self._drain_delay + REPORT_AFTER, deadline.left())):
            return
        run_best_effort(self._report_waiting)
        if ended.wait(deadline.left()):
            return
        run_best_effort(lambda: self._stop_order.report_blocked(self._main_thread))
        self._exit_process(STOPPED_BY_DEADLINE)

    def _report_waiting(self) -> None:
        waiting = self._waited_for() or [self._main_thread.name]
        self._logger.info("Waiting for %s; a second signal exits at once", ", ".join(waiting))

    def _waited_for(self) -> list[str]:
        return [] if self._health.phase in (RUNNING, STOPPED) else self._waits.shown()
