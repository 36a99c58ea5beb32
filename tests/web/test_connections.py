"""Many clients, slow ones and idle ones: who is waited for, and who is let go."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import flask
import pytest
from waitress.server import TcpWSGIServer

from daemonkit import Daemon
from daemonkit.system.sockets import unacknowledged
from daemonkit.testing import Client, running
from daemonkit.web.channel import Channel

from .raw import connect, read_all, read_until

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
EVENT = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


@contextmanager
def serving(app: Daemon, **master: Any) -> Iterator[tuple[Client, Any]]:
    """A running daemon's client, and its server."""
    with running(app, {"master": master}) as client:
        assert app._assembly.parts is not None
        yield client, app._assembly.parts.server._listener


def ask(sock: socket.socket, request: bytes) -> bytes:
    """Send a request and read its answer."""
    sock.sendall(request)
    return read_until(sock, b"\n")


def is_closed(sock: socket.socket) -> bool:
    """Whether the server has closed it; doesn't wait."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        sock.settimeout(10)


def hold(client: Client, stack: ExitStack, count: int) -> list[socket.socket]:
    """Connections, in the order in which they were last used."""
    socks = [stack.enter_context(connect(client)) for _ in range(count)]
    for sock in socks:
        assert ask(sock, EVENT).startswith(b"HTTP/1.1 200 OK")
    return socks


# Too many


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


def test_a_client_over_the_limit_is_served_at_once_and_status_tells_of_it(app: Daemon) -> None:
    with serving(app, connection_limit=3) as (client, _), ExitStack() as stack:
        hold(client, stack, 3)
        before = time.monotonic()
        told = client.status()["http"]

        assert time.monotonic() - before < 2
        assert told == {
            "connections": 3,
            "shed": 1,
            "timed_out": 0,
            "fast_lane": "open",
            "fast_events": 3,
        }


def test_connections_at_work_are_not_closed_for_new_ones(
    app: Daemon, caplog: pytest.LogCaptureFixture, slow: tuple[threading.Event, threading.Event]
) -> None:
    """One is being answered, one is being read: a third has to wait for them."""
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


def test_a_flood_of_connections_leaves_ping_answering(app: Daemon) -> None:
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
        before = time.monotonic()
        assert client.get("/ping").text == "OK\n"

        assert time.monotonic() - before < 0.9, "there is no pause"
        assert is_closed(idle)
        assert server.clients.shed == 1
    assert any("Too many open files: idle connections are closed" in m for m in caplog.messages)


def test_who_has_just_sent_an_event_is_not_closed_for_a_new_connection(app: Daemon) -> None:
    """Both are found in one turn of the loop, which is kept busy meanwhile."""
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
    """The one that was found idle at first gets to work, and then there are others."""
    with serving(app, connection_limit=4) as (client, server), ExitStack() as stack:
        socks = hold(client, stack, 4)
        client.wait_until(lambda: server.clients._idle is not None)
        for sock in socks[:2]:
            sock.sendall(EVENT[:-1])
        client.wait_until(lambda: len(server.clients.receiving) == 2)
        hold(client, stack, 2)

        assert [is_closed(sock) for sock in socks] == [False, False, True, True]
        assert server.clients.shed == 2


def test_a_connection_with_something_unread_is_not_closed_for_a_new_one(app: Daemon) -> None:
    with serving(app, connection_limit=2) as (client, server), ExitStack() as stack:
        first, second = hold(client, stack, 2)
        release = keep_busy(server)
        first.sendall(EVENT)
        oldest = next(iter(server.active_channels.values()))
        client.wait_until(oldest.has_unread)

        # In the loop's place, which stands still.
        assert server.clients.shed_oldest()
        release()
        assert is_closed(second)
        assert read_until(first, b"\n").startswith(b"HTTP/1.1 200 OK")


def keep_busy(server: Any) -> Callable[[], None]:
    """Have the loop stand still until what is returned is called."""
    entered, release = threading.Event(), threading.Event()
    real = server.run_due

    def run_due(at_most: float | None) -> Any:
        server.run_due = real
        entered.set()
        release.wait(10)
        return real(at_most)

    server.run_due = run_due
    server.wake()
    entered.wait(10)
    return release.set


def test_connections_that_are_all_busy_are_not_looked_at_each_turn(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    real = Channel.is_busy.fget  # type: ignore[attr-defined]

    def is_busy(self: Channel) -> bool:
        looks.append(self._fileno)
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

    assert len(looks) < 200


# Sending


def test_the_loop_does_not_turn_while_a_thread_is_sending(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would find the socket writable each time, and keep the interpreter from that thread."""
    entered, release = threading.Event(), threading.Event()
    real = Channel.send

    def send(self: Channel, data: Any, do_close: bool = True) -> int:
        if threading.current_thread().name != "http":
            entered.set()
            release.wait(10)
        return int(real(self, data, do_close))

    with serving(app) as (client, server), connect(client) as sock:
        monkeypatch.setattr(Channel, "send", send)
        turns: list[int] = []
        real_tend = server.run_due
        server.run_due = lambda at_most: turns.append(1) or real_tend(at_most)
        sock.sendall(PING)
        entered.wait(10)
        # Time enough for thousands of turns.
        release.wait(0.2)
        count = len(turns)
        release.set()
        assert read_until(sock, b"OK\n")

    assert count < 20


def test_a_request_costs_the_loop_one_turn_and_its_answer_one_call_into_the_kernel(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    real = Channel.send

    def send(self: Channel, data: Any, do_close: bool = True) -> int:
        sent.append(len(data))
        return int(real(self, data, do_close))

    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, PING)
        monkeypatch.setattr(Channel, "send", send)
        turns: list[int] = []
        real_tend = server.run_due
        server.run_due = lambda at_most: turns.append(1) or real_tend(at_most)
        for _ in range(20):
            ask(sock, PING)
        count = len(turns)

    assert len(sent) == 20
    assert count <= 20 + 2


def test_a_connection_that_was_not_read_for_a_while_is_read_again(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    """One request is read ahead of an answer that takes long, and what comes behind it is left."""
    entered, release = slow
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"/ping", b"/slow"))
        entered.wait(10)
        (channel,) = server.active_channels.values()
        sock.sendall(PING)
        client.wait_until(lambda: len(channel.requests) == 2)
        sock.sendall(EVENT + PING)
        client.wait_until(lambda: channel._reads_paused)
        release.set()
        answers = b""
        while answers.count(b"OK\n") < 2:
            answers += sock.recv(65536)

    assert answers.count(b"HTTP/1.1 200 OK") == 4


def test_everything_is_sent_whatever_the_sizes_and_however_slowly_it_is_read(
    app: Daemon, tmp_path: Path
) -> None:
    """Nothing may be left unsent while the loop isn't looking; such a client would wait for ever."""
    block = bytes(range(256)) * 16_000
    (tmp_path / "block").write_bytes(block)

    @app.route("/bytes/<int:size>")
    def whole(size: int) -> bytes:
        return block[:size]

    @app.route("/parts/<int:size>")
    def parts(size: int) -> Any:
        return (block[n : min(n + 1 + n % 7000, size)] for n in _starts(size))

    @app.route("/file/<int:size>")
    def file(size: int) -> Any:
        return flask.send_file(tmp_path / "block", conditional=True)

    def fetch(client: Client, number: int) -> None:
        rng = random.Random(number)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.connect((client.host, client.port))
            for _ in range(8):
                # Pipelined, so that answers queue up behind each other.
                asked = [
                    (rng.choice(("bytes", "file")), rng.choice((0, 100, 9_000, 300_000, 4_000_000)))
                    for _ in range(rng.randint(1, 3))
                ]
                for kind, size in asked:
                    sock.sendall(
                        b"GET /%s/%d HTTP/1.1\r\nHost: x\r\nRange: bytes=0-%d\r\n\r\n"
                        % (kind.encode(), size, max(0, size - 1))
                    )
                with sock.makefile("rb") as answers:
                    for kind, size in asked:
                        got = _read_answer(answers, rng)
                        if got != block[: max(1, size) if kind == "file" else size]:
                            wrong.append((number, kind, size, len(got)))
            sock.sendall(b"GET /parts/1000000 HTTP/1.0\r\n\r\n")
            got = read_all(sock).partition(b"\r\n\r\n")[2]
            if got != block[:1_000_000]:
                wrong.append((number, "parts", 1_000_000, len(got)))
        done.append(number)

    wrong: list[Any] = []
    done: list[int] = []
    with serving(app) as (client, _):
        fetchers = [threading.Thread(target=fetch, args=(client, n)) for n in range(12)]
        for fetcher in fetchers:
            fetcher.start()
        for fetcher in fetchers:
            fetcher.join()

    assert wrong == []
    assert sorted(done) == list(range(12))


def _starts(size: int) -> Iterator[int]:
    """Where the parts of a body begin."""
    start = 0
    while start < size:
        yield start
        start += 1 + start % 7000


def _read_answer(answers: Any, rng: random.Random) -> bytes:
    """The next answer's body, read in pieces with pauses in between."""
    length = 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name == b"Content-Length":
            length = int(value)
    body = b""
    while len(body) < length:
        if rng.random() < 0.02:
            time.sleep(0.002)  # A reader is slow.
        body += answers.read(min(length - len(body), rng.choice((1, 1000, 60_000))))
    return body


def test_a_connection_keeps_nothing_of_what_it_has_sent(app: Daemon) -> None:
    app.route("/large", endpoint="large")(lambda: bytes(15_000_000))
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        (channel,) = server.active_channels.values()
        sock.sendall(PING.replace(b"ping", b"large"))
        client.wait_until(lambda: channel.total_outbufs_len)
        left = 15_000_000
        while left > 0:
            left -= len(sock.recv(1_000_000))
        client.wait_until(lambda: channel.outbufs[0].buf is None)
        assert len(channel.outbufs) == 1


def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_connection(
    app: Daemon, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Waitress would wait for the rest of it, in a loop that never rests."""
    file = tmp_path / "file"
    file.write_bytes(bytes(20_000_000))
    app.route("/file", endpoint="file")(lambda: flask.send_file(file))
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"ping", b"file"))
        client.wait_until(lambda: any(c.total_outbufs_len for c in server.active_channels.values()))
        with file.open("r+b") as shrunk:
            shrunk.truncate(1000)
        with suppress(ConnectionResetError):
            assert len(read_all(sock)) < 20_000_000
        client.wait_until(lambda: not server.active_channels)
    assert any(
        "A file became shorter while it was sent to 127.0.0.1:" in m for m in caplog.messages
    )


def test_a_fast_download_leaves_the_others_their_turns(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much the socket takes."""
    sent: dict[int, int] = {}
    turns: list[int] = []

    def send(self: Channel, data: Any, do_close: bool = True) -> int:
        sent[len(turns)] = sent.get(len(turns), 0) + len(data)
        return len(data)

    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        (channel,) = server.active_channels.values()
        real_tend = server.run_due
        server.run_due = lambda at_most: turns.append(1) or real_tend(at_most)
        with channel.outbuf_lock:
            channel.outbufs[-1].append(bytes(30_000_000))
            channel.total_outbufs_len += 30_000_000
        monkeypatch.setattr(Channel, "send", send)
        server.tell(channel)
        client.wait_until(lambda: not channel.total_outbufs_len)
        monkeypatch.undo()

    assert sum(sent.values()) >= 30_000_000
    assert max(sent.values()) <= 2 * 1024 * 1024 + channel.sendbuf_len


def test_a_client_that_reads_slowly_but_steadily_is_not_one_that_reads_nothing(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel takes more from us only when much of what it holds is gone."""
    app.route("/large", endpoint="large")(lambda: bytes(30_000_000))

    def look_after_long_silence() -> None:
        channel._last_activity -= 1000
        server.clients._next_sweep = 0.0
        server.wake()
        client.wait_until(lambda: server.clients._next_sweep != 0.0)

    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"ping", b"large"))
        client.wait_until(lambda: any(c.total_outbufs_len for c in server.active_channels.values()))
        (channel,) = server.active_channels.values()
        # What is on its way arrives, and then nothing more.
        client.wait_until(lambda: channel._in_flight and not channel.is_received())
        while unacknowledged(channel.socket) >= channel._in_flight:
            sock.recv(1000)
        look_after_long_silence()
        assert channel.connected
        client.wait_until(lambda: not channel.is_received())
        look_after_long_silence()
        assert not channel.connected
    assert any("Connections closed whose clients read nothing" in m for m in caplog.messages)


@pytest.mark.parametrize("durable", [True, False])
def test_a_client_that_only_stops_sending_gets_its_answers(
    app: Daemon, tmp_path: Path, durable: bool
) -> None:
    """Although the end is seen in the very turn in which its events are taken (`nc -N`)."""
    options = {"queue": str(tmp_path / "events.db")} if durable else {}
    with serving(app, **options) as (client, _):
        for count in (1, 10):
            with connect(client) as sock:
                sock.sendall(EVENT * count)
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock).count(b"HTTP/1.1 200 OK") == count
    assert client.exit_status == 0


# What can't be a request


@pytest.mark.parametrize("before", [b"", b"\r\n", EVENT, PING])
@pytest.mark.parametrize(
    "first", [b"\x16", b"\x80", b"\0", b"\xff", b"(", b'"', b" ", b"\x16\x03\1"]
)
def test_what_cannot_begin_a_request_is_refused_at_its_first_byte(
    app: Daemon, before: bytes, first: bytes
) -> None:
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(before + first)
        answer = read_all(sock)

        assert not server.clients.receiving
    assert answer.endswith(
        b'{"message": "Bad Request: this is no HTTP request; does the client speak TLS (https)?", '
        b'"result": false}\n'
    )
    assert answer.count(b"HTTP/1.1 200 OK") == (before.strip() != b"")
    assert b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n" in answer


def test_a_tls_client_learns_at_once_that_nobody_speaks_tls(app: Daemon) -> None:
    with serving(app, request_timeout=60) as (client, _), connect(client) as sock:
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record layer failure"):
            context.wrap_socket(sock, server_hostname="localhost")


# Draining


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
        # The beginning of an event is there already.
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


def test_what_is_refused_while_stopping_says_that_the_connection_is_closed(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    """A request that comes at the very end is answered, too, and nothing is reset."""
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


@pytest.mark.parametrize("count", [5, 300])
def test_who_waits_to_be_let_in_when_it_stops_is_still_answered(app: Daemon, count: int) -> None:
    """Closing the listening socket would reset those in its backlog; they may be more than are let
    in at once."""
    with serving(app) as (client, server), ExitStack() as stack:
        release = keep_busy(server)
        socks = [stack.enter_context(connect(client)) for _ in range(count)]
        for sock in socks:
            sock.sendall(PING)
        app.stop()
        client.wait_until(lambda: app._assembly.parts and app._assembly.parts.server._stopping)
        release()
        answers = [read_all(sock) for sock in socks]

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nConnection: close\r\n")


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


def test_one_that_is_never_sent_does_not_hold_up_the_stop(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.server.UNSENT", 0.2)
    with serving(app) as (client, server), connect(client) as sock:
        sock.sendall(PING[:-2])
        client.wait_until(lambda: server.clients.receiving)
        app.stop()
        assert read_all(sock) == b""
    assert client.exit_status == 0


def test_while_draining_status_says_that_events_take_the_long_way(app: Daemon) -> None:
    with serving(app, drain_delay=20, shutdown_timeout=30) as (client, server):
        app.stop()
        client.wait_until(lambda: server.draining)
        shown = client.status()["http"]["fast_lane"]
        app._lifecycle._stop_order.ended.set()  # type: ignore[union-attr]

    assert shown == "closed: the daemon is draining"


@pytest.mark.parametrize("order", [("admit", "drain"), ("drain", "admit")])
def test_a_passed_socket_that_drains_lets_nobody_in(app: Daemon, order: tuple[str, str]) -> None:
    """Whichever comes first, when a signal comes during the start."""
    with serving(app) as (_, server):
        server._outlives_us, server.is_open = True, False
        assert not server.admits
        for what in order:
            getattr(app._assembly.parts.server, what)()  # type: ignore[union-attr]
        assert not server.admits


def test_idle_clients_of_a_passed_socket_are_let_go_soon(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.server.LAST_REQUESTS", 0.1)
    with serving(app) as (client, listener), ExitStack() as stack:
        (idle,) = hold(client, stack, 1)
        server = app._assembly.parts.server  # type: ignore[union-attr]
        server.outlives_us = listener._outlives_us = True
        server.drain()
        server.wait_until_empty(10)

        assert server._is_empty.is_set()
        assert is_closed(idle)


# Too slow


@pytest.mark.parametrize(
    ("begin", "version"),
    [
        (b"G", b"1.0"),
        (b"GET /ping HTTP/1.1\r\nX: ", b"1.0"),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b"1.1"),
        (b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b"1.1"),
        (EVENT + b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b"1.1"),
        (PING + b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", b"1.1"),
    ],
)
def test_a_request_that_trickles_in_is_refused_after_its_time(
    app: Daemon, begin: bytes, version: bytes
) -> None:
    """Whatever the client sends meanwhile."""
    with serving(app, request_timeout=0.3) as (client, server), connect(client) as sock:
        before = time.monotonic()
        sock.sendall(begin)
        answer = b""
        sock.settimeout(0.01)
        while b"HTTP/%s 408 " % version not in answer:
            try:
                # Once it has refused, it doesn't matter to it any more.
                with suppress(BrokenPipeError):
                    sock.send(b"1")
                answer += sock.recv(65536)
            except TimeoutError:
                pass
            assert time.monotonic() < before + 5, answer
        took = time.monotonic() - before
        sock.settimeout(10)
        sock.shutdown(socket.SHUT_WR)
        answer += read_all(sock)

        assert 0.3 <= took < 2
        assert b"HTTP/%s 408 Request Timeout\r\nConnection: close\r\n" % version in answer
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


def test_a_request_behind_a_slow_route_is_not_held_against_the_client(
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


def test_the_time_of_day_counts_for_nothing(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_blank_lines_begin_no_request(app: Daemon) -> None:
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


def test_a_request_behind_an_answer_that_is_not_yet_read_has_its_time(app: Daemon) -> None:
    app.route("/large", endpoint="large")(lambda: b"x" * 20_000_000)
    with serving(app, request_timeout=0.2) as (client, server), connect(client) as sock:
        sock.sendall(PING.replace(b"/ping", b"/large") + EVENT[:-1])
        client.wait_until(lambda: server.clients.receiving)
        (began,) = server.clients.receiving.values()
        client.wait_until(lambda: list(server.clients.receiving.values()) > [began + 0.3])
        assert read_until(sock, b"x" * 1000)
        while b"Event received" not in (answer := ask(sock, EVENT[-1:])):
            assert b" 408 " not in answer


def test_the_time_of_a_request_begins_when_the_answer_before_it_is_sent(app: Daemon) -> None:
    with serving(app, request_timeout=60) as (client, server), connect(client) as sock:
        ask(sock, PING + EVENT[:-1])
        (channel,) = server.active_channels.values()
        client.wait_until(lambda: server.clients.receiving and not channel.requests)
        # As if the answer had been on its way for all that time.
        began = channel.last_activity - 61
        channel.request.began = server.clients.receiving[channel] = began
        server.wake()
        client.wait_until(lambda: server.clients.receiving[channel] > began)

        assert ask(sock, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")


# Idle


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
        # It looks again.
        looks = server.clients._next_sweep
        client.wait_until(lambda: server.clients._next_sweep != looks)

        assert not is_closed(answered)
        assert not is_closed(read)
        release.set()
        assert read_until(answered, b"done")
        assert ask(read, EVENT[-1:]).startswith(b"HTTP/1.1 200 OK")


def test_blank_lines_are_no_sign_of_life(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.web.clients.IDLE_TIMEOUT", 0.3)
    with serving(app) as (client, _), connect(client) as sock:
        until = time.monotonic() + 5
        while not is_closed(sock):
            assert time.monotonic() < until
            try:
                sock.send(b"\r\n\r\n")
            except OSError:
                break


def test_idle_connections_cost_no_turn_of_the_loop(
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


def test_without_connections_the_loop_sleeps_for_good(app: Daemon) -> None:
    with serving(app) as (client, server):
        assert client.get("/ping").text == "OK\n"
        client.wait_until(lambda: not server.active_channels)
        server.clients._next_sweep = time.monotonic()
        client.wait_until(lambda: (server.wake(), server.clients._next_sweep is None)[1])

        assert server.run_due(None) is None


def test_a_connection_that_a_forked_child_keeps_open_is_forgotten(app: Daemon) -> None:
    """The kernel goes on telling epoll of it, unless it is told not to."""
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, PING)
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            (channel,) = server.active_channels.values()
            sock.shutdown(socket.SHUT_RDWR)
            client.wait_until(lambda: not channel.connected)
            turns = []
            real, server.run_due = server.run_due, lambda at_most: turns.append(1) or real(at_most)
            assert client.get("/ping").text == "OK\n"
            client.wait_until(lambda: not server.active_channels)
            assert len(turns) < 20
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_urgent_data_costs_nothing(app: Daemon) -> None:
    """What nobody reads would be told of again and again."""
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        turns: list[int] = []
        real, server.run_due = server.run_due, lambda at_most: turns.append(1) or real(at_most)
        sock.send(b"!", socket.MSG_OOB)
        ask(sock, EVENT)
        assert client.get("/ping").text == "OK\n"
        assert len(turns) < 20


def test_what_is_to_be_sent_is_sent_by_one_thread_at_a_time(app: Daemon) -> None:
    """A pool thread may still send an interim answer when no request is in work any more."""
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        (channel,) = [
            c for c in server.active_channels.values() if c.addr[1] == sock.getsockname()[1]
        ]
        flush = threading.Thread(target=channel.handle_write)
        with channel.outbuf_lock:
            flush.start()
            flush.join(0.05)
            assert flush.is_alive()
        flush.join(10)
        assert not flush.is_alive()


def test_only_the_loop_closes_connections(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool thread that finds one broken leaves it to the loop, which may be about to wait for it."""
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


def test_a_failure_to_take_a_connection_is_logged_and_later_ones_are_taken(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.listener.PAUSE", 0.05)
    with serving(app) as (client, _):
        real, failed = TcpWSGIServer.accept, []

        def fail_once(self: TcpWSGIServer) -> Any:
            if not failed:
                failed.append(1)
                raise RuntimeError("bad luck")
            return real(self)

        monkeypatch.setattr(TcpWSGIServer, "accept", fail_once)
        assert client.get("/ping").text == "OK\n"
    assert caplog.messages.count("Taking a connection failed") == 1


def test_without_epoll_it_polls(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.web.poller._HAS_EPOLL", False)
    with serving(app, request_timeout=0.2) as (client, _), connect(client) as sock:
        assert ask(sock, EVENT).startswith(b"HTTP/1.1 200 OK")
        sock.sendall(EVENT[:-1])
        assert b" 408 " in read_all(sock)
        assert client.get("/ping").text == "OK\n"


def test_an_answer_that_does_not_fit_is_sent_on_when_there_is_room(app: Daemon) -> None:
    """So many pipelined requests that the client's window and the server's buffer are full."""
    with serving(app) as (client, server), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect((client.host, client.port))
        client.wait_until(lambda: server.active_channels)
        for channel in list(server.active_channels.values()):
            channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        count = 1000
        sender = threading.Thread(target=sock.sendall, args=[EVENT * count])
        sender.start()
        client.wait_until(lambda: any(c.total_outbufs_len for c in server.active_channels.values()))
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < count:
            answers += sock.recv(65536)
        sender.join()
        client.wait_until(lambda: client.status()["events"]["handled"] == count)


def test_a_client_that_is_gone_before_its_answer_harms_nobody(app: Daemon) -> None:
    app.on_event(lambda event: None)
    with serving(app) as (client, server):
        for _ in range(20):
            with connect(client) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(EVENT * 20)
        assert client.get("/ping").text == "OK\n"
        client.wait_until(lambda: not server.active_channels)
