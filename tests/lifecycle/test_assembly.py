from __future__ import annotations

import json
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Secret, StartError
from daemonkit.lifecycle.parts import Host
from daemonkit.testing import running


def test_routes_that_flask_refuses_are_reported_in_one_line() -> None:
    app = Daemon("app")
    app.route("/<int:")(lambda: "never")

    with (
        pytest.raises(RegistrationError, match="^cannot register the routes: "),
        running(app),
    ):
        pass


def test_the_configuration_has_the_address_of_the_sockets_from_systemd() -> None:
    app = Daemon("app")
    app.configure({"master": {"host": "::1", "port": 7000}})
    tcp, udp = (socket.socket(type=kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
    tcp.bind(("127.0.0.1", 0))
    bound = app._assembly._bind(Host(sockets=[tcp, udp]))
    bound.close()

    shown = app.master_config["host"], app.master_config["port"]
    assert shown == ("127.0.0.1", bound.port)


@pytest.fixture
def durable(tmp_path: Path) -> dict[str, Any]:
    return {"master": {"queue": str(tmp_path / "events.db")}}


def test_events_that_a_stop_leaves_in_the_file_are_handled_after_the_next_start(
    durable: dict[str, Any],
) -> None:
    first, second = Daemon("first"), Daemon("second")
    handled: list[tuple[Any, str]] = []

    @first.on_event
    def wait(event: Any) -> None:
        assert first._assembly.parts is not None
        while not first._assembly.parts.queue._waiting.closed:  # type: ignore[attr-defined]
            first.shutdown.wait(0.002)
        handled.append((event, "first"))

    @second.on_event
    def note(event: Any, meta: Any) -> None:
        handled.append((event, meta.source))

    with running(first, durable) as client:
        client.send_event(1)
        client.wait_until(lambda: client.status()["events"]["in_work"])
        client.send_event({"a": 2})
        client.post(
            "/events", data="3\n4", headers={"Content-Type": "application/x-ndjson"}
        ).raise_for_status()
        first.put_event([5])
        client.send_datagram(b"6")
        client.wait_until(lambda: client.status()["events"]["received"] == 6)
        status = client.status()
    assert client.exit_status == 0
    assert handled == [(1, "first")]
    with running(second, durable) as client:
        client.wait_until(lambda: len(handled) == 6)

    assert handled[1:] == [({"a": 2}, "http"), (3, "http"), (4, "http"), ([5], "app"), (6, "udp")]
    assert status["http"]["fast_lane"] == "open"
    assert status["http"]["fast_events"] == 4
    events = status["events"]
    assert 0 <= events.pop("oldest_age") < 10
    assert events == {
        "received": 6,
        "refused": 0,
        "sources": {"app": 1, "http": 4, "udp": 1},
        "refusals": {},
        "waiting": 5,
        "retrying": 0,
        "retried": 0,
        "dead": 0,
        "dead_now": 0,
        "in_work": 1,
        "handled": 0,
        "failed": 0,
    }


def test_a_failing_event_is_retried_across_a_restart_and_then_kept(durable: dict[str, Any]) -> None:
    attempts: list[int] = []

    def daemon() -> Daemon:
        app = Daemon("app")

        @app.on_event(retries=2, backoff=2)
        def handle(event: Any, meta: Any) -> None:
            attempts.append(meta.attempt)
            raise ValueError("no")

        return app

    with running(daemon(), durable) as client:
        client.send_event(1)
        client.wait_until(lambda: client.status()["events"]["retrying"])
    assert attempts == [1]
    with running(daemon(), durable) as client:
        client.wait_until(lambda: client.status()["events"]["dead"])

        assert attempts == [1, 2, 3]
        assert client.status()["events_queue"] == 0
        assert client.get("/ping").status_code == 200


SENDER = {
    "shop": Secret("s" * 16),
    "oncall": {"token": Secret("c" * 16), "may": ["control"]},
}


def test_the_log_of_a_call_leads_to_its_sender_and_its_dead_letter(tmp_path: Path) -> None:
    """Although the handler takes no meta."""
    app, path = Daemon("app"), tmp_path / "app.log"

    @app.on_event
    def handle(event: Any) -> None:
        app.logger.info("handling")
        raise ValueError(event)

    master = {"tokens": SENDER, "intake": ["http"], "log_file": str(path), "log_format": "json"}
    with running(app, {"master": master}) as client:
        for number in range(2):
            sent = client.post(
                "/events", json=number, headers={"Authorization": f"Bearer {'s' * 16}"}
            )
            assert sent.status_code == 200
        client.wait_until(lambda: client.status()["events"]["dead"] == 2)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        logged = [line for line in lines if line["message"] == "handling"]
        control = {"Authorization": f"Bearer {'c' * 16}"}
        shown = client.post("/control/show", json={"id": logged[1]["event"]}, headers=control)

    assert [(line["event"], line["sender"]) for line in logged] == [(1, "shop"), (2, "shop")]
    assert shown.json()["message"]["event"] == "1"


def test_a_file_is_used_by_one_daemon_at_a_time(durable: dict[str, Any]) -> None:
    with (
        running(Daemon("first"), durable),
        pytest.raises(StartError, match=r"is in use by process \d+ \(first, since "),
        running(Daemon("second"), durable),
    ):
        pass


def test_a_failed_start_leaves_the_file_to_others(durable: dict[str, Any]) -> None:
    with running(Daemon("other")) as client:
        taken = {"master": {**durable["master"], "port": client.port, "host": "127.0.0.1"}}
        with pytest.raises(StartError, match="in use"), running(Daemon("app"), taken):
            pass
    with running(Daemon("app"), durable) as client:
        client.send_event(1)


def test_events_queued_before_the_configuration_is_known_go_to_its_file(
    durable: dict[str, Any],
) -> None:
    app = Daemon("app")
    app.put_event(1)
    app.configure(durable)
    app.put_event({"a": 2})
    assert not Path(durable["master"]["queue"]).exists()

    @app.on_start
    def kill() -> None:
        raise OSError("no")

    with pytest.raises(StartError, match="kill"), running(app, durable):
        pass
    handled: list[Any] = []
    again = Daemon("again")
    again.on_event(handled.append)
    with running(again, durable) as client:
        client.wait_until(lambda: len(handled) == 2)

    assert handled == [1, {"a": 2}]


@pytest.mark.parametrize("file", ["events.db", None])
def test_events_put_before_the_start_keep_their_meta(tmp_path: Path, file: str | None) -> None:
    app = Daemon("app")
    handled: list[Any] = []
    app.on_event(lambda event, meta: handled.append((event, meta.source, meta.attempt)))
    app.put_event({"a": 1})
    with running(app, {"master": {"queue": file and str(tmp_path / file)}}) as client:
        client.wait_until(lambda: handled)

    assert handled == [({"a": 1}, "app", 1)]


def test_more_events_put_before_the_start_than_fit_are_a_start_error(
    durable: dict[str, Any],
) -> None:
    master = {**durable["master"], "queue_size": 2}
    for _ in range(2):
        app = Daemon("app")
        app.on_event(lambda event: event["no"])
        app.put_event(1)
        app.on_start(lambda: 1 / 0)
        with pytest.raises(StartError), running(app, {"master": master}):
            pass
    app = Daemon("app")
    app.put_event(1)
    message = r"^the events that were put before the start: The event queue is full \(2 events\)$"
    with pytest.raises(StartError, match=message), running(app, {"master": master}):
        pass


def test_a_queue_s_path_is_resolved_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Daemon("app")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "really.db").touch()
    (tmp_path / "events %20?#й.db").symlink_to("really.db")
    with running(app, {"master": {"queue": "events %20?#й.db"}}) as client:
        monkeypatch.chdir("/")
        client.send_event(1)
        client.wait_until(lambda: client.status()["events"]["handled"])
        assert client.status()["problems"] == []
    assert (tmp_path / "really.db-lock").exists()


def test_a_lost_file_is_refused_and_reported_everywhere(durable: dict[str, Any]) -> None:
    app = Daemon("app")
    with running(app, durable) as client:
        client.send_event(1)
        Path(durable["master"]["queue"]).unlink()
        answers = [
            client.post("/events", data="2"),
            client.post("/events", data="2", headers={"Cookie": "a=b"}),
        ]
        ping = client.get("/ping")
        problems = client.status()["problems"]

    path = durable["master"]["queue"]
    text = f"{path} was removed: the event queue refuses events until a restart"
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json() == {"message": text, "result": False}
        assert answer.headers["Retry-After"] == "5"
    assert (ping.status_code, ping.text) == (503, text + "\n")
    assert problems == [text]


def fail_once(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> threading.Event:
    """Make a method raise the next time it is called; returns an event that is set then."""
    real, failed = getattr(target, name), threading.Event()

    def method(*arguments: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise ValueError("no")
        return real(*arguments)

    monkeypatch.setattr(target, name, method)
    return failed


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("timer", ""),
        ("udp", "_read_batch"),
        ("server", "_handle_ready"),
        ("queue", "_save"),
        ("", ""),
    ],
)
def test_a_log_that_raises_ends_no_thread_of_a_part_that_fails(
    durable: dict[str, Any], part: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, failed, dead = Daemon("app"), threading.Event(), []

    @app.on_event
    def handle(event: Any) -> None:
        if not part:
            failed.set()
            raise ValueError("no")

    @app.on_dead_letter
    def refuse(event: Any, failure: Any) -> None:
        raise ValueError("no")

    app.on_dead_letter(lambda event, failure: dead.append(event))

    def raises(record: logging.LogRecord) -> bool:
        raise OSError("no disk")

    with running(app, durable) as client:
        assert app._assembly.parts is not None
        if part == "timer":
            app._assembly.parts.timer.add(lambda now: failed.set() or now / 0)
        elif part:
            failed = fail_once(monkeypatch, getattr(app._assembly.parts, part), method)
        app.logger.addFilter(raises)
        try:
            app._assembly.parts.timer.wake()
            client.send_datagram(b"1")
            client.send_event(2)
            assert failed.wait(10)
            client.send_event(3)
            key = "handled" if part else "dead"
            client.wait_until(lambda: client.status()["events"][key] == 3)
            assert client.get("/ping").text == "OK\n"
        finally:
            app.logger.removeFilter(raises)

    assert client.exit_status == 0
    assert sorted(dead) == ([] if part else [1, 2, 3])
