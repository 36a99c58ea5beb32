"""The daemon's metrics in Prometheus's format; needs the extra `metrics`.

The names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .._version import __version__
from ..events.intake import REASONS, SOURCES
from ..gauges import Gauge
from ..runtime.durations import BOUNDS
from ..text import plain
from .metric_facts import Facts, SlaveFacts

PREFIX = "daemonkit_"
BUCKETS = tuple(float(f"{step}e{decade}") for decade in range(-4, 2) for step in (1.0, 2.5, 5.0))
"""Upper bounds of the histogram's buckets in seconds: some of those that are counted."""
_PLACES = [BOUNDS.index(bound) for bound in BUCKETS]


class Exposition:
    """The daemon's metrics, the user's gauges, and the user's own registry.

    facts: called for each scrape; gauges: those registered with `app.metric`; evaluate: calls one
    of them, and returns None if it fails; own: returns what the user's registry has; redact: hides
    secrets in labels; failed: called with the name of a metric that can't be shown, and why. Of
    metrics with the same name only the first is shown.
    """

    def __init__(
        self,
        facts: Callable[[], Facts],
        gauges: Sequence[Gauge],
        evaluate: Callable[[Gauge], Mapping[tuple[str, ...], float] | None],
        own: Callable[[], Iterable[Metric]],
        redact: Callable[[str], str] = str,
        failed: Callable[[str, Exception], object] = lambda _name, _error: None,
    ) -> None:
        self._facts = facts
        self._gauges = gauges
        self._evaluate = evaluate
        self._own = own
        self._redact = redact
        self._failed = failed
        self._process = ProcessCollector(registry=None)

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics, in the format that the Accept field asks for; and its Content-Type."""
        encode, content_type = choose_encoder(accept)
        found = {metric.name: metric for metric in self._library_s()}
        for metric in self._program_s():
            name = getattr(metric, "name", "?")
            try:
                # Whatever their values and labels are.
                encode(_Collected([metric]))
            except Exception as error:
                self._failed(str(name), error)
            else:
                found.setdefault(name, metric)
        for metric in found.values():
            self._redact_labels(metric)
        return encode(_Collected(list(found.values()))), content_type

    def _library_s(self) -> Iterator[Metric]:
        yield from families(self._facts())
        yield from self._process.collect()

    def _program_s(self) -> Iterator[Metric]:
        for gauge in self._gauges:
            values = self._evaluate(gauge)
            if values is not None:
                yield _family(gauge, values)
        yield from self._own()

    def _redact_labels(self, metric: Metric) -> None:
        # Not the whole text: a number in it may be the same as a secret.
        metric.documentation = self._redact(metric.documentation)
        metric.samples = [
            sample._replace(
                labels={key: self._redact(value) for key, value in sample.labels.items()}
            )
            if sample.labels
            else sample
            for sample in metric.samples
        ]


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _family(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
    for labels, value in values.items():
        family.add_metric(list(map(plain, labels)), value)
    return family


def families(facts: Facts) -> Iterator[Metric]:
    """The daemon's own metrics."""
    yield _info(facts)
    yield _gauge("ready", "Whether the daemon is ready.", facts.is_ready)
    yield _gauge("healthy", "Whether the daemon has no problem.", facts.is_healthy)
    yield _gauge(
        "config_last_reload_successful",
        "Whether the last reload of the configuration succeeded, or there was none.",
        not facts.reload_failed,
    )
    yield from _events(facts)
    yield from _slaves(facts.slaves)
    http, udp = facts.http, facts.udp
    yield _counters(
        "http_requests", "HTTP requests by the status of their answer.", "code", http.get("answers")
    )
    yield _gauge("http_connections", "Open HTTP connections.", http.get("connections", 0))
    yield _counters("udp_datagrams", "Datagrams by what came of them.", "outcome", _datagrams(udp))
    yield _counter(
        "udp_kernel_drops",
        "Datagrams that the kernel dropped before they were read.",
        udp["kernel_drops"] or 0,
    )
    alerts = dict(facts.alerts)
    waiting = alerts.pop("waiting")
    yield _counters("alerts", "Alerts by what came of them.", "outcome", alerts)
    yield _gauge("alerts_waiting", "Alerts to be sent.", waiting)


def _info(facts: Facts) -> Metric:
    family = InfoMetricFamily(PREFIX.rstrip("_"), "The daemon's name and versions.")
    family.add_metric(
        (),
        {
            "name": plain(facts.name),
            "version": __version__,
            "python": platform.python_version(),
        },
    )
    return family


def _events(facts: Facts) -> Iterator[Metric]:
    events = facts.events
    sources = {**dict.fromkeys(SOURCES, 0), **events["sources"]}
    refusals = {**dict.fromkeys(REASONS, 0), **events["refusals"]}
    yield _counters("events_received", "Events accepted, by source.", "source", sources)
    yield _counters("events_refused", "Events refused, by reason.", "reason", refusals)
    for name, key, text in (
        ("events_handled", "handled", "Events handled."),
        ("events_failed", "failed", "Failed attempts to handle an event."),
        ("events_retried", "retried", "Retries of failed events."),
    ):
        yield _counter(name, text, events.get(key, 0))
    for name, key, text in (
        ("events_waiting", "waiting", "Waiting events, those to be retried included."),
        ("events_in_work", "in_work", "Events that the handler is working on."),
        ("events_retrying", "retrying", "Failed events that wait for a retry."),
        ("dead_letters", "dead_now", "Dead letters that are kept."),
        ("events_oldest_age_seconds", "oldest_age", "How long the oldest event has waited."),
    ):
        yield _gauge(name, text, events.get(key) or 0)
    if "nodes" in events:
        yield from _shared_queue(events)
    text = "Whether events are paused: taken in, but not handled."
    yield _gauge("events_paused", text, facts.events_paused)
    yield _histogram(facts.calls, facts.call_seconds)


def _shared_queue(events: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("queue_engine_up", "Whether the queue's engine answers.", events["engine"]["up"])
    yield _gauge("queue_nodes", "Daemons that share the queue.", len(events["nodes"]))
    text = "Dead letters that were dropped for newer ones."
    yield _counter("dead_letters_discarded", text, events["discarded"])


def _histogram(calls: Sequence[int], seconds: float) -> Metric:
    up_to = list(accumulate(calls))
    family = HistogramMetricFamily(
        PREFIX + "handler_duration_seconds", "How long calls of the event handler took."
    )
    buckets = [
        (repr(bound), float(up_to[place])) for bound, place in zip(BUCKETS, _PLACES, strict=True)
    ]
    family.add_metric((), [*buckets, ("+Inf", float(up_to[-1]))], seconds)
    return family


def _slaves(slaves: Sequence[SlaveFacts]) -> Iterator[Metric]:
    periodic = [slave for slave in slaves if slave.is_periodic]
    yield _by_slave("slave_up", "Whether a slave runs.", slaves, lambda s: s.is_up)
    state = GaugeMetricFamily(
        PREFIX + "slave_state", "1 for the state that a slave is in.", labels=("slave", "state")
    )
    for slave in slaves:
        state.add_metric((plain(slave.name), slave.state), 1)
    yield state
    restarts = CounterMetricFamily(
        PREFIX + "slave_restarts", "Restarts of a slave that count.", labels=("slave",)
    )
    for slave in slaves:
        restarts.add_metric((plain(slave.name),), slave.restarts)
    yield restarts
    for name, text, group, value in (
        (
            "slave_heartbeat_age_seconds",
            "Time since a slave's last heartbeat.",
            slaves,
            lambda s: s.heartbeat_age,
        ),
        (
            "slave_paused",
            "Whether a periodic slave's calls are paused.",
            periodic,
            lambda s: s.is_paused,
        ),
        (
            "slave_last_success_timestamp_seconds",
            "When a periodic slave's last successful call ended.",
            periodic,
            lambda s: s.last_success,
        ),
        (
            "slave_duration_seconds",
            "How long a periodic slave's last call took.",
            periodic,
            lambda s: s.last_duration,
        ),
    ):
        yield _by_slave(name, text, group, value)


def _by_slave(
    name: str,
    text: str,
    slaves: Sequence[SlaveFacts],
    value: Callable[[SlaveFacts], float | None],
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=("slave",))
    for slave in slaves:
        if (found := value(slave)) is not None:
            family.add_metric((plain(slave.name),), found)
    return family


def _datagrams(udp: Mapping[str, Any]) -> dict[str, int]:
    outcomes = {name: udp[name] for name in ("denied", "invalid", "refused")}
    return {"accepted": max(0, udp["received"] - sum(outcomes.values())), **outcomes}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float] | None) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=(label,))
    for key, value in (values or {}).items():
        family.add_metric((key,), value)
    return family
