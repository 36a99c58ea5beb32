from __future__ import annotations

import threading

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
        assert app._parts is not None
        app._parts.intake.close()
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
        client.wait_until(app._ready.is_set)
    release.set()
