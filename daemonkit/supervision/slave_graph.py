"""The slaves of a daemon, and what depends on what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ..exceptions import RegistrationError
from .dependencies import Dependencies
from .spec import SlaveSpec
from .supervised_slave import SupervisedSlave

NAMES_SHOWN = 10
"""Names in one line of the log."""


class SlaveGraph:
    """All slaves by name, and the lock that guards them.

    wake: called, without the lock, to have what is due done soon. Slaves are changed within
    `changing`.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.changes = threading.Condition(self.lock)
        """Notified of every change; each slave has one for those that concern it."""
        self.slaves: dict[str, SupervisedSlave] = {}
        self.dependencies = Dependencies({})
        self.is_started = False
        """Whether slaves are started."""
        self.is_closed = False
        """Whether none is started any more."""
        self.alive = 0
        """How many runs are in progress."""
        self.by_thread: dict[threading.Thread, SupervisedSlave] = {}
        """The slaves whose runs are in progress, by the threads of these."""
        self.wakes = False
        """Whether something is due sooner than it was before the current change."""
        self._wake = wake
        self._afterwards: list[Callable[[], object]] = []

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change; what was put off until `afterwards` follows without it."""
        afterwards: list[Callable[[], object]] = []
        wakes = False
        try:
            with self.lock:
                try:
                    yield
                finally:
                    afterwards, self._afterwards = self._afterwards, []
                    wakes, self.wakes = self.wakes, False
                    self.changes.notify_all()
        finally:
            if wakes:
                self._wake()
            for call in afterwards:
                # Logging may fail, out of memory for example; the rest must happen anyway.
                with suppress(BaseException):
                    call()

    def current(self) -> SupervisedSlave | None:
        """The slave on whose thread this is called, if it is one's."""
        return self.by_thread.get(threading.current_thread())

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call `call` after the current change, since it may block; its exceptions are ignored."""
        self._afterwards.append(call)

    def earlier(self, slave: SupervisedSlave) -> list[SupervisedSlave]:
        """Those that it starts after."""
        return [self.slaves[n] for n in slave.spec.after if n in self.slaves]

    def later(self, slave: SupervisedSlave) -> list[SupervisedSlave]:
        """Those that start after it."""
        names = self.dependencies.later(slave.name)
        return [self.slaves[name] for name in names if name in self.slaves]

    def bound_to(self, slave: SupervisedSlave) -> list[SupervisedSlave]:
        """Those without which it doesn't run."""
        return self.earlier(slave) if slave.spec.bound else []

    def check_bound(self, spec: SlaveSpec) -> None:
        """Raise RegistrationError if one that a slave is bound to can't run before it is started by
        name."""
        for name in spec.bound_to:
            other = self.slaves.get(name)
            if other is None or other.is_out:
                state = "not there" if other is None else other.state
                raise RegistrationError(
                    f"the slave {spec.name!r} is bound to {name!r}, which is {state}; "
                    "start that first"
                )

    def with_belonging(self, slaves: Iterable[SupervisedSlave]) -> list[SupervisedSlave]:
        """The slaves, all that are bound to them, and all that their runs own."""
        found = dict.fromkeys(slaves)
        to_visit = list(found)
        while to_visit:
            slave = to_visit.pop()
            bound = (other for other in self.later(slave) if other.spec.bound)
            for other in (*bound, *slave.children):
                if other not in found:
                    found[other] = None
                    to_visit.append(other)
        return list(found)


def shown_names(slaves: Iterable[SupervisedSlave]) -> str:
    """Their names for a line of the log, cut if there are many."""
    names = [slave.name for slave in slaves]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
