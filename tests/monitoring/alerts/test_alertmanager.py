"""What is posted; what Alertmanager makes of it is in tests/functional/test_alertmanager.py."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import SECRETS
from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.alertmanager import Alertmanager, utc_now

from .juggler_server import FakeJuggler, juggler_server

NOW = datetime(2026, 11, 26, 20, tzinfo=timezone.utc)
SINCE = NOW - timedelta(minutes=5)
CRITICAL = Alert("web-1", "disk", "CRIT", "no room", SINCE, "OK")
IN_4_MINUTES = "2026-11-26T20:04:00+00:00"


def make(url: str = "http://am:9093", daemon: str = "billing") -> Alertmanager:
    return Alertmanager("alerts-alertmanager", daemon, url, 60, 60, lambda: NOW)


def by_severity(body: Any) -> dict[str, tuple[str | None, str]]:
    """The beginning and the end of each entry, by its severity."""
    return {entry["labels"]["severity"]: (entry.get("startsAt"), entry["endsAt"]) for entry in body}


def test_a_repeated_alert_is_one_entry_that_ends_unless_it_is_repeated() -> None:
    repeated = CRITICAL._replace(previous="CRIT")

    assert make().body([repeated]) == [
        {
            "labels": {
                "alertname": "disk",
                "daemon": "billing",
                "instance": "web-1",
                "service": "disk",
                "severity": "critical",
            },
            "annotations": {"description": "no room"},
            "startsAt": SINCE.isoformat(),
            "endsAt": IN_4_MINUTES,
        }
    ]


def test_a_change_ends_the_alerts_of_the_other_severities() -> None:
    assert by_severity(make().body([CRITICAL])) == {
        "info": (None, NOW.isoformat()),
        "warning": (None, NOW.isoformat()),
        "critical": (SINCE.isoformat(), IN_4_MINUTES),
    }


def test_ok_ends_the_alerts_of_all_severities() -> None:
    resolved = dict.fromkeys(("info", "warning", "critical"), (None, NOW.isoformat()))

    for previous in (None, "CRIT", "OK"):
        fine = Alert("web-1", "disk", "OK", "", SINCE, previous)
        assert by_severity(make().body([fine])) == resolved


def test_an_alert_does_not_begin_in_the_future() -> None:
    later = CRITICAL._replace(since=NOW + timedelta(hours=1))

    assert by_severity(make().body([later]))["critical"] == (NOW.isoformat(), IN_4_MINUTES)


def test_many_alerts_are_one_array_at_the_address_of_the_api() -> None:
    with juggler_server(FakeJuggler((200, b""))) as server:
        base = server.url.removesuffix("/events")
        for url in (base, f"{base}/", f"{base}/behind/a/proxy"):
            with make(url).connect() as post:
                assert post([CRITICAL._replace(previous="CRIT")] * 2) == [None, None]

    assert server.paths == ["/api/v2/alerts"] * 2 + ["/behind/a/proxy/api/v2/alerts"]
    assert [len(request) for request in server.requests] == [2, 2, 2]


def test_the_daemon_s_name_is_redacted() -> None:
    SECRETS.add(["hush-hush"])
    (entry, *_) = make(daemon="app hush-hush").body([CRITICAL])

    assert entry["labels"]["daemon"] == f"app {HIDDEN}"


def test_times_are_in_utc() -> None:
    assert utc_now().utcoffset() == timedelta(0)
