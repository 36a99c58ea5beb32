from __future__ import annotations

import random
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import flask
import pytest

from daemonkit import Daemon
from daemonkit.testing import Client
from daemonkit.web.channel import Channel

from .connections import EVENT, PING, ask, serving
from .raw import connect, read_all, read_until


def test_the_loop_does_not_spin_while_a_thread_is_sending(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would find the socket writable each time, and keep that thread from running."""
    entered, release = threading.Event(), threading.Event()
    real = Channel.send

    def send(self: Channel, data: Any, do_close: bool = True) -> int:
        if threading.current_thread().name != "http":
            entered.set()
            release.wait(10)
        return int(real(self, data, do_close))

    with serving(app) as (client, server), connect(client) as sock:
        monkeypatch.setattr(Channel, "send", send)
        iterations: list[int] = []
        real_run_due = server.run_due
        server.run_due = lambda at_most: iterations.append(1) or real_run_due(at_most)
        sock.sendall(PING)
        entered.wait(10)
        # Long enough for thousands of iterations.
        release.wait(0.2)
        count = len(iterations)
        release.set()
        assert read_until(sock, b"OK\n")

    assert count < 20


def test_a_request_costs_one_loop_iteration_and_its_answer_one_system_call(
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
        iterations: list[int] = []
        real_run_due = server.run_due
        server.run_due = lambda at_most: iterations.append(1) or real_run_due(at_most)
        for _ in range(20):
            ask(sock, PING)
        count = len(iterations)

    assert len(sent) == 20
    assert count <= 20 + 2


def test_a_connection_that_was_not_read_for_a_while_is_read_again(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    """One request is read ahead while an answer takes long, and what follows is not read."""
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
    """Nothing may be left unsent while the loop doesn't wait for the socket; the client would wait
    forever."""
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
                # Pipelined, so that answers queue up.
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
            time.sleep(0.002)  # The reader is slow.
        body += answers.read(min(length - len(body), rng.choice((1, 1000, 60_000))))
    return body


def test_a_connection_keeps_nothing_that_it_has_sent(app: Daemon) -> None:
    app.route("/large", endpoint="large")(lambda: bytes(15_000_000))
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        (channel,) = server.active_channels.values()
        sock.sendall(PING.replace(b"ping", b"large"))
        client.wait_until(lambda: channel.total_outbufs_len)
        left = 15_000_000
        while left > 0:
            left -= len(sock.recv(1_000_000))
        client.wait_until(lambda: getattr(channel.outbufs[0], "buf", channel) is None)
        assert len(channel.outbufs) == 1


def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_connection(
    app: Daemon, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Waitress would busy-wait for the rest of it."""
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


def test_a_fast_download_does_not_starve_other_clients(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the socket accepts everything."""
    sent: dict[int, int] = {}
    iterations: list[int] = []

    def send(self: Channel, data: Any, do_close: bool = True) -> int:
        sent[len(iterations)] = sent.get(len(iterations), 0) + len(data)
        return len(data)

    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, EVENT)
        (channel,) = server.active_channels.values()
        real_run_due = server.run_due
        server.run_due = lambda at_most: iterations.append(1) or real_run_due(at_most)
        with channel.outbuf_lock:
            channel.outbufs[-1].append(bytes(30_000_000))
            channel.total_outbufs_len += 30_000_000
        monkeypatch.setattr(Channel, "send", send)
        server.recheck(channel)
        client.wait_until(lambda: not channel.total_outbufs_len)
        monkeypatch.undo()

    assert sum(sent.values()) >= 30_000_000
    assert max(sent.values()) <= 2 * 1024 * 1024 + channel.sendbuf_len


@pytest.mark.parametrize("durable", [True, False])
def test_a_client_that_only_stops_sending_gets_its_answers(
    app: Daemon, tmp_path: Path, durable: bool
) -> None:
    """Although the end is seen in the iteration that reads its events (`nc -N`)."""
    options = {"queue": str(tmp_path / "events.db")} if durable else {}
    with serving(app, **options) as (client, _):
        for count in (1, 10):
            with connect(client) as sock:
                sock.sendall(EVENT * count)
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock).count(b"HTTP/1.1 200 OK") == count
    assert client.exit_status == 0


def test_only_one_thread_sends_at_a_time(app: Daemon) -> None:
    """A pool thread may still send an interim answer when no request is in work."""
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


def test_an_answer_that_does_not_fit_is_continued_when_there_is_room(app: Daemon) -> None:
    """Enough pipelined requests to fill the client's window and the server's buffer."""
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


def test_a_client_that_disconnects_before_its_answer_does_no_harm(app: Daemon) -> None:
    app.on_event(lambda event: None)
    with serving(app) as (client, server):
        for _ in range(20):
            with connect(client) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(EVENT * 20)
        assert client.get("/ping").text == "OK\n"
        client.wait_until(lambda: not server.active_channels)


def test_a_large_answer_is_not_copied(app: Daemon) -> None:
    size = 64 * 2**20
    whole = b"x" * size
    app.route("/large")(lambda: whole)
    with serving(app) as (client, _), connect(client) as sock:
        tracemalloc.start()
        try:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = 0
            while part := sock.recv(2**16):
                received += len(part)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert received > size
    assert peak < size / 4


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_what_an_application_changes_after_sending_it_is_sent_unchanged(
    app: Daemon, make: Any
) -> None:
    app.flask.wsgi_app = _Reusing(make)  # type: ignore[method-assign]
    with serving(app) as (client, _), connect(client) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.wait_until(lambda: app.flask.wsgi_app.is_done)  # type: ignore[attr-defined]
        body = read_all(sock).partition(b"\r\n\r\n")[2]

    assert body == b"".join(bytes([65 + number]) * _Reusing.SIZE for number in range(4))


class _Reusing:
    """A WSGI application that fills one buffer again and again."""

    SIZE = 2**20

    def __init__(self, make: Any) -> None:
        self._make = make
        self.is_done = False

    def __call__(self, _: Any, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        buffer = bytearray(self.SIZE)
        for number in range(4):
            buffer[:] = bytes([65 + number]) * self.SIZE
            yield self._make(buffer) if self._make is not bytearray else buffer
        self.is_done = True
