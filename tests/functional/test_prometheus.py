"""The metrics as Debian's Prometheus sees them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from daemonkit import Daemon
from daemonkit.system.outgoing import open_session
from daemonkit.testing import Client, running

from ..supervision.slaves import slave_status
from .process import Process
from .tools import need

Run = Callable[..., Process]

DOCS = Path(__file__).parents[2] / "docs"
APP = """\
from daemonkit import Daemon

app = Daemon("billing")
app.add_slave(lambda: None, name="sweep", every=3600)


@app.slave
def poller(slave):
    slave.shutdown.wait()


@app.metric(labels=["plan"])
def users():
    return {"free": 1}


@app.on_event
def handle(event):
    if event == "fail":
        raise ValueError("no such plan")
"""


@contextmanager
def running_prometheus(folder: Path, target: str) -> Iterator[Callable[..., Any]]:
    """A Prometheus that scrapes the target every second, with the rules of the docs; yields a
    function that asks its API."""
    rules = yaml.safe_load((DOCS / "alert-rules.yaml").read_text("utf-8"))
    for rule in rules["groups"][0]["rules"]:
        # The test doesn't wait for minutes.
        rule["for"] = "0s"
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yml"],
                "scrape_configs": [
                    {"job_name": "daemons", "static_configs": [{"targets": [target]}]}
                ],
            }
        )
    )
    path = folder / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                "--web.listen-address=127.0.0.1:0",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )

    def ask(name: str, **query: str) -> Any:
        with open_session() as session:
            reply = session.get(f"http://{address}/{name}", params=query, timeout=60)
        return reply.json() if name.startswith("api/") else reply

    def port() -> str | None:
        assert process.poll() is None, path.read_text()
        found = re.search(r'"Listening on" address=127.0.0.1:(\d+)', path.read_text())
        return found and found[1]

    client = Client("", 60)
    try:
        address = f"127.0.0.1:{client.wait_until(port)}"
        client.wait_until(lambda: ask("-/ready").ok)
        yield ask
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_promtool_has_nothing_to_say(run_app: Run) -> None:
    need("promtool")
    process = run_app(APP).wait_ready()
    process.post("/events", json="fail").raise_for_status()
    text = process.get("/metrics").text
    checks = [
        subprocess.run(
            ["promtool", "check", what, *more],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        for what, more, given in (
            ("metrics", [], text),
            ("rules", [str(DOCS / "alert-rules.yaml")], ""),
        )
    ]

    assert (checks[0].returncode, checks[0].stdout, checks[0].stderr) == (0, "", "")
    assert checks[1].returncode == 0, checks[1].stdout + checks[1].stderr


def test_an_alert_fires_and_every_expression_of_the_dashboard_is_valid(
    run_app: Run, tmp_path: Path
) -> None:
    need("prometheus")
    process = run_app(APP).wait_ready()
    process.get("/metrics").raise_for_status()
    folder = tmp_path / "prometheus"
    folder.mkdir()
    target = process.url.removeprefix("http://")
    with running_prometheus(folder, target) as ask:

        def firing() -> set[str]:
            alerts = ask("api/v1/alerts")["data"]["alerts"]
            return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

        def value(query: str) -> list[str]:
            return [r["value"][1] for r in ask("api/v1/query", query=query)["data"]["result"]]

        process.wait_until(lambda: value("daemonkit_ready") == ["1"])
        assert firing() == set()
        process.post("/events", json="fail").raise_for_status()
        process.wait_until(lambda: firing() == {"DeadLetters"})
        process.post("/control/drop", json={"all": True}).raise_for_status()
        process.wait_until(lambda: firing() == set())

        for expression in expressions():
            answer = ask("api/v1/query", query=expression)
            assert answer["status"] == "success", (expression, answer)


def expressions() -> list[str]:
    """Those of the dashboard, with values for Grafana's variables."""
    dashboard = json.loads((DOCS / "grafana.json").read_text("utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    values = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}
    for name, text in values.items():
        found = [expression.replace(name, text) for expression in found]
    return found


OF_SHARED_QUEUES = ("dead_letters_discarded_total", "queue_engine_up", "queue_nodes")
"""See tests/functional/test_shared.py."""


@pytest.mark.parametrize("source", ["alert-rules.yaml", "grafana.json", "metrics.md"])
def test_the_docs_name_metrics_that_exist(source: str) -> None:
    app = Daemon("app")
    app.add_slave(lambda: None, name="sweep", every=3600)
    with running(app) as client:
        client.wait_until(lambda: slave_status(client, "sweep")["last_success"])
        # An answer is counted once it is sent.
        client.wait_until(lambda: "_requests_total" in client.get("/metrics").text)
        text = client.get("/metrics").text
    existing = {sample.name for family in parse(text) for sample in family.samples}
    existing |= {f"daemonkit_{name}" for name in OF_SHARED_QUEUES}
    page = (DOCS / source).read_text("utf-8")
    if source == "metrics.md":
        named = {
            f"daemonkit_{name}" for name in re.findall(r"^\| `(\w+)(?:\{.*\})?` \|", page, re.M)
        }
        own = {name for name in existing if name.startswith("daemonkit_")}
        histogram = "daemonkit_handler_duration_seconds"
        assert named == {name for name in own if not name.startswith(histogram)} | {histogram}
    else:
        named = set(re.findall(r"\bdaemonkit_\w+", page))
        assert named <= existing
        assert len(named) > 8
