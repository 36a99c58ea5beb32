from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon, Secret
from daemonkit.config.redaction import HIDDEN
from daemonkit.lifecycle import alerting
from daemonkit.monitoring.alerts.conditions import Conditions
from daemonkit.monitoring.health import DRAINING, RUNNING
from daemonkit.runtime.timer import Timer
from daemonkit.testing import Client, running

from ..monitoring.alerts.juggler_server import FakeJuggler, Reply, juggler_server, wait_for

HOST = socket.gethostname()
NOTHING = {"waiting": 0, "sent": 0, "refused": 0, "dropped": 0}


@contextmanager
def sending(app: Daemon, *to: Any, **settings: Any) -> Iterator[Client]:
    """Run a daemon that sends its alerts, as `running` doesn't."""
    listening = {"host": "127.0.0.1", "port": 0}
    app.configure({"master": {**listening, "alerts": {"to": list(to)}, **settings}})
    started, status = threading.Event(), []
    thread = threading.Thread(target=lambda: status.append(app.serve(started)), name="main")
    thread.start()
    try:
        assert started.wait(60)
        client = Client("127.0.0.1", 60, app.master_config["port"])
        yield client
    finally:
        app.stop()
        thread.join(60)
    (client.exit_status,) = status


@pytest.fixture
def servers() -> Iterator[list[FakeJuggler]]:
    """Three that accept everything."""
    with ExitStack() as stack:
        yield [stack.enter_context(juggler_server(FakeJuggler((200, b"")))) for _ in range(3)]


def shown(client: Client) -> Any:
    return client.status()["alerts"]


def test_an_alert_goes_to_every_target(servers: list[FakeJuggler]) -> None:
    one, two, manager = servers
    to = (f"webhook:{one.url}", {"webhook": two.url}, f"alertmanager:{manager.url}")
    app = Daemon("billing")
    app.alert("disk", "CRIT", "full")

    with sending(app, *to) as client:
        wait_for(lambda: one.requests and two.requests and manager.requests)
        names = ["alertmanager", "webhook", "webhook-2"]
        client.wait_until(lambda: all(shown(client)[name]["sent"] == 1 for name in names))
        status = shown(client)

    (active,) = status.pop("active")
    assert status == {name: {**NOTHING, "sent": 1} for name in names}
    assert {**active, "since": ""} == {
        "service": "disk",
        "status": "CRIT",
        "description": "full",
        "since": "",
        "resolving": False,
    }
    assert [server.requests[0]["service"] for server in (one, two)] == ["disk", "disk"]
    assert manager.paths == ["/events/api/v2/alerts"]


class Batches(FakeJuggler):
    """Juggler, which answers for each event."""

    def answer(self, body: Any) -> Reply:
        super().answer(body)
        return 200, {"events": [{"code": 200, "message": "OK"}] * len(body["events"])}


def test_juggler_has_a_service_for_each_daemon_on_a_host() -> None:
    app = Daemon("billing")
    for service in ("disk", "load"):
        app.alert(service, "WARN", "90 %")
    with (
        juggler_server(Batches()) as juggler,
        sending(app, "juggler", juggler_url=juggler.url) as client,
    ):
        client.wait_until(lambda: shown(client)["juggler"]["sent"] == 2)
        assert client.status()["juggler"] == NOTHING

    assert {request["source"] for request in juggler.requests} == {"billing"}
    assert [event for request in juggler.requests for event in request["events"]] == [
        {
            "host": HOST,
            "service": f"billing.{service}",
            "status": "WARN",
            "description": "90 %",
            "instance": "",
            "tags": [],
        }
        for service in ("disk", "load")
    ]


def test_a_condition_is_raised_repeated_and_resolved(servers: list[FakeJuggler]) -> None:
    webhook, *_ = servers
    app, is_wrong = Daemon("billing"), threading.Event()

    @app.slave(every=0.01)
    def sweep() -> None:
        if is_wrong.is_set():
            raise ValueError("no such plan")

    alerts = {"to": [f"webhook:{webhook.url}"], "when": {"unhealthy": 0}}
    with sending(app, alerts=alerts, alert_refresh=0.1, alert_hold=0) as client:
        wait_for(lambda: webhook.requests)
        is_wrong.set()
        wait_for(lambda: len(webhook.requests) > 3)
        is_wrong.clear()
        wait_for(lambda: webhook.requests[-1]["status"] == "OK" and not shown(client)["active"])

    changes = [(request["previous"], request["status"]) for request in webhook.requests]
    assert changes[:3] == [(None, "OK"), ("OK", "CRIT"), ("CRIT", "CRIT")]
    assert changes[-1] == ("CRIT", "OK")
    assert webhook.requests[1]["service"] == "unhealthy"
    assert "sweep" in webhook.requests[1]["description"]


def test_a_clean_stop_raises_nothing_and_leaves_what_is_active(
    servers: list[FakeJuggler],
) -> None:
    webhook, *_ = servers
    app = Daemon("billing")

    @app.slave
    def worker() -> None:
        app.shutdown.wait()
        raise ValueError("it ends badly")

    app.alert("disk", "CRIT", "full")
    alerts = {"to": [f"webhook:{webhook.url}"], "when": {"unhealthy": 0}}
    with sending(app, alerts=alerts) as client:
        wait_for(lambda: len(webhook.requests) == 2)

    assert client.exit_status == 0
    assert [(request["service"], request["status"]) for request in webhook.requests] == [
        ("disk", "CRIT"),
        ("unhealthy", "OK"),
    ]


def test_conditions_are_checked_only_while_the_daemon_runs() -> None:
    app = Daemon("billing", {"master": {"alerts": {"when": {"queue_full": "80%"}}}})
    assembly, timer = app._assembly, Timer(app.logger)
    assembly.alerting.open(app._on_demand.queue, timer)
    _, check = timer._functions
    known = assembly.alerting.states._states

    def checked() -> bool:
        known.clear()
        check(0.0)
        return bool(known)

    assert not checked()
    app._health.enter(RUNNING)
    assert checked()
    # What follows the stop request may be its effect.
    app.stop()
    assert not checked()
    app.shutdown.clear()
    app._health.enter(DRAINING)
    assert not checked()


def test_what_is_held_back_is_sent_at_the_stop(servers: list[FakeJuggler]) -> None:
    webhook, *_ = servers
    app = Daemon("billing")
    with sending(app, f"webhook:{webhook.url}", alert_hold=3600):
        app.alert("disk", "CRIT", "full")
        app.alert("disk", "OK", "room")

    assert webhook.requests[-1]["description"] == "room"


def test_without_conditions_nothing_is_checked_every_second() -> None:
    app = Daemon("billing")
    with running(app):
        parts = app._assembly.parts
        assert parts is not None
        owners = [getattr(f, "__self__", None) for f in parts.timer._functions]

    assert app._assembly.alerting.states in owners
    assert not any(isinstance(owner, Conditions) for owner in owners)


def test_the_test_client_is_sent_what_the_targets_would_be() -> None:
    app = Daemon("billing")
    app.on_event(lambda event: app.alert(*event))
    alerts = {"to": ["webhook:http://127.0.0.1:1/"], "when": {"queue_full": "80%"}}

    with running(app, {"master": {"alerts": alerts, "alert_refresh": 0.1}}) as client:
        client.wait_until(lambda: client.alerts == [("queue_full", "OK", "OK")])
        client.send_event(["disk", "CRIT", "full"])
        client.wait_until(lambda: len(client.alerts) == 2)
        client.send_event(["disk", "OK", "room"])
        client.wait_until(lambda: len(client.alerts) == 3)
        assert shown(client) == {"active": []}

    assert client.alerts[1:] == [("disk", "CRIT", "full"), ("disk", "OK", "room")]


# Targets with faults


def free_url() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_targets_that_are_away_refuse_or_hang_affect_neither_the_daemon_nor_each_other(
    servers: list[FakeJuggler], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerting, "TIMEOUT", 0.2)
    away = free_url()
    refusing, hanging, good = servers
    refusing.reply, hanging.reply = (403, b"no"), None
    app = Daemon("billing")
    to = [f"webhook:{url}" for url in (away, refusing.url, hanging.url, good.url)]
    with sending(app, *to) as client:
        for status in ("WARN", "CRIT"):
            app.alert("disk", status, "full")
        client.wait_until(lambda: good.requests and good.requests[-1]["status"] == "CRIT")
        client.wait_until(lambda: refusing.requests and refusing.requests[-1]["status"] == "CRIT")
        client.wait_until(lambda: shown(client)["webhook"]["waiting"] == 1)
        client.wait_until(lambda: shown(client)["webhook-3"]["waiting"] == 1)
        client.wait_until(lambda: shown(client)["webhook-2"]["waiting"] == 0)
        assert shown(client)["webhook-2"]["refused"] >= 1
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert f"1 alerts were not delivered to the webhook at {away}" in errors
    assert f"1 alerts were not delivered to the webhook at {hanging.url}" in errors
    refused = f"the webhook at {refusing.url} refused disk on {HOST}: CRIT, full: HTTP 403: no"
    assert refused in errors


def test_a_target_that_comes_back_gets_what_is_true_then(servers: list[FakeJuggler]) -> None:
    webhook, *_ = servers
    webhook.reply = (503, b"")
    app = Daemon("billing")
    with sending(app, f"webhook:{webhook.url}", alert_hold=0) as client:
        app.alert("disk", "CRIT", "full")
        wait_for(lambda: webhook.requests)
        app.alert("disk", "OK", "room")
        webhook.reply = (200, b"")
        client.wait_until(lambda: shown(client)["webhook"]["sent"])

    assert [(r["previous"], r["status"]) for r in webhook.requests] == [
        (None, "CRIT"),
        (None, "OK"),
    ]


def test_a_secret_address_is_not_in_the_log(servers: list[FakeJuggler], tmp_path: Path) -> None:
    webhook, *_ = servers
    webhook.reply = (403, b"no")
    log, app = tmp_path / "log", Daemon("billing")
    secret = Secret(f"webhook:{webhook.url}")
    with sending(app, secret, log_file=str(log)) as client:
        app.alert("disk", "CRIT", "full")
        client.wait_until(lambda: shown(client)["webhook"]["refused"] == 1)
        text = client.get("/status").text

    assert f"the webhook at {HIDDEN} refused disk on {HOST}: CRIT, full" in log.read_text("utf-8")
    assert webhook.url not in log.read_text("utf-8") + text


def test_a_daemon_that_gives_up_says_so_before_it_stops() -> None:
    app = Daemon("billing")
    app.add_slave(lambda: 1 / 0, name="broken", restart="never")
    alerts = {"to": ["webhook:http://127.0.0.1:1/"], "when": {"unhealthy": "1m"}}
    with running(app, {"master": {"alerts": alerts}}) as client:
        assert app.shutdown.wait(10)
        client.wait_until(lambda: client.alerts)

    ((service, _, text),) = [alert for alert in client.alerts if alert[1] == "CRIT"]
    assert service == "unhealthy"
    assert text.startswith("the daemon stops: ")
    assert "broken" in text
    assert client.exit_status == 1


def test_it_says_so_even_if_it_was_unhealthy_before(servers: list[FakeJuggler]) -> None:
    webhook, *_ = servers
    app, may_fail = Daemon("billing"), threading.Event()

    @app.slave(restart="never")
    def broken() -> None:
        may_fail.wait(10)
        app.alert("unhealthy", "CRIT", "the slave broken is backing off")
        raise ValueError

    alerts = {"to": [f"webhook:{webhook.url}"], "when": {"unhealthy": "1m"}}
    with sending(app, alerts=alerts):
        may_fail.set()
        assert app.shutdown.wait(10)

    last = webhook.requests[-1]
    assert last["status"] == "CRIT"
    assert last["description"].startswith("the daemon stops: ")


def test_so_does_one_whose_main_function_fails() -> None:
    class Broken(Daemon):
        def run(self) -> None:
            raise ValueError("no database")

    alerts = {"to": ["webhook:http://127.0.0.1:1/"], "when": {"unhealthy": "1m"}}
    with running(Broken("billing"), {"master": {"alerts": alerts}}) as client:
        client.wait_until(lambda: client.alerts)

    assert ("unhealthy", "CRIT", "the daemon stops: run() failed") in client.alerts
    assert client.exit_status == 1
