from __future__ import annotations

import errno
import logging
import threading
from typing import Any

import pytest
import requests

from daemonkit import Daemon, Slave, StartError
from daemonkit.monitoring.health import STOPPING
from daemonkit.testing import Client, running


def test_start_and_stop_hooks_run_in_order() -> None:
    app = Daemon("app")
    calls: list[str] = []

    def note(name: str) -> Any:
        return lambda: calls.append(name)

    for name in ("a", "b"):
        app.on_start(note(f"start {name}"))
        app.on_stop(note(f"stop {name}"))

    @app.slave
    def worker(slave: Slave) -> None:
        calls.append("slave")
        slave.shutdown.wait()
        calls.append("slave over")

    @app.main
    def main() -> None:
        calls.append("main")
        app.shutdown.wait()

    with running(app) as client:
        client.wait_until(lambda: {"slave", "main"} <= set(calls))

    assert calls[:2] == ["start a", "start b"]
    assert calls[-3:] == ["slave over", "stop b", "stop a"]


def broken_hook() -> None:
    raise ValueError("no database")


def test_a_failing_start_hook_stops_the_start(caplog: pytest.LogCaptureFixture) -> None:
    app = Daemon("app")
    app.on_start(broken_hook)
    app.slave(name="never")(lambda: None)

    with (
        pytest.raises(StartError, match="^the start hook broken_hook failed: ValueError: no data"),
        running(app),
    ):
        pass

    assert app._assembly.parts is not None
    assert [child.slave for child in app._assembly.parts.supervisor.slaves()] == [None]


def test_a_start_hook_may_queue_events_and_add_slaves() -> None:
    app = Daemon("app")
    events: list[Any] = []
    ran: list[str] = []
    app.on_event(events.append)

    @app.on_start
    def prepare() -> None:
        app.put_event("first")
        app.run_slave(lambda: ran.append("slave"), name="extra")

    with running(app) as client:
        client.wait_until(lambda: events and ran)

    assert events == ["first"]


def test_while_start_hooks_run_http_answers_and_events_are_refused() -> None:
    app = Daemon("app")
    seen: dict[str, Any] = {}

    @app.on_start
    def slow_start() -> None:
        url = f"http://127.0.0.1:{app.master_config['port']}"
        seen["ping"] = requests.get(f"{url}/ping", timeout=60).text
        answer = requests.post(f"{url}/events", data=b"1", timeout=60)
        seen["event"] = (answer.status_code, answer.json()["message"])

    with running(app):
        pass

    assert seen == {
        "ping": "The daemon is starting\n",
        "event": (503, "The daemon is starting"),
    }


def test_stop_during_start_stops_cleanly() -> None:
    app = Daemon("app")
    later: list[str] = []
    app.on_start(app.stop)
    app.on_start(lambda: later.append("hook"))
    app.main(lambda: later.append("main"))
    app.configure({"master": {"host": "127.0.0.1", "port": 0}})

    assert app.serve() == 0
    assert later == []


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(0), KeyboardInterrupt()])
def test_a_run_that_raises_ends_the_daemon_with_1(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app = Daemon("app")

    @app.main
    def main() -> None:
        raise error

    with running(app) as client:
        assert app.shutdown.wait(5)

    assert client.exit_status == 1
    assert "run() failed" in caplog.messages


def test_a_run_that_starts_a_slave_while_the_daemon_stops_has_not_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    app = Daemon("app")

    @app.main
    def main() -> None:
        app.stop()
        client.wait_until(lambda: app._health.phase == STOPPING)
        # From here on the supervisor refuses slaves.
        client.wait_until(lambda: app._assembly.supervisor._graph.is_closed)  # type: ignore[union-attr]
        app.run_slave(lambda: None, name="late")

    client = Client("127.0.0.1", timeout=30)
    with running(app) as running_client:
        # Otherwise the end of the block might stop it before run() is called.
        assert app.shutdown.wait(30)

    assert running_client.exit_status == 0
    assert "run() has ended: the daemon is stopping: late is not started" in caplog.messages


def test_a_mistake_in_run_is_a_failure_although_the_daemon_is_stopping() -> None:
    app = Daemon("app")

    @app.main
    def main() -> None:
        app.stop()
        app.run_slave("no function")  # type: ignore[call-overload]

    with running(app) as client:
        assert app.shutdown.wait(30)

    assert client.exit_status == 1


def test_a_run_that_returns_leaves_the_daemon_running() -> None:
    app = Daemon("app")
    returned = threading.Event()
    app.main(returned.set)

    with running(app) as client:
        returned.wait(5)
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


def test_a_part_that_cannot_start_is_a_start_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("daemonkit.events.processor.Processor.start", refuse)

    with (
        pytest.raises(StartError, match="^cannot start: RuntimeError: can't start new thread$"),
        running(Daemon("app")),
    ):
        pass


def test_out_of_descriptors_is_a_start_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("daemonkit.events.udp.os.pipe", refuse)
        with (
            pytest.raises(StartError, match=r"^cannot start: \[Errno 24\] Too many open files$"),
            running(Daemon("app")),
        ):
            pass


def test_a_log_that_raises_does_not_keep_slaves_from_being_stopped(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    app = Daemon("app")
    cleaned: list[str] = []

    @app.slave
    def worker(slave: Slave) -> None:
        slave.shutdown.wait()
        cleaned.append("up")

    def refuse(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("Stopping"):
            raise OSError("the log is away")
        return True

    app.logger.addFilter(refuse)
    try:
        with running(app) as client:
            pass
    finally:
        app.logger.removeFilter(refuse)

    assert cleaned == ["up"]
    assert client.exit_status == 0
    assert "app: Stopping: stop() was called\n" in capfd.readouterr().err


def test_without_a_thread_for_the_deadline_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "deadline":
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    with (
        pytest.raises(StartError, match="^cannot start: RuntimeError: can't start new thread$"),
        running(Daemon("app")),
    ):
        pass
