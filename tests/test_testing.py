from __future__ import annotations

import threading
from pathlib import Path

import pytest
import requests

from daemonkit import Daemon
from daemonkit.testing import Client, running


def test_waiting_for_what_never_comes_times_out() -> None:
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


def test_a_daemon_that_does_not_stop_is_told() -> None:
    app = Daemon("app")
    release = threading.Event()
    app.main(lambda: release.wait(30))

    with (
        pytest.raises(TimeoutError, match="^the daemon did not stop; is its run"),
        running(app, {"master": {"shutdown_timeout": 0.1}}, timeout=1) as client,
    ):
        client.wait_until(lambda: app._health.is_ready)
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


def test_what_is_not_a_daemon_is_refused() -> None:
    with pytest.raises(TypeError, match="^running takes a Daemon, not <class "), running(Daemon):  # type: ignore[arg-type]
        pass
