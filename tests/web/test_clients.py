from __future__ import annotations

import errno
import logging
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from waitress.server import TcpWSGIServer

from daemonkit import Daemon
from daemonkit.system.sockets import unacknowledged
from daemonkit.web.channel import Channel
from daemonkit.web.clients import Clients

from .connections import EVENT, PING, ask, hold, is_closed, keep_busy, serving
from .raw import connect, read_until


def test_over_the_limit_the_connections_idle_for_longest_are_closed(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(app, connection_limit=5) as (client, server), ExitStack() as stack:
        old = hold(client, stack, 5)
        # Used again: now the second is the oldest.
        ask(old[0], EVENT)
        new = hold(client, stack, 2)
        client.wait_until(lambda: server.clients.shed == 2)

        assert [is_closed(sock) for sock in old] == [False, True, True, False, False]
        assert [is_closed(sock) for sock in new] == [False, False]
        assert len(server.active_channels) == 5
    assert (
        caplog.messages.count(
            "The limit of 5 connections (connection_limit) is reached: idle connections are closed for "
            "new ones, the oldest first"
        )
        == 1
    )


def test_a_client_over_the_limit_is_served_at_once_and_counted_in_status(app: Daemon) -> None:
    with serving(app, connection_limit=3) as (client, _), ExitStack() as stack:
        hold(client, stack, 3)
        shown = client.status()["http"]

        assert shown == {
            "connections": 3,
            "shed": 1,
            "timed_out": 0,
            "fast_lane": "open",
            "fast_events": 3,
            "answers": {"200": 3},
        }


def test_busy_connections_are_not_closed_for_new_ones(
    app: Daemon, caplog: pytest.LogCaptureFixture, slow: tuple[threading.Event, threading.Event]
) -> None:
    """One is being answered, one is being read: a third must wait."""
    entered, release = slow
    with serving(app, connection_limit=2) as (client, server), ExitStack() as stack:
        answered, read = (stack.enter_context(connect(client)) for _ in range(2))
        answered.sendall(PING.replace(b"/ping", b"/slow"))
        entered.wait(10)
        read.sendall(PING[:-2])
        client.wait_until(lambda: server.clients.receiving)
        waiting = stack.enter_context(connect(client))
        waiting.sendall(PING)
        client.wait_until(lambda: "all of them are busy" in caplog.text)

        assert not is_closed(answered)
        assert not is_closed(read)
        assert not is_closed(waiting)
        release.set()
        assert read_until(answered, b"done")
        # Now one is idle.
        assert read_until(waiting, b"OK\n")
        assert server.clients.shed == 1


def test_ten_of_those_who_read_nothing_are_named(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck:
        total_outbufs_len, last_activity = 1, 0.0

        def __init__(self, number: int) -> None:
            self.peer = f"peer{number}"

        def check_received(self) -> bool:
            return False

        def drop(self) -> None:
            dropped.append(self.peer)

    dropped: list[str] = []
    channels: Any = {number: Stuck(number) for number in range(12)}
    nothing: Any = None
    clients = Clients(channels, nothing, logging.getLogger("test"), 30)
    clients.drop_unread(5, 4.9)
    assert dropped == []
    clients.drop_unread(5, 6, began=2)
    assert dropped == []
    clients.drop_unread(5, 5)

    named = [f"peer{number}" for number in range(12)]
    assert dropped == named
    assert caplog.messages == [
        "Connections closed whose clients read nothing of their answers for 5 s: "
        f"12 ({', '.join(named[:10])})"
    ]


def test_a_flood_of_connections_does_not_block_ping(app: Daemon) -> None:
    with serving(app, connection_limit=50) as (client, server), ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(client))
        assert client.get("/ping").text == "OK\n"
        client.wait_until(lambda: server.clients.shed >= 150)
        assert len(server.active_channels) <= 50


def test_out_of_descriptors_an_idle_connection_makes_room(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(app) as (client, server), ExitStack() as stack:
        (idle,) = hold(client, stack, 1)
        real, failed = TcpWSGIServer.accept, []

        def out(self: TcpWSGIServer) -> Any:
            if not failed:
                failed.append(1)
                raise OSError(errno.EMFILE, "Too many open files")
            return real(self)

        monkeypatch.setattr(TcpWSGIServer, "accept", out)
        assert client.get("/ping").text == "OK\n"

        assert server._paused_until is None
        assert is_closed(idle)
        assert server.clients.shed == 1
    assert any("Too many open files: idle connections are closed" in m for m in caplog.messages)


def test_a_client_that_has_just_sent_an_event_is_not_closed_for_a_new_one(app: Daemon) -> None:
    """Both are found in one iteration of the loop, which is kept busy meanwhile."""
    events: list[Any] = []
    app.on_event(events.append)
    with serving(app, connection_limit=2) as (client, server), ExitStack() as stack:
        first, second = hold(client, stack, 2)
        release = keep_busy(server)
        for sock in (first, second):
            sock.sendall(EVENT)
        new = stack.enter_context(connect(client))
        new.sendall(PING)
        release()
        for sock in (first, second):
            assert read_until(sock, b"\n").startswith(b"HTTP/1.1 200 OK")
        assert read_until(new, b"OK\n")
        client.wait_until(lambda: len(events) == 4)


def test_idle_connections_are_found_however_many_are_busy_in_between(app: Daemon) -> None:
    """The connection that was found idle becomes busy, and others become idle."""
    with serving(app, connection_limit=4) as (client, server), ExitStack() as stack:
        socks = hold(client, stack, 4)
        client.wait_until(lambda: server.clients._idle is not None)
        for sock in socks[:2]:
            sock.sendall(EVENT[:-1])
        client.wait_until(lambda: len(server.clients.receiving) == 2)
        hold(client, stack, 2)

        assert [is_closed(sock) for sock in socks] == [False, False, True, True]
        assert server.clients.shed == 2


def test_a_connection_with_unread_input_is_not_closed_for_a_new_one(app: Daemon) -> None:
    with serving(app, connection_limit=2) as (client, server), ExitStack() as stack:
        first, second = hold(client, stack, 2)
        release = keep_busy(server)
        first.sendall(EVENT)
        oldest = next(iter(server.active_channels.values()))
        client.wait_until(oldest.has_unread)

        # In place of the suspended loop.
        assert server.clients.shed_oldest()
        release()
        assert is_closed(second)
        assert read_until(first, b"\n").startswith(b"HTTP/1.1 200 OK")


def test_busy_connections_are_not_checked_in_each_iteration(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[int] = []
    real = Channel.is_busy.fget  # type: ignore[attr-defined]

    def is_busy(self: Channel) -> bool:
        checks.append(self._fileno)
        return bool(real(self))

    with serving(app, connection_limit=51) as (client, server), ExitStack() as stack:
        socks = hold(client, stack, 51)
        for sock in socks[1:]:
            sock.sendall(EVENT[:-1])
        client.wait_until(lambda: len(server.clients.receiving) == 50)
        socks[0].sendall(EVENT[:-1])
        client.wait_until(lambda: len(server.clients.receiving) == 51)
        monkeypatch.setattr(Channel, "is_busy", property(is_busy))
        for _ in range(20):
            # The rest of one event, and the beginning of the next.
            ask(socks[0], EVENT[-1:] + EVENT[:-1])
        monkeypatch.undo()

    assert len(checks) < 200


def test_a_client_that_reads_slowly_but_steadily_is_not_disconnected(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel accepts more only when much of its buffer is free."""
    app.route("/large", endpoint="large")(lambda: bytes(30_000_000))

    def check_after_long_silence() -> None:
        channel._last_activity -= 1000
        server.clients._next_sweep = 0.0
        server.wake()
        client.wait_until(lambda: server.clients._next_sweep != 0.0)

    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"ping", b"large"))
        client.wait_until(lambda: any(c.total_outbufs_len for c in server.active_channels.values()))
        (channel,) = server.active_channels.values()
        # Data in transit arrives, and then nothing more.
        client.wait_until(lambda: channel._in_flight and not channel.check_received())
        while unacknowledged(channel.socket) >= channel._in_flight:
            sock.recv(1000)
        check_after_long_silence()
        assert channel.connected
        client.wait_until(lambda: not channel.check_received())
        check_after_long_silence()
        assert not channel.connected
    assert any("Connections closed whose clients read nothing" in m for m in caplog.messages)


def test_idle_clients_of_a_passed_socket_are_disconnected_soon(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.server.LAST_REQUEST_TIMEOUT", 0.1)
    with serving(app) as (client, listener), ExitStack() as stack:
        (idle,) = hold(client, stack, 1)
        server = app._assembly.parts.server  # type: ignore[union-attr]
        server.is_passed = listener._is_passed = True
        server.drain()
        server.wait_until_empty(10)

        assert server._is_empty.is_set()
        assert is_closed(idle)


def test_an_idle_connection_is_closed_after_a_while_and_a_busy_one_is_not(
    app: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    slow: tuple[threading.Event, threading.Event],
) -> None:
    monkeypatch.setattr("daemonkit.web.clients.IDLE_TIMEOUT", 0.3)
    _, release = slow
    with serving(app) as (client, server), ExitStack() as stack:
        idle, silent, answered, read = (stack.enter_context(connect(client)) for _ in range(4))
        ask(idle, EVENT)
        answered.sendall(PING.replace(b"/ping", b"/slow"))
        read.sendall(EVENT[:-1])
        client.wait_until(lambda: is_closed(idle) and is_closed(silent))
        # After another check.
        sweep = server.clients._next_sweep
        client.wait_until(lambda: server.clients._next_sweep != sweep)

        assert not is_closed(answered)
        assert not is_closed(read)
        release.set()
        assert read_until(answered, b"done")
        assert ask(read, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")


def test_blank_lines_do_not_count_as_activity(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.web.clients.IDLE_TIMEOUT", 0.3)
    with serving(app) as (client, _), connect(client) as sock:
        until = time.monotonic() + 30
        while not is_closed(sock):
            assert time.monotonic() < until
            try:
                sock.send(b"\r\n\r\n")
            except OSError:
                break
