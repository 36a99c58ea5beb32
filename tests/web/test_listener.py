from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from waitress.server import TcpWSGIServer

from daemonkit import Daemon

from .connections import PING, keep_busy, serving
from .raw import connect, read_all


@pytest.mark.parametrize("count", [5, 300])
def test_clients_in_the_backlog_at_the_stop_are_still_answered(app: Daemon, count: int) -> None:
    """Closing the listening socket would reset those in its backlog, which may be more than are
    accepted at once."""
    with serving(app) as (client, server), ExitStack() as stack:
        release = keep_busy(server)
        socks = [stack.enter_context(connect(client)) for _ in range(count)]
        for sock in socks:
            sock.sendall(PING)
        app.stop()
        client.wait_until(
            lambda: app._assembly.parts and app._assembly.parts.server._stop_requested.is_set()
        )
        release()
        answers = [read_all(sock) for sock in socks]

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nConnection: close\r\n")


@pytest.mark.parametrize("order", [("admit", "drain"), ("drain", "admit")])
def test_a_draining_passed_socket_accepts_no_connections(
    app: Daemon, order: tuple[str, str]
) -> None:
    """In either order, when a signal arrives during the start."""
    with serving(app) as (_, server):
        server._is_passed, server.is_open = True, False
        assert not server.admits
        for what in order:
            getattr(app._assembly.parts.server, what)()  # type: ignore[union-attr]
        assert not server.admits


def test_a_failure_to_accept_a_connection_is_logged_and_later_ones_are_accepted(
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
    assert caplog.messages.count("Accepting a connection failed") == 1
