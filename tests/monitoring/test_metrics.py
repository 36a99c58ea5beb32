from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from daemonkit._version import __version__
from daemonkit.gauges import Gauge
from daemonkit.monitoring.metric_facts import Facts, SlaveFacts
from daemonkit.monitoring.metrics import Exposition
from daemonkit.runtime.durations import Durations

OPEN_METRICS = "application/openmetrics-text;version=1.0.0"
EVENTS = {
    "sources": {"http": 5},
    "refusals": {"full": 2},
    "handled": 3,
    "failed": 1,
    "retried": 1,
    "waiting": 4,
    "in_work": 1,
    "retrying": 2,
    "dead_now": 6,
    "oldest_age": 1.5,
}
SLAVES = [
    SlaveFacts("poller", True, "running", 2, 0.25, False, False, None, None),
    SlaveFacts("sweep", False, "failed", 5, None, True, True, 1000.5, 0.125),
]


def facts(**changes: Any) -> Facts:
    durations = Durations()
    durations.add(0.0004, 3)
    durations.add(0.03)
    durations.add(1e4)
    given: dict[str, Any] = {
        "name": "app",
        "is_ready": True,
        "is_healthy": False,
        "events": EVENTS,
        "calls": durations.counts,
        "call_seconds": durations.total,
        "http": {"answers": {"200": 7, "404": 1}, "connections": 3},
        "udp": {"received": 10, "denied": 1, "invalid": 2, "refused": 3, "kernel_drops": None},
        "alerts": {"waiting": 1, "sent": 2, "refused": 0, "dropped": 0},
        "reload_failed": False,
        "events_paused": True,
        "slaves": SLAVES,
    }
    return Facts(**{**given, **changes})


def render(
    found: Facts,
    gauges: Iterable[tuple[Gauge, Mapping[tuple[str, ...], float] | None]] = (),
    own: Iterable[Metric] = (),
    accept: str = "",
) -> str:
    values = dict(gauges)
    exposition = Exposition(lambda: found, list(values), values.__getitem__, lambda: own)
    body, content_type = exposition.render(accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain; version=0.0.4")
    return body.decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def test_the_daemon_s_own_metrics_have_their_names_and_values() -> None:
    found = samples(render(facts()))
    own = {
        (name.removeprefix("daemonkit_"), labels): value
        for (name, labels), value in found.items()
        if name.startswith("daemonkit_") and "duration_seconds_b" not in name
    }
    info = next(labels for name, labels in own if name == "info")

    assert dict(info)["version"] == __version__
    assert {key: value for key, value in own.items() if key[0] != "info"} == {
        ("ready", ()): 1,
        ("healthy", ()): 0,
        ("config_last_reload_successful", ()): 1,
        ("events_received_total", (("source", "http"),)): 5,
        ("events_received_total", (("source", "udp"),)): 0,
        ("events_received_total", (("source", "app"),)): 0,
        ("events_refused_total", (("reason", "full"),)): 2,
        ("events_refused_total", (("reason", "too_large"),)): 0,
        ("events_refused_total", (("reason", "unavailable"),)): 0,
        ("events_refused_total", (("reason", "invalid"),)): 0,
        ("events_handled_total", ()): 3,
        ("events_failed_total", ()): 1,
        ("events_retried_total", ()): 1,
        ("events_waiting", ()): 4,
        ("events_in_work", ()): 1,
        ("events_retrying", ()): 2,
        ("dead_letters", ()): 6,
        ("events_oldest_age_seconds", ()): 1.5,
        ("events_paused", ()): 1,
        ("handler_duration_seconds_count", ()): 5,
        ("handler_duration_seconds_sum", ()): 10000.0312,
        ("slave_up", (("slave", "poller"),)): 1,
        ("slave_up", (("slave", "sweep"),)): 0,
        ("slave_state", (("slave", "poller"), ("state", "running"))): 1,
        ("slave_state", (("slave", "sweep"), ("state", "failed"))): 1,
        ("slave_restarts_total", (("slave", "poller"),)): 2,
        ("slave_restarts_total", (("slave", "sweep"),)): 5,
        ("slave_heartbeat_age_seconds", (("slave", "poller"),)): 0.25,
        ("slave_paused", (("slave", "sweep"),)): 1,
        ("slave_last_success_timestamp_seconds", (("slave", "sweep"),)): 1000.5,
        ("slave_duration_seconds", (("slave", "sweep"),)): 0.125,
        ("http_requests_total", (("code", "200"),)): 7,
        ("http_requests_total", (("code", "404"),)): 1,
        ("http_connections", ()): 3,
        ("udp_datagrams_total", (("outcome", "accepted"),)): 4,
        ("udp_datagrams_total", (("outcome", "denied"),)): 1,
        ("udp_datagrams_total", (("outcome", "invalid"),)): 2,
        ("udp_datagrams_total", (("outcome", "refused"),)): 3,
        ("udp_kernel_drops_total", ()): 0,
        ("alerts_total", (("outcome", "sent"),)): 2,
        ("alerts_total", (("outcome", "refused"),)): 0,
        ("alerts_total", (("outcome", "dropped"),)): 0,
        ("alerts_waiting", ()): 1,
    }


def test_the_histogram_s_buckets_add_up() -> None:
    found = samples(render(facts()))
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "daemonkit_handler_duration_seconds_bucket"
    }

    assert list(buckets.values()) == sorted(buckets.values())
    chosen = [buckets[le] for le in ("0.00025", "0.0005", "0.025", "0.05", "50.0", "+Inf")]
    assert chosen == [0, 3, 3, 4, 4, 5]


def test_process_metrics_are_there() -> None:
    assert ("process_resident_memory_bytes", ()) in samples(render(facts()))


def test_open_metrics_are_sent_on_request() -> None:
    text = render(facts(), accept=OPEN_METRICS)

    assert text.endswith("# EOF\n")
    assert {family.name for family in parse_open(text)} >= {"daemonkit_events_handled"}


def test_gauges_of_the_program_are_shown_and_one_that_fails_hides_no_other() -> None:
    text = render(
        facts(),
        [
            (Gauge("depth", "How deep.", (), lambda: 0), {(): 3.0}),
            (Gauge("broken", "x", (), lambda: 0), None),
            (Gauge("users", "x", ("plan", "kind"), lambda: 0), {("a\ud800", 'b"\n'): 2.0}),
        ],
    )

    assert "# HELP depth How deep.\n# TYPE depth gauge\ndepth 3.0\n" in text
    assert "broken" not in text
    assert samples(text)["users", (("kind", 'b"\n'), ("plan", "a\\ud800"))] == 2


def test_the_program_s_own_metrics_come_last_and_replace_none() -> None:
    registry = CollectorRegistry()
    Counter("mine", "Mine.", registry=registry).inc(2)
    Counter("daemonkit_events_handled", "Not it.", registry=registry).inc(99)
    found = samples(render(facts(), own=registry.collect()))

    assert found["mine_total", ()] == 2
    assert found["daemonkit_events_handled_total", ()] == 3


@pytest.mark.parametrize("name", ["a\ud800b", "x\n# TYPE y gauge\ny 1"])
def test_any_name_of_a_slave_is_one_label(name: str) -> None:
    slave = SLAVES[0]._replace(name=name)
    found = samples(render(facts(slaves=[slave])))

    (labels,) = [labels for key, labels in found if key == "daemonkit_slave_up"]
    assert labels[0][1] == name.encode("utf-8", "backslashreplace").decode()


def test_a_metric_that_can_t_be_encoded_is_left_out() -> None:
    bad = GaugeMetricFamily("bad", "x", labels=["a"])
    bad.add_metric(["\ud800"], 1)
    worse = GaugeMetricFamily("worse", "x", value="text")  # type: ignore[arg-type]
    failed: list[str] = []
    exposition = Exposition(
        facts, [], lambda gauge: None, lambda: [bad, worse], failed=lambda n, e: failed.append(n)
    )
    found = samples(exposition.render("")[0].decode())

    assert failed == ["bad", "worse"]
    assert found["daemonkit_ready", ()] == 1


def test_secrets_are_hidden_in_labels_and_numbers_stay_numbers() -> None:
    family = GaugeMetricFamily("mine", "4711 things", labels=["key"])
    family.add_metric(["x4711"], 4711)
    exposition = Exposition(
        lambda: facts(events={**EVENTS, "handled": 4711}),
        [],
        lambda gauge: None,
        lambda: [family],
        redact=lambda text: text.replace("4711", "***"),
    )
    text = exposition.render("")[0].decode()

    assert 'mine{key="x***"} 4711.0' in text
    assert "# HELP mine *** things" in text
    assert "daemonkit_events_handled_total 4711.0" in text
