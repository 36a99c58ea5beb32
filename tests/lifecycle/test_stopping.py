from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import requests

from daemonkit import Daemon, Slave
from daemonkit.config.defaults import Settings
from daemonkit.lifecycle.parts import Program
from daemonkit.lifecycle.stopping import LONGEST_SHARE, Step, StopOrder
from daemonkit.lifecycle.waits import Waits
from daemonkit.monitoring.health import Health
from daemonkit.testing import running


def test_a_failing_stop_hook_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    app = Daemon("app")
    calls: list[str] = []
    app.on_stop(lambda: calls.append("first"))
    app.add_stop_hook(broken_hook)

    with running(app) as client:
        pass

    assert calls == ["first"]
    assert client.exit_status == 0
    assert "The stop hook broken_hook failed" in caplog.messages


def broken_hook() -> None:
    raise ValueError("no database")


def test_events_left_at_the_deadline_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    app = Daemon("app")
    release = threading.Event()
    app.on_event(lambda event: release.wait(30))

    with running(app, {"master": {"shutdown_timeout": 0.5}}) as client:
        for number in range(3):
            client.send_event(number)
        client.wait_until(lambda: client.status()["events"]["in_work"])
    release.set()

    assert client.exit_status == 4
    assert "3 events were left unhandled, 1 in work" in caplog.messages


def test_queued_events_are_handled_before_slaves_are_asked_to_stop() -> None:
    app = Daemon("app")
    order: list[Any] = []
    first = threading.Event()

    @app.on_event
    def handle(event: Any) -> None:
        first.set()
        app.shutdown.wait(10)
        order.append(event)

    @app.slave
    def worker(slave: Slave) -> None:
        slave.shutdown.wait()
        order.append("slave")

    with running(app) as client:
        for number in range(3):
            client.send_event(number)
        first.wait(10)

    assert order == [0, 1, 2, "slave"]
    assert client.exit_status == 0


def test_a_part_that_fails_to_stop_does_not_keep_the_others_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Daemon("app")
    with running(app, {"master": {"shutdown_timeout": 1}}) as client:
        assert app._assembly.parts is not None
        processor = app._assembly.parts.processor
        real, calls = processor.request_stop, []

        def fail() -> None:
            calls.append(1)
            real()
            raise OSError("no")

        processor.request_stop = fail  # type: ignore[method-assign]

    # Once more if its thread hasn't ended yet.
    assert len(calls) in (1, 2)
    assert "Stopping the part 'event processor' failed" in caplog.messages
    assert client.exit_status == 4


def test_users_routes_and_checks_wait_for_the_start_hooks_and_end_before_the_stop_hooks() -> None:
    app = Daemon("app")
    seen: list[Any] = []

    def ask() -> None:
        url = f"http://127.0.0.1:{app.master_config['port']}"
        hello, ping = (requests.get(url + path, timeout=60) for path in ("/hello", "/ping"))
        seen.append((hello.status_code, hello.json()["message"], ping.status_code, ping.text))

    app.on_start(ask)
    app.on_stop(ask)
    app.route("/hello", endpoint="hello")(lambda: "hi")
    app.on_ping(lambda: "mine")

    with running(app) as client:
        assert client.get("/hello").text == "hi"
        assert client.get("/ping").text == "mine"

    assert seen == [
        (503, "The daemon is starting", 503, "The daemon is starting\n"),
        (503, "The daemon is stopping", 503, "The daemon is stopping\n"),
    ]


def test_after_two_seconds_the_log_says_what_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("daemonkit.lifecycle.lifecycle.REPORT_AFTER", 0.5)
    app = Daemon("app")
    message = "Waiting for slaves (stubborn); a second signal exits at once"

    pause = threading.Event()

    @app.slave
    def stubborn() -> None:
        app.shutdown.wait()
        while message not in caplog.messages:
            pause.wait(0.01)

    with running(app) as client:
        pass

    assert client.exit_status == 0


def test_a_part_that_needs_all_of_the_deadline_gets_it() -> None:
    app = Daemon("app")
    handled: list[int] = []

    @app.on_event
    def handle(event: Any) -> None:
        threading.Event().wait(2)
        handled.append(event)

    with running(app, {"master": {"shutdown_timeout": 3}}) as client:
        client.send_event(1)
        client.wait_until(lambda: client.status()["events"]["in_work"])

    assert handled == [1]
    assert client.exit_status == 0


class Recorder:
    """A part that records how long it may take to stop."""

    def __init__(self, name: str, notes: list[tuple[str, float]]) -> None:
        self.name = name
        self.notes = notes

    def start(self) -> None: ...

    def request_stop(self) -> None: ...

    def join(self, timeout: float) -> bool:
        self.notes.append((self.name, timeout))
        return True

    def running_threads(self) -> list[threading.Thread]:
        return []

    def problems(self) -> list[Any]:
        return []


def stop_order() -> StopOrder:
    return StopOrder(
        Program(
            logging.getLogger("app"),
            threading.Event(),
            run=lambda: None,
            start_hooks=[],
            stop_hooks=[],
            stop_reason=lambda: "",
            wait_for_reload=lambda timeout: None,
        ),
        Health(),
        Waits(lambda: None),
        Settings(shutdown_timeout=1000),
    )


def test_a_part_is_shown_with_its_threads_and_the_processor_with_what_waits() -> None:
    app, order = Daemon("app"), stop_order()
    release = threading.Event()
    app.on_event(lambda event: release.wait(30))
    with running(app) as client:
        for number in range(3):
            client.send_event(number)
        client.wait_until(lambda: client.status()["events"]["in_work"])
        order.parts = parts = app._assembly.parts
        assert parts is not None
        shown = [order._describe(part) for part in (parts.processor, parts.udp, parts.queue)]
        release.set()

    assert shown == ["event processor (events, 2 in the queue)", "udp (udp)", "event queue"]


def test_each_step_leaves_a_share_of_the_time_to_every_later_one() -> None:
    notes: list[tuple[str, float]] = []
    order = stop_order()
    parts = [Recorder(name, notes) for name in "abc"]
    order._steps = lambda: [  # type: ignore[method-assign]
        order._stop(parts[0]),
        Step(lambda left: notes.append(("hook", left())), share=False),
        order._stop(parts[1], in_main=True),
        order._stop(parts[2], in_main=True),
    ]
    order.walk(in_main=False)
    assert [name for name, _ in notes] == ["a", "hook"]
    order.walk(in_main=True)

    assert [name for name, _ in notes] == ["a", "hook", "b", "c"]
    kept = [round((1000 - left) / LONGEST_SHARE, 1) for _, left in notes]
    assert [round(each) for each in kept] == [2, 2, 1, 0]
