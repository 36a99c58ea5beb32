"""Stopping a daemon: a list of steps, walked under one deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..callables import function_name
from ..config.defaults import Settings
from ..monitoring.health import DRAINING, STOPPED, STOPPING, Health
from ..runtime.calls import call_hook
from ..runtime.stacks import stack_of
from ..system.log import log_safely
from ..types import Component
from .exit import Deadline
from .parts import Parts, Program
from .waits import Waits

LONGEST_SHARE = 0.5
"""Seconds that a step which hangs leaves, at most, to each step after it."""
LAST_CLIENTS = 5.0
"""Seconds that clients on a passed socket have for their last requests."""


class Step(NamedTuple):
    """One step of stopping.

    stop: called with a function that returns the seconds left for it; waits_for: what it waits for,
    for the log; in_main: whether the main thread takes it, not the thread `shutdown`; share:
    whether the steps before it leave it a share of the time.
    """

    stop: Callable[[Callable[[], float]], object]
    waits_for: Callable[[], list[str]] = list
    in_main: bool = False
    share: bool = True


class StopOrder:
    """The steps of stopping, in order, and what did not stop.

    The thread `shutdown` takes those up to the supervisor, since `run` may keep the main thread
    busy; the main thread takes the others.
    """

    def __init__(self, program: Program, health: Health, waits: Waits, settings: Settings) -> None:
        self.parts: Parts | None = None
        self.deadline = Deadline(settings.shutdown_timeout)
        """Renewed when stopping begins."""
        self.ended = threading.Event()
        """Set when all is over."""
        self.left = 0
        """Events that were left unhandled."""
        self._program = program
        self._logger = program.logger
        self._health = health
        self._waits = waits
        self._drain_delay = settings.drain_delay
        self._timeout = settings.shutdown_timeout
        self._asked: list[Component] = []
        self._failed_parts: list[str] = []

    def _steps(self) -> list[Step]:
        parts = self.parts
        hooks = Step(self._call_stop_hooks, in_main=True)
        if parts is None:
            return [hooks]
        return [
            Step(self._drain, self._senders),
            Step(self._wait_for_clients, self._clients),
            *([self._stop(parts.udp)] if parts.udp else []),
            Step(self._close_intake, share=False),
            self._stop(parts.processor),
            self._stop(parts.supervisor),
            hooks,
            self._stop(parts.alerting, in_main=True),
            self._stop(parts.timer, in_main=True),
            # They may use the time that is left, while HTTP still answers.
            *(
                self._stop(part, in_main=True, again=True)
                for part in (parts.udp, parts.processor, parts.supervisor)
                if part is not None
            ),
            # Not earlier, so that what is handled by now is never handled again.
            self._stop(parts.queue, in_main=True),
            *(self._stop(server, in_main=True) for server in parts.servers()),
            Step(self._report_end, in_main=True, share=False),
            self._stop(parts.notifier, in_main=True),
        ]

    def _stop(self, part: Component, *, in_main: bool = False, again: bool = False) -> Step:
        """The step that stops a part; again: only if it didn't stop the first time."""

        def stop(left: Callable[[], float]) -> None:
            if again and not part.running_threads():
                return
            if part not in self._asked:
                self._asked.append(part)
            try:
                part.request_stop()
                part.join(left())
            # A part that can't be stopped must not keep the others from stopping.
            except Exception:
                self._failed_parts.append(part.name)
                self._log(logging.ERROR, "Stopping the part %r failed", part.name, exc_info=True)

        return Step(stop, lambda: [self._describe(part)], in_main, share=not again)

    def walk(self, *, in_main: bool) -> None:
        """Take the steps of one thread, each of them as long as the deadline allows.

        One that hangs leaves a share of the time to every step after it.
        """
        steps = self._steps()
        # All shares together are at most half of the time.
        share = min(LONGEST_SHARE, self._timeout / (2 * len(steps)))
        for position, step in enumerate(steps):
            if step.in_main is in_main:
                kept = share * sum(later.share for later in steps[position + 1 :])
                with self._waits.waiting_for(step.waits_for):
                    step.stop(partial(self.deadline.left, kept))

    def _drain(self, left: Callable[[], float]) -> None:
        """Give senders of events time to notice that the daemon isn't ready any more."""
        if self._health.phase == DRAINING:
            # Set at the very end; a second signal exits at once.
            self.ended.wait(min(self._drain_delay, left()))

    def _senders(self) -> list[str]:
        return [f"senders (drain_delay, {self._drain_delay:g} s)"] if self._drain_delay else []

    def _clients(self) -> list[str]:
        is_passed = self.parts is not None and self.parts.server.is_passed
        return ["clients on the passed socket"] if is_passed else []

    def _wait_for_clients(self, left: Callable[[], float]) -> None:
        assert self.parts is not None
        server = self.parts.server
        if self._health.phase == DRAINING and server.is_passed:
            server.wait_until_empty(min(LAST_CLIENTS, left()))
        self._health.enter(STOPPING)

    def _close_intake(self, _: Callable[[], float]) -> None:
        assert self.parts is not None
        self.parts.intake.close()
        # From now on, a slave may fail because of the stopping itself.
        self.parts.supervisor.stop_restarting()

    def _call_stop_hooks(self, left: Callable[[], float]) -> None:
        if self.parts is not None:
            self.parts.web.open_or_close("The daemon is stopping")
        with self._waits.waiting_for("the reload hooks"):
            self._program.wait_for_reload(left())
        for hook in reversed(self._program.stop_hooks):
            with self._waits.waiting_for(f"the stop hook {function_name(hook)}"):
                call_hook(hook, "stop", self._logger)

    def _report_end(self, _: Callable[[], float]) -> None:
        self.left = self._events_left()
        if self.is_blocked:
            self.report_blocked()
        else:
            self.report_left()
        self._health.enter(STOPPED)

    # Reports

    def _events_left(self) -> int:
        return 0 if self.parts is None else self.parts.events_left()

    def report_blocked(self, *main: threading.Thread) -> None:
        """Name what did not stop in time, with its stack, and the events left."""
        threads = [*self._running(), *((thread, "the main thread") for thread in main)]
        for thread, what in threads:
            self._log(
                logging.ERROR,
                "The thread %s (%s) did not stop in time; its stack:\n%s",
                thread.name,
                what,
                stack_of(thread),
            )
        self.report_left()
        names = [thread.name for thread, _ in threads]
        is_early = self.parts is not None and self.parts.supervisor.is_impatient
        self._log(
            logging.CRITICAL,
            "Stopped by %s; still running: %s",
            "a stop_timeout" if is_early else f"the deadline of {self._timeout:g} s",
            ", ".join(names or self._failed_parts),
        )

    def report_left(self) -> None:
        if left := self._events_left():
            in_work = self.parts.processor.in_work if self.parts else 0
            self._log(logging.ERROR, "%d events were left unhandled, %d in work", left, in_work)

    def _log(self, level: int, text: str, *arguments: Any, exc_info: bool = False) -> None:
        log_safely(self._logger, level, text, *arguments, exc_info=exc_info)

    def _running(self) -> list[tuple[threading.Thread, str]]:
        """The running threads of parts that were asked to stop, with the parts' names."""
        return [(thread, part.name) for part in self._asked for thread in part.running_threads()]

    @property
    def is_blocked(self) -> bool:
        return bool(self._running() or self._failed_parts)

    def _describe(self, part: Component) -> str:
        names = [thread.name for thread in part.running_threads()]
        parts = self.parts
        if parts is not None and part is parts.processor and (left := parts.queue.lost_at_exit()):
            names.append(f"{left} in the queue")
        return f"{part.name} ({', '.join(names)})" if names else part.name
