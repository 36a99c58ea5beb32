from __future__ import annotations

from datetime import datetime, timezone

from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import SECRETS
from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.webhook import Webhook

from .juggler_server import FakeJuggler, juggler_server

SINCE = datetime(2026, 11, 26, 20, tzinfo=timezone.utc)
ALERT = Alert("web-1", "disk", "CRIT", "no room", SINCE, "OK")


def test_one_alert_is_one_json_object() -> None:
    with juggler_server(FakeJuggler((204, b""))) as server:
        webhook = Webhook("alerts-webhook", "billing", server.url, 60)
        with webhook.connect() as post:
            assert post([ALERT]) == [None]

    assert webhook.batch == 1
    assert webhook.address == f"the webhook at {server.url}"
    assert server.requests == [
        {
            "daemon": "billing",
            "host": "web-1",
            "service": "disk",
            "status": "CRIT",
            "previous": "OK",
            "description": "no room",
            "since": "2026-11-26T20:00:00+00:00",
        }
    ]


def test_the_first_alert_has_no_previous_status() -> None:
    webhook = Webhook("alerts-webhook", "billing", "http://host", 5)
    body = webhook.body([Alert("web-1", "disk", "OK", "")])

    assert (body["previous"], body["since"]) == (None, None)


def test_the_daemon_s_name_is_redacted() -> None:
    SECRETS.add(["hush-hush"])
    webhook = Webhook("alerts-webhook", "app hush-hush", "http://host", 5)

    assert webhook.body([ALERT])["daemon"] == f"app {HIDDEN}"
