"""What systemd says to a service and a service to systemd, by environment and descriptors.

Nothing here happens without the variables that systemd sets: sd_notify(3), sd_listen_fds(3),
sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping

from ..exceptions import StartError

FIRST_DESCRIPTOR = 3


class NotifySocket:
    """The datagram socket that NOTIFY_SOCKET names: a path, or an abstract name after `@`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if self.address.startswith(("/", "@")):
            try:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            except OSError:
                # No descriptor to be had: the daemon has other troubles than telling systemd.
                pass

    @property
    def is_open(self) -> bool:
        """Whether there is somebody to tell."""
        return self._socket is not None

    def send(self, message: str) -> bool | None:
        """Send one message; never blocks and never raises.

        False when there is no room now, so that it should be tried again; None when it can't be
        delivered at all.
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
        # The path is gone, nobody is bound to it, the name is too long.
        except (OSError, ValueError):
            return None
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Seconds within which WATCHDOG=1 is expected of this process, or None."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    # isdecimal is true of other scripts' digits, which int() takes as well.
    microseconds = int(text) if text.isdecimal() and len(text) < 20 else 0
    return microseconds / 1e6 if microseconds > 0 else None


def take_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd has opened for this process, if any, each taken only once.

    Raises StartError for a descriptor that isn't an open socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    # So that neither a process started by this one nor a second daemon takes them for its own.
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
                f"cannot start: descriptor {descriptor}, given by LISTEN_FDS={count}, "
                f"is not an open socket: {error.strerror}"
            ) from None
    return taken
