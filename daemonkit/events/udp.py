"""The UDP listener: one datagram is one event."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable
from itertools import compress
from typing import Any

from ..exceptions import EventTooLarge, InvalidEvent
from ..runtime.clock import monotonic
from ..runtime.failures import REPEAT_INTERVAL, FailureLog
from ..runtime.part import ThreadedPart
from ..system.sockets import format_address, kernel_drops, plain_address, set_receive_buffer
from ..types import Event, Origin
from .codec import Decoded, decode, decode_each
from .intake import Intake

LARGEST_DATAGRAM = 65535
DATAGRAMS_AT_ONCE = 512
"""The most datagrams that are put on the queue together."""
LAST_READ = 0.5
"""Seconds: the time limit for reading the socket's buffer when stopping."""
NO_DATAGRAMS = {"received": 0, "denied": 0, "invalid": 0, "refused": 0, "kernel_drops": 0}
"""The counters of a daemon that takes no datagrams."""


class UdpListener(ThreadedPart):
    """A thread that reads datagrams, decodes them and puts them on the queue; it never answers.

    buffer: the size of the socket's receive buffer in bytes, None for the system's default;
    is_allowed: whether an address may send, None if every one may.
    """

    def __init__(
        self,
        sock: socket.socket,
        intake: Intake,
        logger: logging.Logger,
        buffer: int | None,
        is_allowed: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__("udp", "the UDP listener")
        sock.setblocking(False)
        set_receive_buffer(sock, buffer, logger.warning)
        self._socket = sock
        self._intake = intake
        self._logger = logger
        self.failures = FailureLog(logger)
        self._wake_read, self._wake_write = os.pipe()
        self._is_allowed = is_allowed
        self._senders_until = 0.0
        self._received = 0
        self._denied = 0
        self._invalid = 0
        self._refused = 0
        self._drops = kernel_drops(sock)

    def request_stop(self) -> None:
        """Read what the kernel holds already, then stop."""
        super().request_stop()
        os.write(self._wake_write, b"x")

    def join(self, timeout: float) -> bool:
        stopped = super().join(timeout)
        if stopped:
            self.close()
        return stopped

    def close(self) -> None:
        """Close the descriptors of a listener that has stopped or never started."""
        if self._socket.fileno() >= 0:
            self._drops = kernel_drops(self._socket)
            self._socket.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def counters(self) -> dict[str, int | None]:
        """Datagrams received, denied by `allow_from`, invalid, refused by the queue, and dropped by
        the kernel (None where the kernel doesn't report it)."""
        drops = kernel_drops(self._socket) if self._socket.fileno() >= 0 else self._drops
        return {
            "received": self._received,
            "denied": self._denied,
            "invalid": self._invalid,
            "refused": self._refused,
            "kernel_drops": drops,
        }

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stop_requested.is_set():
            poll.poll()
            self._take_batch()
        # The limit is for a sender that never pauses.
        until = monotonic() + LAST_READ
        while self._take_batch() and monotonic() < until:
            pass

    def _take_batch(self) -> bool:
        """Read and queue a batch of datagrams; returns whether there may be more."""
        try:
            return self._read_batch()
        # Nothing may end this thread.
        except Exception as error:
            self.failures.log(error, "The UDP listener failed", then=" and continues")
            return False

    def _read_batch(self) -> bool:
        datagrams, senders, more = self._receive()
        self._received += len(datagrams)
        if self._is_allowed is not None:
            datagrams, senders = self._without_denied(datagrams, senders, self._is_allowed)
        invalid: set[int] = set()

        def fallback(number: int, data: bytes) -> list[Event]:
            try:
                return [decode(data, self._intake.max_event_size)]
            # Nothing in a datagram may end the thread.
            except Exception as error:
                invalid.add(number)
                self._report_invalid(error, senders[number : number + 1])
                return []

        events = decode_each(datagrams, fallback, self._intake.max_event_size)
        if events:
            if invalid:
                senders = [s for number, s in enumerate(senders) if number not in invalid]
                datagrams = [d for number, d in enumerate(datagrams) if number not in invalid]
            accepted, refusal = self._intake.put_some(
                Decoded(events, datagrams), "udp", lambda: map(_origin_of, senders)
            )
            if refusal is not None:
                self._refused += len(events) - accepted
                sender = senders[accepted : accepted + 1]
                self._report_datagram("refused", sender, f"was refused: {refusal}")
        self._report_drops()
        return more

    def _without_denied(
        self, datagrams: list[bytes], senders: list[Any], is_allowed: Callable[[str], bool]
    ) -> tuple[list[bytes], list[Any]]:
        """The datagrams whose senders are allowed; here all senders are known."""
        flags = [is_allowed(plain_address(sender[0])) for sender in senders]
        if all(flags):
            return datagrams, senders
        self._denied += flags.count(False)
        self._report_datagram("denied", senders[flags.index(False) :], "is denied (allow_from)")
        return list(compress(datagrams, flags)), list(compress(senders, flags))

    def _receive(self) -> tuple[list[bytes], list[Any], bool]:
        """Datagrams, the senders of the first ones, and whether there may be more."""
        datagrams: list[bytes] = []
        senders: list[Any] = []
        # Reading the sender's address costs half as much as reading the datagram.
        with_senders = (
            self._is_allowed is not None
            or self._intake.needs_origins
            or monotonic() < self._senders_until
        )
        receive, append = self._socket.recv, datagrams.append
        try:
            for _ in range(DATAGRAMS_AT_ONCE if with_senders else 1):
                data, sender = self._socket.recvfrom(LARGEST_DATAGRAM)
                append(data)
                senders.append(sender)
            for _ in range(DATAGRAMS_AT_ONCE - len(datagrams)):
                append(receive(LARGEST_DATAGRAM))
        except BlockingIOError:
            return datagrams, senders, False
        except OSError as error:
            self._report("error", f"cannot read a datagram: {error}")
            return datagrams, senders, False
        return datagrams, senders, True

    def _report_invalid(self, error: Exception, sender: list[Any]) -> None:
        self._invalid += 1
        if isinstance(error, EventTooLarge):
            self._report_datagram("invalid", sender, f"is refused: {error}")
        elif isinstance(error, InvalidEvent):
            self._report_datagram("invalid", sender, f"is not valid JSON: {error}")
        else:
            self._report_datagram("error", sender, f"could not be decoded: {error!r}")

    def _report_datagram(self, kind: str, sender: list[Any], what: str) -> None:
        # The next line of this kind can then name the sender, also within a flood.
        self._senders_until = monotonic() + 2 * REPEAT_INTERVAL
        whose = f"from {_format_sender(sender[0])}" if sender else "from a flood"
        self._report(kind, f"a datagram {whose} {what}")

    def _report_drops(self) -> None:
        drops = kernel_drops(self._socket)
        if drops != self._drops:
            new, self._drops = (drops or 0) - (self._drops or 0), drops
            self._report(
                "dropped",
                f"the kernel has dropped {new} datagrams, {drops} in all: its buffer was full "
                "(udp_receive_buffer)",
            )

    def _report(self, kind: str, text: str) -> None:
        self.failures.report(logging.WARNING, "UDP", text, kind)


def _format_sender(address: Any) -> str:
    return format_address(plain_address(address[0]), address[1])


def _origin_of(address: Any) -> Origin:
    return Origin(_format_sender(address))
