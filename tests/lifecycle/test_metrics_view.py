from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families as parse

from daemonkit import Daemon, Secret
from daemonkit.gauges import Gauge
from daemonkit.lifecycle.metrics_view import values_of
from daemonkit.testing import Client, running

from ..supervision.slaves import slave_status


def metrics(client: Client) -> dict[str, float]:
    """The values by `name` or `name{label=value}`, of those with one label at most."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f"{{{k}={v}}}" for k, v in sample.labels.items()): sample.value
        for family in parse(answer.text)
        for sample in family.samples
    }


def test_the_metrics_agree_with_the_status() -> None:
    app, calls = Daemon("app"), []

    @app.on_event
    def handle(event: Any) -> None:
        if event == "fail":
            raise ValueError("no")

    @app.slave
    def crash(slave: Any) -> None:
        if not calls:
            calls.append(1)
            raise ValueError("no")
        slave.shutdown.wait()

    app.add_slave(lambda: None, name="sweep", every=3600)
    with running(app, {"master": {"host": "127.0.0.1"}}) as client:
        for event in (1, 2, "fail"):
            client.send_event(event)
        client.send_datagram(b"3")
        client.send_datagram(b"{")
        app.put_event(4)
        client.post("/events", data=b"{")
        client.wait_until(lambda: client.status()["events"]["handled"] == 4)
        client.wait_until(lambda: client.status()["udp"]["invalid"])
        client.wait_until(
            lambda: (
                metrics(client)["daemonkit_slave_restarts_total{slave=crash}"] == 1
                and metrics(client)["daemonkit_slave_up{slave=crash}"] == 1
            )
        )
        found, status = metrics(client), client.status()

    expected = {
        "ready": 1,
        "healthy": 1,
        "events_received_total{source=http}": 3,
        "events_received_total{source=udp}": 1,
        "events_received_total{source=app}": 1,
        "events_refused_total{reason=invalid}": 1,
        "events_handled_total": status["events"]["handled"],
        "events_failed_total": 1,
        "dead_letters": 1,
        "handler_duration_seconds_count": 5,
        "udp_datagrams_total{outcome=accepted}": 1,
        "udp_datagrams_total{outcome=invalid}": 1,
        "slave_state{slave=crash}{state=running}": 1,
        "slave_up{slave=sweep}": 1,
    }
    assert {name: found[f"daemonkit_{name}"] for name in expected} == expected
    assert found["daemonkit_slave_last_success_timestamp_seconds{slave=sweep}"] > 1e9
    assert "daemonkit_slave_duration_seconds{slave=crash}" not in found


def test_the_program_s_metrics_are_there_and_failures_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, fails = Daemon("app"), True

    @app.metric
    def depth() -> int:
        if fails:
            raise ValueError("no")
        return 3

    class Broken:
        def collect(self) -> Iterator[Any]:
            raise RuntimeError("broken")

    Counter("mine", "Mine.", registry=app.metrics).inc()
    app.metrics.register(Broken())  # type: ignore[arg-type]
    with running(app) as client:
        for _ in range(3):
            assert "depth" not in metrics(client)
        fails = False
        found = metrics(client)

    assert found["depth"] == 3
    assert found["daemonkit_ready"] == 1
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 2
    assert errors[0].startswith("The metric depth failed")
    assert errors[1].startswith("app.metrics failed")


def test_without_the_extra_the_answer_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "daemonkit.monitoring.metrics", raising=False)
    with running(Daemon("app")) as client:
        answer = client.get("/metrics")

    assert (answer.status_code, answer.json()["message"]) == (
        404,
        "Metrics need prometheus-client: pip install 'daemonkit[metrics]'",
    )


def test_secrets_in_labels_are_redacted() -> None:
    app = Daemon("app")
    app.add_metric(lambda: {"a-long-secret": 1}, name="mine", labels=["key"])
    with running(app, {"key": Secret("a-long-secret")}) as client:
        text = client.get("/metrics").text

    assert "a-long-secret" not in text
    assert 'mine{key="*** HIDDEN ***"} 1.0' in text


def gauge(result: Any, *labels: str) -> Gauge:
    return Gauge("x", "x", labels, lambda: result)


def test_values_are_numbers_or_by_their_labels() -> None:
    assert values_of(gauge(3)) == {(): 3.0}
    assert values_of(gauge(True)) == {(): 1.0}
    assert values_of(gauge({"a": 1, 2: 2.5}, "plan")) == {("a",): 1.0, ("2",): 2.5}
    assert values_of(gauge({("a", "b"): 1}, "x", "y")) == {("a", "b"): 1.0}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (gauge("3"), "a metric's value must be a number, not '3' (str)"),
        (gauge(3, "plan"), "a metric with labels must return a mapping, not 3 (int)"),
        (gauge({"a": 1}, "x", "y"), "each key must have a value for x, y, not 'a' (str)"),
    ],
)
def test_what_isn_t_a_metric_s_value_is_refused(found: Gauge, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        values_of(found)

    assert str(raised.value) == message


def test_a_metric_that_hangs_takes_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.lifecycle.metrics_view.SCRAPE_WAIT", 0.01)
    app, entered, may_end = Daemon("app"), threading.Event(), threading.Event()

    @app.metric
    def rows() -> int:
        entered.set()
        may_end.wait(30)
        return 1

    with running(app) as client:
        thread = threading.Thread(target=client.get, args=["/metrics"])
        thread.start()
        assert entered.wait(10)
        second = client.get("/metrics")
        may_end.set()
        thread.join(10)
        third = client.get("/metrics")

    assert (second.status_code, third.status_code) == (503, 200)
    assert second.json()["message"].startswith("Another scrape is under way")


def test_a_slave_that_has_ended_has_no_heartbeat() -> None:
    app = Daemon("app")
    app.add_slave(lambda slave: None, name="brief")
    with running(app) as client:
        client.wait_until(lambda: slave_status(client, "brief")["state"] == "finished")
        found = metrics(client)

    assert found["daemonkit_slave_up{slave=brief}"] == 0
    assert "daemonkit_slave_heartbeat_age_seconds{slave=brief}" not in found
