from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import request

from daemonkit import Daemon
from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.juggler import Juggler
from daemonkit.monitoring.alerts.outbox import Outbox
from daemonkit.system.outgoing import is_loopback, open_session
from daemonkit.testing import running

from ..monitoring.alerts.juggler_server import FakeJuggler, juggler_server, wait_for

ELSEWHERE = "http://alerts.example:1/events"


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJuggler]:
    """A proxy that the environment names for everything, and a ~/.netrc with a password for all."""
    (tmp_path / ".netrc").write_text("default login netrc password netrc\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NETRC", "no_proxy", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with juggler_server(FakeJuggler()) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, server.url)
        yield server


@pytest.fixture
def alert() -> Iterator[Callable[[str], None]]:
    """Send an alert to a URL, and wait until it has been accepted."""
    outboxes: list[Outbox] = []

    def send(url: str) -> None:
        outbox = Outbox(Juggler("app", url, 5), logging.getLogger("test"))
        outboxes.append(outbox)
        outbox.put(Alert("h", "s", "OK", "d"))
        wait_for(lambda: outbox.counters()["sent"])

    yield send
    for outbox in outboxes:
        outbox.request_stop()
        assert outbox.join(5)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1"])
def test_an_alert_to_loopback_uses_neither_a_proxy_nor_netrc(
    proxy: FakeJuggler, alert: Callable[[str], None], host: str
) -> None:
    with juggler_server(FakeJuggler()) as juggler:
        alert(juggler.url.replace("127.0.0.1", host))
        alert(juggler.url.replace("127.0.0.1", f"user:pw@{host}"))

    assert juggler.authorizations == [None, "Basic dXNlcjpwdw=="]
    assert proxy.requests == []


def test_an_alert_to_another_host_goes_through_the_proxy(
    proxy: FakeJuggler, alert: Callable[[str], None]
) -> None:
    alert(ELSEWHERE)

    assert len(proxy.requests) == 1
    assert proxy.authorizations == [None]


def test_no_proxy_and_certificates_come_from_the_environment(
    proxy: FakeJuggler, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session(ELSEWHERE) as session:
        assert (session.proxies["http"], session.verify) == (proxy.url, True)
    monkeypatch.setenv("CURL_CA_BUNDLE", "/curl.pem")
    monkeypatch.setenv("no_proxy", "example")
    with open_session(ELSEWHERE) as session:
        assert (session.proxies, session.verify) == ({}, "/curl.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/requests.pem")
    with open_session("https://localhost") as session:
        assert (session.proxies, session.verify) == ({}, "/requests.pem")


def test_the_test_client_uses_neither_a_proxy_nor_netrc(proxy: FakeJuggler) -> None:
    app = Daemon("app")
    app.add_url_rule(
        "/who", view_func=lambda: {"authorization": request.headers.get("Authorization")}
    )
    with running(app, {"master": {"host": "0.0.0.0"}}) as client:
        client.send_event(1)
        assert client.get("/who").json() == {"authorization": None}
        assert client.get("/who", auth=("user", "pw")).json() == {
            "authorization": "Basic dXNlcjpwdw=="
        }
    with open_session() as session:
        assert session.proxies == {}

    assert proxy.requests == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("juggler.localhost", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("127.255.3.4", True),
        ("2130706433", True),
        ("0x7f.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("0:0:0:0:0:0:0:1", True),
        ("::1%lo", True),
        ("::", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:7f00:1", True),
        ("", False),
        ("localhost.example", False),
        ("notlocalhost", False),
        ("127.example", False),
        ("128.0.0.1", False),
        ("10.127.0.1", False),
        ("::2", False),
        ("::ffff:10.0.0.1", False),
        ("alerts.example", False),
        ("bücher.example", False),
        ("\0", False),
    ],
)
def test_which_hosts_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
