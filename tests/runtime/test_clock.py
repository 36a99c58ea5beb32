from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timedelta

import pytest
from freezegun import freeze_time

from daemonkit import Daemon, Slave
from daemonkit.runtime.clock import LONGEST_WAIT, kernel_timeout, monotonic
from daemonkit.testing import Client, running

YEARS = timedelta(days=36_500)


def test_a_timeout_is_one_that_the_kernel_accepts() -> None:
    given = [None, -1.0, 0.0, 2.5, 1e9, float("inf")]

    assert [kernel_timeout(seconds) for seconds in given] == [
        None, 0.0, 0.0, 2.5, LONGEST_WAIT, LONGEST_WAIT,
    ]  # fmt: skip
    # In milliseconds, it fits into an int.
    poll = select.poll()
    with socket.socket() as sock:
        poll.register(sock, select.POLLOUT | select.POLLHUP)
        assert poll.poll(LONGEST_WAIT * 1000)


def test_the_clock_is_python_s_and_is_not_frozen() -> None:
    assert abs(monotonic() - time.monotonic()) < 60
    before = monotonic()
    with freeze_time("2012-01-14"):
        assert 0 <= monotonic() - before < 60


def half_a_request(client: Client) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", client.port))
    sock.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET ")
    assert sock.recv(10_000).startswith(b"HTTP/1.1 200")
    return sock


def finish(sock: socket.socket) -> None:
    with sock:
        sock.sendall(b"/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(10_000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("start", ["2012-01-14", "2100-01-01", "1970-01-02"])
@pytest.mark.parametrize("when", ["around", "within"])
def test_a_daemon_runs_on_while_a_test_freezes_the_time_and_afterwards(
    start: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, handled, ticks = Daemon("app"), [], []
    app.on_event(lambda event: handled.append(event))
    app.add_slave(lambda: ticks.append("thread"), name="thread", every=0.01)

    async def tick() -> None:
        ticks.append("async")

    app.add_slave(tick, name="async", every=0.01)

    @app.slave(timeout=30)
    def idle(slave: Slave) -> None:
        slave.sleep(3600)

    def check(client: Client, event: int) -> None:
        ticks.clear()
        assert client.get("/ping").text == "OK\n"
        client.send_event(event)
        client.wait_until(lambda: event in handled and {*ticks} == {"thread", "async"}, "work")

    with ExitStack() as frozen:
        if when == "around":
            now = frozen.enter_context(freeze_time(start))
        with running(app) as client:
            if when == "within":
                now = frozen.enter_context(freeze_time(start))
            sock = half_a_request(client)
            check(client, 1)
            now.move_to(datetime(2012, 1, 1) + YEARS)
            check(client, 2)
            now.tick(-2 * YEARS)
            check(client, 3)
            frozen.close()
            check(client, 4)
            finish(sock)

    assert client.exit_status == 0
    assert "HTTP loop" not in caplog.text
    assert "stalled" not in caplog.text


def test_the_stop_has_its_deadline_although_the_time_is_frozen() -> None:
    release = threading.Event()
    app = Daemon("app", config={"master": {"shutdown_timeout": 0.3}})

    @app.slave
    def stubborn() -> None:
        release.wait(60)

    with freeze_time("2012-01-14"):
        try:
            with running(app) as client:
                pass
        finally:
            release.set()

    assert client.exit_status == 4
