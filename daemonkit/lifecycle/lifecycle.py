"""A daemon's life: the order in which its parts start and stop, under one deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..callables import function_name, refuse_unrun
from ..events.entry import EventQueue
from ..events.intake import Intake
from ..events.processor import Processor
from ..events.udp import UdpListener
from ..exceptions import DaemonkitError, StartError
from ..monitoring.alerts.juggler import Outbox
from ..monitoring.health import DRAINING, RUNNING, STOPPED, STOPPING, Health
from ..monitoring.systemd_notifier import SystemdNotifier
from ..runtime.forks import ForkGuard
from ..runtime.stacks import stack_of
from ..runtime.timer import Timer
from ..supervision.supervisor import Supervisor
from ..text import error_text
from ..types import Component, Hook
from ..web.server import Server
from .exit import Deadline, briefly, log_safely

STOPPED_BY_DEADLINE = 4
PATIENCE = 2.0
"""Seconds after which the log tells what stopping waits for."""
GRACE = 0.5
"""Seconds past the deadline for naming what did not stop."""
LAST_CLIENTS = 5.0
"""Seconds that clients on a passed socket get to end what they are at."""


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
    timer: Timer
    notifier: SystemdNotifier


class Lifecycle:
    """Starts the parts, runs the main function, stops the parts.

    health: told the phases; make_parts: called once, when signals and the deadline are looked
    after; shutdown: set by whoever wants it to end; drain_delay: seconds from then on in which
    events are still taken; timeout: seconds that all of stopping may take; run: called in the main
    thread; routes: called with the reason for which users' routes are closed, or None; reason:
    tells why it ends; reloading: held while reload hooks run; exit_process: called with the exit
    status when a thread blocks that the process would wait for.
    """

    def __init__(
        self,
        health: Health,
        *,
        make_parts: Callable[[], Parts],
        logger: logging.Logger,
        shutdown: threading.Event,
        drain_delay: float,
        timeout: float,
        run: Callable[[], Any],
        routes: Callable[[str | None], None],
        reason: Callable[[], str],
        reloading: threading.Lock,
        start_hooks: Sequence[Hook],
        stop_hooks: Sequence[Hook],
        exit_process: Callable[[int], Any],
    ) -> None:
        self._health = health
        self._make_parts = make_parts
        self._logger = logger
        self._shutdown = shutdown
        self._drain_delay = drain_delay
        self._timeout = timeout
        self._run = run
        self._routes = routes
        self._reason = reason
        self._reloading = reloading
        self._start_hooks = start_hooks
        self._stop_hooks = stop_hooks
        self._exit_process = exit_process
        self._parts: Parts | None = None
        self._main_thread = threading.current_thread()
        self._guard = ForkGuard()
        self._started = threading.Event()
        self._workers_stopped = threading.Event()
        self._ended = threading.Event()
        self._deadline = Deadline(timeout)
        self._failure = ""
        self._failure_status = 1
        self._asked: list[Component] = []
        self._failed_parts: list[str] = []
        self._workers_wait: Callable[[], list[str]] = list
        self._main_waits_for = ""

    def live(self) -> int:
        """From the first part's start to the last one's end; returns the exit status.

        Raises StartError when a part or a start hook fails, after stopping what had started.
        """
        self._health.waiting_for = self._waited_for
        try:
            self._start()
        except BaseException as error:
            if isinstance(error, DaemonkitError):
                self._tell(logging.CRITICAL, "%s", error)
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
        """Stop in order, with exit status 1; when it is stopping already, go on with that."""
        if not self._shutdown.is_set():
            self._failure = reason
            self._shutdown.set()

    @property
    def deadline(self) -> Deadline:
        """When stopping has to be over; before it has begun, that of a stop that began at once."""
        return self._deadline

    # Starting

    def _start(self) -> None:
        # Even when it is to stop already: it is these that do it.
        self._attempt(self._start_own_threads)
        for start in self._steps():
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
        # No thread or descriptor to be had, as a rule.
        except Exception as error:
            self._tell(logging.ERROR, "The start failed", exc_info=True)
            raise StartError(f"cannot start: {error_text(error)}") from error

    def _steps(self) -> Iterator[Callable[[], object]]:
        yield self._make
        parts = self._parts
        assert parts is not None
        yield parts.notifier.start
        yield parts.timer.start
        yield parts.queue.start
        yield parts.server.start
        yield self._call_start_hooks
        yield lambda: self._routes(None)
        yield parts.processor.start
        yield parts.intake.open
        yield parts.server.admit
        yield self._start_slaves
        yield parts.udp.start

    def _start_own_threads(self) -> None:
        """Both now: when they are needed, there may be no thread available any more."""
        try:
            for target, name in (
                (self._keep_deadline, "deadline"),
                # The last one: where it doesn't start, nothing else stops the workers.
                (self._stop_when_told, "shutdown"),
            ):
                threading.Thread(target=target, name=name, daemon=True).start()
        except BaseException:
            self._workers_stopped.set()
            raise

    def _make(self) -> None:
        self._main_waits("the sockets")
        self._parts = parts = self._make_parts()
        self._main_waits("")
        parts.intake.hold()
        self._routes("The daemon is starting")

    def _start_slaves(self) -> None:
        assert self._parts is not None
        supervisor = self._parts.supervisor
        self._wait_for(lambda: [f"slaves ({', '.join(supervisor.unsettled())})"])
        supervisor.start()
        self._wait_for(list)

    def _call_start_hooks(self) -> None:
        for hook in self._start_hooks:
            if self._shutdown.is_set():
                return
            self._main_waits(f"the start hook {function_name(hook)}")
            error = call_hook(hook, "start", self._logger)
            self._guard.end_child(error)
            self._main_waits("")
            if error is not None:
                raise StartError(
                    f"the start hook {function_name(hook)} failed: {error_text(error)}"
                )

    def _run_main(self) -> None:
        self._main_waits("run()")
        try:
            refuse_unrun(self._run())
            self._guard.end_child()
        # SystemExit too: whatever ends run() before its time is a failure to be told.
        except BaseException as error:
            self._guard.end_child(error)
            self._tell(logging.CRITICAL, "run() failed", exc_info=True)
            self._failure = "run() failed"
            return
        finally:
            self._main_waits("")
        if not self._shutdown.is_set():
            self._logger.debug("run() has returned; the daemon goes on until it is stopped")
        self._shutdown.wait()

    # Stopping

    def _stop_when_told(self) -> None:
        """Stop the workers; on a thread of its own, for the main thread is busy in `run`."""
        self._shutdown.wait()
        self._deadline = deadline = Deadline(self._timeout)
        try:
            # Readiness first; a start that isn't over yet has none, and ends early.
            self._health.enter(DRAINING if self._started.is_set() else STOPPING)
            if self._parts is not None:
                self._parts.supervisor.abort_start()
                self._parts.server.drain()
            self._tell(logging.INFO, "Stopping: %s", self._failure or self._reason())
            if self._health.phase == DRAINING:
                self._drain(deadline)
            if self._started.wait(deadline.left(keep=8 * self._share)):
                self._stop_workers()
        finally:
            self._workers_stopped.set()

    def _drain(self, deadline: Deadline) -> None:
        """Leave time for those who send events to see that it isn't ready any more."""
        delay = min(self._drain_delay, deadline.left(keep=8 * self._share))
        if delay > 0:
            self._wait_for(lambda: [f"senders (drain_delay, {self._drain_delay:g} s)"])
            # Set only when all is over: another signal exits at once.
            self._ended.wait(delay)
        if self._parts is not None and self._parts.server.outlives_us:
            self._wait_for(lambda: ["clients on the passed socket"])
            left = deadline.left(keep=8 * self._share)
            self._parts.server.wait_until_empty(min(LAST_CLIENTS, left))
        self._health.enter(STOPPING)

    def _stop_workers(self) -> None:
        parts = self._parts
        if parts is not None:
            self._stop(parts.udp, parts_after=7)
            parts.intake.close()
            # What a slave fails at from now on may well be the stopping itself.
            parts.supervisor.stop_restarting()
            self._stop(parts.processor, parts_after=6)
            self._stop(parts.supervisor, parts_after=5)

    def _end(self) -> int:
        """The main thread's half of stopping; returns the exit status."""
        self._workers_stopped.wait()
        self._routes("The daemon is stopping")
        self._call_stop_hooks()
        left, blocked = 0, False
        if (parts := self._parts) is not None:
            self._stop(parts.outbox, parts_after=4)
            self._stop(parts.timer, parts_after=3)
            # They get what is left of the time, while HTTP can still tell.
            for part in (parts.udp, parts.processor, parts.supervisor):
                if part.running_threads():
                    self._stop(part, parts_after=2)
            # What has been handled until now needn't be handled again.
            self._stop(parts.queue, parts_after=1)
            self._stop(parts.server, parts_after=1)
            left, blocked = self.events_left(), bool(self._running() or self._failed_parts)
            if blocked:
                self._tell_blocked()
            elif left:
                self._tell_left(left)
            self._health.enter(STOPPED)
            self._stop(parts.notifier, parts_after=0)
        if blocked:
            self._exit_process(STOPPED_BY_DEADLINE)
        status = (
            STOPPED_BY_DEADLINE if blocked or left else self._failure_status if self._failure else 0
        )
        self._tell(logging.INFO, "Stopped" + (f", exit status {status}" if status else ""))
        self._ended.set()
        return status

    def _call_stop_hooks(self) -> None:
        self._main_waits("the reload hooks")
        if self._reloading.acquire(timeout=self._deadline.left(keep=5 * self._share)):
            self._reloading.release()
        for hook in reversed(self._stop_hooks):
            self._main_waits(f"the stop hook {function_name(hook)}")
            self._guard.end_child(call_hook(hook, "stop", self._logger))
        self._main_waits("")

    @property
    def _share(self) -> float:
        # A part that hangs leaves this many seconds to each one after it.
        return min(0.5, self._timeout / 20)

    def _stop(self, part: Component, parts_after: int) -> None:
        self._wait_for(lambda: [self._described(part)])
        if part not in self._asked:
            self._asked.append(part)
        try:
            part.request_stop()
            part.join(self._deadline.left(keep=parts_after * self._share))
        # One part that can't be stopped must not keep the others from it.
        except Exception:
            self._failed_parts.append(part.name)
            self._tell(logging.ERROR, "Stopping the part %r failed", part.name, exc_info=True)
        finally:
            self._wait_for(list)

    # The deadline

    def _keep_deadline(self) -> None:
        """On a thread that waits for nothing else, not even for the log: it may be what hangs."""
        self._shutdown.wait()
        deadline = Deadline(self._timeout + GRACE)
        if self._ended.wait(min(self._drain_delay + PATIENCE, deadline.left())):
            return
        briefly(self._tell_waiting)
        if self._ended.wait(deadline.left()):
            return
        briefly(lambda: self._tell_blocked(self._main_thread))
        self._exit_process(STOPPED_BY_DEADLINE)

    def _tell_waiting(self) -> None:
        waiting = self._waited_for() or [self._main_thread.name]
        self._logger.info("Waiting for %s; a second signal exits at once", ", ".join(waiting))

    def _tell_blocked(self, *main: threading.Thread) -> None:
        """Name what did not stop in time, and where it is; the events left, too."""
        threads = [*self._running(), *((thread, "the main thread") for thread in main)]
        for thread, what in threads:
            self._tell(
                logging.ERROR,
                "The thread %s (%s) did not stop in time; it is here:\n%s",
                thread.name,
                what,
                stack_of(thread),
            )
        self._tell_left(self.events_left())
        names = [thread.name for thread, _ in threads]
        self._tell(
            logging.CRITICAL,
            "Stopped by the deadline of %g s; still running: %s",
            self._timeout,
            ", ".join(names or self._failed_parts),
        )

    def _tell_left(self, left: int) -> None:
        if left:
            in_work = self._parts.processor.in_work if self._parts else 0
            self._tell(logging.ERROR, "%d events were left unhandled, %d in work", left, in_work)

    def _tell(self, level: int, text: str, *arguments: Any, exc_info: bool = False) -> None:
        log_safely(self._logger, level, text, *arguments, exc_info=exc_info)

    # What is waited for, and what is left

    def _running(self) -> list[tuple[threading.Thread, str]]:
        """The threads that still run of parts that were asked to stop, with the parts' names."""
        return [(thread, part.name) for part in self._asked for thread in part.running_threads()]

    def events_left(self) -> int:
        """Events that wait, or that a handler hasn't returned from."""
        parts = self._parts
        if parts is None:
            return 0
        return parts.queue.lost_at_exit() + parts.processor.in_work

    def _wait_for(self, what: Callable[[], list[str]]) -> None:
        self._workers_wait = what
        self._health.changed()

    def _main_waits(self, what: str) -> None:
        self._main_waits_for = what
        self._health.changed()

    def _waited_for(self) -> list[str]:
        if self._health.phase in (RUNNING, STOPPED):
            return []
        return self._workers_wait() + ([self._main_waits_for] if self._main_waits_for else [])

    def _described(self, part: Component) -> str:
        names = [thread.name for thread in part.running_threads()]
        parts = self._parts
        if parts is not None and part is parts.processor and (left := parts.queue.lost_at_exit()):
            names.append(f"{left} in the queue")
        return f"{part.name} ({', '.join(names)})" if names else part.name


def call_hook(hook: Hook, kind: str, logger: logging.Logger) -> BaseException | None:
    """Call a hook; what it raises, SystemExit included, is logged and returned."""
    try:
        refuse_unrun(hook())
    except BaseException as error:
        logger.exception("The %s hook %s failed", kind, function_name(hook))
        return error
    return None
