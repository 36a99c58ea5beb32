from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.monitoring.alerts.juggler import OUTBOX_SIZE, Outbox
from daemonkit.testing import running
from daemonkit.text import error_text

from .juggler_server import ACCEPT, FakeJuggler, juggler_server, wait_for

LOGGER = logging.getLogger("test")


@pytest.fixture
def juggler() -> Iterator[FakeJuggler]:
    with juggler_server(FakeJuggler()) as server:
        yield server


@pytest.fixture
def outbox_to() -> Iterator[Callable[[str], Outbox]]:
    """Make an outbox with short times, and stop it when the test is over."""
    made: list[Outbox] = []

    def make(url: str) -> Outbox:
        outbox = Outbox("app", url, 0.3, LOGGER, lambda t: t.replace("hush", "*"), (0.01, 0.05))
        made.append(outbox)
        return outbox

    yield make
    for outbox in made:
        outbox.request_stop()
        outbox.join(5)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_the_wire_form_is_jugglers(juggler: FakeJuggler) -> None:
    app = Daemon("billing")

    @app.slave
    def worker(slave: Slave) -> None:
        slave.send_event_to_juggler("host1", "disk", "CRIT", "no room")

    with running(app, {"master": {"juggler_url": juggler.url}}) as client:
        client.wait_until(lambda: juggler.requests)
        client.wait_until(lambda: client.status()["juggler"]["sent"])
        shown = client.status()["juggler"]

    event = {
        "host": "host1",
        "service": "disk",
        "status": "CRIT",
        "description": "no room",
        "instance": "",
        "tags": [],
    }
    assert juggler.requests == [{"source": "billing", "events": [event]}]
    assert shown == {"waiting": 0, "sent": 1, "refused": 0, "dropped": 0}


def test_wrong_arguments_are_refused_at_the_call() -> None:
    app = Daemon("app")
    with pytest.raises(
        ValueError, match="^a Juggler status is one of OK, INFO, WARN, CRIT, not"
    ) as e:
        app.send_event_to_juggler("h", "s", "BAD", "d")
    assert str(e.value).endswith("not 'BAD' (str)")
    with pytest.raises(TypeError, match=r"^the host of an alert must be a string, not None \(None"):
        app.send_event_to_juggler(None, "s", "OK", "d")  # type: ignore[arg-type]


def test_alerts_keep_their_order_and_secrets_are_redacted(
    juggler: FakeJuggler, outbox_to: Any
) -> None:
    outbox = outbox_to(juggler.url)
    for number in range(20):
        outbox.send("h", "s", "OK", f"hush {number}")
    wait_for(lambda: outbox.counters()["sent"] == 20)

    descriptions = [request["events"][0]["description"] for request in juggler.requests]
    assert descriptions == [f"* {number}" for number in range(20)]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((200, {"events": [{"code": 400, "message": "bad tags"}]}), "400: bad tags"),
        ((400, b"no such thing"), "HTTP 400: no such thing"),
        ((404, b""), "HTTP 404: "),
        ((302, b"elsewhere"), "HTTP 302: elsewhere"),
        ((200, b"<html>"), "its reply is not understood: <html>"),
        ((200, {"events": []}), 'its reply is not understood: {"events": []}'),
        ((200, []), "its reply is not understood: []"),
    ],
)
def test_a_refusal_is_logged_and_never_tried_again(
    juggler: FakeJuggler, outbox_to: Any, caplog: pytest.LogCaptureFixture, reply: Any, told: str
) -> None:
    outbox = outbox_to(juggler.url)
    juggler.reply = reply
    outbox.send("h", "s", "OK", "first")
    wait_for(lambda: outbox.counters()["refused"] == 1)
    juggler.reply = ACCEPT
    outbox.send("h", "s", "OK", "second")
    wait_for(lambda: outbox.counters()["sent"] == 1)

    assert [r["events"][0]["description"] for r in juggler.requests] == ["first", "second"]
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.getMessage().endswith(": " + told)


@pytest.mark.parametrize("reply", [(500, b""), (503, b""), (429, b""), None])
def test_trouble_on_jugglers_side_is_tried_again_and_told_once(
    juggler: FakeJuggler, outbox_to: Any, caplog: pytest.LogCaptureFixture, reply: Any
) -> None:
    caplog.set_level(logging.INFO)
    juggler.reply = reply
    outbox = outbox_to(juggler.url)
    outbox.send("h", "s", "OK", "d")
    wait_for(lambda: len(juggler.requests) >= 3)
    juggler.reply = ACCEPT
    wait_for(lambda: outbox.counters()["sent"] == 1)

    lines = [m for m in caplog.messages if m.startswith("Juggler at")]
    assert len(lines) == 2
    assert lines[0].startswith(f"Juggler at {juggler.url} is away, will try again: ")
    assert lines[1] == f"Juggler at {juggler.url} is back"


def test_an_absent_juggler_blocks_nobody_and_gets_the_alert_when_it_comes(
    outbox_to: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    outbox = outbox_to(f"http://127.0.0.1:{port}/events")
    outbox.send("h", "s", "CRIT", "d")
    wait_for(lambda: caplog.messages)
    with juggler_server(FakeJuggler(), port) as juggler:
        wait_for(lambda: juggler.requests)
        wait_for(lambda: outbox.counters()["sent"] == 1)

    url = f"http://127.0.0.1:{port}/events"
    assert caplog.messages == [f"Juggler at {url} is away, will try again: Connection refused"]


def test_a_full_outbox_drops_the_oldest(
    outbox_to: Any, juggler: FakeJuggler, caplog: pytest.LogCaptureFixture
) -> None:
    juggler.reply = None
    outbox = outbox_to(juggler.url)
    for number in range(OUTBOX_SIZE + 2):
        outbox.send("h", "s", "OK", str(number))

    assert outbox.counters()["dropped"] == 2
    assert outbox.counters()["waiting"] == OUTBOX_SIZE
    dropping = [m for m in caplog.messages if m.startswith("More than 1000 alerts wait")]
    assert len(dropping) == 1


def test_stopping_flushes_what_is_waiting(juggler: FakeJuggler, outbox_to: Any) -> None:
    outbox = outbox_to(juggler.url)
    for number in range(50):
        outbox.send("h", "s", "OK", str(number))
    outbox.request_stop()

    assert outbox.join(30)
    assert len(juggler.requests) == 50


def test_stopping_does_not_wait_for_an_absent_juggler_and_names_what_is_left(
    outbox_to: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{free_port()}/events"
    outbox = Outbox("app", url, 5, LOGGER, retry=(60, 60))
    outbox.send("h", "s", "OK", "d")
    wait_for(lambda: outbox._away)
    outbox.request_stop()
    stopped = outbox.join(30)
    outbox.send("h", "s", "OK", "late")

    assert stopped
    assert f"1 alerts were not delivered to Juggler at {url}" in caplog.messages
    assert "dropped: the daemon has stopped" in caplog.messages[-1]


def test_a_hung_juggler_does_not_stop_the_daemon_from_stopping(
    juggler: FakeJuggler, caplog: pytest.LogCaptureFixture
) -> None:
    juggler.reply = None
    app = Daemon("app")
    settings = {"juggler_url": juggler.url, "juggler_timeout": 0.2, "shutdown_timeout": 60}
    with running(app, {"master": settings}) as client:
        app.send_event_to_juggler("h", "s", "OK", "d")
        client.wait_until(lambda: juggler.requests)

    assert client.exit_status == 0
    assert f"1 alerts were not delivered to Juggler at {juggler.url}" in caplog.messages


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_an_alert_waits_and_the_next_one_starts_it(
    juggler: FakeJuggler,
    outbox_to: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    outbox = outbox_to(juggler.url)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for text in ("first", "second"):
            outbox.send("h", "s", "OK", text)
        assert outbox.counters()["waiting"] == 2
    outbox.send("h", "s", "OK", "third")
    wait_for(lambda: outbox.counters()["sent"] == 3)

    sent = [request["events"][0]["description"] for request in juggler.requests]
    assert sent == ["first", "second", "third"]
    assert caplog.messages == [
        "Alerts can't be sent, the next one tries again: RuntimeError: can't start new thread",
        "Alerts are sent again",
    ]


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no ssl"), SystemExit(1)])
def test_a_thread_that_has_died_is_started_again_by_the_next_alert(
    juggler: FakeJuggler,
    outbox_to: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    caplog.set_level(logging.INFO)

    def fail(url: str) -> None:
        raise error

    outbox = outbox_to(juggler.url)
    with monkeypatch.context() as patch:
        patch.setattr("daemonkit.monitoring.alerts.juggler.open_session", fail)
        for _ in range(2):
            outbox.send("h", "s", "OK", "d")
            wait_for(lambda: outbox._thread is None)
    outbox.send("h", "s", "OK", "d")
    wait_for(lambda: outbox.counters()["sent"] == 3)

    assert caplog.messages == [
        f"Alerts can't be sent, the next one tries again: {error_text(error)}",
        "Alerts are sent again",
    ]


def test_without_a_thread_stopping_tries_once_more(
    juggler: FakeJuggler, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox("app", juggler.url, 5, LOGGER)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outbox.send("h", "s", "OK", "d")
    outbox.request_stop()

    assert outbox.join(30)
    assert len(juggler.requests) == 1


def test_stopping_without_a_thread_names_what_is_left(
    juggler: FakeJuggler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse)
    outbox = Outbox("app", juggler.url, 5, LOGGER)
    outbox.send("h", "s", "OK", "d")
    outbox.request_stop()

    assert outbox.join(30)
    assert caplog.messages == [
        "Alerts can't be sent, the next one tries again: RuntimeError: can't start new thread",
        f"1 alerts were not delivered to Juggler at {juggler.url}",
    ]


def test_an_address_that_cannot_be_used_is_told(
    outbox_to: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outbox_to("http://x")
    monkeypatch.setattr(outbox, "_post", lambda *args: 1 / 0)
    outbox.send("h", "s", "OK", "d")
    # It is counted before it is logged.
    wait_for(lambda: caplog.messages)

    assert outbox.counters()["refused"] == 1
    assert "could not be sent" in caplog.messages[0]
