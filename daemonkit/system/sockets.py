"""A daemon's two sockets: TCP and UDP on one address and port."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..exceptions import StartError

ANY_ADDRESS = "::"
ANY_ADDRESS_V4 = "0.0.0.0"
BACKLOG = 1024
PORT_TRIES = 32
RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes: the default UDP receive buffer, enough for some 10,000 short datagrams."""
# Linux only, not in Python's socket module (asm-generic/socket.h; SK_MEMINFO_DROPS is the last).
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_COUNT = struct.Struct("i")
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


@dataclass
class Sockets:
    """Both sockets, bound; the TCP socket is listening."""

    tcp: socket.socket
    udp: socket.socket
    host: str
    port: int

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()


def adopt(given: Sequence[socket.socket]) -> Sockets:
    """Use the sockets that systemd passed: one for TCP and one for UDP.

    Raises StartError for any others, and closes them.
    """
    kinds = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}
    found = {
        kinds[sock.type]: sock
        for sock in given
        if sock.type in kinds and sock.family in (socket.AF_INET, socket.AF_INET6)
    }
    if len(given) != 2 or len(found) != 2:
        names = ", ".join(f"{sock.family.name} {sock.type.name}" for sock in given)
        for sock in given:
            sock.close()
        raise StartError(
            "cannot start: systemd must pass one TCP and one UDP socket (ListenStream= and "
            f"ListenDatagram= in the .socket unit), not {names}"
        )
    tcp, udp = found["TCP"], found["UDP"]
    try:
        tcp.listen(BACKLOG)
    except OSError as error:
        raise StartError(f"cannot listen on systemd's TCP socket: {error.strerror}") from None
    return Sockets(tcp, udp, *tcp.getsockname()[:2])


def bind(host: str, port: int, warn: Callable[[str], None]) -> Sockets:
    """Bind TCP and UDP to `host` and `port`; 0 picks a port that is free for both.

    `::` includes IPv4, and falls back to 0.0.0.0 with a warning on a machine without IPv6.
    Raises StartError when an address can't be bound.
    """
    try:
        return _bind_both(host, port)
    except OSError as error:
        if host != ANY_ADDRESS or error.errno not in _NO_IPV6:
            raise _start_error(host, port, error) from None
    warn(f"no IPv6 on this machine: listening on {ANY_ADDRESS_V4} instead of {ANY_ADDRESS}")
    try:
        return _bind_both(ANY_ADDRESS_V4, port)
    except OSError as error:
        raise _start_error(ANY_ADDRESS_V4, port, error) from None


def _bind_both(host: str, port: int) -> Sockets:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        # `a..b`, or a label that is too long.
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    family, address = info[0][0], info[0][4]
    for tries_left in reversed(range(PORT_TRIES)):
        tcp = _bound(family, socket.SOCK_STREAM, address)
        try:
            tcp.listen(BACKLOG)
            found: int = tcp.getsockname()[1]
            udp = _bound(family, socket.SOCK_DGRAM, (address[0], found, *address[2:]))
        except OSError as error:
            tcp.close()
            # Only a port that the kernel picked can be replaced.
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                raise
        else:
            return Sockets(tcp, udp, host, found)
    raise AssertionError("unreachable")


def _bound(family: int, kind: socket.SocketKind, address: Any) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM:
            # For TIME_WAIT; on UDP it would let two daemons share the port unnoticed.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        error.filename = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
        raise
    return sock


def set_receive_buffer(sock: socket.socket, size: int | None, warn: Callable[[str], None]) -> None:
    """Set the kernel's buffer for datagrams not yet read.

    size: bytes, beyond the system's limit if the process has the right to (socket(7),
    SO_RCVBUFFORCE), else up to the limit with a warning; None: RECEIVE_BUFFER or the limit.
    """
    wanted = RECEIVE_BUFFER if size is None else size
    # A larger system default, or systemd's ReceiveBuffer=, is kept.
    if size is None and _receive_buffer(sock) >= wanted:
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    if size is not None and (got := _receive_buffer(sock)) < wanted:
        warn(
            f"udp_receive_buffer: the system gives {got} bytes instead of {wanted}; raise "
            "net.core.rmem_max, or give the process CAP_NET_ADMIN"
        )


def _receive_buffer(sock: socket.socket) -> int:
    # The kernel doubles the size, for its own bookkeeping.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def kernel_drops(sock: socket.socket) -> int | None:
    """Count the datagrams dropped because the buffer was full; None where that is unknown.

    Unlike SO_RXQ_OVFL, it includes drops after the datagram that was read last.
    """
    try:
        figures = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        drops: int = _MEMINFO.unpack(figures)[-1]
    except (OSError, struct.error):
        return None
    return drops


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 where that is unknown."""
    try:
        (count,) = _COUNT.unpack(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(_COUNT.size)))
    except (OSError, ValueError):
        return 0
    return int(count)


def _start_error(host: str, port: int, error: OSError) -> StartError:
    protocol = error.filename or "TCP"
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = "; is it running already? Another port: --port or master.port"
    elif error.errno == errno.EACCES and port < 1024:
        hint = "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    elif isinstance(error, socket.gaierror):
        hint = "; see master.host"
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return StartError(f"cannot listen on {protocol} {format_address(host, port)}: {reason}{hint}")


def format_address(host: str, port: int | str) -> str:
    """`host:port`, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain_address(address: str) -> str:
    """An IPv4-mapped IPv6 address as IPv4 (RFC 4291 section 2.5.5.2)."""
    return address[len("::ffff:") :] if address.startswith("::ffff:") else address
