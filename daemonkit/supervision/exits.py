"""What follows when a slave has been created, and when its run has ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..text import error_text
from .failure import SlaveFailure
from .sequencer import Sequencer
from .slave import Slave
from .slave_graph import SlaveGraph
from .slave_status import own_status
from .states import BACKING_OFF, FAILED, FINAL, FINISHED, Ended
from .supervised_slave import SupervisedSlave

KEPT = 100
"""Slaves that were added later and have finished, and as many that failed or were stopped, that are
still shown."""


class Exits:
    """Takes what the slaves report on their threads.

    gave_up: called with the reason when the daemon is to stop because slaves have failed for good;
    done: likewise because one that ends it is done; changed: called when a state has changed;
    freeze: makes a copy of what `/status` shows. The callables must not block.
    """

    def __init__(
        self,
        graph: SlaveGraph,
        sequencer: Sequencer,
        *,
        gave_up: Callable[[str], None],
        done: Callable[[str], None],
        changed: Callable[[], None],
        freeze: Callable[[object], object],
    ) -> None:
        self.changed = changed
        self._graph = graph
        self._sequencer = sequencer
        self._on_gave_up = gave_up
        self._on_done = done
        self._freeze = freeze
        self._kept: dict[str, dict[SupervisedSlave, None]] = {state: {} for state in FINAL}

    def created(self, slave: SupervisedSlave, made: Slave) -> bool:
        """A run has created its Slave; returns whether it is to go on."""
        graph = self._graph
        with graph.changing():
            # Not kept then: `Supervisor.add` must not return a slave that will not run.
            if graph.is_closed or slave.is_stopping:
                return False
            slave.enter_run(made)
            self._sequencer.starter.consider_after(slave)
        self.changed()
        return True

    def refused(self, slave: SupervisedSlave, error: BaseException) -> None:
        """Its thread could not be started."""
        slave.keep_trying()
        self.exited(slave, error)

    def exited(self, slave: SupervisedSlave, error: BaseException | None) -> None:
        """A run is over."""
        graph, sequencer = self._graph, self._sequencer
        # Without the lock, as it asks the user's exception for its text.
        failure = None if error is None else SlaveFailure.of(error, slave.spec.work)
        with graph.changing():
            if slave.run is not None:
                graph.by_thread.pop(slave.run.thread, None)
            was_stopping, was_attempted = slave.is_stopping, slave.is_attempted
            if slave.is_overdue:
                graph.afterwards(slave.log.stopped_late)
            ended = slave.end_run(error, failure, is_closed=graph.is_closed)
            # Without the lock, it may have been restarted already.
            restart = slave.restarts + 1
            graph.alive -= 1
            sequencer.stopper.ended(slave)
            # Otherwise those before it wait for others that start after it, too.
            if not slave.blockers:
                sequencer.stopper.unblock(slave)
            self._leave(slave)
            if ended.refused:
                sequencer.take_down([slave], f"{slave.name} could not be created")
                self.forget(slave)
            elif not graph.is_closed:
                self._propagate(slave, ended, was_stopping)
            # Others wait for it only until it was created.
            if was_attempted:
                sequencer.starter.consider(slave)
            else:
                sequencer.starter.consider_after(slave)
        # Logging may fail, out of memory for example; the rest must happen anyway.
        with suppress(BaseException):
            self._log(slave, ended, restart)
        if slave.is_dynamic and slave.is_final and not ended.refused:
            self.keep(slave)
        decision = ended.decision
        if decision.for_all:
            self._on_gave_up(decision.gave_up)
        elif decision.gave_up and slave.spec.critical:
            self._on_gave_up(f"the slave {slave.name} gave up")
        elif decision.state == FINISHED and slave.spec.ends_daemon and not ended.asked:
            self._on_done(f"the slave {slave.name} is done")
        self.changed()

    def _log(self, slave: SupervisedSlave, ended: Ended, restart: int) -> None:
        decision = ended.decision
        if ended.done is not None:
            slave.log.done(ended.done)
        elif not ended.refused:
            slave.log.exited(ended.error, restart, ended.delay, expected=ended.asked)
        if decision.gave_up:
            stops_daemon = slave.spec.critical or decision.for_all
            slave.log.gave_up(decision.gave_up, stops_daemon=stops_daemon)

    def _leave(self, slave: SupervisedSlave) -> None:
        """What waits for the end of this run, and of what belonged to it, need wait no longer."""
        sequencer, to_visit = self._sequencer, [slave]
        while to_visit:
            ended = to_visit.pop()
            if ended.is_alive or ended.dependents:
                continue
            leaders, ended.leaders = ended.leaders, []
            for leader in leaders:
                leader.dependents -= 1
                sequencer.starter.consider(leader)
            to_visit += leaders
        group = slave.group
        if group is not None and slave.is_ending:
            slave.is_ending = False
            group.ending -= 1
            if not group.ending:
                sequencer.starter.consider(*group.members.values())

    def _propagate(self, slave: SupervisedSlave, ended: Ended, was_stopping: bool) -> None:
        """Stop what belonged to the run; have started again with it what is to be."""
        sequencer, group, state = self._sequencer, slave.group, ended.decision.state
        reason = f"{slave.name} {'failed' if ended.error else 'has ended'}"
        if group is not None and not was_stopping and state in (BACKING_OFF, FAILED):
            others = [other for other in group.members.values() if other is not slave]
            if state == BACKING_OFF:
                # In its place in the order of the start.
                slave.is_attempted = False
                sequencer.restart(others, reason, due=slave.due, group=group, planned=slave)
            else:
                group.failed = slave
                sequencer.take_down(others, reason)
        owned = slave.children
        if not slave.is_wanted or slave.is_down:
            sequencer.take_down([slave], reason)
        elif was_stopping:
            # What stopped it has planned the restart of what is bound to it, too.
            sequencer.take_down(owned, reason)
            sequencer.disown(slave)
        else:
            belonging = [each for each in self._graph.with_belonging([slave]) if each is not slave]
            sequencer.disown(slave)
            sequencer.restart([each for each in belonging if each not in owned], reason)
            sequencer.stopper.stop(belonging, reason)
        for child in owned:
            if not child.is_alive:
                self._graph.afterwards(partial(self.keep, child))

    def keep(self, slave: SupervisedSlave) -> None:
        """Free the memory of a slave that was added later and has ended; show only the last of
        them."""
        try:
            shown = self._freeze(own_status(slave))
        except BaseException as error:
            shown = {"error": error_text(error)}
        graph = self._graph
        with graph.changing():
            # It may have been started again, or forgotten, while its status was asked for.
            if not slave.is_final or graph.slaves.get(slave.name) is not slave:
                return
            slave.release(shown)
            if slave.is_released:
                # What was added together with it can't run again either.
                for other in graph.with_belonging([slave]):
                    if other.is_dynamic and other.is_wanted:
                        other.plan_stop()
                        if not other.is_alive:
                            graph.afterwards(partial(self.keep, other))
            self._keep_no_more(slave)
            kept = self._kept[slave.state]
            kept[slave] = None
            if len(kept) > KEPT:
                oldest = next(iter(kept))
                del kept[oldest]
                # It may have been started again.
                if oldest.is_final:
                    self.forget(oldest)

    def _keep_no_more(self, slave: SupervisedSlave) -> None:
        for kept in self._kept.values():
            kept.pop(slave, None)

    def forget(self, slave: SupervisedSlave) -> None:
        """Show it no more, and start it no more; its name may be used again."""
        graph = self._graph
        self._keep_no_more(slave)
        slave.plan_stop()
        slave.drop_work()
        slave.changes.notify_all()
        if graph.slaves.get(slave.name) is slave:
            del graph.slaves[slave.name]
            graph.dependencies.remove(slave.name)
        if slave.group is not None and slave.group.members.get(slave.name) is slave:
            del slave.group.members[slave.name]
            if slave.group.failed is slave:
                slave.group.failed = None
        if slave.owner is not None:
            slave.owner.slave.children.discard(slave)
