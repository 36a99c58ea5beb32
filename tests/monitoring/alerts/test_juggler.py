from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import SECRETS
from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.backend import TryLater
from daemonkit.monitoring.alerts.juggler import Juggler, make_alert
from daemonkit.monitoring.alerts.outbox import Outbox
from daemonkit.testing import running

from .juggler_server import ACCEPT, FakeJuggler, Reply, juggler_server, wait_for

ALERT = Alert("host1", "disk", "CRIT", "no room")


@pytest.fixture
def juggler() -> Iterator[FakeJuggler]:
    with juggler_server(FakeJuggler()) as server:
        yield server


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_the_wire_form_is_jugglers(juggler: FakeJuggler) -> None:
    app = Daemon("billing")

    @app.slave
    def worker(slave: Slave) -> None:
        slave.send_event_to_juggler("host1", "disk", "CRIT", "no room")

    with running(app, {"master": {"juggler_url": juggler.url}}) as client:
        client.wait_until(lambda: client.status()["juggler"]["sent"])
        shown = client.status()["juggler"]

    event = {
        "host": "host1",
        "service": "disk",
        "status": "CRIT",
        "description": "no room",
        "instance": "",
        "tags": [],
    }
    assert juggler.requests == [{"source": "billing", "events": [event]}]
    assert shown == {"waiting": 0, "sent": 1, "refused": 0, "dropped": 0}


@pytest.mark.parametrize("status", ["OK", "INFO", "WARN", "CRIT"])
def test_juggler_has_four_statuses(status: str) -> None:
    assert make_alert("h", "s", status, "d") == Alert("h", "s", status, "d")


def test_wrong_arguments_are_refused_at_the_call() -> None:
    app = Daemon("app")
    with pytest.raises(
        ValueError, match=r"^a Juggler status is one of OK, INFO, WARN, CRIT, not 'BAD'"
    ):
        app.send_event_to_juggler("h", "s", "BAD", "d")
    with pytest.raises(TypeError, match=r"^the host of an alert must be a string, not None \(None"):
        app.send_event_to_juggler(None, "s", "OK", "d")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^the description of an alert must be a string, not 1 \("):
        app.send_event_to_juggler("h", "s", "OK", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        (ACCEPT, None),
        ((200, {"events": [{"code": 400, "message": "bad tags"}]}), "400: bad tags"),
        ((200, {"events": [{"code": 403}]}), "403: "),
        ((400, b"no such thing"), "HTTP 400: no such thing"),
        ((404, b""), "HTTP 404: "),
        ((404, b"x" * 1000), "HTTP 404: " + "x" * 200),
        ((302, b"elsewhere"), "HTTP 302: elsewhere"),
        ((200, b"<html>"), "invalid reply: <html>"),
        ((200, {"events": []}), 'invalid reply: {"events": []}'),
        ((200, []), "invalid reply: []"),
        ((200, b"x" * 1000), "invalid reply: " + "x" * 200),
    ],
)
def test_a_reply_accepts_the_alert_or_says_why_not(
    juggler: FakeJuggler, reply: Reply, refusal: str | None
) -> None:
    juggler.reply = reply
    with Juggler("app", juggler.url, 5).connect() as post:
        assert post([ALERT]) == [refusal]

    assert len(juggler.requests) == 1


def test_the_reply_answers_for_each_alert_of_a_batch(juggler: FakeJuggler) -> None:
    juggler.reply = (200, {"events": [{"code": 200}, {"code": 400, "message": "bad tags"}]})
    backend = Juggler("app", juggler.url, 5, name="alerts-juggler", batch=50, prefix="app.")
    with backend.connect() as post:
        assert post([ALERT, ALERT]) == [None, "400: bad tags"]
        assert post([ALERT]) == [f"invalid reply: {json.dumps(juggler.reply[1])}"]

    assert (backend.name, backend.batch) == ("alerts-juggler", 50)
    assert [event["service"] for event in juggler.requests[0]["events"]] == ["app.disk"] * 2


def test_what_is_sent_to_juggler_and_kept_of_its_reply_is_redacted(juggler: FakeJuggler) -> None:
    SECRETS.add(["hush-hush"])
    juggler.reply = (400, b"x" * 195 + b"hush-hush")
    with Juggler("app hush-hush", juggler.url, 5).connect() as post:
        (refusal,) = post([ALERT])

    assert refusal is not None
    assert "hush" not in refusal
    assert juggler.requests[0]["source"] == f"app {HIDDEN}"


def test_the_password_in_its_url_is_not_in_its_name() -> None:
    juggler = Juggler("app", "http://user:pw@host/x", 5)

    assert juggler.address == f"Juggler at http://user:{HIDDEN}@host/x"


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_reply_that_says_not_now_leads_to_a_retry(juggler: FakeJuggler, code: int) -> None:
    juggler.reply = (code, b"")
    with (
        Juggler("app", juggler.url, 5).connect() as post,
        pytest.raises(TryLater, match=f"^HTTP {code}$"),
    ):
        post([ALERT])


def test_no_reply_within_the_timeout_leads_to_a_retry(juggler: FakeJuggler) -> None:
    juggler.reply = None
    with (
        Juggler("app", juggler.url, 0.1).connect() as post,
        pytest.raises(TryLater, match="timed out"),
    ):
        post([ALERT])


def test_an_unavailable_juggler_gets_the_alert_once_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    backend = Juggler("app", f"http://127.0.0.1:{port}/events", 5)
    outbox = Outbox(backend, logging.getLogger("test"), retry=(0.01, 0.05))
    outbox.put(ALERT)
    wait_for(lambda: caplog.messages)
    with juggler_server(FakeJuggler(), port) as juggler:
        wait_for(lambda: outbox.counters()["sent"] == 1)
        outbox.request_stop()
        assert outbox.join(30)

    assert [request["events"][0]["host"] for request in juggler.requests] == ["host1"]
    assert caplog.messages == [
        f"Juggler at http://127.0.0.1:{port}/events is unavailable, retrying: Connection refused"
    ]


def test_a_hung_juggler_does_not_keep_the_daemon_from_stopping(
    juggler: FakeJuggler, caplog: pytest.LogCaptureFixture
) -> None:
    juggler.reply = None
    app = Daemon("app")
    settings: dict[str, Any] = {"juggler_url": juggler.url, "juggler_timeout": 0.2}
    with running(app, {"master": {**settings, "shutdown_timeout": 60}}) as client:
        app.send_event_to_juggler("h", "s", "OK", "d")
        client.wait_until(lambda: juggler.requests)

    assert client.exit_status == 0
    assert f"1 alerts were not delivered to Juggler at {juggler.url}" in caplog.messages
