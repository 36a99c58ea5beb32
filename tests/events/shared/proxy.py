"""A proxy between a node and the engine that cuts, delays and stalls connections."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress

UP, DOWN = "up", "down"
"""To the engine, and from it."""


class Proxy:
    """Passes on bytes between clients and a port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, tuple[socket.socket, str]] = {}
        self._lock = threading.Lock()
        self._cut: tuple[str, int] | None = None
        self.delay = 0.0
        """Seconds by which everything is late."""
        self.stalls = False
        """Whether nothing is passed on."""
        self._over = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def cut_after(self, direction: str, count: int) -> None:
        """Close a connection once so many more bytes have passed in this direction."""
        with self._lock:
            self._cut = direction, count

    @property
    def was_cut(self) -> bool:
        """Whether that has happened."""
        return self._cut is None

    def forget_cut(self) -> None:
        with self._lock:
            self._cut = None

    def close(self) -> None:
        self._over = True
        self._wake_write.send(b".")
        self._thread.join()
        for sock in (*self._pairs, self._listener, self._wake_read, self._wake_write):
            sock.close()

    def _run(self) -> None:
        while not self._over:
            waited = [self._listener, self._wake_read, *([] if self.stalls else self._pairs)]
            ready, _, _ = select.select(waited, [], [], 0.05)
            if self.delay and ready:
                time.sleep(self.delay)
            for sock in ready:
                if sock is self._listener:
                    self._accept()
                elif sock in self._pairs:
                    self._pass_on(sock)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            engine = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        self._pairs[client] = engine, UP
        self._pairs[engine] = client, DOWN

    def _pass_on(self, sock: socket.socket) -> None:
        other, direction = self._pairs[sock]
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        ends = not data
        with self._lock:
            if self._cut is not None and self._cut[0] == direction:
                left = self._cut[1]
                if len(data) > left:
                    data, ends, self._cut = data[:left], True, None
                else:
                    self._cut = direction, left - len(data)
        with suppress(OSError):
            other.sendall(data)
        if ends:
            for each in (sock, other):
                del self._pairs[each]
                each.close()
