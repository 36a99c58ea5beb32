"""The states of a slave, and the one that follows its exit."""

from __future__ import annotations

from typing import NamedTuple

from ..exceptions import Done, RegistrationError
from .restart import Intensity, RestartPolicy

STARTING = "starting"
RUNNING = "running"
BACKING_OFF = "backing off"
"""Waiting for a restart, or for the next call of a periodic slave whose last call failed."""
STALLED = "stalled"
STOPPING = "stopping"
"""Asked to stop, and not over yet."""
WAITING = "waiting"
"""To be started again together with others, for instance with the slave that it is bound to."""
STOPPED = "stopped"
"""Stopped by name, or because what it belongs to has ended."""
FINISHED = "finished"
FAILED = "failed"
FINAL = (STOPPED, FINISHED, FAILED)


class StoppingError(RegistrationError):
    """Something is refused because the daemon, or the run that it would belong to, is stopping."""


class UnknownSlave(RegistrationError):
    """No slave has that name."""


class Decision(NamedTuple):
    """What follows a slave's exit.

    state: the next one, BACKING_OFF for a restart; gave_up: why a slave that should run has
    failed for good, empty otherwise; for_all: whether that is the limit for all slaves together.
    """

    state: str
    gave_up: str = ""
    for_all: bool = False


class Ended(NamedTuple):
    """How a run ended, and what follows.

    error: what it raised, unless that was meant; delay: seconds to the restart, if one was counted;
    asked: whether it was to stop; refused: whether the caller of `run_slave` gets the error; done:
    if it raised that.
    """

    decision: Decision
    error: BaseException | None
    delay: float | None
    asked: bool
    refused: bool
    done: Done | None


def decide(
    policy: RestartPolicy,
    *,
    failed: bool,
    call_failed: bool,
    may_restart: bool,
    own: Intensity,
    of_all: Intensity,
) -> Decision:
    """What follows the exit of a slave that was not asked to stop for a restart.

    failed: it raised; call_failed: the last call of a periodic slave raised; may_restart: it was
    not asked to stop; own, of_all: the restarts of the slave or its group, and of all slaves.
    """
    if not may_restart:
        return Decision(FAILED if failed or call_failed else FINISHED)
    if policy.restarts_after(failed):
        if own.is_exhausted:
            return Decision(FAILED, own.exceeded())
        if of_all.is_exhausted:
            whose = " of all slaves (master.max_restarts)"
            return Decision(FAILED, of_all.exceeded(whose), for_all=True)
        return Decision(BACKING_OFF)
    if failed or call_failed:
        return Decision(FAILED, f"it is not restarted (restart is {policy.restart!r})")
    return Decision(FINISHED)
