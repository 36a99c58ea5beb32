from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from daemonkit import Daemon, StartError
from daemonkit.config.defaults import Settings
from daemonkit.lifecycle.binding import bind_admin, bind_public
from daemonkit.system.sockets import Sockets
from daemonkit.testing import running

LOGGER = logging.getLogger("binding")


def no_warning(text: str) -> None:
    raise AssertionError(text)


def bound_to(**settings: object) -> Sockets:
    given = {"host": "127.0.0.1", "port": 0, **settings}
    bound = bind_public(Settings(**given), [], no_warning)  # type: ignore[arg-type]
    bound.close()
    return bound


def test_http_and_udp_listen_on_one_port() -> None:
    bound = bound_to()

    assert bound.udp is not None
    assert bound.port > 0
    assert bound.address == f"127.0.0.1:{bound.port}"


def test_without_udp_as_an_intake_no_udp_socket_is_bound() -> None:
    # The first one keeps the port from others.
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        bound = bound_to(intake=["http"], port=tcp.getsockname()[1])

    assert bound.udp is None


def test_http_is_served_even_if_it_is_not_an_intake() -> None:
    bound = bound_to(intake=["udp"])

    assert bound.udp is not None


def test_a_unix_socket_takes_no_datagrams(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    bound = bound_to(host=f"unix:{path}")

    assert (bound.udp, bound.path, bound.address) == (None, str(path), f"unix:{path}")
    assert not path.exists()


@pytest.mark.parametrize("intake", [["http", "udp"], ["http"]])
def test_passed_sockets_are_used_whatever_the_address_is(intake: list[str], tmp_path: Path) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(type=socket.SOCK_DGRAM)
    passed = [tcp, udp] if "udp" in intake else [tcp]
    settings = Settings(host=f"unix:{tmp_path / 'never.sock'}", intake=intake)
    bound = bind_public(settings, passed, no_warning)
    udp.close()
    bound.close()

    assert (bound.tcp, bound.udp) == (tcp, udp if "udp" in intake else None)
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_admin_listener_by_default(caplog: pytest.LogCaptureFixture) -> None:
    assert bind_admin(Settings(), LOGGER) is None
    assert caplog.messages == []


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_an_admin_listener_takes_only_http_and_is_logged(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        bound = bind_admin(Settings(admin=address), LOGGER)
    assert bound is not None
    bound.close()

    host = address.removesuffix(":0")
    assert bound.udp is None
    assert caplog.messages == [f"Administration on {host}:{bound.port}"]


def test_an_admin_listener_may_be_a_unix_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "admin.sock"
    with caplog.at_level(logging.INFO):
        bound = bind_admin(Settings(admin=f"unix:{path}"), LOGGER)
    assert bound is not None
    bound.close()

    assert caplog.messages == [f"Administration on unix:{path}"]


def test_an_address_in_use_is_a_start_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"^cannot listen on TCP {address}: Address already"):
            bind_admin(Settings(admin=address), LOGGER)
    live = Settings(admin=f"unix:{tmp_path / 'admin.sock'}")
    bound = bind_admin(live, LOGGER)
    assert bound is not None
    with pytest.raises(StartError, match=r"admin\.sock: Address already in use; is it running"):
        bind_admin(live, LOGGER)
    bound.close()


@pytest.mark.parametrize("is_public", [True, False])
def test_a_start_that_fails_removes_the_socket_that_it_had_opened(
    tmp_path: Path, is_public: bool
) -> None:
    ours, theirs = tmp_path / "ours.sock", tmp_path / "theirs.sock"
    host, admin = (ours, theirs) if is_public else (theirs, ours)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(theirs))
        other.listen()
        settings = {"host": f"unix:{host}", "admin": f"unix:{admin}"}
        with pytest.raises(StartError) as caught, running(Daemon("app"), {"master": settings}):
            pass

    assert (caught.value.exit_status, ours.exists(), theirs.exists()) == (3, False, True)


def test_a_daemon_removes_its_sockets_and_replaces_those_of_one_that_was_killed(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / "http.sock", tmp_path / "admin.sock"]
    settings = dict(zip(("host", "admin"), (f"unix:{path}" for path in paths), strict=True))
    for path in paths:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
    with running(Daemon("app"), {"master": settings}) as client:
        modes = [path.stat().st_mode & 0o7777 for path in paths]
    assert client.exit_status == 0

    assert modes == [0o660] * 2
    assert list(tmp_path.iterdir()) == []
