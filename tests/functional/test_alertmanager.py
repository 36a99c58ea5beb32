"""Alerts as Debian's Alertmanager sees them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from daemonkit.system.outgoing import open_session
from daemonkit.testing import Client

from .process import Process
from .tools import need

Run = Callable[..., Process]

CONFIG = """\
route: {receiver: nobody}
receivers: [{name: nobody}]
"""
APP = """\
from daemonkit import Daemon

app = Daemon("billing")


@app.on_event
def handle(event):
    if event == "fail":
        raise ValueError("no such plan")
    app.alert("disk", *event)
"""


class Alertmanager:
    """A running one; url: its address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def alerts(self) -> list[dict[str, Any]]:
        """The active alerts."""
        with open_session() as session:
            reply = session.get(f"{self.url}/api/v2/alerts", timeout=60)
        reply.raise_for_status()
        alerts: list[dict[str, Any]] = reply.json()
        return alerts

    def states(self) -> list[tuple[str, str]]:
        """The service and severity of each."""
        labels = [alert["labels"] for alert in self.alerts()]
        return sorted((label["service"], label["severity"]) for label in labels)


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    need("prometheus-alertmanager")
    with running_alertmanager(tmp_path / "alertmanager") as server:
        yield server


@contextmanager
def running_alertmanager(folder: Path) -> Iterator[Alertmanager]:
    folder.mkdir()
    (folder / "config.yml").write_text(CONFIG)
    log = folder / "log"
    with log.open("wb") as err:
        process = subprocess.Popen(
            [
                "prometheus-alertmanager",
                "--config.file=config.yml",
                f"--storage.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ],
            cwd=folder,
            stderr=err,
        )
    try:
        client = Client("127.0.0.1", timeout=60)

        def port() -> str | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r'"Listening on" address=127.0.0.1:(\d+)', log.read_text())
            return found and found[1]

        server = Alertmanager(f"http://127.0.0.1:{client.wait_until(port, 'the port')}")
        client.wait_until(lambda: _is_ready(server.url), "a ready Alertmanager")
        yield server
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    with open_session() as session:
        try:
            return session.get(f"{url}/-/ready", timeout=60).status_code == 200
        except requests.ConnectionError:
            return False


def test_alertmanager_sees_an_alert_raised_repeated_changed_and_resolved(
    alertmanager: Alertmanager, run_app: Run
) -> None:
    to = f"--set=master.alerts.to=['alertmanager:{alertmanager.url}/']"
    daemon = run_app(APP, to, "--set=master.alert_refresh=1", "--set=master.alert_hold=0")
    daemon.wait_ready()
    daemon.send_event(["CRIT", "no room"])
    daemon.wait_until(lambda: alertmanager.states() == [("disk", "critical")])
    (raised,) = alertmanager.alerts()

    # Without a repetition, it would end after four times `alert_refresh`.
    begun = _time(raised["startsAt"])
    daemon.wait_until(lambda: (_updated(alertmanager) - begun).total_seconds() > 4.5)
    (repeated,) = alertmanager.alerts()
    daemon.send_event(["WARN", "little room"])
    daemon.wait_until(lambda: alertmanager.states() == [("disk", "warning")])
    (changed,) = alertmanager.alerts()
    daemon.send_event(["OK", "room"])
    daemon.wait_until(lambda: alertmanager.states() == [])

    labels = {
        "alertname": "disk",
        "daemon": "billing",
        "instance": socket.gethostname(),
        "service": "disk",
        "severity": "critical",
    }
    assert (raised["labels"], raised["annotations"]) == (labels, {"description": "no room"})
    assert changed["labels"] == {**labels, "severity": "warning"}
    assert changed["annotations"] == {"description": "little room"}
    assert repeated["fingerprint"] == raised["fingerprint"]
    assert repeated["startsAt"] == raised["startsAt"]
    shown = daemon.status()["alerts"]
    assert shown.pop("active") == []
    assert shown["alertmanager"].pop("sent") >= 5
    assert shown == {"alertmanager": {"waiting": 0, "refused": 0, "dropped": 0}}
    assert daemon.stop() == 0


def test_an_active_alert_outlives_a_restart_and_the_next_process_resolves_it(
    alertmanager: Alertmanager, run_app: Run
) -> None:
    settings = (
        f"--set=master.alerts.to=['alertmanager:{alertmanager.url}']",
        "--set=master.alerts.when.dead_letters=1",
    )
    first = run_app(APP, *settings).wait_ready()
    first.send_event("fail")
    first.wait_until(lambda: alertmanager.states() == [("dead_letters", "warning")])
    assert first.stop() == 0
    assert alertmanager.states() == [("dead_letters", "warning")]
    second = run_app(APP, *settings).wait_ready()
    second.wait_until(lambda: alertmanager.states() == [])

    assert second.stop() == 0


def test_the_alert_of_a_daemon_that_was_killed_ends_by_itself(
    alertmanager: Alertmanager, run_app: Run
) -> None:
    daemon = run_app(
        APP,
        f"--set=master.alerts.to=['alertmanager:{alertmanager.url}']",
        "--set=master.alert_refresh=0.5",
    ).wait_ready()
    daemon.send_event(["CRIT", "no room"])
    daemon.wait_until(lambda: alertmanager.states() == [("disk", "critical")])
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()

    daemon.wait_until(lambda: alertmanager.states() == [])


def _updated(alertmanager: Alertmanager) -> datetime:
    (alert,) = alertmanager.alerts()
    return _time(alert["updatedAt"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
