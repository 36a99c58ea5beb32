"""Opens the sockets that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from logging import Logger
from socket import socket

from ..config.access import split_address, unix_path
from ..config.defaults import Settings
from ..exceptions import StartError
from ..system.sockets import Sockets, adopt, bind, bind_unix
from .worker_process import WorkerPlace

MAX_PORT = 65535


def bind_public(
    settings: Settings, passed: Sequence[socket], warn: Callable[[str], None]
) -> Sockets:
    """The sockets for events and everything else; passed: those from systemd, if any.

    Raises StartError.
    """
    with_udp = "udp" in settings.intake
    if passed:
        return adopt(passed, with_udp=with_udp)
    if (path := unix_path(settings.host)) is not None:
        return bind_unix(path)
    return bind(settings.host, settings.port, warn, with_udp=with_udp)


def bind_admin(
    settings: Settings,
    logger: Logger,
    worker: WorkerPlace | None = None,
) -> Sockets | None:
    """The socket of the admin listener, None if there is none; worker: of several, each of which
    has a port of its own, that it shares with its successor. Raises StartError."""
    if settings.admin is None:
        return None
    path = unix_path(settings.admin)
    if path is None:
        host, port = split_address(settings.admin)
        if port and worker is not None:
            port += worker.port_offset
        bound = _bind_admin_port(host, port, logger.warning, shared=worker is not None)
    else:
        bound = bind_unix(path)
    logger.info("Administration on %s", bound.address)
    return bound


def check_admin_ports(settings: Settings, workers: int) -> None:
    """Check that so many workers can have an admin port each. Raises StartError."""
    if settings.admin is None:
        return
    host, first = split_address(settings.admin)
    for port in range(first, first + workers if first else 1):
        if port > MAX_PORT:
            raise StartError(f"master.admin: {workers} workers need the ports up to {port}")
        _bind_admin_port(host, port, lambda _: None, shared=False).close()


def _bind_admin_port(host: str, port: int, warn: Callable[[str], None], *, shared: bool) -> Sockets:
    where = ("master.admin", "master.admin")
    return bind(host, port, warn, with_udp=False, shared=shared, settings=where)
