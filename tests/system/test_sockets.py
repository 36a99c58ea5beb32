from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from daemonkit import StartError
from daemonkit.system import sockets


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_both_families_reach_one_port_over_tcp_and_udp() -> None:
    bound = sockets.bind("::", 0, no_warning)
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.create_connection((address, bound.port), 5):
                bound.tcp.accept()[0].close()
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(address.encode(), (address, bound.port))
            assert bound.udp.recv(100) == address.encode()
    finally:
        bound.close()


@pytest.mark.parametrize(
    ("kind", "text"), [(socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")]
)
def test_a_port_in_use_is_named(kind: socket.SocketKind, text: str) -> None:
    # The port is free for TCP in any case.
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            tcp.listen()
        else:
            udp.bind(("127.0.0.1", port))
        with pytest.raises(StartError) as caught:
            sockets.bind("127.0.0.1", port, no_warning)

    assert str(caught.value) == (
        f"cannot listen on {text} 127.0.0.1:{port}: Address already in use; "
        "is it running already? Another port: --port or master.port"
    )


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(StartError) as caught:
        sockets.bind("192.0.2.1", 0, no_warning)

    message = "cannot listen on TCP 192.0.2.1:0: Cannot assign requested address"
    assert str(caught.value) == message


@pytest.mark.parametrize("host", ["no such host", "a..b"])
def test_a_host_that_is_not_an_address_is_named(host: str) -> None:
    with pytest.raises(StartError) as caught:
        sockets.bind(host, 0, no_warning)

    assert str(caught.value) == (
        f"cannot listen on TCP {host}:0: Name or service not known; see master.host"
    )


def test_a_low_port_without_the_right_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sockets, "_bound", refuse)
    with pytest.raises(StartError) as caught:
        sockets.bind("::", 80, no_warning)

    assert str(caught.value) == (
        "cannot listen on TCP [::]:80: Permission denied; "
        "ports below 1024 need root or CAP_NET_BIND_SERVICE"
    )


@pytest.fixture
def _no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *args: Any, **kwargs: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *args, **kwargs)

    monkeypatch.setattr(sockets.socket, "socket", without_ipv6)


@pytest.mark.usefixtures("_no_ipv6")
def test_without_ipv6_it_falls_back_with_one_warning() -> None:
    warnings: list[str] = []
    bound = sockets.bind("::", 0, warnings.append)
    bound.close()

    assert bound.host == "0.0.0.0"
    assert warnings == ["no IPv6 on this machine: listening on 0.0.0.0 instead of ::"]


@pytest.mark.usefixtures("_no_ipv6")
def test_a_specific_ipv6_address_does_not_fall_back() -> None:
    with pytest.raises(StartError, match=r"cannot listen on TCP \[::1\]:0: Address family"):
        sockets.bind("::1", 0, no_warning)


@pytest.mark.usefixtures("_no_ipv6")
def test_a_fallback_onto_a_taken_port_is_named() -> None:
    with socket.socket(socket.AF_INET) as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"TCP 0\.0\.0\.0:{port}: Address already in use"):
            sockets.bind("::", port, lambda text: None)


def test_a_picked_port_that_udp_cannot_have_is_picked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, tried = sockets._bound, []

    def sometimes(
        family: int, kind: socket.SocketKind, address: Any, shared: bool
    ) -> socket.socket:
        if kind == socket.SOCK_DGRAM:
            tried.append(address[1])
            if len(tried) < 3:
                raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(family, kind, address, shared)

    monkeypatch.setattr(sockets, "_bound", sometimes)
    bound = sockets.bind("127.0.0.1", 0, no_warning)
    bound.close()

    assert len(tried) == 3
    assert bound.port == tried[-1]


def test_a_search_for_a_free_port_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = sockets._bound, []

    def never(family: int, kind: socket.SocketKind, address: Any, shared: bool) -> socket.socket:
        if kind == socket.SOCK_DGRAM:
            tried.append(address[1])
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(family, kind, address, shared)

    monkeypatch.setattr(sockets, "_bound", never)
    with pytest.raises(StartError, match=r"127\.0\.0\.1:0: Address already in use"):
        sockets.bind("127.0.0.1", 0, no_warning)

    assert len(tried) == sockets.PORT_TRIES


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def no_force(monkeypatch: pytest.MonkeyPatch) -> int:
    """Remove the right to exceed the system's limit; returns the limit."""
    monkeypatch.setattr(sockets, "_SO_RCVBUFFORCE", 9999)
    return int(Path("/proc/sys/net/core/rmem_max").read_text())


def buffer_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def test_a_size_over_the_system_s_limit_is_requested() -> None:
    asked: list[Any] = []

    class Recording(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            asked.append(arguments)

    with Recording(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sockets.set_receive_buffer(sock, 2**25, lambda text: None)

    assert asked == [(socket.SOL_SOCKET, 33, 2**25)]


def test_a_size_over_the_limit_is_warned_about_once(
    udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, warnings = no_force(monkeypatch), []
    sockets.set_receive_buffer(udp, 2 * limit, warnings.append)

    assert buffer_of(udp) == limit
    assert warnings == [
        f"udp_receive_buffer: the system gives {limit} bytes instead of {2 * limit}; raise "
        "net.core.rmem_max, or give the process CAP_NET_ADMIN"
    ]


def test_the_default_size_is_reached_or_approached_without_a_warning(
    udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = no_force(monkeypatch)
    sockets.set_receive_buffer(udp, 10_000, no_warning)
    for default in (limit // 2, 2 * limit):
        monkeypatch.setattr(sockets, "RECEIVE_BUFFER", default)
        sockets.set_receive_buffer(udp, None, no_warning)
        assert buffer_of(udp) == min(default, limit)


def test_a_larger_buffer_is_kept_unless_a_size_is_given(
    udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RECEIVE_BUFFER", 50_000)
    sockets.set_receive_buffer(udp, 100_000, no_warning)
    sockets.set_receive_buffer(udp, None, no_warning)
    assert buffer_of(udp) == 100_000

    sockets.set_receive_buffer(udp, 20_000, no_warning)
    assert buffer_of(udp) == 20_000


def test_drops_are_known_at_once_and_exactly(udp: socket.socket) -> None:
    """Also if no datagram was read afterwards."""
    sockets.set_receive_buffer(udp, 10_000, no_warning)
    assert sockets.kernel_drops(udp) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(500):
            sender.sendto(b"x", udp.getsockname())
    drops = sockets.kernel_drops(udp)
    udp.setblocking(False)
    read = 0
    with suppress(BlockingIOError):
        while udp.recv(10):
            read += 1

    assert drops == 500 - read
    assert drops > 0


def test_sockets_of_other_kinds_are_named_and_closed() -> None:
    unix, udp = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(StartError, match=r"not AF_UNIX SOCK_STREAM, AF_INET SOCK_DGRAM$"):
        sockets.adopt([unix, udp])

    assert (unix.fileno(), udp.fileno()) == (-1, -1)


def test_a_tcp_socket_that_cannot_listen_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = socket.create_connection(server.getsockname())
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with pytest.raises(StartError, match="^cannot listen on systemd's TCP socket: "):
            sockets.adopt([connected, udp])
        connected.close()
        udp.close()


@pytest.mark.parametrize("with_udp", [True, False])
def test_one_socket_of_each_kind_wanted_is_adopted(with_udp: bool) -> None:
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
    given = [udp, tcp] if with_udp else [tcp]
    bound = sockets.adopt(given, with_udp=with_udp)
    udp.close()
    bound.close()

    assert (bound.tcp, bound.udp) == (tcp, udp if with_udp else None)


def test_a_udp_socket_that_is_not_an_intake_is_refused_and_closed() -> None:
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
    with pytest.raises(StartError) as caught:
        sockets.adopt([tcp, udp], with_udp=False)

    assert str(caught.value) == (
        "cannot start: systemd must pass one TCP socket (ListenStream= in the .socket unit; "
        "intake has no udp), not AF_INET SOCK_STREAM, AF_INET SOCK_DGRAM"
    )
    assert (tcp.fileno(), udp.fileno()) == (-1, -1)


def test_one_port_may_be_bound_without_udp() -> None:
    # The first one keeps the port from others.
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        port = tcp.getsockname()[1]
        bound = sockets.bind("127.0.0.1", port, no_warning, with_udp=False)
    bound.close()

    assert (bound.udp, bound.port) == (None, port)


# Unix sockets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.sock"


def leave_stale(path: Path) -> None:
    """The file of a process that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("is_stale", [False, True])
def test_a_unix_socket_is_for_its_owner_and_group_whatever_the_umask(
    path: Path, umask: int, is_stale: bool
) -> None:
    if is_stale:
        leave_stale(path)
    before = os.umask(umask)
    try:
        bound = sockets.bind_unix(str(path))
    finally:
        os.umask(before)
    mode = path.stat().st_mode
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted = bound.tcp.accept()[0]
        assert sockets.peer_user(accepted) == os.getuid()
        accepted.close()
    bound.close()

    assert stat.S_IMODE(mode) == 0o660
    assert not path.exists()


def test_a_unix_socket_is_never_open_to_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even before its mode is set again because of the umask."""
    modes, real = [], os.chmod

    def chmod(target: str, mode: int) -> None:
        modes.append(stat.S_IMODE(os.stat(target).st_mode))
        real(target, mode)

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(0)
    try:
        sockets.bind_unix(str(path)).close()
    finally:
        os.umask(before)

    assert modes == [0o660]


@pytest.mark.parametrize("backlog", [0, 100])
def test_a_live_unix_socket_is_left_alone(path: Path, backlog: int) -> None:
    with socket.socket(socket.AF_UNIX) as other, ExitStack() as stack:
        other.bind(str(path))
        other.listen(backlog)
        if not backlog:
            # Nobody can connect now, and it is alive all the same.
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(str(path))
        with pytest.raises(StartError) as caught:
            sockets.bind_unix(str(path))
        assert path.is_socket()
        sockets.remove_socket_file(str(path))
        assert path.is_socket()

    assert str(caught.value) == (
        f"cannot listen on unix:{path}: Address already in use; is it running already?"
    )


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/etc")])
def test_a_file_that_is_not_a_socket_is_left_alone(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    with pytest.raises(StartError) as caught:
        sockets.bind_unix(str(path))
    sockets.remove_socket_file(str(path))

    assert str(caught.value) == (
        f"cannot listen on unix:{path}: there is a file that is not a socket"
    )
    assert path.exists()


def test_a_path_where_no_socket_can_be_is_one_line(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "missing" / "x.sock", "No such file or directory"),
        (tmp_path / ("x" * 120), "AF_UNIX path too long"),
    ):
        with pytest.raises(StartError) as caught:
            sockets.bind_unix(str(path))
        assert str(caught.value) == f"cannot listen on unix:{path}: {reason}"


def test_the_file_of_a_successor_is_not_removed(path: Path) -> None:
    first = sockets.bind_unix(str(path))
    path.rename(path.with_name("old.sock"))
    second = sockets.bind_unix(str(path))
    first.close()
    assert path.is_socket()

    second.close()
    assert not path.exists()


def test_the_peer_of_another_socket_has_no_user() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert sockets.peer_user(client) in (None, -1)


def test_a_port_may_be_shared_on_purpose() -> None:
    with (
        closing(sockets.bind("127.0.0.1", 0, no_warning, shared=True)) as one,
        closing(sockets.bind("127.0.0.1", one.port, no_warning, shared=True)) as other,
    ):
        assert one.port == other.port
        with pytest.raises(StartError, match="Address already in use"):
            sockets.bind("127.0.0.1", one.port, no_warning)
