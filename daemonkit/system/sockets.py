"""A daemon's sockets: TCP and UDP on one address and port, or a Unix socket."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
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
_CREDENTIALS = struct.Struct("3i")
SOCKET_MODE = 0o660
_COUNT = struct.Struct("i")
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


@dataclass(eq=False, repr=False)
class Sockets:
    """The sockets, bound; the TCP or Unix socket is listening.

    udp: None if no datagrams are taken; path: of a Unix socket.
    """

    tcp: socket.socket
    udp: socket.socket | None
    host: str
    port: int
    path: str | None = None

    @property
    def address(self) -> str:
        """Where they listen, for the log."""
        return f"unix:{self.path}" if self.path else format_address(self.host, self.port)

    def close(self) -> None:
        """Close them, and remove the file of a Unix socket."""
        self.tcp.close()
        if self.path:
            remove_socket_file(self.path)
        if self.udp is not None:
            self.udp.close()


def adopt(given: Sequence[socket.socket], *, with_udp: bool = True) -> Sockets:
    """Use the sockets that systemd passed: one for TCP and, with `with_udp`, one for UDP.

    Raises StartError for any others, and closes them.
    """
    kinds = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}
    found = {
        kinds[sock.type]: sock
        for sock in given
        if sock.type in kinds and sock.family in (socket.AF_INET, socket.AF_INET6)
    }
    wanted = {"TCP", "UDP"} if with_udp else {"TCP"}
    if len(given) != len(wanted) or found.keys() != wanted:
        names = ", ".join(f"{sock.family.name} {sock.type.name}" for sock in given)
        for sock in given:
            sock.close()
        what = (
            "one TCP and one UDP socket (ListenStream= and ListenDatagram= in the .socket unit)"
            if with_udp
            else "one TCP socket (ListenStream= in the .socket unit; intake has no udp)"
        )
        raise StartError(f"cannot start: systemd must pass {what}, not {names}")
    tcp = found["TCP"]
    try:
        tcp.listen(BACKLOG)
    except OSError as error:
        raise StartError(f"cannot listen on systemd's TCP socket: {error.strerror}") from None
    return Sockets(tcp, found.get("UDP"), *tcp.getsockname()[:2])


def bind(
    host: str,
    port: int,
    warn: Callable[[str], None],
    *,
    with_udp: bool = True,
    shared: bool = False,
    settings: tuple[str, str] = ("master.host", "--port or master.port"),
) -> Sockets:
    """Bind TCP, and UDP if it is wanted, to `host` and `port`; 0 picks a port that is free for
    both.

    shared: whether others of this user may bind the same port, and share what arrives there
    (socket(7), SO_REUSEPORT); settings: which give the address and the port, for the error message.
    `::` includes IPv4, and falls back to 0.0.0.0 with a warning on a machine without IPv6.
    Raises StartError when an address can't be bound.
    """
    try:
        return _bind_both(host, port, with_udp, shared)
    except OSError as error:
        if host != ANY_ADDRESS or error.errno not in _NO_IPV6:
            raise _start_error(host, port, error, settings) from None
    warn(f"no IPv6 on this machine: listening on {ANY_ADDRESS_V4} instead of {ANY_ADDRESS}")
    try:
        return _bind_both(ANY_ADDRESS_V4, port, with_udp, shared)
    except OSError as error:
        raise _start_error(ANY_ADDRESS_V4, port, error, settings) from None


def bind_unix(path: str) -> Sockets:
    """Listen on a Unix socket that its owner and group may use, whatever the umask.

    A socket file that nobody listens on is replaced. Raises StartError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # Before the file exists: the umask can only take away from this.
        os.fchmod(sock.fileno(), SOCKET_MODE)
        sock.bind(path)
        os.chmod(path, SOCKET_MODE)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = "; is it running already?" if error.errno == errno.EADDRINUSE else ""
        reason = error.strerror or error
        raise StartError(f"cannot listen on unix:{path}: {reason}{hint}") from None
    return Sockets(sock, None, "", 0, path)


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; raises OSError if somebody does."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A listener with a full backlog doesn't accept at once, but it is alive.
        probe.setblocking(False)
        error = probe.connect_ex(path)
    if error != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def remove_socket_file(path: str) -> None:
    """Remove the file of a Unix socket that was closed, unless somebody else listens there now."""
    with suppress(OSError):
        _remove_stale(path)


def peer_user(sock: socket.socket) -> int | None:
    """The user of a Unix socket's peer (unix(7), SO_PEERCRED), None if that is unknown."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(found)
    except (OSError, struct.error):
        return None
    return int(user)


def _bind_both(host: str, port: int, with_udp: bool, shared: bool) -> Sockets:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        # `a..b`, or a label that is too long.
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    family, address = info[0][0], info[0][4]
    for tries_left in reversed(range(PORT_TRIES)):
        tcp = _bound(family, socket.SOCK_STREAM, address, shared)
        try:
            tcp.listen(BACKLOG)
            found: int = tcp.getsockname()[1]
            target = (address[0], found, *address[2:])
            udp = _bound(family, socket.SOCK_DGRAM, target, shared) if with_udp else None
        except OSError as error:
            tcp.close()
            # Only a port that the kernel picked can be replaced.
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                raise
        else:
            return Sockets(tcp, udp, host, found)
    raise AssertionError("unreachable")


def _bound(family: int, kind: socket.SocketKind, address: Any, shared: bool) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM:
            # For TIME_WAIT; on UDP it would let two daemons share the port unnoticed.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


def _start_error(host: str, port: int, error: OSError, settings: tuple[str, str]) -> StartError:
    protocol = error.filename or "TCP"
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = f"; is it running already? Another port: {settings[1]}"
    elif error.errno == errno.EACCES and port < 1024:
        hint = "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    elif isinstance(error, socket.gaierror):
        hint = f"; see {settings[0]}"
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return StartError(f"cannot listen on {protocol} {format_address(host, port)}: {reason}{hint}")


def format_address(host: str, port: int | str) -> str:
    """`host:port`, with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain_address(address: str) -> str:
    """An IPv4-mapped IPv6 address as IPv4 (RFC 4291 section 2.5.5.2)."""
    return address[len("::ffff:") :] if address.startswith("::ffff:") else address
