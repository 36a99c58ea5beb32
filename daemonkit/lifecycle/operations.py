"""What can be seen of a daemon, and what can be done with it: over HTTP, and by what builds on
that."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ..config.in_force import ConfigInForce
from ..exceptions import PingError
from ..gauges import Gauges
from ..monitoring.health import Health
from ..monitoring.status import Gatherer
from ..registry import Registry
from ..web.views import Views
from .assembly import Assembly
from .control import Control
from .on_demand import OnDemand
from .reloading import Reloader
from .signal_actions import StopSignals
from .status_view import StatusView

if TYPE_CHECKING:
    from .metrics_view import MetricsView


class Operated(Protocol):
    """What is needed of the daemon; a program may override `status` and `ping`."""

    name: str
    logger: logging.Logger

    def status(self) -> Any: ...

    def ping(self) -> Any: ...


class Operations:
    """The views of a daemon, made from its parts."""

    def __init__(
        self,
        daemon: Operated,
        registry: Registry,
        gauges: Gauges,
        config: ConfigInForce,
        health: Health,
        on_demand: OnDemand,
        assembly: Assembly,
        stop: StopSignals,
        reloader: Reloader,
    ) -> None:
        self._daemon = daemon
        self._config = config
        self._health = health
        self._on_demand = on_demand
        self._assembly = assembly
        self._gatherer = gatherer = Gatherer(daemon.logger)
        self.control = Control(daemon.logger, health, stop, reloader, assembly, on_demand)
        health.paused = self.control.pause_line
        self.status = StatusView(
            daemon.name, registry, config, health, gatherer, on_demand, assembly, self.control
        )
        self._reloader = reloader
        self._gauges = gauges

    def views(self) -> Views:
        """What the routes call."""
        made = self._on_demand
        return Views(
            access=lambda: made.access,
            control=self.control.perform,
            failed_events=lambda: made.queue.failed_events,
            health=self._health,
            history=self._assembly.history.shown,
            intake=lambda: made.intake,
            logger=self._daemon.logger,
            max_request_size=lambda: self._config.settings.max_request_size,
            metrics=lambda accept: self._metrics.render(accept),
            options=self._options,
            page_is_on=lambda: self._config.settings.page,
            pause_line=self.control.pause_line,
            ping=self._ping,
            status=self._status,
            warnings=lambda is_whole: self._assembly.recent.shown(whole=is_whole),
        )

    @cached_property
    def _metrics(self) -> MetricsView:
        # Few daemons are scraped before they answer.
        from .metrics_view import MetricsView  # noqa: PLC0415

        return MetricsView(
            self._daemon.name,
            self._health,
            self._gatherer,
            self._assembly,
            self.status,
            self._reloader,
            self._gauges,
        )

    def _options(self) -> list[dict[str, Any]]:
        from ..config.origins import shown_options  # noqa: PLC0415

        return [option._asdict() for option in shown_options(self._config.now)]

    def _status(self) -> Any:
        return self._gatherer.call("status()", self._daemon.status, self.status.shown)

    def _ping(self) -> Any:
        closed = self._on_demand.web.closed
        if closed is not None:
            raise PingError(f"{closed}\n")
        return self._daemon.ping()
