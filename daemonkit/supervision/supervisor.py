"""Starting, watching, restarting and stopping slaves."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from ..exceptions import RegistrationError
from ..runtime.timer import Timer
from ..types import Master, Problem
from .dependencies import Dependencies
from .slave import Slave, SlaveSpec
from .supervised_slave import FINAL, SupervisedSlave

KEPT = 100
"""Finished slaves that are still shown, and likewise failed ones."""


class Supervisor:
    """All the slaves of a daemon.

    watch: has them restarted, and their silence noticed; gave_up: called with the reason when a
    critical slave has ended for good by a failure; changed: called when the state of one is
    another. Raises RegistrationError when `after` of a slave names none, or goes round in a circle.
    """

    name = "slaves"

    def __init__(
        self,
        specs: Sequence[SlaveSpec],
        master: Master,
        watch: Timer,
        *,
        gave_up: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        Dependencies({spec.name: spec.after for spec in specs})
        self._master = master
        self._on_gave_up = gave_up
        self._on_changed = changed
        self._watch = watch
        watch.add(self._run_due)
        self._changes = threading.Condition()
        self._children = [SupervisedSlave(spec, master, self) for spec in specs]
        self._started = False
        self._hurried = False
        self._stopping = False

    # Starting

    def start(self) -> None:
        """Start every registered slave, and wait until each has been made, or has failed to be."""
        with self._changes:
            self._started = True
            registered = list(self._children)
        by_name = {child.name: child for child in registered}
        begun: set[str] = set()

        def ready() -> list[SupervisedSlave]:
            return [
                child
                for child in registered
                if child.name not in begun and all(by_name[n].settled for n in child.spec.after)
            ]

        while not self._hurried and not all(child.settled for child in registered):
            for child in ready():
                begun.add(child.name)
                child.start()
            self._watch.wake()
            with self._changes:
                self._changes.wait_for(
                    lambda: self._hurried or ready() or all(child.settled for child in registered)
                )

    def abort_start(self) -> None:
        """Let `start` return at once: the daemon is to stop."""
        with self._changes:
            self._hurried = True
            self._changes.notify_all()

    def add(self, spec: SlaveSpec) -> Slave | None:
        """Add a slave; it starts at once if the others have, and is returned once it is made.

        None when the others haven't started, or there is no thread to be had yet. Raises
        RegistrationError for a name that is in use, for an unknown name in `after`, or when the
        daemon is stopping; and what the slave's `__init__` raises, which is then not retried.
        """
        stopping = RegistrationError(f"the daemon is stopping: {spec.name} is not started")
        with self._changes:
            if self._stopping:
                raise stopping
            others = [c for c in self._children if c.name != spec.name or not c.is_final]
            names = [other.name for other in others]
            if spec.name in names:
                raise RegistrationError(
                    f"a slave named {spec.name!r} is there already; choose another by name="
                )
            # A new one can't close a circle: no other names it yet.
            Dependencies({**dict.fromkeys(names, ()), spec.name: spec.after})
            earlier = [c for c in others if c.name in spec.after]
            child = SupervisedSlave(spec, self._master, self, one_try=self._started)
            self._children = [*_without_oldest(others), child]
            if not self._started:
                return None
            self._changes.wait_for(lambda: self._stopping or all(c.settled for c in earlier))
        child.start()
        self.wake()
        with self._changes:
            self._changes.wait_for(lambda: child.settled)
            error, child.error = child.error, None
            if error is not None:
                self._children.remove(child)
        if error is not None:
            raise error
        if child.slave is None and self._stopping:
            raise stopping
        return child.slave

    # Stopping

    def stop_restarting(self) -> None:
        """Start and restart none any more; those that run go on."""
        self.abort_start()
        with self._changes:
            self._stopping = True
            for child in self._children:
                child.stop_restarting()
            self._changes.notify_all()

    def request_stop(self) -> None:
        """Restart none any more; each is told in `join`, when its turn has come."""
        self.stop_restarting()

    def join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        self._stop_in_order(until)
        for child in self.children():
            child.join(max(0.0, until - time.monotonic()))
        return not self.running_threads()

    def _stop_in_order(self, until: float) -> None:
        """Tell each slave to stop once those that started after it have stopped.

        One that doesn't leaves an equal share of the time to each one that waits for it.
        """
        children = {child.name: child for child in self.children()}
        places = {name: place for place, name in enumerate(children)}
        dependencies = Dependencies(
            {
                name: [other for other in child.spec.after if other in children]
                for name, child in children.items()
            }
        )
        order = dependencies.stop_order()
        order.prepare()
        waited_for: dict[str, float] = {}
        while order.is_active():
            for name in sorted(order.get_ready(), key=lambda name: -places[name]):
                children[name].request_stop()
                now = time.monotonic()
                share = max(0.0, until - now) / (1 + dependencies.depth(name))
                waited_for[name] = now + share

            def done(at: float) -> list[str]:
                return [n for n, end in waited_for.items() if children[n].is_over or end <= at]

            with self._changes:
                while not done(now := time.monotonic()):
                    self._changes.wait(max(0.0, min(waited_for.values()) - now))
            for name in done(time.monotonic()):
                del waited_for[name]
                order.done(name)

    # What the children call

    def wake(self) -> None:
        self._watch.wake()

    def changed(self, _child: SupervisedSlave) -> None:
        with self._changes:
            self._changes.notify_all()
        self._on_changed()

    def gave_up(self, child: SupervisedSlave) -> None:
        self._on_gave_up(f"the slave {child.name} gave up")

    def _run_due(self, now: float) -> float:
        return min((child.run_due(now) for child in self.children()), default=math.inf)

    # What it shows

    def children(self) -> list[SupervisedSlave]:
        """The slaves there are now."""
        with self._changes:
            return list(self._children)

    def unsettled(self) -> list[str]:
        """Names of the slaves that are just being made, and which `start` waits for."""
        return [c.name for c in self.children() if not c.settled and not c.is_over]

    def running_threads(self) -> list[threading.Thread]:
        return [thread for child in self.children() for thread in child.running_threads()]

    def problems(self) -> list[Problem]:
        """What the health check has to say of the slaves."""
        return [problem for child in self.children() if (problem := child.problem()) is not None]


def _without_oldest(children: list[SupervisedSlave]) -> list[SupervisedSlave]:
    """All but the oldest of those that have finished, or failed, when there are many."""
    too_many: list[SupervisedSlave] = []
    for state in FINAL:
        over = [child for child in children if child.is_final and child.state == state]
        too_many += over[: max(0, len(over) - KEPT)]
    return [child for child in children if child not in too_many]
