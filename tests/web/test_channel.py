from __future__ import annotations

import math
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from daemonkit import Daemon, Unavailable
from daemonkit.web.channel import Channel
from daemonkit.web.server import READ_SIZE

from .connections import EVENT, PING, ask, is_closed, keep_busy, serving
from .raw import connect, read_all, read_until


@pytest.mark.parametrize("before", [b"", b"\r\n", EVENT, PING])
@pytest.mark.parametrize(
    "first", [b"\x16", b"\x80", b"\0", b"\xff", b"(", b'"', b" ", b"\x16\x03\1"]
)
def test_bytes_that_cannot_begin_a_request_are_refused_at_the_first_one(
    app: Daemon, before: bytes, first: bytes
) -> None:
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(before + first)
        answer = read_all(sock)

        assert not server.clients.receiving
    assert answer.endswith(
        b'{"message": "Bad Request: this is not an HTTP request; does the client speak TLS (https)?", '
        b'"result": false}\n'
    )
    assert answer.count(b"HTTP/1.1 200 OK") == (before.strip() != b"")
    assert b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n" in answer


def test_a_tls_client_is_refused_at_once(app: Daemon) -> None:
    with serving(app, request_timeout=60) as (client, _), connect(client) as sock:
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record layer failure"):
            context.wrap_socket(sock, server_hostname="localhost")


@pytest.mark.parametrize(
    "begin",
    [
        b"G",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
        EVENT + b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
        PING + b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
    ],
)
def test_a_request_that_trickles_in_times_out(app: Daemon, begin: bytes) -> None:
    """Whatever the client sends meanwhile."""
    with serving(app, request_timeout=0.3) as (client, server), connect(client) as sock:
        before = time.monotonic()
        sock.sendall(begin)
        answer = b""
        sock.settimeout(0.01)
        while b"HTTP/1.1 408 " not in answer:
            try:
                # Once the request is refused, this no longer matters.
                with suppress(BrokenPipeError):
                    sock.send(b"1")
                answer += sock.recv(65536)
            except TimeoutError:
                pass
            assert time.monotonic() < before + 30, answer
        took = time.monotonic() - before
        sock.settimeout(10)
        sock.shutdown(socket.SHUT_WR)
        answer += read_all(sock)

        assert took >= 0.3
        assert b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n" in answer
        assert answer.endswith(
            b'{"message": "Request Timeout: the request was not complete after 0.3 s '
            b'(request_timeout)", "result": false}\n'
        )
        assert client.status()["http"]["timed_out"] == 1
        assert not server.clients.receiving


def test_a_fresh_request_gets_its_full_time(app: Daemon) -> None:
    """The deadline is that of a request, not that of a connection."""
    with serving(app, request_timeout=0.5) as (client, server), connect(client) as sock:
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            sock.sendall(EVENT[:-1])
            client.wait_until(lambda: server.clients.receiving)
            assert ask(sock, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")
        assert client.status()["http"]["timed_out"] == 0


def test_a_request_that_arrived_while_the_loop_was_busy_does_not_time_out(app: Daemon) -> None:
    with serving(app, request_timeout=0.2) as (client, server), connect(client) as sock:
        sock.sendall(EVENT[:-1])
        client.wait_until(lambda: server.clients.receiving)
        (began,) = server.clients.receiving.values()
        release = keep_busy(server)
        sock.sendall(EVENT[-1:])
        client.wait_until(lambda: time.monotonic() > began + 0.2)
        release()

        assert read_until(sock, b"\n").startswith(b"HTTP/1.1 200 OK")


def test_an_upload_that_the_loop_is_too_slow_to_read_does_not_time_out(app: Daemon) -> None:
    body = b'"%s"' % (b"x" * 40 * READ_SIZE)
    head = EVENT.replace(b"2\r\n\r\n{}", b"%d\r\n\r\n" % len(body))
    with serving(app, request_timeout=0.5) as (client, server), connect(client) as sock:
        # All reads together take longer than the whole request may.
        real, server.run_due = server.run_due, lambda most: time.sleep(0.02) or real(most)
        sock.sendall(head + body)

        assert read_until(sock, b"\n").startswith(b"HTTP/1.1 200 OK")


def test_a_request_after_a_slow_route_does_not_time_out(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    entered, release = slow
    with serving(app, request_timeout=0.2) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"/ping", b"/slow") + EVENT[:-1])
        entered.wait(10)
        (began,) = server.clients.receiving.values()
        client.wait_until(lambda: list(server.clients.receiving.values()) > [began + 0.2])
        release.set()
        assert read_until(sock, b"done")
        assert b'"Event received"' in ask(sock, EVENT[-1:])


def test_timeouts_do_not_depend_on_the_wall_clock(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with serving(app) as (client, server), connect(client) as idle, connect(client) as slow:
        ask(idle, PING)
        slow.sendall(EVENT[:-1])
        client.wait_until(lambda: server.clients.receiving)
        monkeypatch.setattr("time.time", lambda: real() + 1e6)
        assert client.get("/ping").text == "OK\n"
        monkeypatch.setattr("time.time", lambda: real() - 1e6)
        assert client.get("/ping").text == "OK\n"

        assert not is_closed(idle)
        assert ask(slow, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")


def test_blank_lines_do_not_begin_a_request(app: Daemon) -> None:
    options = {"request_timeout": 0.2, "fast_events": False}
    with serving(app, **options) as (client, server), connect(client) as sock:
        ask(sock, EVENT + b"\r\n")
        (channel,) = server.active_channels.values()
        client.wait_until(lambda: not channel.is_busy)
        assert not server.clients.receiving
        sock.sendall(b"G")
        client.wait_until(lambda: server.clients.receiving)


def test_the_time_of_a_request_begins_after_blank_lines(app: Daemon) -> None:
    with (
        serving(app, request_timeout=0.3, fast_events=False) as (client, _),
        connect(client) as sock,
    ):
        ask(sock, EVENT + b"\r\n")
        until = time.monotonic() + 0.4
        client.wait_until(lambda: time.monotonic() > until)
        sock.sendall(EVENT[:-1])
        assert ask(sock, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")


def test_a_request_after_an_unread_answer_gets_its_full_time(app: Daemon) -> None:
    app.route("/large", endpoint="large")(lambda: b"x" * 20_000_000)
    with serving(app, request_timeout=0.2) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"/ping", b"/large") + EVENT[:-1])
        client.wait_until(lambda: server.clients.receiving)
        (began,) = server.clients.receiving.values()
        client.wait_until(lambda: list(server.clients.receiving.values()) > [began + 0.3])
        sock.sendall(EVENT[-1:])
        end = b'{"message": "Event received", "result": true}\n'
        tail = b""
        while not tail.endswith(end):
            chunk = sock.recv(1_000_000)
            assert chunk
            tail = (tail + chunk)[-len(end) :]


def test_the_time_of_a_request_begins_when_the_answer_before_it_is_sent(app: Daemon) -> None:
    with serving(app, request_timeout=60) as (client, server), connect(client) as sock:
        ask(sock, PING + EVENT[:-1])
        (channel,) = server.active_channels.values()
        client.wait_until(lambda: server.clients.receiving and not channel.requests)
        # As if the answer had been in transit all that time.
        began = channel.last_activity - 61
        channel.request.began = server.clients.receiving[channel] = began
        server.wake()
        client.wait_until(lambda: server.clients.receiving[channel] > began)

        assert ask(sock, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")


def test_a_connection_that_a_forked_child_keeps_open_is_forgotten(app: Daemon) -> None:
    """epoll keeps reporting it unless it is unregistered."""
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, PING)
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            (channel,) = server.active_channels.values()
            sock.shutdown(socket.SHUT_RDWR)
            client.wait_until(lambda: not channel.connected)
            iterations = []
            real, server.run_due = (
                server.run_due,
                lambda at_most: iterations.append(1) or real(at_most),
            )
            assert client.get("/ping").text == "OK\n"
            client.wait_until(lambda: not server.active_channels)
            assert len(iterations) < 20
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_urgent_data_does_not_make_the_loop_spin(app: Daemon) -> None:
    """Unread urgent data would be reported in every iteration."""
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        iterations: list[int] = []
        real, server.run_due = server.run_due, lambda at_most: iterations.append(1) or real(at_most)
        sock.send(b"!", socket.MSG_OOB)
        ask(sock, EVENT)
        assert client.get("/ping").text == "OK\n"
        assert len(iterations) < 20


def test_only_the_loop_closes_connections(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool thread leaves a broken connection to the loop, which may be about to wait for it."""
    closers: list[str] = []
    real = Channel.drop

    def drop(self: Channel) -> None:
        closers.append(threading.current_thread().name)
        real(self)

    monkeypatch.setattr(Channel, "drop", drop)
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        (channel,) = [
            c for c in server.active_channels.values() if c.addr[1] == sock.getsockname()[1]
        ]
        closers.clear()
        channel.handle_close()
        client.wait_until(lambda: not channel.connected)

        assert is_closed(sock)
        assert closers == ["http"]


def test_a_connection_that_fails_is_closed_and_the_others_are_served(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(app) as (client, server), connect(client) as bad, connect(client) as good:
        ask(good, EVENT)
        ask(bad, EVENT)
        broken = next(
            c for c in server.active_channels.values() if c.addr[1] == bad.getsockname()[1]
        )
        broken.readable = lambda: 1 / 0
        bad.sendall(EVENT)

        client.wait_until(lambda: is_closed(bad))
        assert ask(good, EVENT).startswith(b"HTTP/1.1 200 OK")
        assert client.get("/ping").text == "OK\n"
    assert caplog.messages.count("A connection failed and is closed") == 1


class Engine:
    """A queue on another machine that answers when it is told to."""

    def __init__(self, app: Daemon) -> None:
        self.parts = app._assembly.parts
        self.asked: list[tuple[Any, Any]] = []
        self._answers: list[Callable[[], Any]] = []
        app._on_demand.queue.put_later = lambda *put: self.asked.append(put)
        self.parts.server.add_duty(self._run_due)

    def _run_due(self, now: float) -> float:
        answers, self._answers = self._answers, []
        for answer in answers:
            answer()
        return math.inf

    def wait(self) -> list[Any]:
        """Wait for a put; returns its events."""
        until = time.monotonic() + 10
        while not self.asked:
            assert time.monotonic() < until
            time.sleep(0.001)
        return self.asked[0][0].events

    def answer(self, refusal: Exception | None = None) -> None:
        """Answer the first put, on the loop's thread."""
        _, done = self.asked.pop(0)
        self._answers.append(lambda: done(refusal))
        self.parts.server.wake()


def test_an_event_is_answered_once_a_queue_elsewhere_has_it(app: Daemon) -> None:
    with serving(app) as (client, _), connect(client) as sock, connect(client) as other:
        engine = Engine(app)
        sock.sendall(EVENT)
        assert engine.wait() == [{}]
        assert ask(other, PING).startswith(b"HTTP/1.1 200 OK"), "the loop doesn't wait"
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(10)
        engine.answer()

        assert read_until(sock, b"\n").startswith(b"HTTP/1.1 200 OK")
        sock.sendall(EVENT)
        engine.wait()
        engine.answer(Unavailable("The engine is away"))
        assert b"The engine is away" in read_until(sock, b"\n")


@pytest.mark.parametrize("cut", [0, 1, 30, len(PING)])
def test_what_follows_a_parked_event_is_answered_after_it(app: Daemon, cut: int) -> None:
    with serving(app, request_timeout=0.2) as (client, _), connect(client) as sock:
        engine = Engine(app)
        sock.sendall(EVENT + EVENT + PING[:cut])
        assert engine.wait() == [{}, {}]
        time.sleep(0.5)
        sock.sendall(PING[cut:] + EVENT)
        engine.answer()
        answers = b""
        sock.settimeout(0.01)
        while answers.count(b"HTTP/1.1") < 4:
            if engine.asked:
                engine.answer()
            with suppress(TimeoutError):
                answers += sock.recv(65536)

        assert [b"received" in part for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [
            *(True, True, False, True)
        ]


def test_a_stop_waits_for_parked_events(app: Daemon) -> None:
    with serving(app) as (client, _), connect(client) as sock:
        engine = Engine(app)
        sock.sendall(EVENT)
        engine.wait()
        app.stop()
        client.wait_until(lambda: engine.parts.server._stop_requested.is_set(), "a stop")
        engine.answer()

        assert read_all(sock).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_leaves_a_parked_event_is_forgotten(app: Daemon) -> None:
    with serving(app) as (client, server), connect(client) as other:
        engine = Engine(app)
        with connect(client) as sock:
            sock.sendall(EVENT + PING)
            engine.wait()
        engine.answer()
        ask(other, PING)
        client.wait_until(lambda: len(server.active_channels) == 1, "the other one alone")
