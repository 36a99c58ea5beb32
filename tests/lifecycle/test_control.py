"""What an operator may do with a running daemon."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon, Secret
from daemonkit.lifecycle.control import KEPT
from daemonkit.testing import Client, running

from ..supervision.slaves import slave_status

Reply = tuple[int, Any]


class Operator:
    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, verb: str, **fields: Any) -> Reply:
        answer = self.client.post(f"/control/{verb}", json=fields)
        body = answer.json()
        assert body["result"] is (answer.status_code == 200)
        return answer.status_code, body["message"]


@contextmanager
def operated(app: Daemon, **master: Any) -> Iterator[tuple[Client, Operator]]:
    with running(app, {"master": master}) as client:
        yield client, Operator(client)


def test_paused_events_are_taken_in_and_handled_after_the_pause() -> None:
    app, handled = Daemon("app"), []
    app.on_event(handled.append)
    with operated(app) as (client, control):
        client.send_event(1)
        client.wait_until(lambda: handled == [1])
        assert control("pause", events=True) == (200, "Events are paused")
        for number in (2, 3):
            client.send_event(number)
        status = client.status()
        ping, ready = client.get("/ping"), client.get("/ready")
        metrics, summary = client.get("/metrics").text, app._health.summary()
        again = control("pause", events=True)
        assert control("resume", events=True) == (200, "Events are no longer paused")
        client.wait_until(lambda: handled == [1, 2, 3])
        after = client.status()["paused"], client.get("/ping").text
        assert control("resume", events=True) == (200, "Events are not paused")

    assert again == (200, "Events are already paused")
    assert (status["events"]["waiting"], status["events"]["handled"]) == (2, 1)
    since, by = status["paused"]["events"].values()
    assert by.startswith("127.0.0.1:")
    line = f"events (by {by} since {since[:19]})"
    assert (ping.status_code, ping.text) == (200, f"OK\nPaused: {line}\n")
    assert (ready.status_code, ready.json()["message"]) == (200, f"Ready; paused: {line}")
    assert after == ({}, "OK\n")
    assert "daemonkit_events_paused 1.0" in metrics
    assert summary == f"running; paused: {line}", "what systemd shows"


def test_a_stop_drains_the_events_of_a_pause() -> None:
    app, handled = Daemon("app"), []
    app.on_event(handled.append)
    with operated(app) as (client, control):
        control("pause", events=True)
        client.send_event(1)

    assert (handled, client.exit_status) == ([1], 0)


def test_a_stop_leaves_the_events_of_a_pause_in_the_file(tmp_path: Path) -> None:
    queue, handled = str(tmp_path / "events.db"), []
    first, second = Daemon("first"), Daemon("second")
    for app in (first, second):
        app.on_event(handled.append)
    with operated(first, queue=queue) as (client, control):
        control("pause", events=True)
        client.send_event(1)
    assert handled == []
    with operated(second, queue=queue) as (client, _):
        client.wait_until(lambda: handled == [1])


def test_the_name_of_the_pause_follows_a_health_check_of_the_program_s_own() -> None:
    app = Daemon("app")
    app.on_ping(lambda: "fine")
    with operated(app) as (client, control):
        control("pause", events=True)

        assert client.get("/ping").text.startswith("fine\nPaused: events (by ")


def test_a_periodic_slave_is_paused_resumed_and_called_now() -> None:
    app, calls = Daemon("app"), []
    app.add_slave(lambda: calls.append(1), name="sweep", every=3600)
    with operated(app) as (client, control):
        client.wait_until(lambda: calls)
        assert control("pause", slave="sweep") == (200, "The slave sweep is paused")
        paused = client.status()["paused"]["slaves"]["sweep"]
        assert client.get("/ping").text.startswith("OK\nPaused: slave sweep (by ")
        assert control("run-now", slave="sweep") == (200, "The slave sweep is called now")
        client.wait_until(lambda: len(calls) == 2)
        assert control("resume", slave="sweep") == (200, "The slave sweep is no longer paused")
        assert client.status()["paused"] == {}

    assert paused["by"].startswith("127.0.0.1:")


def test_what_isn_t_possible_now_is_said() -> None:
    app = Daemon("app")
    app.add_slave(lambda slave: slave.shutdown.wait(), name="work")
    with operated(app) as (_, control):
        answers = [
            control("pause", slave="work"),
            control("run-now", slave="work"),
            control("restart", slave="workk"),
            control("level", level="INFO", logger="no.such.logger"),
            control("retry", ids=[7]),
            control("drop", all=True),
        ]

    assert answers == [
        (409, "The slave 'work' isn't called periodically (every)"),
        (409, "The slave 'work' isn't called periodically (every)"),
        (404, "There is no slave 'workk'; did you mean 'work'?"),
        (404, "There is no logger no.such.logger"),
        (404, "0 failed events are retried; not there: 7"),
        (200, "0 failed events are dropped"),
    ]


def test_a_slave_is_restarted_and_no_restart_is_counted() -> None:
    app, runs = Daemon("app"), []

    @app.slave
    def work(slave: Any) -> None:
        runs.append(slave)
        slave.shutdown.wait()

    with operated(app) as (client, control):
        assert control("restart", slave="work") == (200, "The slave work runs again")
        status = slave_status(client, "work")

    assert (len(runs), status["restarts"]) == (2, 0)


def test_the_answer_doesn_t_wait_long_for_a_slave_that_stops_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.lifecycle.control.RESTART_WAIT", 0.05)
    app, may_stop, runs = Daemon("app"), threading.Event(), []

    @app.slave
    def work(slave: Any) -> None:
        runs.append(slave)
        slave.shutdown.wait()
        may_stop.wait(10)

    with operated(app) as (client, control):
        answer = control("restart", slave="work")
        may_stop.set()
        client.wait_until(lambda: len(runs) == 2)

    assert answer == (200, "The slave work is being restarted; it hasn't stopped yet")


def test_the_answer_names_the_state_of_a_slave_that_has_ended_again() -> None:
    app = Daemon("app")

    @app.slave
    def once() -> None: ...

    with operated(app) as (client, control):
        client.wait_until(lambda: slave_status(client, "once")["state"] == "finished")
        answer = control("restart", slave="once")

    assert answer == (200, "The slave once was restarted, and has ended again")


def test_a_slave_that_waits_for_others_to_stop_isn_t_said_to_be_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.lifecycle.control.RESTART_WAIT", 0.05)
    app, may_stop = Daemon("app"), threading.Event()

    @app.slave
    def connection(slave: Any) -> None:
        slave.shutdown.wait()

    @app.slave(after="connection", bound=True)
    def poller(slave: Any) -> None:
        slave.shutdown.wait()
        may_stop.wait(10)

    with operated(app) as (_, control):
        answer = control("restart", slave="connection")
        may_stop.set()

    assert answer == (200, "The slave connection is being restarted; it hasn't stopped yet")


def test_stacks_show_all_threads_or_that_of_a_slave() -> None:
    app = Daemon("app")

    @app.slave
    def work(slave: Any) -> None:
        slave.shutdown.wait()

    with operated(app) as (client, control):
        _, every = control("stacks")
        _, one = control("stacks", slave="work")
        actions = client.status()["actions"]

    assert "work (thread id" in every
    assert "events (thread id" in every
    assert "slave.shutdown.wait()" in one
    assert "events (thread id" not in one
    assert actions == []


def test_stop_stops_the_daemon_and_the_log_says_who_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app = Daemon("app")
    with operated(app) as (client, control):
        assert control("stop") == (200, "The daemon is stopping")
        assert app.shutdown.wait(10)

    assert client.exit_status == 0
    assert any(
        line.startswith("Stopping: asked by 127.0.0.1:") and line.endswith("(control)")
        for line in caplog.messages
    )


def test_a_reload_says_how_it_went(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("a: 1\n")
    app = Daemon("app")
    with running(app, str(path)) as client:
        control = Operator(client)
        path.write_text("a: 2\n")
        good = control("reload")
        path.write_text("a: [\n")
        bad = control("reload")
        failed = client.status()["reload_failed"]
        path.write_text("a: 3\n")
        control("reload")
        after = client.status()["reload_failed"]

    assert good == (200, "Reloaded")
    assert bad[0] == 409
    assert bad[1].startswith("Not reloaded, the old configuration stays: ")
    assert bad[1].endswith(failed["error"])
    assert failed["error"].startswith(f"{path}:")
    assert (app.config, after) == ({"a": 3}, None)


def test_each_action_is_logged_and_listed_with_who_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with operated(Daemon("app")) as (client, control):
        for _ in range(KEPT):
            control("run-now", slave="nobody")
        control("resume", events=True)
        control("drop", all=True, state="retrying", error="Time out")
        actions = client.status()["actions"]

    by = actions[-1]["by"]
    assert by.startswith("127.0.0.1:")
    assert len(actions) == KEPT
    found = [(a["action"], a["ok"], a["outcome"]) for a in actions[-3:]]
    assert found == [
        ("run-now nobody", False, "There is no slave 'nobody'"),
        ("resume events", True, "Events are not paused"),
        ("drop all state retrying error ...", True, "0 failed events are dropped"),
    ]
    # What was looked for may be a text of an event.
    control_lines = [r for r in caplog.records if r.getMessage().startswith("Control: ")]
    assert len(control_lines) == KEPT + 2
    assert control_lines[-1].getMessage() == (
        f"Control: drop all state retrying error Time out, by {by}: 0 failed events are dropped"
    )
    assert control_lines[1].levelno == logging.WARNING


def test_an_action_is_logged_even_if_its_level_leaves_it_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with operated(Daemon("app")) as (_, control):
        control("level", level="CRITICAL")
        control("pause", events=True)

    lines = [line.split(",")[0] for line in caplog.messages if line.startswith("Control: ")]
    assert lines == ["Control: level CRITICAL", "Control: pause events"]


def test_who_is_refused_control_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with operated(Daemon("app")) as (client, _):
        for _ in range(2):
            client.post("/control/stop", headers={"Via": "1.1 proxy"})
        client.post("/control/pause", json={"event": True})
        client.post("/control/pause", data="{")

    what = "Refused a request for control: "
    lines = [line for line in caplog.messages if line.startswith(what)]
    *lines, more = [re.sub(r":\d+: ", ": ", line.removeprefix(what)) for line in lines]
    assert re.match(r"1 more in the last \d+ s, last: POST /control/stop, by ", more)
    assert lines == [
        "POST /control/stop, by 127.0.0.1: 403 Forbidden: "
        "Without a token for it, control is for clients on the same machine",
        "POST /control/pause, by 127.0.0.1: 400 Bad Request: "
        'The body must be {"events": true} or {"slave": NAME}',
        "POST /control/pause, by 127.0.0.1: Invalid JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ]


def test_failed_events_are_listed_retried_and_dropped() -> None:
    app, fails = Daemon("app"), True

    @app.on_event
    def handle(event: Any) -> None:
        if fails:
            raise ValueError(f"no {event}")

    with operated(app) as (client, control):
        for number in range(5):
            client.send_event(number)
        client.wait_until(lambda: client.status()["events"]["dead"] == 5)
        page = client.get("/status/failed?limit=2").json()["message"]
        rest = client.get(f"/status/failed?before={page['events'][1]['id']}").json()["message"]
        fails = False
        ids = [event["id"] for event in page["events"]]
        control("pause", events=True)
        one = control("retry", ids=[ids[0]])
        control("resume", events=True)
        client.wait_until(lambda: client.status()["events"]["handled"] == 1)
        two = control("drop", ids=ids)
        every = control("retry", all=True, error="value")
        client.wait_until(lambda: client.status()["events"]["handled"] == 4)
        left = client.get("/status/failed").json()["message"]

    assert [event["error"] for event in page["events"]] == ["ValueError"] * 2
    assert (page["count"], page["more"]) == (5, True)
    assert (len(rest["events"]), rest["more"]) == (3, False)
    assert one == (200, "1 failed event is retried after the pause")
    assert two == (
        200,
        f"1 failed event is dropped; not there: {ids[0]}",
    )
    assert every == (200, "3 failed events are retried")
    assert left == {"events": [], "count": 0, "more": False}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("state=waiting", "state must be dead or retrying"),
        ("limit=x", "limit must be a whole number"),
        ("limit=201", "limit must be in 1..200"),
        ("before=-1", "before must be a whole number"),
    ],
)
def test_a_wrong_query_is_refused(query: str, message: str) -> None:
    with operated(Daemon("app")) as (client, _):
        answer = client.get(f"/status/failed?{query}")

    assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_a_token_without_the_right_is_named(caplog: pytest.LogCaptureFixture) -> None:
    tokens = {
        name: {"token": Secret(name * 10), "may": [may]}
        for name, may in {"grafana": "read", "oncall": "control"}.items()
    }
    with operated(Daemon("app"), tokens=tokens) as (client, _):
        for name, more in {"grafana": {}, "oncall": {"Origin": "http://x" + "x" * 9000}}.items():
            client.post("/control/stop", headers={"Authorization": f"Bearer {name * 10}", **more})

    first, second = (line for line in caplog.messages if line.startswith("Refused"))
    assert first.endswith("by grafana: 403 Forbidden: The token grafana may not control")
    assert "by oncall: 403 Forbidden: A page of another site sent this (Origin: http://xx" in second
    assert len(second) < 400


def test_while_the_daemon_starts_only_what_helps_then_is_possible(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, answers = Daemon("app"), []

    @app.on_start
    def ask() -> None:
        client = Client("127.0.0.1", 10, app.master_config["port"])
        control = Operator(client)
        answers.extend([control("pause", events=True), control("level", level="DEFAULT")])

    with operated(app):
        pass

    assert answers[0] == (503, "The daemon is starting")
    assert any(
        line.startswith("Control: pause events, by ") and line.endswith(": The daemon is starting")
        for line in caplog.messages
    )
    assert answers[1][0] == 200


def test_the_status_says_which_rights_the_caller_has() -> None:
    with operated(Daemon("app")) as (client, _):
        near = client.status()["rights"]
        proxied = client.get("/status", headers={"Via": "1.1 proxy"}).json()["message"]["rights"]

    assert (near, proxied) == (["send", "read", "control"], ["send", "read"])


def test_a_reload_names_what_needs_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("master: {queue_size: 5}\n")
    with running(Daemon("app"), str(path)) as client:
        path.write_text("master: {queue_size: 6}\n")
        answer = Operator(client)("reload")

    text = "Reloaded; changed, but in force only after a restart: master.queue_size"
    assert answer == (200, text)


def test_a_reload_that_a_stop_overtakes_is_answered_at_once() -> None:
    app, answers = Daemon("app"), []
    with operated(app) as (client, control):
        control("reload")
        # The next one would have to wait for a second.
        thread = threading.Thread(target=lambda: answers.append(control("reload")))
        thread.start()
        client.wait_until(lambda: app._reloader._waiting)
        app.stop()
        thread.join(10)

    assert answers == [(409, "Not reloaded: the daemon is stopping")]


def test_a_pause_is_named_beside_a_problem() -> None:
    app = Daemon("app")
    app.add_slave(lambda: 1 / 0, name="broken", restart="never", critical=False)
    with operated(app) as (client, control):
        control("pause", events=True)
        client.wait_until(lambda: client.get("/ping").status_code == 503)
        text = client.get("/ping").text

    assert text.startswith("the slave broken has failed\nPaused: events (by ")


def test_the_stack_of_a_slave_that_does_not_stop_is_shown() -> None:
    app, may_stop = Daemon("app"), threading.Event()

    @app.slave
    def stuck() -> None:
        may_stop.wait(30)

    with operated(app) as (client, control):
        client.wait_until(lambda: slave_status(client, "stuck")["started"])
        app.stop()
        client.wait_until(lambda: client.status()["waiting_for"] == ["slaves (stuck)"])
        answer, unknown = control("stacks", slave="stuck"), control("stacks", slave="nobody")
        may_stop.set()

    assert answer[0] == 200
    assert "may_stop.wait(30)" in answer[1]
    assert unknown == (404, "There is no slave 'nobody'")
