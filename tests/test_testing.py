from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from daemonkit import Daemon, RegistrationError
from daemonkit.testing import Client, running


def test_waiting_for_a_condition_that_never_holds_times_out() -> None:
    client = Client("127.0.0.1", timeout=0.02)
    with pytest.raises(TimeoutError, match=r"^the moon did not come true within 0.02 s$"):
        client.wait_until(lambda: False, "the moon")


def test_a_refused_event_is_raised() -> None:
    app = Daemon("app")
    with running(app) as client:
        assert app._assembly.parts is not None
        app._assembly.parts.intake.close()
        with pytest.raises(requests.HTTPError, match="^503"):
            client.send_event(1)


def test_ipv6_addresses_go_in_brackets() -> None:
    with running(Daemon("app"), {"master": {"host": "::1"}}) as client:
        assert client.url == f"http://[::1]:{client.port}"
        client.send_datagram(b"1")
        client.wait_until(lambda: client.status()["events"]["handled"] == 1)


def test_a_daemon_that_does_not_stop_is_reported() -> None:
    app = Daemon("app")
    began, release = threading.Event(), threading.Event()

    @app.main
    def main() -> None:
        began.set()
        release.wait(30)

    with (
        pytest.raises(TimeoutError, match="^the daemon did not stop; is its run"),
        running(app, {"master": {"shutdown_timeout": 0.1}}, timeout=1),
    ):
        assert began.wait(30)
    release.set()


def test_the_daemons_own_configuration_is_kept_unless_another_is_given(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("a: file\nmaster: {host: '::', port: 1}\n")

    for own, given, expected in (
        ({"a": "own"}, None, "own"),
        (path, None, "file"),
        (None, path, "file"),
        ({"a": "own"}, {"a": "given"}, "given"),
    ):
        app = Daemon("app", config=own)
        with running(app, given) as client:
            assert app.config == {"a": expected}
            assert client.get("/ping").text == "OK\n"


def test_a_running_daemon_is_left_alone() -> None:
    app = Daemon("app")
    with running(app, {"a": 1}):
        with pytest.raises(RegistrationError, match="was already started"):
            running(app, {"a": 2}).__enter__()
        assert app.config == {"a": 1}
        assert not app.shutdown.is_set()


def test_paths_count_from_the_folder_where_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cfg.yaml").write_text("a: file\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    app = Daemon("app", config="cfg.yaml")
    monkeypatch.chdir("sub")

    with running(app, {"master": {"queue": "q.db"}}):
        assert app.config == {"a": "file"}
        assert app.master_config["queue"] == str(tmp_path / "sub" / "q.db")


def test_a_target_that_is_not_a_daemon_is_refused() -> None:
    with pytest.raises(TypeError, match="^running takes a Daemon or a factory of one, not 'app' "):
        running("app").__enter__()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^the factory must return a Daemon, not 1 "):
        running(lambda: 1).__enter__()  # type: ignore[arg-type, return-value]


def test_a_mapping_is_merged_over_the_daemon_s_own_configuration() -> None:
    app = Daemon("app", config={"a": {"b": 1, "c": 2}, "master": {"queue_size": 7}})

    with running(app, {"a": {"b": 3}}):
        assert app.config == {"a": {"b": 3, "c": 2}}
        assert app.master_config["queue_size"] == 7


def test_a_factory_is_called_once_with_the_configuration_in_force() -> None:
    seen: list[Any] = []

    def make(config: dict[str, Any]) -> Daemon:
        app = Daemon("app", config={"a": 1, "b": 2})
        seen.append((config, app.config))
        return app

    with running(make, {"a": 3}) as client:
        assert client.status()["config"] == {"a": 3, "b": 2}
    assert seen == [({"a": 3}, {"a": 3, "b": 2})]


def test_a_factory_without_a_parameter_is_called_bare(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("a: file\n")

    class MyDaemon(Daemon):
        pass

    for factory in (MyDaemon, lambda: Daemon("MyDaemon")):
        with running(factory, path) as client:
            status = client.status()
            assert (status["name"], status["config"]) == ("MyDaemon", {"a": "file"})
