"""One scenario in five views: the page, /status, /metrics, `daemonkit status` and the alerts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from ..monitoring.alerts.juggler_server import FakeJuggler, juggler_server
from .browser import Page, browsing
from .process import Process

APP = """\
import threading
from daemonkit import Daemon

app = Daemon("billing")
well = threading.Event()
well.set()


@app.slave(critical=False, restart="never")
def breaker(slave):
    while not slave.shutdown.wait(0.05):
        if not well.is_set():
            raise ValueError("no such account")


@app.slave(timeout=0.5)
def staller(slave):
    while not slave.shutdown.wait(0.05):
        # Not an event of its own: it hangs, and doesn't wait for its shutdown.
        well.wait(60)


@app.on_event(timeout=0.5)
def handle(event):
    well.wait(60)


@app.post("/break")
def break_it():
    well.clear()
    return "broken"


@app.post("/mend")
def mend_it():
    well.set()
    app.start_slave("breaker")
    return "mended"
"""
CONFIG = """\
master:
    queue_size: 10
    alert_hold: 0
    alert_refresh: 1
    alerts:
        to: ["webhook:{url}", "webhook:http://127.0.0.1:{away}/"]
        when: {{unhealthy: 0, queue_full: 80%}}
"""
PROBLEMS = {
    "the slave breaker has failed",
    "the slave staller is stalled",
    "the event handler is stalled",
}
WITHIN = 3.0
"""Seconds in which each view shows what has happened."""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browsing(tmp_path / "profile") as page:
        yield page


class Views:
    """What each view says now: whether each of the faults is there, True or False."""

    def __init__(self, daemon: Process, page: Page, alerts: FakeJuggler) -> None:
        self.daemon, self._page, self._alerts = daemon, page, alerts

    def status(self) -> dict[str, bool]:
        status = self.daemon.status()
        problems, events = set(status["problems"]), status["events"]
        return {
            **{problem: problem in problems for problem in PROBLEMS},
            "waiting": events["waiting"] >= 8,
            "target away": status["alerts"]["webhook-2"]["waiting"] > 0,
        }

    def metrics(self) -> dict[str, bool]:
        text = self.daemon.get("/metrics").text
        found = {
            sample.name.removeprefix("daemonkit_") + "".join(sorted(sample.labels.values())): (
                sample.value
            )
            for family in parse(text)
            for sample in family.samples
        }
        return {
            "the slave breaker has failed": found["slave_upbreaker"] == 0,
            "the slave staller is stalled": found["slave_upstaller"] == 0,
            "the event handler is stalled": found["healthy"] == 0,
            "waiting": found["events_waiting"] >= 8,
            "target away": found["alerts_waiting"] > 0,
        }

    def command(self) -> dict[str, bool]:
        done = subprocess.run(
            [sys.executable, "-m", "daemonkit", "status", self.daemon.url],
            env={**os.environ, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        head, lines = done.stdout.splitlines()[0], done.stdout.splitlines()
        events = next(line for line in lines if "Events:" in line)
        waiting = int(events.split(" waiting")[0].rpartition(" ")[2])
        alerts = "".join(line for line in lines if "Alerts:" in line)
        assert done.returncode == (1 if "healthy" not in head else 0)
        return {
            **{problem: problem in head for problem in PROBLEMS},
            "waiting": waiting >= 8,
            "target away": "webhook-2: 1 waiting" in alerts or "webhook-2: 2 waiting" in alerts,
        }

    def page(self) -> dict[str, bool]:
        health, counters = self._page.text("#health"), self._page.text("#plots .counters")
        waiting = int(counters.replace("\xa0", " ").split(" waiting ")[1].split()[0])
        return {
            **{problem: problem in health for problem in PROBLEMS},
            "waiting": waiting >= 8,
            "target away": "webhook-2: waiting 0" not in counters.replace("\xa0", " "),
        }

    def alerts(self) -> dict[str, bool]:
        last: dict[str, Any] = {}
        for request in list(self._alerts.requests):
            last[request["service"]] = request
        unhealthy = last.get("unhealthy", {"status": "OK", "description": ""})
        full = last.get("queue_full", {"status": "OK"})
        return {
            **{
                problem: unhealthy["status"] == "CRIT" and problem in unhealthy["description"]
                for problem in PROBLEMS
            },
            "waiting": full["status"] == "WARN",
        }

    def all(self) -> dict[str, Callable[[], dict[str, bool]]]:
        return {
            "status": self.status,
            "metrics": self.metrics,
            "command": self.command,
            "page": self.page,
            "alerts": self.alerts,
        }


def test_five_views_show_the_same_within_three_seconds_and_the_recovery_too(
    spawn: Callable[..., Process], page: Page
) -> None:
    with juggler_server(FakeJuggler()) as alerts, socket.socket() as away:
        # Bound, but nobody listens there.
        away.bind(("127.0.0.1", 0))
        config = CONFIG.format(url=alerts.url, away=away.getsockname()[1])
        daemon = spawn(
            *("-m", "daemonkit", "run", "mymod", "--port", "0", "--config", "cfg.yaml"),
            mymod__py=APP,
            cfg__yaml=config,
        ).wait_ready()
        views = Views(daemon, page, alerts)
        page.open(daemon.url + "/")
        page.wait_for("OK", "#health")

        daemon.post("/break")
        for number in range(11):
            daemon.post("/events", json=number)
        # The second target has waiting alerts as long as it is away.
        seen = _wait_for(views, daemon, {**dict.fromkeys(PROBLEMS, True), "waiting": True})
        assert all(view().get("target away", True) for view in views.all().values())

        daemon.post("/mend")
        mended = _wait_for(views, daemon, {**dict.fromkeys(PROBLEMS, False), "waiting": False})

    # A stall is only known after the slave's and the handler's timeout of half a second.
    assert max(seen.values()) <= daemon.soon(WITHIN + 0.5), seen
    assert max(mended.values()) <= daemon.soon(WITHIN), mended


def _wait_for(views: Views, daemon: Process, expected: dict[str, bool]) -> dict[str, float]:
    """Wait until each view says what is expected; returns after how many seconds it did."""
    began, seen = time.monotonic(), {}

    def is_shown() -> bool:
        for name, view in views.all().items():
            if name not in seen:
                found = view()
                if all(found.get(key, value) == value for key, value in expected.items()):
                    seen[name] = time.monotonic() - began
        return len(seen) == len(views.all())

    daemon.wait_until(is_shown, "agreement")
    return seen
