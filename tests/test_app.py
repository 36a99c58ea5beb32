from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from daemonkit import ConfigError, Daemon, QueueFull, RegistrationError, Slave, StartError
from daemonkit.testing import running


class MyDaemon(Daemon):
    pass


def test_the_name_is_the_class_s_name_by_default() -> None:
    assert MyDaemon().name == "MyDaemon"
    assert MyDaemon("billing").logger.name == "billing"


def test_the_configuration_is_read_when_first_needed(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    app = Daemon("app", config=path)
    path.write_text("url: http://x\nmaster: {port: 3322}\n")

    assert app.config == {"url": "http://x"}
    assert app.master_config["port"] == 3322


def test_a_wrong_configuration_is_raised_where_it_is_needed() -> None:
    with pytest.raises(ConfigError):
        Daemon("app", config="nowhere.yaml").config  # noqa: B018


def test_hooks_run_in_order_around_the_life() -> None:
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


def test_a_failing_start_hook_stops_the_start(caplog: pytest.LogCaptureFixture) -> None:
    app = Daemon("app")
    app.on_start(broken_hook)
    app.slave(name="never")(lambda: None)

    with (
        pytest.raises(StartError, match="^the start hook broken_hook failed: ValueError: no data"),
        running(app),
    ):
        pass

    assert app._parts is not None
    assert [child.slave for child in app._parts.supervisor.children()] == [None]


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
    app._freeze()

    assert app._live(lambda status: None, {}) == 0
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


def test_a_run_that_returns_leaves_the_daemon_running() -> None:
    app = Daemon("app")
    returned = threading.Event()
    app.main(returned.set)

    with running(app) as client:
        returned.wait(5)
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


def test_overrides_and_decorators_are_one_mechanism() -> None:
    class Chatty(Daemon):
        def process_event(self, event: Any, meta: Any = None) -> None:
            calls.append(("override", event, meta.source))
            super().process_event(event, meta)

        def ping(self) -> Any:
            return "mine, " + super().ping()

        def run(self) -> None:
            calls.append(("run",))
            super().run()

    calls: list[Any] = []
    app = Chatty()
    app.on_event(lambda event: calls.append(("handler", event)))
    app.on_ping(lambda: "registered")

    with running(app) as client:
        app.put_event(1)
        client.wait_until(lambda: len(calls) == 3)
        assert client.get("/ping").text == "mine, registered"

    assert calls == [("run",), ("override", 1, "app"), ("handler", 1)]


def test_an_override_of_one_parameter_gets_the_event() -> None:
    class Simple(Daemon):
        def process_event(self, event: Any) -> None:  # type: ignore[override]
            events.append(event)

    events: list[Any] = []
    with running(Simple()) as client:
        client.send_event({"a": 1})
        client.wait_until(lambda: events)

    assert events == [{"a": 1}]


def test_an_override_without_meta_cannot_feed_a_handler_that_wants_it() -> None:
    class Simple(Daemon):
        def process_event(self, event: Any) -> None:  # type: ignore[override]
            super().process_event(event)

    app = Simple()
    app.on_event(lambda event, meta: None)

    with (
        pytest.raises(RegistrationError, match="wants meta, which Simple.process_event"),
        running(app),
    ):
        pass


def test_an_async_override_is_refused() -> None:
    class Async(Daemon):
        async def run(self) -> None: ...

    with pytest.raises(RegistrationError, match=r"run\(\) is async def"), running(Async()):
        pass


def test_the_default_handler_logs_the_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app = Daemon("app")
    with running(app) as client:
        client.send_event({"a": "\ud800"})
        client.wait_until(lambda: client.status()["events"]["handled"])

    assert 'Event: {"a": "\ud800"}' in caplog.messages


def test_handlers_with_threads_and_batches() -> None:
    app = Daemon("app")
    batches: list[list[Any]] = []

    @app.on_event(batch=500, linger=0.2)
    def handle(events: list[Any]) -> None:
        batches.append(events)

    with running(app) as client:
        body = b"\n".join(b"%d" % n for n in range(1200))
        client.post("/events", data=body, headers={"Content-Type": "application/x-ndjson"})
        client.wait_until(lambda: sum(map(len, batches)) == 1200)

    assert [len(batch) for batch in batches] == [500, 500, 200]
    assert sum(batches, []) == list(range(1200))


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


def test_queued_events_are_handled_before_slaves_are_told_to_stop() -> None:
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


def test_a_reload_brings_new_values_and_keeps_the_old_ones_when_the_file_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = tmp_path / "cfg.yaml"
    path.write_text("master: {host: 127.0.0.1, port: 0}\na: 1\n")
    app = Daemon("app", config=path)
    reloaded: list[Any] = []
    app.add_reload_hook(broken_hook)
    app.on_reload(lambda: reloaded.append(app.config["a"]))
    app._freeze()
    thread = threading.Thread(target=app._live, args=[lambda status: None, {}])
    thread.start()
    app._health.begun.wait(10)
    port = app.master_config["port"]
    path.write_text(
        "master: {host: '::1', port: 0, queue_size: 5, hidden_opts: [a], log_level: error}\n"
        "a: 2\nb: 3\n"
    )
    app._reload()
    shown = app.status()
    path.write_text("a: [")
    app._reload()
    app.stop()
    thread.join()

    assert reloaded == [2]
    assert logging.getLogger().level == logging.ERROR
    assert app.config == {"a": 2, "b": 3}
    assert shown["config"] == {"a": "*** HIDDEN ***", "b": 3}
    assert app.master_config["port"] == port != 0
    assert (
        "Changed, but in force only after a restart: master.host, master.queue_size"
        in caplog.messages
    )
    assert "The reload hook broken_hook failed" in caplog.messages
    assert any(m.startswith("Not reloaded, the old configuration stays:") for m in caplog.messages)


def test_a_daemon_lives_once() -> None:
    app = Daemon("app")
    with running(app):
        pass

    with pytest.raises(RegistrationError, match="make another Daemon"), running(app):
        pass


def test_two_daemons_live_in_one_process() -> None:
    with running(Daemon("one")) as one, running(Daemon("two")) as two:
        assert (one.status()["name"], two.status()["name"]) == ("one", "two")
        assert one.port != two.port


def test_events_queued_before_the_configuration_is_known_count_against_it() -> None:
    app = Daemon("app")
    app.put_event(1)
    app.configure({"master": {"queue_size": 1}})

    with pytest.raises(QueueFull, match=r"\(1 events\)"):
        app.put_event(2)


def test_a_part_that_fails_to_stop_does_not_keep_the_others_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Daemon("app")
    with running(app, {"master": {"shutdown_timeout": 1}}) as client:
        assert app._parts is not None
        processor = app._parts.processor
        real, calls = processor.request_stop, []

        def fail() -> None:
            calls.append(1)
            real()
            raise OSError("no")

        processor.request_stop = fail  # type: ignore[method-assign]

    # Once more, where its thread hasn't ended yet.
    assert len(calls) in (1, 2)
    assert "Stopping the part 'event processor' failed" in caplog.messages
    assert client.exit_status == 4


def test_routes_that_flask_refuses_are_told_in_one_line() -> None:
    app = Daemon("app")
    app.route("/<int:")(lambda: "never")

    with (
        pytest.raises(RegistrationError, match="^the routes can't be put together: "),
        running(app),
    ):
        pass


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


def test_a_check_of_ones_own_may_do_the_default_one_too() -> None:
    app = Daemon("app")
    app.on_ping(lambda: "mine, " + app.default_ping())

    with running(app) as client:
        assert client.get("/ping").text == "mine, OK\n"


def test_run_is_not_start() -> None:
    with pytest.raises(
        RegistrationError, match=r"^run\(\) is what start\(\) calls; call start\(\)$"
    ):
        Daemon("app").run()


def test_after_two_seconds_the_log_says_what_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("daemonkit.lifecycle.lifecycle.PATIENCE", 0.5)
    app = Daemon("app")
    told = "Waiting for slaves (stubborn); a second signal exits at once"

    pause = threading.Event()

    @app.slave
    def stubborn() -> None:
        app.shutdown.wait()
        while told not in caplog.messages:
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


def test_stop_hooks_wait_for_the_reload_hook_that_runs_and_no_other_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")  # A reload sets it, and this takes it back.
    app = Daemon("app")
    order: list[str] = []
    entered = threading.Event()

    @app.on_reload
    def slow() -> None:
        entered.set()
        app.shutdown.wait(10)
        threading.Event().wait(0.1)
        order.append("reload")

    app.add_reload_hook(lambda: order.append("late reload"))
    app.add_stop_hook(lambda: order.append("stop"))
    with running(app):
        thread = threading.Thread(target=app._reload)
        thread.start()
        entered.wait(10)
    thread.join()

    assert order == ["reload", "stop"]


# With a durable queue


@pytest.fixture
def durable(tmp_path: Path) -> dict[str, Any]:
    return {"master": {"queue": str(tmp_path / "events.db")}}


def test_what_a_stop_leaves_in_the_file_is_handled_after_the_next_start(
    durable: dict[str, Any],
) -> None:
    first, second = Daemon("first"), Daemon("second")
    handled: list[tuple[Any, str]] = []

    @first.on_event
    def wait(event: Any) -> None:
        assert first._parts is not None
        while not first._parts.queue._waiting.closed:  # type: ignore[attr-defined]
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
        # It is counted after it was put there.
        client.wait_until(lambda: client.status()["events"]["received"] == 6)
        status = client.status()
    assert client.exit_status == 0
    assert handled == [(1, "first")]
    with running(second, durable) as client:
        client.wait_until(lambda: len(handled) == 6)

    assert status["events_queue"] == 5
    assert handled[1:] == [({"a": 2}, "http"), (3, "http"), (4, "http"), ([5], "app"), (6, "udp")]
    assert status["http"]["fast_lane"] == "open"
    assert status["http"]["fast_events"] == 4
    events = status["events"]
    assert 0 <= events.pop("oldest_age") < 10
    assert events == {
        "received": 6,
        "refused": 0,
        "waiting": 5,
        "retrying": 0,
        "retried": 0,
        "dead": 0,
        "in_work": 1,
        "handled": 0,
        "failed": 0,
    }


def test_a_failing_event_is_retried_over_a_restart_and_then_kept(durable: dict[str, Any]) -> None:
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


def test_dead_letters_in_memory_are_shown() -> None:
    app = Daemon("app")
    app.on_event(lambda event: 1 / 0)
    with running(app) as client:
        client.send_event({"a": 1})
        client.wait_until(lambda: client.status()["events"]["dead"])
        (letter,) = client.status()["events"]["dead_letters"]

    assert letter["event"] == '{"a": 1}'
    assert letter["error"] == "ZeroDivisionError: division by zero"


def test_one_file_has_one_daemon(durable: dict[str, Any]) -> None:
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
def test_events_put_before_the_start_have_their_circumstances(
    tmp_path: Path, file: str | None
) -> None:
    app = Daemon("app")
    handled: list[Any] = []
    app.on_event(lambda event, meta: handled.append((event, meta.source, meta.attempt)))
    app.put_event({"a": 1})
    with running(app, {"master": {"queue": file and str(tmp_path / file)}}) as client:
        client.wait_until(lambda: handled)

    assert handled == [({"a": 1}, "app", 1)]


def test_more_events_put_before_the_start_than_find_room_are_a_start_error(
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


def test_a_queue_s_path_is_the_one_of_the_start_whatever_becomes_of_the_folder(
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


def test_a_lost_file_is_refused_and_told_everywhere(durable: dict[str, Any]) -> None:
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
    text = f"{path} was removed: the event queue takes nothing until the next start"
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json() == {"message": text, "result": False}
        assert answer.headers["Retry-After"] == "5"
    assert (ping.status_code, ping.text) == (503, text + "\n")
    assert problems == [text]
