"""The UDP listener: one datagram is one event."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from typing import Any

from .events.codec import decode
from .events.intake import Intake
from .exceptions import InvalidEvent, QueueFull
from .log import RateLimit
from .sockets import join, plain_address
from .types import Problem, lost

LARGEST_DATAGRAM = 65535
READ_AT_ONCE = 1000
"""Datagrams between two looks at whether to stop."""
LAST_READ = 0.5
"""Seconds at most for reading what the kernel holds when stopping."""
PROC_TABLES = ("/proc/net/udp6", "/proc/net/udp")
LOG_INTERVAL = 10.0
"""Seconds between two lines about datagrams of one kind."""


class UdpListener:
    """A thread that reads datagrams, checks them and puts them on the queue; it never answers."""

    name = "udp"

    def __init__(self, sock: socket.socket, intake: Intake, logger: logging.Logger) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._inode = os.fstat(sock.fileno()).st_ino
        self._intake = intake
        self._logger = logger
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._listen, name=self.name, daemon=True)
        self._limits = {kind: RateLimit(LOG_INTERVAL) for kind in ("invalid", "refused", "error")}
        self._received = 0
        self._invalid = 0
        self._refused = 0
        self._drops = 0

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Read what the kernel holds already, then stop."""
        self._stopping = True
        os.write(self._wake_write, b"x")

    def join(self, timeout: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self.close()
        return True

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    def problems(self) -> list[Problem]:
        """What the health check has to say of it."""
        return lost("the UDP listener", self._thread, stopping=self._stopping)

    def close(self) -> None:
        """Close the descriptors; for a listener that has stopped, or never started."""
        if self._socket.fileno() >= 0:
            self._drops = self.kernel_drops()
            self._socket.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def counters(self) -> dict[str, int]:
        """Datagrams received, invalid, refused for lack of room, and dropped by the kernel."""
        return {
            "received": self._received,
            "invalid": self._invalid,
            "refused": self._refused,
            "kernel_drops": self.kernel_drops(),
        }

    def kernel_drops(self) -> int:
        """Datagrams the kernel threw away because the socket's buffer was full (proc(5))."""
        for table in PROC_TABLES:
            try:
                with open(table, encoding="ascii") as lines:
                    for line in lines:
                        columns = line.split()
                        if columns[9:10] == [str(self._inode)]:
                            return int(columns[-1])
            except OSError:
                continue
        return self._drops

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopping:
            poll.poll()
            self._read(READ_AT_ONCE)
        # A sender that never pauses must not keep it from stopping.
        until = time.monotonic() + LAST_READ
        while self._read(READ_AT_ONCE) and time.monotonic() < until:
            pass

    def _read(self, limit: int) -> bool:
        """Read up to `limit` datagrams; True when there may be more."""
        for _ in range(limit):
            try:
                data, address = self._socket.recvfrom(LARGEST_DATAGRAM)
            except BlockingIOError:
                return False
            except OSError as error:
                self._report("error", f"cannot read a datagram: {error}")
                return False
            self._received += 1
            self._take(data, address)
        return True

    def _take(self, data: bytes, address: Any) -> None:
        peer = join(plain_address(address[0]), address[1])
        try:
            self._intake.put(decode(data), "udp", peer)
        except InvalidEvent as error:
            self._invalid += 1
            self._report("invalid", f"a datagram from {peer} is not valid JSON: {error}")
        except QueueFull as error:
            self._refused += 1
            self._report("refused", f"a datagram from {peer} is refused: {error}")
        # Nothing that a datagram holds may end the thread.
        except Exception as error:
            self._invalid += 1
            self._report("error", f"a datagram from {peer} could not be taken: {error!r}")

    def _report(self, kind: str, text: str) -> None:
        held = self._limits[kind].allow()
        if held is not None:
            more = f" (and {held} more since the last such line)" if held else ""
            self._logger.warning("UDP: %s%s", text, more)
