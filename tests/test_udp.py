from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.testing import Client, running


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


def udp_counters(client: Client, received: int) -> dict[str, int]:
    client.wait_until(lambda: client.status()["udp"]["received"] >= received)
    counters: dict[str, int] = client.status()["udp"]
    return counters


def test_one_datagram_is_one_event(app: Daemon) -> None:
    events: list[Any] = []
    metas: list[Any] = []

    @app.on_event
    def handle(event: Any, meta: Any) -> None:
        events.append(event)
        metas.append(meta)

    with running(app) as client:
        client.send_datagram(b'{"Hello": "World"}')
        client.wait_until(lambda: events)

    assert events == [{"Hello": "World"}]
    assert metas[0].source == "udp"
    assert metas[0].peer.startswith("127.0.0.1:")


HOSTILE = [
    b"",
    b"\xff" * 65_507,
    b" " * 65_507,
    b"\xff\xfe{\x00",
    b"[" * 60_000,
    b"NaN",
    b'{"a": 1} trailing',
]


def test_a_hostile_datagram_changes_a_counter_and_nothing_else(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []
    app.on_event(events.append)

    with running(app) as client:
        for data in HOSTILE:
            client.send_datagram(data)
        counters = udp_counters(client, len(HOSTILE))
        client.send_datagram(b"1")
        client.wait_until(lambda: events)
        threads = client.status()["events"]

    assert counters == {
        "received": len(HOSTILE),
        "invalid": len(HOSTILE),
        "refused": 0,
        "kernel_drops": 0,
    }
    assert events == [1]
    assert threads["failed"] == 0
    lines = [message for message in caplog.messages if message.startswith("UDP:")]
    assert len(lines) == 1, "the log is limited to one line each ten seconds"
    assert lines[0].endswith("is not valid JSON: the body is empty")


def test_a_datagram_that_finds_the_queue_full_is_counted(app: Daemon) -> None:
    entered = []

    @app.on_event
    def handle(event: Any) -> None:
        entered.append(event)
        app.shutdown.wait(10)

    with running(app, {"master": {"queue_size": 1}}) as client:
        client.send_datagram(b"1")
        client.wait_until(lambda: entered)
        client.send_datagram(b"2")
        client.send_datagram(b"3")
        counters = udp_counters(client, 3)
        refused = client.status()["events"]["refused"]

    assert counters["refused"] == 1
    assert refused == 1


def test_what_the_kernel_holds_at_stop_is_still_handled(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener is kept from reading by holding what it puts events through."""
    monkeypatch.setattr("daemonkit.udp.READ_AT_ONCE", 10)
    events: list[Any] = []
    app.on_event(events.append)

    with running(app) as client:
        assert app._parts is not None
        listener = app._parts.udp
        with app._parts.intake._lock:
            for number in range(100):
                client.send_datagram(b"%d" % number)
            app.stop()
            client.wait_until(lambda: listener._stopping)

    assert events == list(range(100))


def test_a_sender_faster_than_the_listener_does_not_keep_it_from_stopping(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.udp.LAST_READ", 0.05)
    monkeypatch.setattr("daemonkit.udp.UdpListener._read", lambda self, limit: True)

    with running(app, {"master": {"shutdown_timeout": 5}}) as client:
        pass

    assert client.exit_status == 0


def test_kernel_drops_are_counted(app: Daemon) -> None:
    """The listener is kept from reading by holding what it puts events through."""
    with running(app) as client:
        assert app._parts is not None
        listener = app._parts.udp
        listener._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        app._parts.intake._lock.acquire()
        try:
            for _ in range(200):
                client.send_datagram(b'"%s"' % (b"x" * 1000))
            drops = listener.kernel_drops()
        finally:
            app._parts.intake._lock.release()
        counters = udp_counters(client, 200 - drops)

    assert drops > 0
    assert counters["received"] + counters["kernel_drops"] == 200
    assert listener.kernel_drops() == drops, "the last figure is kept once the socket is closed"


def test_without_proc_no_drops_are_known(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(app):
        assert app._parts is not None
        with monkeypatch.context() as patch:
            patch.setattr("daemonkit.udp.PROC_TABLES", (str(Path("/nowhere")),))
            assert app._parts.udp.kernel_drops() == 0


def test_a_failing_read_is_logged_and_the_listener_goes_on(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    app.on_event(events.append)
    with running(app) as client:
        assert app._parts is not None
        listener = app._parts.udp

        class Failing:
            def recvfrom(self, size: int) -> Any:
                real.recv(size)
                listener._socket = real
                raise OSError("bad luck")

        real = listener._socket
        listener._socket = Failing()  # type: ignore[assignment]
        client.send_datagram(b"1")
        client.wait_until(lambda: listener._socket is real)
        client.send_datagram(b"2")
        client.wait_until(lambda: events)
        monkeypatch.setattr("daemonkit.udp.decode", lambda data: 1 / 0)
        client.send_datagram(b"3")
        client.wait_until(lambda: client.status()["udp"]["invalid"])
        caplog.set_level(logging.WARNING)

    assert events == [2]
    assert "UDP: cannot read a datagram: bad luck" in caplog.messages


def test_a_sender_that_never_pauses_does_not_keep_it_from_stopping(app: Daemon) -> None:
    app.on_event(lambda event: None)
    over = threading.Event()

    def flood(port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not over.is_set():
                sender.sendto(b"1", ("127.0.0.1", port))

    with running(app, {"master": {"shutdown_timeout": 8}}) as client:
        sender = threading.Thread(target=flood, args=[client.port])
        sender.start()
        udp_counters(client, 100)
    over.set()
    sender.join()

    assert client.exit_status == 0
