"""One test for each thing the server relies on that waitress doesn't promise."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
import requests
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from daemonkit import Daemon
from daemonkit.testing import Client, running
from daemonkit.web.server import Server

from .raw import connect, read_all, read_until


@pytest.fixture
def app() -> Daemon:
    app = Daemon("app")
    app.route("/who", endpoint="who")(lambda: flask.request.remote_addr)
    app.route("/form", methods=["POST"], endpoint="form")(lambda: "formed")
    return app


@pytest.fixture
def client(app: Daemon) -> Iterator[Client]:
    with running(app, {"master": {"host": "::", "http_threads": 2}}) as client:
        client.host = "127.0.0.1"
        yield client


def exchange(client: Client, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    with connect(client) as sock:
        sock.sendall(data)
        return read_all(sock)


def parse(answer: bytes) -> tuple[bytes, dict[str, Any]]:
    """The status line and the JSON body of the one answer in `answer`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body)


NO_LENGTH = b"POST /events HTTP/1.1\r\nHost: x\r\n\r\n"
REQUEST_IN_BODY = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_post_without_a_length_is_411_and_its_body_is_not_the_next_request(
    client: Client,
) -> None:
    answer = exchange(client, NO_LENGTH + REQUEST_IN_BODY)

    assert b"\r\nConnection: close\r\n" in answer
    assert parse(answer) == (
        b"HTTP/1.1 411 LENGTH REQUIRED",
        {
            "message": "A request to /events needs Content-Length or chunked framing",
            "result": False,
        },
    )


def test_a_post_to_a_users_route_without_a_length_closes_the_connection(client: Client) -> None:
    answer = exchange(client, NO_LENGTH.replace(b"/events", b"/form") + REQUEST_IN_BODY)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
    assert answer.endswith(b"\r\n\r\nformed")


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    event = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
    last = b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(client, event + event + last)

    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.endswith(b"\r\n\r\n127.0.0.1")


def test_a_request_split_at_every_byte_is_read(client: Client) -> None:
    with connect(client) as sock:
        for byte in (
            b"POST /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        ):
            sock.send(bytes([byte]))
        answer = read_all(sock)

    assert parse(answer)[1] == {"message": "Event received", "result": True}


def test_expect_100_continue_is_answered(client: Client) -> None:
    with connect(client) as sock:
        sock.sendall(
            b"POST /events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
            b"Content-Length: 2\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert parse(read_all(sock))[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", b"411 LENGTH REQUIRED"),
        (b"Content-Length: 0\r\nConnection: close\r\n", b"400 BAD REQUEST"),
        (b"Content-Length: x\r\n", b"400 Bad Request"),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"400 Bad Request"),
        (b"Content-Length: 99999999\r\n", b"413 Request Entity Too Large"),
    ],
)
def test_a_refused_request_is_not_asked_to_continue(
    client: Client, headers: bytes, status: bytes
) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"

    assert exchange(client, head + headers + b"\r\n").startswith(b"HTTP/1.1 " + status)


def test_out_of_descriptors_accepting_pauses_and_is_logged_once(
    app: Daemon, client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("daemonkit.web.listener.PAUSE", 0.02)
    real, tried = TcpWSGIServer.accept, []

    def out(self: TcpWSGIServer) -> Any:
        tried.append(1)
        if len(tried) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self)

    monkeypatch.setattr(TcpWSGIServer, "accept", out)

    assert client.get("/ping").text == "OK\n"
    # The last one finds no other thread waiting.
    assert len(tried) == 5, "it does not spin"
    messages = [m for m in caplog.messages if "accepted" in m]
    assert messages == [
        "No connections can be accepted: Too many open files",
        "Connections are accepted again",
    ]


def test_keep_alive_clients_do_not_keep_it_from_stopping(app: Daemon) -> None:
    over = threading.Event()

    def ask(client: Client) -> None:
        with requests.Session() as session:
            while not over.is_set():
                try:
                    session.get(client.url + "/ping", timeout=5)
                except requests.ConnectionError:
                    return

    with running(app, {"master": {"shutdown_timeout": 10}}) as client:
        askers = [threading.Thread(target=ask, args=[client]) for _ in range(8)]
        for asker in askers:
            asker.start()
        client.wait_until(lambda: client.status()["uptime"] > 0.2)
    over.set()
    for asker in askers:
        asker.join()

    assert client.exit_status == 0, "the stop ran into its deadline"


def test_a_client_that_does_not_read_its_answer_is_disconnected(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.server.UNREAD_TIMEOUT", 0.2)
    app.route("/large", endpoint="large")(lambda: b"x" * 30_000_000)

    with running(app, {"master": {"shutdown_timeout": 10}}) as client, connect(client) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100)
        app.stop()
        client.wait_until(
            lambda: app._assembly.parts and not app._assembly.parts.server.running_threads()
        )

    assert client.exit_status == 0, "the stop ran into its deadline"


def test_a_refused_client_that_never_closes_is_disconnected(
    app: Daemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.web.channel.LINGER", 0.1)
    assert app._assembly.parts is not None
    server = app._assembly.parts.server._listener
    with connect(client) as sock:
        sock.sendall(NO_LENGTH)
        assert read_all(sock).startswith(b"HTTP/1.1 411")
        client.wait_until(lambda: not server.active_channels, "the end of it")


def test_descriptors_past_1024_are_served(client: Client) -> None:
    spare = [os.dup(0) for _ in range(1100)]
    try:
        request = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert exchange(client, request).endswith(b"OK\n")
    finally:
        for fd in spare:
            os.close(fd)


def test_two_hundred_idle_clients_do_not_keep_ping_waiting(client: Client) -> None:
    held = [connect(client) for _ in range(200)]
    try:
        assert client.get("/ping").text == "OK\n"
    finally:
        for sock in held:
            sock.close()


def test_a_failing_loop_iteration_is_logged_and_the_next_one_serves(
    app: Daemon, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert app._assembly.parts is not None
    server = app._assembly.parts.server._listener
    real = server.run_due

    def fail(at_most: float | None) -> float | None:
        server.run_due = real
        raise ValueError("bad turn")

    server.run_due = fail
    assert client.get("/ping").text == "OK\n"
    assert client.get("/ping").text == "OK\n"

    assert caplog.messages == ["The HTTP loop failed and continues"]


def in_background(action: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(action()))
    thread.start()
    return thread, result


def test_a_request_in_flight_at_stop_is_answered(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    entered, release = slow
    with running(app) as client:
        thread, result = in_background(lambda: client.get("/slow").text)
        entered.wait(10)
        app.stop()
        assert app._assembly.parts is not None
        server = app._assembly.parts.server
        client.wait_until(lambda: server._stop_requested.is_set())
        release.set()
        thread.join()

    assert result == ["done"]
    assert client.exit_status == 0


def test_an_answer_is_read_to_its_end_although_the_client_has_sent_more(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    """Closing with that unread would reset the connection and discard what is in transit."""
    entered, release = slow

    @app.route("/large")
    def large() -> bytes:
        entered.set()
        release.wait(10)
        return b"x" * 3_000_000

    more = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
    with running(app) as client, connect(client) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert app._assembly.parts is not None
        server = app._assembly.parts.server._listener
        assert entered.wait(10)
        sock.sendall(more * 3)
        app.stop()
        client.wait_until(lambda: not server.accepting)
        release.set()
        client.wait_until(lambda: server.clients.lingering)
        answer = read_all(sock)

    assert answer.endswith(b"x" * 3_000_000)
    assert client.exit_status == 0


def test_pool_threads_that_take_long_to_end_are_waited_for(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ThreadedTaskDispatcher.handler_thread

    def handler_thread(self: ThreadedTaskDispatcher, number: int) -> None:
        real(self, number)
        time.sleep(0.1)

    monkeypatch.setattr(ThreadedTaskDispatcher, "handler_thread", handler_thread)
    with running(app) as client:
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


def test_requests_during_the_stop_are_answered_and_the_connection_closed(
    app: Daemon, slow: tuple[threading.Event, threading.Event]
) -> None:
    entered, release = slow
    with running(app) as client, connect(client) as idle:
        idle.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(idle, b"OK\n")
        thread, result = in_background(lambda: client.get("/slow").text)
        entered.wait(10)
        app.stop()
        assert app._assembly.parts is not None
        server = app._assembly.parts.server._listener
        client.wait_until(lambda: not server.accepting)
        idle.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(idle)
        release.set()
        thread.join()

    assert answer.startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nConnection: close\r\n")
    assert result == ["done"]


def test_a_request_that_outlives_the_deadline_is_named_and_abandoned(
    app: Daemon,
    slow: tuple[threading.Event, threading.Event],
    caplog: pytest.LogCaptureFixture,
) -> None:
    entered, release = slow
    with running(app, {"master": {"shutdown_timeout": 0.5}}) as client, connect(client) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        entered.wait(10)
        app.stop()
        assert read_all(sock) == b""
    release.set()

    assert client.exit_status == 4
    # On a busy machine, an idle thread may be late, too, and the deadline report this one again.
    reports = [m for m in caplog.messages if " did not stop in time" in m]
    assert sum("release.wait(10)" in report for report in reports) in (1, 2)


def test_a_body_of_the_wrong_type_is_500_and_not_an_empty_reply(app: Daemon) -> None:
    """The head has not been sent by then, although it is sent with the first part."""
    real = app.flask.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/wrong":
            return real(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter(["text"])

    app.flask.wsgi_app = middleware  # type: ignore[method-assign]
    with running(app) as client:
        answer = exchange(client, b"GET /wrong HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


def test_a_refused_client_that_disconnects_leaves_no_traceback(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running(app) as client:
        for _ in range(20):
            with connect(client) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(b"nonsense\r\n\r\n")
        assert client.get("/ping").text == "OK\n"

    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.fixture
def idle_server() -> Iterator[Server]:
    """A server that has not been started."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    server = Server(
        lambda environ, start_response: [],
        sock,
        logging.getLogger("test"),
        lane=None,
        threads=1,
        max_request_size=1,
        connection_limit=1,
        request_timeout=1,
    )
    yield server
    server.request_stop()
    assert server.join(10)
    assert (sock.fileno(), server.running_threads()) == (-1, [])


def test_a_server_that_was_never_started_is_stopped_like_any_other(idle_server: Server) -> None:
    idle_server.drain()
    idle_server.wait_until_empty(10)

    assert idle_server.problems() == []
    assert idle_server.counters() == {
        "connections": 0,
        "shed": 0,
        "timed_out": 0,
        "fast_lane": "closed: fast_events is false",
        "fast_events": 0,
        "answers": {},
    }


def test_a_loop_that_ends_by_itself_is_a_problem(
    idle_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(idle_server, "_run_once", lambda *_: sys.exit())
    idle_server.start()
    idle_server._thread.join(10)

    assert [problem.text for problem in idle_server.problems()] == [
        "the HTTP server is not running"
    ]
    assert [thread.name for thread in idle_server.running_threads()] == [
        *("http-1", "http-ping", "http-ready")
    ]
    idle_server.request_stop()
    assert idle_server.problems() == []
    monkeypatch.undo()
    idle_server._close(10)
