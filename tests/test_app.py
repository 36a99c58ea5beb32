from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, RegistrationError
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


def broken_hook() -> None:
    raise ValueError("no database")


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
        client.wait_until(lambda: calls == [("run",)])
        app.put_event(1)
        client.wait_until(lambda: len(calls) == 3)
        assert client.get("/ping").text == "mine, registered"

    assert calls == [("run",), ("override", 1, "app"), ("handler", 1)]


def test_an_override_with_one_parameter_gets_the_event() -> None:
    class Simple(Daemon):
        def process_event(self, event: Any) -> None:  # type: ignore[override]
            events.append(event)

    events: list[Any] = []
    with running(Simple()) as client:
        client.send_event({"a": 1})
        client.wait_until(lambda: events)

    assert events == [{"a": 1}]


def test_an_override_without_meta_is_refused_for_a_handler_that_takes_it() -> None:
    class Simple(Daemon):
        def process_event(self, event: Any) -> None:  # type: ignore[override]
            super().process_event(event)

    app = Simple()
    app.on_event(lambda event, meta: None)

    with (
        pytest.raises(RegistrationError, match="takes meta, but .*Simple.process_event doesn't"),
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


def test_a_daemon_starts_only_once() -> None:
    app = Daemon("app")
    with running(app):
        pass

    for start in (app.serve, running(app).__enter__):
        with pytest.raises(RegistrationError) as caught:
            start()
        assert str(caught.value) == "the daemon was already started; create another Daemon"


def test_two_daemons_run_in_one_process() -> None:
    with running(Daemon("one")) as one, running(Daemon("two")) as two:
        assert (one.status()["name"], two.status()["name"]) == ("one", "two")
        assert one.port != two.port


def test_a_custom_check_may_include_the_default_one() -> None:
    app = Daemon("app")
    app.on_ping(lambda: "mine, " + app.default_ping())

    with running(app) as client:
        assert client.get("/ping").text == "mine, OK\n"


def test_run_is_not_start() -> None:
    with pytest.raises(
        RegistrationError, match=r"^run\(\) is what start\(\) calls; call start\(\)$"
    ):
        Daemon("app").run()


# With a durable queue


def test_the_recent_warnings_are_kept_whatever_has_the_log() -> None:
    app = Daemon("app")
    with running(app) as client:
        app.logger.warning("careful")
        client.get("/ping")

    assert "careful" in [line["message"] for line in app._assembly.recent.shown()]
