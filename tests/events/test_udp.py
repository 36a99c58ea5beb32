from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.events.intake import Intake
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.udp import UdpListener
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
        "denied": 0,
        "kernel_drops": 0,
    }
    assert events == [1]
    assert threads["failed"] == 0
    lines = [message for message in caplog.messages if message.startswith("UDP:")]
    assert lines[0].endswith("is not valid JSON: the body is empty")
    number = rf"{len(HOSTILE) - 1:,} more in the last \d+ s"
    assert re.fullmatch(rf"UDP: {number}, last: a datagram from .* is not valid JSON: .*", lines[1])
    assert len(lines) == 2


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


def test_datagrams_in_the_kernel_at_the_stop_are_still_handled(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holding the intake's lock keeps the listener from reading."""
    monkeypatch.setattr("daemonkit.events.udp.DATAGRAMS_AT_ONCE", 10)
    events: list[Any] = []
    app.on_event(events.append)

    with running(app) as client:
        assert app._assembly.parts is not None
        listener = app._assembly.parts.udp
        with app._assembly.parts.intake._lock:
            for number in range(100):
                client.send_datagram(b"%d" % number)
            app.stop()
            client.wait_until(lambda: listener._stop_requested.is_set())

    assert events == list(range(100))


def test_a_sender_faster_than_the_listener_does_not_keep_it_from_stopping(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.events.udp.LAST_READ", 0.05)
    monkeypatch.setattr("daemonkit.events.udp.UdpListener._read_batch", lambda self: True)

    with running(app, {"master": {"shutdown_timeout": 5}}) as client:
        pass

    assert client.exit_status == 0


def test_kernel_drops_are_counted(app: Daemon) -> None:
    """Holding the intake's lock keeps the listener from reading."""
    with running(app) as client:
        assert app._assembly.parts is not None
        listener = app._assembly.parts.udp
        listener._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        app._assembly.parts.intake._lock.acquire()
        try:
            for _ in range(200):
                client.send_datagram(b'"%s"' % (b"x" * 1000))
            drops = listener.counters()["kernel_drops"]
        finally:
            app._assembly.parts.intake._lock.release()
        counters = udp_counters(client, 200 - drops)

    assert drops > 0
    assert counters["received"] + counters["kernel_drops"] == 200
    assert listener.counters()["kernel_drops"] == drops, (
        "the last figure is kept once the socket is closed"
    )


def test_unknown_kernel_drops_are_not_shown_as_none(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.system.sockets._SO_MEMINFO", 9999)
    with running(app) as client:
        client.send_datagram(b"1")

        assert udp_counters(client, 1)["kernel_drops"] is None


def test_a_failing_read_is_logged_and_the_listener_continues(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    app.on_event(events.append)
    with running(app) as client:
        assert app._assembly.parts is not None
        listener = app._assembly.parts.udp

        class Failing:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

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
        monkeypatch.setattr("daemonkit.events.udp.decode", lambda data: 1 / 0)
        client.send_datagram(b" 3")
        client.wait_until(lambda: client.status()["udp"]["invalid"])
        caplog.set_level(logging.WARNING)

    assert events == [2]
    assert "UDP: cannot read a datagram: bad luck" in caplog.messages


def test_a_sender_that_never_pauses_does_not_keep_the_listener_from_stopping(app: Daemon) -> None:
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


@contextmanager
def held(app: Daemon) -> Iterator[UdpListener]:
    """Keep the listener from queueing events once it has read the first."""
    assert app._assembly.parts is not None
    with app._assembly.parts.intake._lock:
        yield app._assembly.parts.udp


def flood(client: Client, datagrams: list[bytes]) -> None:
    """Send datagrams that the listener finds all at once: one before them holds it up."""
    with held(client.app) as listener:  # type: ignore[attr-defined]
        client.send_datagram(b'"first"')
        client.wait_until(lambda: listener._received)
        for data in datagrams:
            client.send_datagram(data)


def test_a_flood_is_queued_in_batches_and_in_order(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    app.on_event(events.append)
    with running(app) as client:
        client.app = app  # type: ignore[attr-defined]
        assert app._assembly.parts is not None
        sizes: list[int] = []
        real = app._assembly.parts.queue.put_some
        monkeypatch.setattr(
            app._assembly.parts.queue,
            "put_some",
            lambda batch: (sizes.append(len(batch.events)), real(batch))[1],
        )
        flood(client, [b"%d" % number for number in range(1200)])
        client.wait_until(lambda: len(events) == 1201)

    assert events == ["first", *range(1200)]
    assert sizes[-3:] == [512, 512, 176]


def test_the_sender_of_invalid_datagrams_is_named_even_in_a_flood(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second report on: the first makes the listener read senders for a while."""
    with running(app) as client:
        client.app = app  # type: ignore[attr-defined]
        assert app._assembly.parts is not None
        flood(client, [b"1", b"nope", b"2"])
        udp_counters(client, 4)
        app._assembly.parts.udp._received = 0
        app._assembly.parts.udp.failures.forget()
        flood(client, [b"1", b"nope", b"2"])
        counters = udp_counters(client, 4)
        messages = [m for m in caplog.messages if "not valid JSON" in m]

    assert counters["invalid"] == 2
    assert messages[0].startswith("UDP: a datagram from a flood is not valid JSON: ")
    assert messages[1].startswith("UDP: a datagram from 127.0.0.1:")


@pytest.mark.parametrize("with_meta", [True, False])
def test_invalid_datagrams_do_not_shift_the_senders_of_valid_ones(
    app: Daemon, with_meta: bool
) -> None:
    seen: list[Any] = []
    if with_meta:
        app.add_event_handler(lambda event, meta: seen.append((event, meta.peer)))
    else:
        app.add_event_handler(lambda event: seen.append((event, None)))
    with running(app) as client, ExitStack() as stack:
        client.app = app  # type: ignore[attr-defined]
        senders = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(6)
        ]
        with held(app) as listener:
            client.send_datagram(b"0")
            client.wait_until(lambda: listener._received)
            for number, sender in enumerate(senders):
                data = b"nope" if number in (0, 3) else b"%d" % number
                sender.sendto(data, (client.host, client.port))
        client.wait_until(lambda: len(seen) == 5)
        names = [f"127.0.0.1:{sender.getsockname()[1]}" for sender in senders]

    expected = [(n, names[n] if with_meta else None) for n in (1, 2, 4, 5)]
    assert seen[1:] == expected


def test_datagrams_dropped_by_the_kernel_are_logged(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    with running(app, {"master": {"udp_receive_buffer": 5000}}) as client:
        client.app = app  # type: ignore[attr-defined]
        flood(client, [b"1"] * 300)
        client.wait_until(lambda: "the kernel has dropped" in caplog.text)
        drops = client.status()["udp"]["kernel_drops"]

    assert drops > 0
    assert (
        f"UDP: the kernel has dropped {drops} datagrams, {drops} in all: its buffer was full "
        "(udp_receive_buffer)" in caplog.messages
    )


def test_only_the_events_of_a_flood_that_find_room_are_accepted(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    entered = []

    @app.on_event
    def handle(event: Any) -> None:
        entered.append(event)
        app.shutdown.wait(10)

    with running(app, {"master": {"queue_size": 5}}) as client:
        client.app = app  # type: ignore[attr-defined]
        client.send_datagram(b"0")
        client.wait_until(lambda: entered)
        with held(app) as listener:
            for number in range(1, 10):
                client.send_datagram(b"%d" % number)
            client.wait_until(lambda: listener._received > 1)
        client.wait_until(lambda: client.status()["udp"]["refused"] == 4)
        assert client.status()["events"]["refused"] == 4

    assert entered == list(range(6))
    assert "was refused: The event queue is full (5 events)" in caplog.text


def test_only_the_first_datagram_has_its_sender_read_unless_all_are_wanted() -> None:
    queue = MemoryQueue(10)
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
    ):
        sock.bind(("127.0.0.1", 0))
        listener = UdpListener(sock, Intake(queue, 2**20), logging.getLogger("test"), None)
        found = []
        for with_meta in (False, True):
            queue.with_meta = with_meta
            for number in range(3):
                sender.sendto(b"%d" % number, sock.getsockname())
            datagrams, senders, _ = listener._receive()
            found.append((datagrams, len(senders)))
        listener.request_stop()
        listener.join(0)

    assert found == [([b"0", b"1", b"2"], 1), ([b"0", b"1", b"2"], 3)]


def test_the_listener_continues_after_any_failure(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    app.on_event(events.append)
    with running(app) as client:
        assert app._assembly.parts is not None
        with monkeypatch.context() as patch:
            patch.setattr(app._assembly.parts.intake, "put_some", lambda *_: 1 / 0)
            client.send_datagram(b"1")
            client.wait_until(lambda: "The UDP listener failed and continues" in caplog.messages)
        client.send_datagram(b"2")
        client.wait_until(lambda: events)

    assert events == [2]
