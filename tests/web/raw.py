"""Raw connections to a server."""

from __future__ import annotations

import socket

from daemonkit.testing import Client


def connect(client: Client) -> socket.socket:
    """A new connection."""
    sock = socket.create_connection((client.host, client.port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Read an answer whose body ends like that."""
    answer = bytearray()
    while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n") or not answer.endswith(end):
        chunk = sock.recv(65536)
        assert chunk, answer
        answer += chunk
    return bytes(answer)
