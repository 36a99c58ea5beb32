"""The protocols between systemd and a service: sd_notify(3), sd_listen_fds(3),
sd_watchdog_enabled(3).

Without the variables that systemd sets, nothing here has an effect.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from ..exceptions import StartError

FIRST_DESCRIPTOR = 3


class NotifySocket:
    """Sends to the datagram socket in NOTIFY_SOCKET: a path, or an abstract name after `@`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if self.address.startswith(("/", "@")):
            try:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            except OSError:
                # Out of descriptors: the daemon must start anyway.
                pass

    @property
    def is_open(self) -> bool:
        """Whether systemd listens."""
        return self._socket is not None

    def send(self, message: str) -> bool | None:
        """Send one message; never blocks and never raises.

        Returns False when there is no room, so that it should be tried again, and None when it
        can't be delivered at all.
        """
        address = self.address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            if self._socket is None:
                return None
            self._socket.sendto(message.encode("utf-8", "replace"), address)
        except BlockingIOError:
            return False
        # The path is gone, has no listener, or is too long.
        except (OSError, ValueError):
            return None
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def reload_time() -> str:
    """What belongs to RELOADING=1: when it is sent, on the clock that systemd compares it with."""
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Seconds within which systemd expects WATCHDOG=1 from this process, or None."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    # isdecimal accepts the digits of other scripts; so does int().
    microseconds = int(text) if text.isdecimal() and len(text) < 20 else 0
    return microseconds / 1e6 if microseconds > 0 else None


def take_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Take the sockets that systemd passed to this process, if any.

    Removes them from `environ`. Raises StartError for a descriptor that isn't an open socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    # Neither a child process nor a second daemon may take them again.
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    if not count.isdecimal() or len(count) > 6:
        raise StartError(f"cannot start: LISTEN_FDS is {count!r}, not a number of descriptors")
    taken: list[socket.socket] = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        try:
            os.set_inheritable(descriptor, False)
            taken.append(socket.socket(fileno=descriptor))
        except OSError as error:
            for sock in taken:
                sock.close()
            raise StartError(
                f"cannot start: descriptor {descriptor}, passed with LISTEN_FDS={count}, "
                f"is not an open socket: {error.strerror}"
            ) from None
    return taken
