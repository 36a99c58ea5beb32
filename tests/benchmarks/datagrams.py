"""Datagrams: floods, bursts, and whether each was counted or is known to be dropped."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .load import EVENT
from .processes import CheckFailed
from .servers import Server


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", _Msghdr), ("len", ctypes.c_uint)]


SOL_UDP, UDP_SEGMENT = 17, 103
"""udp(7); Python has no names for them."""


class Datagrams:
    """Sends the event as datagrams as fast as possible, for the time of a `with` block.

    Several calls a datagram make a sender in Python slower than a good receiver; sendmmsg(2) takes
    many messages a call, and UDP_SEGMENT has the kernel cut each into several datagrams.
    """

    def __init__(self, port: int, *, messages: int = 50, segments: int = 40) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.connect(("127.0.0.1", port))
        try:
            self._sock.setsockopt(SOL_UDP, UDP_SEGMENT, len(EVENT))
        except OSError:
            # Before Linux 4.18.
            segments = 1
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
        self._segments = segments
        self._data = ctypes.create_string_buffer(EVENT * segments, len(EVENT) * segments)
        self._iovec = _Iovec(ctypes.addressof(self._data), len(self._data))
        self._messages = (_Mmsghdr * messages)()
        for message in self._messages:
            message.hdr.iov = ctypes.pointer(self._iovec)
            message.hdr.iovlen = 1

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _send(self, messages: int) -> int:
        sent: int = self._sendmmsg(self._sock.fileno(), self._messages, messages, 0)
        if sent < 0:
            error = ctypes.get_errno()
            raise CheckFailed(f"sendmmsg: {os.strerror(error)}")
        return sent * self._segments

    def flood(self, seconds: float) -> int:
        """Send for a while; returns how many were sent."""
        sent, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            sent += self._send(len(self._messages))
        return sent

    def send(self, number: int) -> None:
        """Send exactly this many."""
        if number % self._segments:
            raise ValueError(f"not a multiple of {self._segments}")
        while number:
            number -= self._send(min(len(self._messages), number // self._segments))


def softnet_drops() -> int:
    """Packets that the kernel dropped before they reached a socket, on all cores."""
    lines = Path("/proc/net/softnet_stat").read_text("ascii").splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def check_datagrams(server: Server, valid: int = 100, invalid: int = 5) -> None:
    """Send some valid and some invalid datagrams, and check the count."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", server.port))
        for number in range(valid + invalid):
            sock.send(EVENT if number < valid else EVENT[:-1])
    server.rest()
    counted = server.settled_count() if server.peer.is_ours else server.stop_and_count()
    if counted != valid:
        server.fail(f"has counted {counted} of {valid} valid and {invalid} invalid datagrams")


def count_datagrams(server: Server, sent: int, lost: int) -> int:
    """The consumer's count, after a check that it and the known drops add up to `sent`, except for
    `lost`, which the kernel may have dropped before they reached a socket."""
    dropped = server.known_drops()
    counted = server.settled_count() if server.peer.is_ours else server.stop_and_count()
    if not sent - lost <= counted + dropped <= sent:
        server.fail(
            f"has counted {counted} of {sent} datagrams, and {dropped} are known to be dropped"
        )
    return counted


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Suspend a server."""
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)
