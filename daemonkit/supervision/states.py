"""The states of a slave, and the one that follows its exit."""

from __future__ import annotations

from typing import NamedTuple

from .restart import RestartPolicy

STARTING = "starting"
RUNNING = "running"
BACKING_OFF = "backing off"
"""Waiting for a restart, or for the next call of a periodic slave whose last call failed."""
STALLED = "stalled"
FINISHED = "finished"
FAILED = "failed"
FINAL = (FINISHED, FAILED)


class Decision(NamedTuple):
    """What follows a slave's exit.

    state: the next one, BACKING_OFF for a restart; gave_up: why a slave that should run has
    failed for good, empty otherwise.
    """

    state: str
    gave_up: str = ""


def decide(
    policy: RestartPolicy, *, failed: bool, call_failed: bool, may_restart: bool, exhausted: bool
) -> Decision:
    """What follows the exit of a slave.

    failed: it raised; call_failed: the last call of a periodic slave raised; may_restart: it was
    not asked to stop; exhausted: one more restart would exceed the restart intensity.
    """
    if not may_restart:
        return Decision(FAILED if failed or call_failed else FINISHED)
    if policy.restarts_after(failed):
        if not exhausted:
            return Decision(BACKING_OFF)
        times = f"{policy.max_restarts} restarts within {policy.within:g} s were not enough"
        return Decision(FAILED, times)
    if failed or call_failed:
        return Decision(FAILED, f"it is not restarted (restart is {policy.restart!r})")
    return Decision(FINISHED)
