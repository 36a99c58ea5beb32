"""Starts slaves in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from ..runtime.agenda import Agenda
from ..runtime.clock import kernel_timeout, monotonic
from .dependencies import find_path
from .slave_graph import SlaveGraph
from .slave_thread import SlaveThread
from .supervised_slave import SupervisedSlave


class Starter:
    """Starts each slave once nothing keeps it from running.

    A slave starts once it is wanted and due, those that it starts after have been created or have
    failed to be, those that it is bound to run, and all that belonged to its last run has ended.

    refused: called when a slave's thread can't be started; clock: monotonic seconds.
    """

    def __init__(
        self,
        graph: SlaveGraph,
        refused: Callable[[SupervisedSlave, BaseException], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._graph = graph
        self._on_refused = refused
        self._clock = clock
        self._ready: deque[SupervisedSlave] = deque()
        self._in_line: set[SupervisedSlave] = set()
        """Those that only the order keeps from starting."""
        self._waits = 0
        """Threads that wait until a slave is settled."""
        self._dues: Agenda[SupervisedSlave] = Agenda()

    def is_held(self, slave: SupervisedSlave) -> bool:
        """Whether something other than the order keeps it from starting."""
        graph, group = self._graph, slave.group
        return (
            graph.is_closed
            or not graph.is_started
            or not slave.is_wanted
            or slave.is_down
            or slave.due > self._clock()
            or slave.dependents > 0
            or (group is not None and (group.ending > 0 or group.failed is not None))
            or slave.is_orphan
            or not self._is_all(slave, "up", slave.spec.bound_to)
        )

    def is_settled(self, slave: SupervisedSlave, *, again: bool = False) -> bool:
        """Whether those that start after it need not wait for it.

        again: these are restarted, and so wait also for one whose last run is still ending, and for
        others beyond one that isn't to start again.
        """
        graph, to_visit, seen = self._graph, [slave], {slave}
        while to_visit:
            other = to_visit.pop()
            before: list[SupervisedSlave] = []
            if other.is_final:
                before = graph.earlier(other) if again else []
            elif not other.is_attempted:
                if other.is_alive or not self.is_held(other):
                    return False
                if again and (other.dependents or (other.group and other.group.ending)):
                    return False
                # What it is bound to may be about to start, and so may it.
                before = graph.bound_to(other)
            to_visit += [each for each in before if each not in seen]
            seen.update(before)
        return True

    def waits_for(self, slave: SupervisedSlave, creator: SupervisedSlave) -> bool:
        """Whether it can only start once `creator` has been created."""

        def waited_for(name: str) -> list[str]:
            waiting = self._graph.slaves[name]
            if self.is_settled(waiting):
                return []
            awaited = [] if waiting.awaited is None else [waiting.awaited.name]
            return [other.name for other in self._graph.earlier(waiting)] + awaited

        return bool(find_path(slave.name, creator.name, waited_for))

    def _is_in_turn(self, slave: SupervisedSlave) -> bool:
        """Whether the order lets it start."""
        return slave.is_attempted or self._is_all(slave, "settled", slave.spec.after)

    def _is_all(self, slave: SupervisedSlave, what: str, names: Sequence[str]) -> bool:
        """Whether all of these slaves are up, or settled. It first looks at the one that wasn't the
        last time, so that many of them are not looked at again at each change of one."""
        slaves, again = self._graph.slaves, slave.run is not None
        while True:
            begin = slave.looked_at.get(what, 0)
            for position in range(begin, len(names)):
                other = slaves.get(names[position])
                if what == "up":
                    is_so = other is not None and other.is_up
                else:
                    is_so = other is None or self.is_settled(other, again=again)
                if not is_so:
                    slave.looked_at[what] = position
                    return False
            slave.looked_at[what] = 0
            if begin == 0:
                return True

    def consider(self, *slaves: SupervisedSlave) -> None:
        """Start these if that is possible now; called when something has changed for them."""
        for slave in slaves:
            slave.changes.notify_all()
            if slave.is_alive:
                continue
            if self.is_held(slave):
                self._in_line.discard(slave)
                slave.hold()
            elif self._is_in_turn(slave):
                self._ready.append(slave)
                self._graph.wakes = True
            else:
                self._in_line.add(slave)
            if not slave.is_wanted or slave.due <= self._clock():
                self._dues.drop(slave)
            elif self._dues.note(slave, slave.due):
                self._graph.wakes = True

    def consider_after(self, slave: SupervisedSlave) -> None:
        """The same for a slave which others may have waited for, and for these."""
        if not (self._in_line or self._waits):
            # Only those that are bound to it may start now.
            self.consider(slave, *self._graph.later(slave))
            return
        to_visit, seen = [slave], {slave}
        while to_visit:
            other = to_visit.pop()
            self.consider(other)
            if other is slave or other.is_final or self.is_held(other):
                later = [each for each in self._graph.later(other) if each not in seen]
                to_visit += later
                seen.update(later)

    def start_ready(self) -> None:
        """Start all slaves that can start."""
        while self._ready:
            with self._graph.changing():
                run = self._begin_next()
            if run is not None:
                self._start(*run)

    def _begin_next(self) -> tuple[SupervisedSlave, SlaveThread] | None:
        slave = self._ready.popleft() if self._ready else None
        if slave is None or slave.is_alive or self.is_held(slave) or not self._is_in_turn(slave):
            return None
        self._in_line.discard(slave)
        slave.leaders = self._graph.bound_to(slave)
        if slave.owner is not None:
            slave.leaders.append(slave.owner.slave)
        for leader in slave.leaders:
            leader.dependents += 1
        self._graph.alive += 1
        try:
            run = slave.begin_run()
        # Out of memory, for example.
        except BaseException as error:
            refusal = error
            self._graph.afterwards(lambda: self._on_refused(slave, refusal))
            return None
        self._graph.by_thread[run.thread] = slave
        return slave, run

    def _start(self, slave: SupervisedSlave, run: SlaveThread) -> None:
        try:
            run.thread.start()
        # RuntimeError at the limit of threads, or MemoryError.
        except BaseException as error:
            # Unless the thread has begun after all.
            if run.refuse():
                self._on_refused(slave, error)

    def make_due_ready(self, now: float) -> float:
        """Have those that are due started by `start_ready`; returns when to call this again."""
        self.consider(*self._dues.take(now))
        return self._dues.next

    def wait_until_settled(
        self, slave: SupervisedSlave, is_cancelled: Callable[[], bool], timeout: float = math.inf
    ) -> None:
        """Wait until `is_settled`, or `is_cancelled` is true, at most `timeout` seconds."""
        with self._graph.lock:
            self._waits += 1
        try:
            self.wait_for(slave, lambda: is_cancelled() or self.is_settled(slave), timeout)
        finally:
            with self._graph.lock:
                self._waits -= 1

    def wait_for(
        self, slave: SupervisedSlave, condition: Callable[[], bool], timeout: float = math.inf
    ) -> bool:
        """Wait until a condition that concerns a slave is true, at most `timeout` seconds; returns
        whether it is. On the thread of a run that is to stop, it returns at once: what it waits for
        may itself wait for the end of that run."""
        graph, until = self._graph, self._clock() + timeout
        with graph.lock:
            caller = graph.current()
            if caller is not None:
                caller.awaited = slave
        try:
            while True:
                self.start_ready()
                with graph.lock:
                    if condition():
                        return True
                    left = until - self._clock()
                    if left <= 0 or (caller is not None and caller.is_stopping):
                        return False
                    if not self._ready:
                        slave.changes.wait(kernel_timeout(left))
        finally:
            if caller is not None:
                caller.awaited = None
