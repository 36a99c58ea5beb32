"""What `/status` and the health check show of a slave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ..callables import refuse_unrun
from ..text import timestamp
from ..types import Problem
from .states import BACKING_OFF, FAILED, STALLED
from .supervised_slave import SupervisedSlave

PROBLEMS = {FAILED: "has failed", STALLED: "is stalled", BACKING_OFF: "is backing off"}


def problem_of(slave: SupervisedSlave) -> Problem | None:
    """The slave's problem for the health check, if it has one."""
    if slave.is_overdue:
        return Problem(f"the slave {slave.name} does not stop")
    state = slave.state
    if state not in PROBLEMS or (state == BACKING_OFF and not slave.is_failing):
        return None
    tolerable = state == BACKING_OFF or not slave.spec.critical
    return Problem(f"the slave {slave.name} {PROBLEMS[state]}", tolerable)


def status_of(slave: SupervisedSlave) -> Any:
    """What `/status` shows: the slave's own `status()`; if that is a mapping, `fallback_status`
    adds the missing keys."""
    own = own_status(slave)
    return {**fallback_status(slave), **own} if isinstance(own, Mapping) else own


def own_status(slave: SupervisedSlave) -> Any:
    """What the slave's own `status()` returns, or what is kept of that."""
    made = slave.slave
    return slave.shown if made is None else refuse_unrun(made.status())


def fallback_status(slave: SupervisedSlave) -> dict[str, Any]:
    """What is known about the slave without calling its `status()`."""
    made, run, owner, failure = slave.slave, slave.run, slave.owner, slave.last_failure
    last_heartbeat = None
    if run is not None:
        last_heartbeat = datetime.now() - timedelta(seconds=run.heartbeat.age())
    shown: dict[str, Any] = {
        "name": slave.name,
        "started": None if made is None else timestamp(made.started),
        "state": slave.state,
        "restarts": slave.restarts,
        "last_error": None if failure is None else failure.status(),
        "last_heartbeat": timestamp(last_heartbeat),
        "last_restarts": slave.history.shown(),
        "owner": None if owner is None else owner.slave.name,
        "bound_to": list(slave.spec.bound_to),
        "group": slave.spec.group,
    }
    if slave.calls is not None:
        shown["ticks"] = slave.ticks
        shown |= slave.calls.shown(is_running=slave.is_up)
    if (wait := slave.seconds_to_restart()) < math.inf:
        shown["next_restart_in"] = round(wait, 3)
    return shown
