"""The UDP listener: one datagram is one event."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from typing import Any

from ..exceptions import InvalidEvent
from ..runtime.ratelimit import RateLimit
from ..system.sockets import format_address, kernel_drops, plain_address, set_receive_buffer
from ..types import Event, Problem, thread_died
from .codec import decode, decode_each
from .intake import Intake

LARGEST_DATAGRAM = 65535
BATCH = 512
"""Datagrams that are put on the queue at once, at most."""
LAST_READ = 0.5
"""Seconds at most for reading what the kernel holds when stopping."""
LOG_INTERVAL = 10.0
"""Seconds between two lines about datagrams of one kind."""


class UdpListener:
    """A thread that reads datagrams, checks them and puts them on the queue; it never answers.

    buffer: bytes the kernel is to keep for it, None for the default.
    """

    name = "udp"

    def __init__(
        self, sock: socket.socket, intake: Intake, logger: logging.Logger, buffer: int | None
    ) -> None:
        sock.setblocking(False)
        set_receive_buffer(sock, buffer, logger.warning)
        self._socket = sock
        self._intake = intake
        self._logger = logger
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._listen, name=self.name, daemon=True)
        kinds = ("invalid", "refused", "error", "dropped")
        self._limits = {kind: RateLimit(LOG_INTERVAL) for kind in kinds}
        self._senders_until = 0.0
        self._received = 0
        self._invalid = 0
        self._refused = 0
        self._drops = kernel_drops(sock)

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
        return thread_died("the UDP listener", self._thread, stopping=self._stopping)

    def close(self) -> None:
        """Close the descriptors; for a listener that has stopped, or never started."""
        if self._socket.fileno() >= 0:
            self._drops = kernel_drops(self._socket)
            self._socket.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def counters(self) -> dict[str, int | None]:
        """Datagrams received, invalid, refused for lack of room, and dropped by the kernel (None
        where it can't tell)."""
        drops = kernel_drops(self._socket) if self._socket.fileno() >= 0 else self._drops
        return {
            "received": self._received,
            "invalid": self._invalid,
            "refused": self._refused,
            "kernel_drops": drops,
        }

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopping:
            poll.poll()
            self._take_batch()
        # A sender that never pauses must not keep it from stopping.
        until = time.monotonic() + LAST_READ
        while self._take_batch() and time.monotonic() < until:
            pass

    def _take_batch(self) -> bool:
        """Read and queue up to BATCH datagrams; True when there may be more."""
        try:
            return self._read_batch()
        # Nothing may end this thread.
        except Exception:
            self._logger.exception("The UDP listener failed and goes on")
            return False

    def _read_batch(self) -> bool:
        datagrams, senders, more = self._receive()
        self._received += len(datagrams)
        bad: set[int] = set()

        def otherwise(number: int, data: bytes) -> list[Event]:
            try:
                return [decode(data)]
            except Exception as error:
                bad.add(number)
                self._complain_invalid(error, senders[number : number + 1])
                return []

        events = decode_each(datagrams, otherwise)
        if events:
            good, lines = senders, datagrams
            if bad:
                good = [s for number, s in enumerate(senders) if number not in bad]
                lines = [d for number, d in enumerate(datagrams) if number not in bad]
            accepted, refusal = self._intake.put_some(
                events, lines, "udp", lambda: map(_name, good)
            )
            if refusal is not None:
                self._refused += len(events) - accepted
                self._complain("refused", good[accepted : accepted + 1], f"is refused: {refusal}")
        self._look_for_drops()
        return more

    def _receive(self) -> tuple[list[bytes], list[Any], bool]:
        """Datagrams, the senders of the first ones, and whether there may be more."""
        datagrams: list[bytes] = []
        senders: list[Any] = []
        # Asking for the sender costs half as much as the datagram itself.
        named = self._intake.asks_who or time.monotonic() < self._senders_until
        receive, append = self._socket.recv, datagrams.append
        try:
            for _ in range(BATCH if named else 1):
                data, sender = self._socket.recvfrom(LARGEST_DATAGRAM)
                append(data)
                senders.append(sender)
            for _ in range(BATCH - len(datagrams)):
                append(receive(LARGEST_DATAGRAM))
        except BlockingIOError:
            return datagrams, senders, False
        except OSError as error:
            self._report("error", f"cannot read a datagram: {error}")
            return datagrams, senders, False
        return datagrams, senders, True

    def _complain_invalid(self, error: Exception, sender: list[Any]) -> None:
        self._invalid += 1
        if isinstance(error, InvalidEvent):
            self._complain("invalid", sender, f"is not valid JSON: {error}")
        # Nothing that a datagram holds may end the thread.
        else:
            self._complain("error", sender, f"could not be taken: {error!r}")

    def _complain(self, kind: str, sender: list[Any], what: str) -> None:
        # So that the next line names the sender, even of one that comes in a flood.
        self._senders_until = time.monotonic() + 2 * LOG_INTERVAL
        whose = f"from {_name(sender[0])}" if sender else "of a flood"
        self._report(kind, f"a datagram {whose} {what}")

    def _look_for_drops(self) -> None:
        drops = kernel_drops(self._socket)
        if drops != self._drops:
            new, self._drops = (drops or 0) - (self._drops or 0), drops
            self._report(
                "dropped",
                f"the kernel has dropped {new} datagrams, {drops} in all: its buffer was full "
                "(udp_receive_buffer)",
            )

    def _report(self, kind: str, text: str) -> None:
        held = self._limits[kind].allow()
        if held is not None:
            more = f" (and {held} more since the last such line)" if held else ""
            self._logger.warning("UDP: %s%s", text, more)


def _name(address: Any) -> str:
    return format_address(plain_address(address[0]), address[1])
