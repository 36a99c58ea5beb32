from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import SECRETS
from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.backend import HttpBackend, TryLater

from .juggler_server import FakeJuggler, Reply, juggler_server

ALERTS = [Alert("host", "disk", "CRIT", ""), Alert("host", "load", "OK", "")]


class Services(HttpBackend):
    """Posts the names of the services."""

    def body(self, alerts: Sequence[Alert]) -> Any:
        return [alert.service for alert in alerts]


@pytest.fixture
def server() -> Iterator[FakeJuggler]:
    with juggler_server(FakeJuggler((200, b""))) as served:
        yield served


def post(url: str, timeout: float = 60) -> Sequence[str | None]:
    with Services("test", "the test", url, timeout).connect() as send:
        return send(ALERTS)


@pytest.mark.parametrize("code", [200, 201, 202, 204])
def test_each_code_of_success_accepts_the_alerts(server: FakeJuggler, code: int) -> None:
    server.reply = (code, b"")

    assert post(server.url) == [None, None]
    assert server.requests == [["disk", "load"]]


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        ((400, b"bad label"), "HTTP 400: bad label"),
        ((401, b""), "HTTP 401: "),
        ((404, b"x" * 1000), "HTTP 404: " + "x" * 200),
        ((302, b"elsewhere"), "HTTP 302: elsewhere"),
    ],
)
def test_another_code_refuses_them(server: FakeJuggler, reply: Reply, refusal: str) -> None:
    server.reply = reply

    assert post(server.url) == [refusal, refusal]
    assert server.paths == ["/events"]


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_code_that_says_not_now_leads_to_a_retry(server: FakeJuggler, code: int) -> None:
    server.reply = (code, b"")

    with pytest.raises(TryLater, match=f"^HTTP {code}$"):
        post(server.url)


def test_a_target_that_hangs_leads_to_a_retry(server: FakeJuggler) -> None:
    server.reply = None

    with pytest.raises(TryLater, match="timed out"):
        post(server.url, timeout=0.1)


def test_a_target_that_is_away_leads_to_a_retry() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TryLater, match="^Connection refused$"):
            post(f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_a_reply_is_redacted_before_it_is_cut(server: FakeJuggler) -> None:
    SECRETS.add(["hush-hush"])
    server.reply = (400, b"x" * 195 + b"hush-hush")

    assert "hush" not in str(post(server.url))


def test_the_password_in_the_url_is_not_in_the_address() -> None:
    backend = Services("test", "the test", "http://user:pw@host/x", 5)

    assert backend.address == f"the test at http://user:{HIDDEN}@host/x"


def test_the_base_says_nothing_itself() -> None:
    with pytest.raises(NotImplementedError):
        HttpBackend("test", "the test", "http://host", 5).body(ALERTS)
