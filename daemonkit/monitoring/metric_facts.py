"""What the metrics are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class SlaveFacts(NamedTuple):
    """What is known of a slave; times are Unix seconds, None where there are none."""

    name: str
    is_up: bool
    state: str
    restarts: int
    heartbeat_age: float | None
    is_periodic: bool
    is_paused: bool
    last_success: float | None
    last_duration: float | None


class Facts(NamedTuple):
    """What the metrics show.

    events, http, udp: the counters of `/status`; calls, call_seconds: of the handler, see
    `Processor.durations`; alerts: the sums over all targets.
    """

    name: str
    is_ready: bool
    is_healthy: bool
    events: Mapping[str, Any]
    calls: Sequence[int]
    call_seconds: float
    http: Mapping[str, Any]
    udp: Mapping[str, Any]
    alerts: Mapping[str, int]
    reload_failed: bool
    events_paused: bool
    slaves: Sequence[SlaveFacts]
