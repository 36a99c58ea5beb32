"""Stops slaves in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ..runtime.agenda import Agenda
from ..runtime.clock import monotonic
from ..runtime.stacks import stack_of
from .slave_graph import SlaveGraph, shown_names
from .stop_limits import StopLimits
from .supervised_slave import SupervisedSlave


class Stopper:
    """Asks each slave that is to stop once those that start after it, and are to stop too, have
    stopped, or have not stopped in time.

    limits: how long each has; clock: monotonic seconds.
    """

    def __init__(
        self,
        graph: SlaveGraph,
        logger: logging.Logger,
        limits: StopLimits,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.overdue: set[SupervisedSlave] = set()
        """Those that have not stopped in the time that they had."""
        self.given_up: set[SupervisedSlave] = set()
        """Those of them whose own `stop_timeout` that was; the daemon doesn't wait for them."""
        self._graph = graph
        self._logger = logger
        self._limits = limits
        self._clock = clock
        self._stops: Agenda[SupervisedSlave] = Agenda()

    def stop(self, slaves: Iterable[SupervisedSlave], reason: str) -> None:
        """Ask those of them that run to stop, each once those after it have stopped.

        reason: for the log, if any.
        """
        stopping = [slave for slave in slaves if slave.is_alive and not slave.is_stopping]
        for slave in stopping:
            slave.is_stopping = True
            if slave.awaited is not None:
                slave.awaited.changes.notify_all()
        self._block(stopping)
        for slave in stopping:
            if not slave.blockers:
                self._ask(slave)
        if stopping and reason:
            names = shown_names(stopping)
            self._graph.afterwards(lambda: self._logger.info("Stopping %s: %s", names, reason))

    def _ask(self, slave: SupervisedSlave) -> None:
        slave.is_asked = True
        limit = self._limits.limit(slave.name, slave.spec.stop_timeout)
        self._limit_stop(slave, limit)
        if slave.run is not None:
            slave.run.request_stop(limit - self._clock())

    def _limit_stop(self, slave: SupervisedSlave, limit: float) -> None:
        slave.stop_until = limit
        if self._stops.note(slave, limit):
            self._graph.wakes = True

    def stop_all(self, timeout: float) -> None:
        """Ask all to stop, in order, within `timeout` seconds."""
        self._limits.stop_all(timeout, self._graph.dependencies.depths())
        for slave in self._graph.slaves.values():
            if slave.is_asked:
                end = self._limits.end(slave.name)
                is_limited = slave.spec.stop_timeout is not None
                self._limit_stop(slave, min(end, slave.stop_until) if is_limited else end)
        self.stop(self._graph.slaves.values(), "")

    def _block(self, slaves: Iterable[SupervisedSlave]) -> None:
        """Have all that stop after these wait for them, also those beyond one that isn't to stop
        now, or has ended already."""
        to_visit = list(slaves)
        while to_visit:
            slave = to_visit.pop()
            if slave.blocking:
                continue
            slave.blocking = self._graph.earlier(slave)
            for other in slave.blocking:
                other.blockers += 1
                if not other.is_stopping:
                    to_visit.append(other)

    def unblock(self, slave: SupervisedSlave) -> list[SupervisedSlave]:
        """Have those that wait for its end wait no longer; returns those that this asks to stop."""
        asked = []
        to_visit = [slave]
        while to_visit:
            ended = to_visit.pop()
            blocking, ended.blocking = ended.blocking, []
            for other in blocking:
                other.blockers -= 1
                if other.blockers:
                    continue
                if not other.is_stopping:
                    to_visit.append(other)
                elif not other.is_asked:
                    self._ask(other)
                    asked.append(other)
        return asked

    def ended(self, slave: SupervisedSlave) -> None:
        """It has stopped, in time or after all."""
        self._stops.drop(slave)
        self.overdue.discard(slave)
        self.given_up.discard(slave)

    def expire(self, now: float) -> float:
        """Wait no longer for those that have not stopped in time; returns when to look again."""
        for slave in self._stops.take(now):
            if not slave.is_asked or slave in self.overdue:
                continue
            if slave.stop_until > now:
                # It has got more time since then.
                self._stops.note(slave, slave.stop_until)
                continue
            self.overdue.add(slave)
            has_own = slave.spec.stop_timeout is not None
            if has_own and slave.stop_until < self._limits.end(slave.name):
                self.given_up.add(slave)
            self._report_overdue(slave, self.unblock(slave))
            slave.changes.notify_all()
        return self._stops.next

    def _report_overdue(self, slave: SupervisedSlave, waited: list[SupervisedSlave]) -> None:
        if waited:
            names = shown_names(waited)
            self._graph.afterwards(
                lambda: self._logger.warning(
                    "The slave %s has not stopped in time; no longer waiting for it: %s",
                    slave.name,
                    names,
                )
            )
        # Otherwise the daemon names what hasn't stopped by its deadline.
        if not self._limits.is_stopping_all and slave.run is not None:
            slave.is_overdue, thread = True, slave.run.thread
            self._graph.afterwards(lambda: slave.log.overdue(stack_of(thread)))
