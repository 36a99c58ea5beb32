"""The daemon's health: the one source for `/ping`, `/ready`, `/status` and the watchdog."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ..types import Problem

STARTING = "starting"
RUNNING = "running"
DRAINING = "draining"
STOPPING = "stopping"
STOPPED = "stopped"
PHASES = (STARTING, RUNNING, DRAINING, STOPPING, STOPPED)

ProblemSource = Callable[[], Iterable[Problem]]


class Health:
    """The phase of the daemon, what it waits for, and what is wrong.

    waiting_for: returns what is waited for, the lifecycle sets it; paused: returns what is paused,
    in one line, for the summary; outage: returns why no events can be accepted, "" if they can.
    """

    def __init__(self) -> None:
        self.phase = STARTING
        self.begun = threading.Event()
        """Set once the daemon is no longer starting."""
        self.waiting_for: Callable[[], list[str]] = list
        self.paused: Callable[[], str] = str
        self.outage: Callable[[], str] = str
        self._lock = threading.Lock()
        self._sources: list[ProblemSource] = []
        self._listeners: list[Callable[[], None]] = []

    def add_source(self, source: ProblemSource) -> None:
        """Ask `source` for problems from now on, at any time."""
        self._sources.append(source)

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something may have changed; it must not block."""
        self._listeners.append(listener)

    def enter(self, phase: str) -> None:
        """Enter a phase, unless a later one has been entered already."""
        with self._lock:
            if PHASES.index(phase) <= PHASES.index(self.phase):
                return
            self.phase = phase
        self.begun.set()
        self.changed()

    def changed(self) -> None:
        """Report that something may have changed."""
        for listener in self._listeners:
            listener()

    @property
    def is_running(self) -> bool:
        """Whether the daemon has started, and isn't stopping."""
        return self.phase == RUNNING

    @property
    def is_ready(self) -> bool:
        """Whether the daemon is ready for new work."""
        return self.is_running and not self.outage()

    def problems(self) -> list[Problem]:
        """What is wrong now; empty when the daemon is healthy."""
        return [problem for source in self._sources for problem in source()]

    def progress(self) -> str:
        """The phase, and what is waited for in it."""
        waiting = self.waiting_for()
        return f"{self.phase}: waiting for {', '.join(waiting)}" if waiting else self.phase

    def summary(self) -> str:
        """The same, what is wrong, and what is paused, in one line."""
        paused = self.paused()
        pauses = [f"paused: {paused}"] if paused else []
        problems = [problem.text for problem in self.problems()]
        return "; ".join([self.progress(), *problems, *pauses])

    def shown(self) -> dict[str, Any]:
        """The same, as fields for `/status`."""
        return {
            "phase": self.phase,
            "waiting_for": self.waiting_for(),
            "problems": [problem.text for problem in self.problems()],
        }
