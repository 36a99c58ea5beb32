"""Shared by the peers over UDP: the socket, and how they end."""

from __future__ import annotations

import json
import socket
import sys
from typing import NoReturn

BUFFER = 4 * 1024 * 1024
"""Bytes of the socket's receive buffer; daemonkit's default."""
SO_RCVBUFFORCE = 33
"""socket(7); Python has no name for it."""


def bind(port: str) -> socket.socket:
    """A bound socket whose buffer is as large as daemonkit's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    enlarge(sock)
    sock.bind(("127.0.0.1", int(port)))
    return sock


def enlarge(sock: socket.socket) -> None:
    """Set the buffer, beyond the system's limit if the process has the right to."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def show_count(count: int) -> None:
    """Print the consumer's count, as the last line of the output."""
    print(json.dumps({"count": count}), flush=True)


def exit_on_signal(*_: object) -> NoReturn:
    """A signal handler that ends the main thread."""
    sys.exit()
