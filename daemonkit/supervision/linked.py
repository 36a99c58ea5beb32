"""Where a slave stands among the others."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .group import Group
from .slave_thread import SlaveThread
from .spec import SlaveSpec

S = TypeVar("S", bound="Linked[Any]")


@dataclass(frozen=True, eq=False, repr=False)
class Owner(Generic[S]):
    """The slave that started another one, and the run that did."""

    slave: S
    run: SlaveThread

    @property
    def is_running(self) -> bool:
        """Whether that run goes on."""
        slave = self.slave
        return slave.is_alive and slave.run is self.run and not slave.is_stopping


class Linked(Generic[S]):
    """What starting and stopping in order depends on; guarded by the lock of the SlaveGraph.

    A run is alive until it has exited, and over once all that belonged to it has exited, too. A
    slave is up while others that are bound to it can run, and out when they can't before it is
    started by name: because it is final, as it is not alive and not wanted, or is down, as what it
    belongs to is out.

    changes: notified when something has changed that concerns it; owner: the run that started it.
    """

    is_wanted = True
    """Whether it is to run, as soon as it can."""
    is_alive = False
    """Whether a run is in progress, from the decision to start it to its exit."""
    is_created = False
    """Whether that run has created its Slave."""
    is_attempted = False
    """Whether the attempt to create it is over: those that start after it wait for that."""
    is_stopping = False
    """Whether the run is to stop, at once or in its turn."""
    is_asked = False
    """Whether the run was asked to stop."""
    is_overdue = False
    """Whether it has not stopped in time."""
    is_ending = False
    """Whether its group waits for the end of this run."""
    is_down = False
    """Whether what it belongs to has ended for good."""
    is_released = False
    """Whether only what `/status` shows is kept, so that it can't be started again."""
    due = -math.inf
    """When it may be started, monotonic seconds."""
    stop_until = math.inf
    """When it is to have stopped, once it was asked to, monotonic seconds."""
    dependents = 0
    """Runs in progress that are bound to this run, or owned by it."""
    blockers = 0
    """Runs that are to stop before this one."""
    run: SlaveThread | None = None
    """The current run, or the last one."""

    def __init__(
        self,
        spec: SlaveSpec,
        changes: threading.Condition,
        group: Group[S] | None,
        owner: Owner[S] | None,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.changes = changes
        self.group = group
        self.owner = owner
        self.children: set[S] = set()
        """Those that the current run owns."""
        self.leaders: list[S] = []
        """Those that count this run among their dependents."""
        self.blocking: list[S] = []
        """Those that count this run among their blockers."""
        self.looked_at: dict[str, int] = {}
        """Where the Starter looks first in what it waits for."""
        self.awaited: S | None = None
        """One that the run has added and waits for."""

    @property
    def is_up(self) -> bool:
        """Whether those that are bound to it can run."""
        return self.is_alive and self.is_created and not self.is_stopping

    @property
    def is_out(self) -> bool:
        """Whether those that are bound to it can't run before it is started by name."""
        return not self.is_wanted or (self.is_down and not self.is_alive)

    @property
    def is_orphan(self) -> bool:
        """Whether the run that it belonged to has ended, or is to."""
        return self.owner is not None and not self.owner.is_running

    @property
    def is_final(self) -> bool:
        """Whether the slave neither runs nor will run again, unless it is started by name."""
        return not self.is_alive and not self.is_wanted

    @property
    def is_over(self) -> bool:
        """Whether its run has ended, and all that belonged to it."""
        return not self.is_alive and not self.dependents
