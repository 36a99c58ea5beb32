"""What `/metrics` shows of a daemon."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..callables import refuse_unrun
from ..config.secrets import redact
from ..exceptions import Unavailable
from ..gauges import Gauge, Gauges
from ..monitoring.health import Health
from ..monitoring.metric_facts import Facts, SlaveFacts
from ..monitoring.status import Gatherer
from ..runtime.durations import Durations
from ..supervision.states import STALLED
from ..supervision.supervised_slave import SupervisedSlave
from ..text import describe
from .assembly import Assembly
from .reloading import Reloader
from .status_view import StatusView

if TYPE_CHECKING:
    from prometheus_client import Metric

    from ..monitoring.metrics import Exposition

SCRAPE_WAIT = 1.0
"""Seconds that a scrape waits for another one."""
LEFT_OUT = "; /metrics leaves it out"

Values = Mapping[tuple[str, ...], float]


class MetricsView:
    """Collects the metrics from the parts, once somebody asks for them."""

    def __init__(
        self,
        name: str,
        health: Health,
        gatherer: Gatherer,
        assembly: Assembly,
        status: StatusView,
        reloader: Reloader,
        gauges: Gauges,
    ) -> None:
        self._name = name
        self._health = health
        self._gatherer = gatherer
        self._assembly = assembly
        self._status = status
        self._reloader = reloader
        self._gauges = gauges
        self._exposition: Exposition | None = None
        self._scraping = threading.Lock()

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics, in the format that the Accept field asks for; and its Content-Type.

        Raises ImportError without the extra `metrics`, and Unavailable while another scrape takes
        long: a function of the program's that hangs must not take all HTTP threads.
        """
        if not self._scraping.acquire(timeout=SCRAPE_WAIT):
            raise Unavailable("Another scrape is under way; does a metric's function hang?")
        try:
            return self._render(accept)
        finally:
            self._scraping.release()

    def _render(self, accept: str) -> tuple[bytes, str]:
        if self._exposition is None:
            from ..monitoring.metrics import Exposition  # noqa: PLC0415

            self._exposition = Exposition(
                self._facts,
                self._gauges.registered,
                self._evaluate,
                self._own_metrics,
                redact,
                self._failed,
            )
        return self._exposition.render(accept)

    def _failed(self, name: str, error: Exception) -> None:
        def fail() -> None:
            raise error

        self._gatherer.call(f"The metric {name}", fail, then=LEFT_OUT)

    def _facts(self) -> Facts:
        parts, supervisor = self._assembly.parts, self._assembly.supervisor
        counters = self._status.counters(quick=True)
        if parts is None:
            calls, seconds = Durations().counts, 0.0
        else:
            calls, seconds = parts.processor.durations()
        return Facts(
            name=self._name,
            is_ready=self._health.is_ready,
            is_healthy=not self._health.problems(),
            events=counters["events"],
            calls=calls,
            call_seconds=seconds,
            http=counters["http"],
            udp=counters["udp"],
            alerts=self._assembly.alerting.totals(),
            reload_failed=self._reloader.failure is not None,
            events_paused=parts is not None and parts.queue.is_paused,
            slaves=[slave_facts(slave) for slave in (supervisor.slaves() if supervisor else ())],
        )

    def _evaluate(self, gauge: Gauge) -> Values | None:
        found = self._gatherer.call(
            f"The metric {gauge.name}", lambda: _Found(values_of(gauge)), then=LEFT_OUT
        )
        return found.value if isinstance(found, _Found) else None

    def _own_metrics(self) -> Sequence[Metric]:
        registry = self._gauges.registry
        if registry is None:
            return ()
        found = self._gatherer.call(
            "app.metrics", lambda: _Found(list(registry.collect())), then=LEFT_OUT
        )
        return found.value if isinstance(found, _Found) else ()


class _Found(NamedTuple):
    """Not what stands for a failure."""

    value: Any


def values_of(gauge: Gauge) -> Values:
    """Call a gauge's function; raises TypeError if it doesn't return what it should."""
    result = refuse_unrun(gauge.function())
    if not gauge.labels:
        return {(): _number(result)}
    if not isinstance(result, Mapping):
        raise TypeError(f"a metric with labels must return a mapping, not {describe(result)}")
    found = {}
    for key, value in list(result.items()):
        labels = key if isinstance(key, tuple) else (key,)
        if len(labels) != len(gauge.labels):
            raise TypeError(
                f"each key must have a value for {', '.join(gauge.labels)}, not {describe(key)}"
            )
        found[tuple(map(str, labels))] = _number(value)
    return found


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError(f"a metric's value must be a number, not {describe(value)}")
    return float(value)


def slave_facts(slave: SupervisedSlave) -> SlaveFacts:
    """What the metrics show of a slave."""
    run, calls, state = slave.run, slave.calls, slave.state
    success = calls.last_success if calls else None
    return SlaveFacts(
        name=slave.name,
        is_up=slave.is_up and state != STALLED,
        state=state,
        restarts=slave.restarts,
        heartbeat_age=None if run is None or run.is_over else run.heartbeat.age(),
        is_periodic=calls is not None,
        is_paused=calls is not None and calls.paused is not None,
        last_success=None if success is None else success.timestamp(),
        last_duration=calls.last_duration if calls else None,
    )
