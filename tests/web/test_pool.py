from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import flask
import pytest

from daemonkit import Daemon
from daemonkit.exceptions import StartError
from daemonkit.runtime.failures import FailureLog
from daemonkit.testing import Client, running
from daemonkit.web.pool import YIELD_INTERVAL, Pool
from daemonkit.web.server import Server

from ..clock import Clock
from .raw import connect

NOTHING_READ = re.compile(
    r"Connections closed whose clients read nothing of their answers for .+ s: (\d)"
)


@pytest.fixture
def app() -> Daemon:
    app = Daemon("app")

    @app.route("/stream")
    def stream() -> Any:
        return (bytes(1_000_000) for _ in range(500))

    return app


@contextmanager
def all_threads_waiting(app: Daemon) -> Iterator[tuple[Client, Server]]:
    """A daemon whose four HTTP threads wait for clients that read nothing."""
    with running(app, {"master": {"http_threads": 4}}) as client, ExitStack() as stack:
        assert app._assembly.parts is not None
        server = app._assembly.parts.server
        for _ in range(4):
            sock = stack.enter_context(connect(client))
            sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        channels = server._listener.active_channels
        client.wait_until(
            lambda: [c.total_outbufs_len > 2**24 for c in channels.values()] == [True] * 4
        )
        yield client, server


def closed(caplog: pytest.LogCaptureFixture) -> int:
    """How many connections were closed because nothing was read."""
    return sum(int(found[1]) for m in caplog.messages if (found := NOTHING_READ.match(m)))


def test_ping_and_ready_find_a_thread_while_all_others_wait_for_clients(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with all_threads_waiting(app) as (client, server):
        for _ in range(3):
            assert client.get("/ping").text == "OK\n"
            assert client.get("/ready").status_code == 200
        assert closed(caplog) == 0
        monkeypatch.setattr("daemonkit.web.clients.IDLE_TIMEOUT", 0.2)
        server._listener.clients._next_sweep = 0.0
        server._listener.wake()
        # Then the others do, too.
        assert client.get("/status").status_code == 200
        client.wait_until(lambda: closed(caplog) == 4)

    assert client.exit_status == 0


def test_clients_that_read_nothing_do_not_hold_up_a_stop_for_long(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.server.UNREAD_TIMEOUT", 0.2)
    with all_threads_waiting(app) as (client, server):
        app.stop()
        client.wait_until(lambda: not server.running_threads())

    assert client.exit_status == 0
    assert closed(caplog) == 4


def test_a_client_that_reads_slowly_gets_all_of_its_answer(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as there is some progress."""
    monkeypatch.setattr("daemonkit.web.clients.IDLE_TIMEOUT", 0.5)
    with running(app) as client, connect(client) as sock:
        sock.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        server = app._assembly.parts.server._listener  # type: ignore[union-attr]
        got, pauses = 0, 0
        while chunk := sock.recv(1_000_000):
            got += len(chunk)
            if got > (pauses + 1) * 50_000_000:
                # Another check for clients that read nothing.
                pauses += 1
                sweep = server.clients._next_sweep
                server.clients._next_sweep = 0.0
                server.wake()
                client.wait_until(lambda: server.clients._next_sweep not in (0.0, sweep))  # noqa: B023

    assert got > 500_000_000


@pytest.mark.parametrize(("hanging", "other"), [("/ping", "/ready"), ("/ready", "/ping")])
def test_a_probe_that_hangs_leaves_the_other_one_its_thread(
    app: Daemon, hanging: str, other: str
) -> None:
    entered, release = threading.Event(), threading.Event()
    hung: list[Any] = []

    def hang() -> None:
        if flask.request.path == hanging:
            hung.append(1)
            entered.set()
            release.wait(20)

    app.flask.before_request(hang)
    try:
        with running(app, {"master": {"http_threads": 1}}) as client, ExitStack() as stack:
            for count in (1, 2, 3):
                sock = stack.enter_context(connect(client))
                sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % hanging.encode())
                if count < 3:
                    client.wait_until(lambda: len(hung) == count)  # noqa: B023
            assert client.get(other).status_code == 200
            release.set()
    finally:
        release.set()

    assert client.exit_status == 0


def test_a_thread_that_cannot_be_started_is_not_waited_for(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is only the third of them."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "http-3":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    refused = pytest.raises(StartError, match="cannot start: RuntimeError: can't start new thread")
    with refused, running(app):
        pass

    assert not [t for t in threading.enumerate() if t.name.startswith("http")]


class Job:
    """A connection in the pool's queue, whose request lasts until it is released."""

    def __init__(self, path: str, error: BaseException | None = None) -> None:
        self.requests = [SimpleNamespace(path=path)]
        self.entered, self.release = threading.Event(), threading.Event()
        self.threads: SimpleQueue[str] = SimpleQueue()
        self._error = error

    def service(self) -> None:
        self.threads.put(threading.current_thread().name)
        self.entered.set()
        self.release.wait(10)
        if self._error is not None:
            raise self._error

    def cancel(self) -> None: ...


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(FailureLog(logging.getLogger("test")))
    yield pool
    pool.shutdown(timeout=10)
    for thread in pool.started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in pool.started)


def serve(pool: Pool, *jobs: Job) -> list[str]:
    """Let an idle pool serve them at the same time; returns the threads that do."""
    until = time.monotonic() + 10
    while pool.active_count or not all(c._waiters for c in pool._reserves.values()):  # type: ignore[attr-defined]
        assert time.monotonic() < until, "the pool doesn't become idle"
        time.sleep(0.001)
    for job in jobs:
        pool.add_task(job)
        assert job.entered.wait(10)
    for job in jobs:
        job.release.set()
    return [job.threads.get(timeout=10) for job in jobs]


def test_a_probe_takes_its_reserve_thread_only_when_no_other_is_idle(pool: Pool) -> None:
    pool.start(1)
    assert [thread.name for thread in pool.started] == ["http-1", "http-ping", "http-ready"]
    assert all(thread.daemon for thread in pool.started)

    assert serve(pool, Job("/ping")) == ["http-1"]
    assert serve(pool, Job("/x"), Job("/ping"), Job("/ready")) == [
        *("http-1", "http-ping", "http-ready")
    ]


def test_a_reserve_thread_survives_a_failing_request(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.start(1)
    for error in (ValueError("bad"), SystemExit(3)):
        busy = Job("/x")
        assert serve(pool, busy, Job("/ping", error)) == ["http-1", "http-ping"]
    assert serve(pool, Job("/x"), Job("/ping")) == ["http-1", "http-ping"]

    logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert logged == [ValueError, SystemExit]


def test_threads_yield_at_most_once_per_interval_and_only_while_connections_wait(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, yields = Clock(), []
    fake = SimpleNamespace(sleep=lambda seconds: yields.append(clock.now))
    monkeypatch.setattr("daemonkit.web.pool.time", fake)
    monkeypatch.setattr("daemonkit.web.pool.monotonic", clock)
    pool.yield_if_waiting()
    assert yields == []

    pool.queue.append(Job("/x"))
    for clock.now in (1.0, 1.0, 1.0 + YIELD_INTERVAL / 2, 1.0 + YIELD_INTERVAL, 2.0):
        pool.yield_if_waiting()
    pool.queue.clear()

    assert yields == [1.0, 1.0 + YIELD_INTERVAL, 2.0]
