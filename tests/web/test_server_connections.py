from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from daemonkit import Daemon
from daemonkit.web.channel import Channel

from .connections import EVENT, PING, ask, hold, serving
from .raw import connect, read_all, read_until


@pytest.mark.parametrize("request_line", [b"GET /ping HTTP/1.1", b"GET /ping HTTP/1.0"])
@pytest.mark.parametrize("fast_events", [True, False])
def test_while_draining_each_answer_says_that_the_connection_is_closed(
    app: Daemon, request_line: bytes, fast_events: bool
) -> None:
    old = request_line.endswith(b"1.0")
    ping = request_line + b"\r\nHost: x\r\n" + b"Connection: keep-alive\r\n" * old + b"\r\n"
    options = {"drain_delay": 20, "shutdown_timeout": 30, "fast_events": fast_events}
    with serving(app, **options) as (client, server), ExitStack() as stack:
        socks = [stack.enter_context(connect(client)) for _ in range(4)]
        for sock in socks:
            assert b"Connection: close" not in ask(sock, EVENT)
        # The beginning of an event has already arrived.
        socks[0].sendall(EVENT[:-1])
        client.wait_until(lambda: server.clients.receiving)
        app.stop()
        client.wait_until(lambda: server.draining)
        socks[0].sendall(EVENT[-1:])
        socks[1].sendall(EVENT)
        socks[2].sendall(ping)
        socks[3].sendall(EVENT + EVENT + ping)
        answers = [read_all(sock) for sock in socks]
        # Until the delay is over, new clients are served.
        assert client.get("/ping").headers["Connection"] == "close"
        app._lifecycle._stop_order.ended.set()  # type: ignore[union-attr]

    assert [answer.count(b" 200 OK\r\n") for answer in answers] == [1, 1, 1, 3]
    assert [answer.count(b"\r\nConnection: close\r\n") for answer in answers] == [1, 1, 1, 1]
    assert b"eep-alive" not in b"".join(answers).lower().replace(b"k", b"")
    assert answers[3].rindex(b"Connection: close") > answers[3].rindex(b"HTTP/1.")


def test_a_refusal_while_stopping_says_that_the_connection_is_closed(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    """A request that arrives at the very end is answered, too, and nothing is reset."""
    entered, release = slow
    with serving(app) as (client, server), ExitStack() as stack:
        busy, *socks = (stack.enter_context(connect(client)) for _ in range(4))
        for sock in socks:
            ask(sock, EVENT)
        busy.sendall(PING.replace(b"/ping", b"/slow"))
        entered.wait(10)
        app.stop()
        client.wait_until(lambda: not server.accepting)
        for sock in socks:
            sock.sendall(EVENT)
        answers = [read_all(sock) for sock in socks]
        release.set()
        assert read_until(busy, b"done")

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nConnection: close\r\n")
    assert client.exit_status == 0


def test_a_request_that_is_still_being_sent_when_it_stops_is_answered(app: Daemon) -> None:
    body = bytes(3_000_000)
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.wait_until(lambda: server.clients.receiving)
        app.stop()
        client.wait_until(lambda: not server.accepting)
        sock.sendall(body)
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 404 NOT FOUND\r\nConnection: close\r\n")
    assert client.exit_status == 0


def test_a_request_that_is_never_completed_does_not_hold_up_the_stop(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.server.UNSENT_TIMEOUT", 0.2)
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(PING[:-2])
        client.wait_until(lambda: server.clients.receiving)
        app.stop()
        assert read_all(sock) == b""
    assert client.exit_status == 0


def test_while_draining_status_says_that_the_lane_is_closed(app: Daemon) -> None:
    with serving(app, drain_delay=20, shutdown_timeout=30) as (client, server):
        app.stop()
        client.wait_until(lambda: server.draining)
        shown = client.status()["http"]["fast_lane"]
        app._lifecycle._stop_order.ended.set()  # type: ignore[union-attr]

    assert shown == "closed: the daemon is draining"


def test_idle_connections_are_not_checked_in_each_iteration(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = Channel.readable

    def readable(self: Channel) -> bool:
        asked.append(self._fileno)
        return real(self)

    with serving(app) as (client, _), ExitStack() as stack:
        hold(client, stack, 50)
        with connect(client) as sock:
            ask(sock, EVENT)
            monkeypatch.setattr(Channel, "readable", readable)
            for _ in range(20):
                ask(sock, EVENT)
            monkeypatch.undo()

    assert 10 <= len(asked) <= 45
    # The one that asks, and perhaps one that is just being closed.
    assert len(set(asked)) <= 2


def test_without_connections_the_loop_sleeps_indefinitely(app: Daemon) -> None:
    with serving(app) as (client, server):
        assert client.get("/ping").text == "OK\n"
        client.wait_until(lambda: not server.active_channels)
        server.clients._next_sweep = time.monotonic()
        client.wait_until(lambda: (server.wake(), server.clients._next_sweep is None)[1])

        assert server.run_due(None) is None


def test_without_epoll_it_polls(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.web.poller._HAS_EPOLL", False)
    with serving(app, request_timeout=0.2) as (client, _), connect(client) as sock:
        assert ask(sock, EVENT).startswith(b"HTTP/1.1 200 OK")
        sock.sendall(EVENT[:-1])
        assert b" 408 " in read_all(sock)
        assert client.get("/ping").text == "OK\n"
