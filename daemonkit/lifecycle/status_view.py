"""What `/status` shows of a daemon, unless its program overrides it."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from functools import partial
from typing import Any

from ..config.in_force import ConfigInForce
from ..events.udp import NO_DATAGRAMS
from ..monitoring.health import Health
from ..monitoring.status import Gatherer, without_contents
from ..registry import Registry
from ..runtime.clock import monotonic
from ..supervision.slave_status import fallback_status, status_of
from ..text import timestamp
from ..web.access import READ
from .assembly import Assembly
from .control import Control
from .on_demand import OnDemand
from .parts import Parts


class StatusView:
    """Gathers the status from the parts; each field that fails hides no other."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        config: ConfigInForce,
        health: Health,
        gatherer: Gatherer,
        on_demand: OnDemand,
        assembly: Assembly,
        control: Control,
    ) -> None:
        self.started: datetime | None = None
        self._name = name
        self._registry = registry
        self._config = config
        self._health = health
        self._gatherer = gatherer
        self._on_demand = on_demand
        self._assembly = assembly
        self._control = control
        self._started_clock = 0.0

    def start(self) -> None:
        """The daemon starts now."""
        self.started, self._started_clock = datetime.now(), monotonic()

    def shown(self) -> dict[str, Any]:
        """The whole status."""
        uptime = monotonic() - self._started_clock if self.started else 0.0
        return {
            "name": self._name,
            "pid": os.getpid(),
            "started": timestamp(self.started),
            "uptime": round(uptime, 6),
            **self._health.shown(),
            **self.counters(),
            **self._control.shown(),
            "slaves": self._slaves(),
            **self._config.now.visible(),
            **{
                name: self._gatherer.call(f"The status field {name}", function)
                for name, function in list(self._registry.status_fields.items())
            },
        }

    def _slaves(self) -> list[Any]:
        supervisor = self._assembly.supervisor
        return [
            self._gatherer.call(
                f"The status of {slave.name}",
                partial(status_of, slave),
                partial(fallback_status, slave),
            )
            for slave in (supervisor.slaves() if supervisor else ())
        ]

    def counters(self, *, quick: bool = False) -> dict[str, Any]:
        """The counters of the parts other than slaves; quick: see `EventQueue.counters`."""
        parts, made = self._assembly.parts, self._on_demand
        events = {
            **made.intake.counters(),
            **made.intake.details(),
            **made.queue.counters(quick=quick),
            **(parts.processor.counters() if parts else {}),
        }
        if READ not in made.access.guarded:
            events = without_contents(events)
        return {
            "events_queue": events["waiting"],
            "events": events,
            "http": _http(parts) if parts else {},
            "udp": parts.udp.counters() if parts and parts.udp else NO_DATAGRAMS,
            **self._assembly.alerting.counters(),
        }


def _http(parts: Parts) -> dict[str, Any]:
    """The counters of the public listener, with the answers of both."""
    each = [server.counters() for server in parts.servers()]
    answers = sum((Counter(counters["answers"]) for counters in each), Counter[str]())
    return {**each[0], "answers": dict(sorted(answers.items()))}
