"""Connections to a running daemon's HTTP server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from daemonkit import Daemon
from daemonkit.testing import Client, running

from .raw import connect, read_until

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


EVENT = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


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


def keep_busy(server: Any) -> Callable[[], None]:
    """Suspend the loop until the returned function is called."""
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


@contextmanager
def full(app: Daemon, *, word: str = "", **master: Any) -> Iterator[Client]:
    """A daemon with one event in work and one in the queue, whose size is 1."""
    entered = threading.Event()

    @app.on_event
    def handle(event: Any) -> None:
        entered.set()
        app.shutdown.wait(10)

    with running(app, {"word": word, "master": {"queue_size": 1, **master}}) as client:
        app.put_event(0)
        entered.wait(10)
        app.put_event(1)
        yield client
