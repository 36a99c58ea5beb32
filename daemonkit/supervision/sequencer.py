"""Restarts and stops slaves together with what belongs to them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable

from ..runtime.clock import monotonic
from .group import Group
from .slave_graph import SlaveGraph
from .starter import Starter
from .stop_limits import StopLimits
from .stopper import Stopper
from .supervised_slave import SupervisedSlave


class Sequencer:
    """Plans which slaves start and stop next; a Starter and a Stopper do it, each in its order.

    Each change looks only at the slaves next to it, so the work grows with their number and not
    with its square. refused: called when a slave's thread can't be started.
    """

    def __init__(
        self,
        graph: SlaveGraph,
        logger: logging.Logger,
        limits: StopLimits,
        refused: Callable[[SupervisedSlave, BaseException], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.starter = Starter(graph, refused, clock)
        self.stopper = Stopper(graph, logger, limits, clock)
        self._graph = graph

    def run_due(self, now: float) -> float:
        """Start those that are due; returns when to call this again, monotonic seconds."""
        with self._graph.changing():
            due = min(self.starter.make_due_ready(now), self.stopper.expire(now))
        self.starter.start_ready()
        return due

    def restart(
        self,
        slaves: Iterable[SupervisedSlave],
        reason: str,
        *,
        due: float = -math.inf,
        group: Group[SupervisedSlave] | None = None,
        planned: SupervisedSlave | None = None,
    ) -> None:
        """Restart slaves together with all that belongs to them, in order.

        due: when they may start, monotonic seconds; group: whose members start again only when all
        of them have ended; planned: one whose own restart is planned already.
        """
        roots = dict.fromkeys(slaves)
        together = dict.fromkeys(self._graph.with_belonging(roots))
        for slave in together:
            is_owned = slave.owner is not None and slave.owner.slave in together
            if not is_owned and slave is not planned:
                slave.plan_restart(due if slave in roots else -math.inf, reason)
            self.disown(slave)
        self._mark_down(together)
        for slave in together:
            if group is not None and slave.group is group and slave.is_alive:
                group.ending += not slave.is_ending
                slave.is_ending = True
        self.stopper.stop(together, reason)
        self.starter.consider(*together)

    def _mark_down(self, slaves: Collection[SupervisedSlave]) -> None:
        """Those that are bound to one that is out are down; and so are those bound to these."""
        is_changing = True
        while is_changing:
            is_changing = False
            # Most come after those that they are bound to, so that one pass is enough.
            for slave in slaves:
                if not slave.is_down and any(each.is_out for each in self._graph.bound_to(slave)):
                    slave.is_down = is_changing = True

    def take_down(self, slaves: Iterable[SupervisedSlave], reason: str) -> None:
        """Stop slaves, and what belongs to them, until one of them is started again."""
        roots = list(slaves)
        together = self._graph.with_belonging(roots)
        for slave in together:
            slave.is_down = True
            self.disown(slave)
        self.stopper.stop(together, reason)
        self.starter.consider(*together)
        for slave in roots:
            self.starter.consider_after(slave)

    def disown(self, slave: SupervisedSlave) -> None:
        """What its run owns is not started again, and goes with that run."""
        for child in slave.children:
            child.plan_stop()
            self.starter.consider_after(child)
