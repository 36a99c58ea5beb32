"""Sending on a connection: at once where the socket takes it, otherwise by the loop."""

from __future__ import annotations

from functools import cached_property
from socket import AF_UNIX
from typing import Any

from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected, HTTPChannel

from ..runtime.clock import monotonic
from ..system.sockets import peer_user, unacknowledged
from .access import Client, Peer

SEND_AT_ONCE = 1024 * 1024
"""Bytes sent on one connection before the others get their turn."""
WORTH_HOLDING = 64 * 1024
"""Bytes. Unsent data from this size is held; less is copied, together with what follows."""


class _HeldBytes:
    """Bytes to be sent that aren't copied, with the methods of waitress's buffers that are used."""

    def __init__(self, data: memoryview) -> None:
        self._left = data

    def __len__(self) -> int:
        return len(self._left)

    def get(self, size: int) -> memoryview:
        return self._left[:size]

    def skip(self, size: int, _prune: bool) -> None:
        self._left = self._left[size:]

    def close(self) -> None:
        self._left = memoryview(b"")


class Sender(HTTPChannel):
    """The sending half of a connection.

    Each thread sends at once what the socket accepts and leaves the rest to the loop, which alone
    sends from then on. The loop never waits for a socket on which a pool thread is sending: it
    would find it writable in every iteration, and keep that thread from running.
    """

    gathered: list[bytes] | None = None
    """If it is a list, data is collected there instead of being sent."""
    answer_pending = False
    """Whether the fast lane has taken an event and hasn't answered yet."""
    parked = b""
    """What was read after that event and isn't for the fast lane: it must be answered in order."""
    _in_flight = 0
    _reads_paused = False
    _closes_when_flushed = False
    _answered_and_closing = False

    # Waitress sets this when the last answer is complete, on any thread.
    @property
    def close_when_flushed(self) -> bool:
        """Whether the connection is closed once everything is sent."""
        return self._closes_when_flushed

    @close_when_flushed.setter
    def close_when_flushed(self, value: bool) -> None:
        self._closes_when_flushed = value
        self._answered_and_closing |= value

    # Waitress sets the time of day here, which may be set back.
    @property
    def last_activity(self) -> float:
        """When the last request or answer was seen, in monotonic seconds."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self._last_activity = monotonic()

    @cached_property
    def other_end(self) -> Peer:
        """The other end of the connection."""
        is_admin = self.server.is_admin
        if self.socket.family == AF_UNIX:
            return Peer(None, 0, peer_user(self.socket), is_admin)
        return Peer(self.addr[0], self.addr[1], None, is_admin)

    @property
    def peer(self) -> str:
        """The other end's address and port, for the log."""
        return Client(self.other_end.address, self.other_end.port).shown

    def write_soon(self, data: Any) -> int:
        """Send data from a pool thread; waits while too much is unsent.

        data: bytes, or a file that waitress has wrapped. Raises ClientDisconnected.
        """
        if self.gathered is not None:
            self.gathered.append(data)
            return len(data)
        if not self.connected:
            raise ClientDisconnected
        if data:
            with self.outbuf_lock:
                self._flush_outbufs_below_high_watermark()
                if not self.connected:
                    raise ClientDisconnected
                left = self._send(data)
            if left:
                self.server.recheck(self)
        return len(data)

    def answer(self, data: bytes) -> None:
        """Send an answer of the fast lane; only on the loop's thread, while no request is being
        answered."""
        self._last_activity = monotonic()
        self.answer_pending = False
        if not self.connected:
            return
        with self.outbuf_lock:
            left = self._send(data)
        if left or self._reads_paused:
            self.server.poller.recheck(self)
        if self.parked:
            rest, self.parked = self.parked, b""
            self.received(rest)

    def send_continue(self) -> None:
        self.request.expect_continue = False
        self.sent_continue = True
        with self.outbuf_lock:
            if self.connected:
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.request.completed = False
        # A pool thread calls this when it has finished the previous request.
        self.server.recheck(self)

    def _send(self, data: Any) -> bool:
        """Send what the socket accepts; the caller holds the lock.

        Returns True if something is left that the loop doesn't know about.
        """
        is_first = not self.total_outbufs_len
        if is_first:
            self._last_activity = monotonic()
        if isinstance(data, ReadOnlyFileBasedBuffer):
            self.outbufs += [data, OverflowableBuffer(self.adj.outbuf_overflow)]
            self.current_outbuf_count = 0
            self.total_outbufs_len += len(data)
            return is_first
        if is_first:
            try:
                sent = self.send(data, do_close=False)
            except OSError:
                self.will_close = True
                return True
            if sent == len(data):
                return False
            data = memoryview(data)[sent:]
        self.total_outbufs_len += len(data)
        if len(data) >= WORTH_HOLDING:
            # The application may change anything but bytes after this call.
            whole = data.obj if isinstance(data, memoryview) else data
            held = memoryview(data if isinstance(whole, bytes) else bytes(data))
            self.outbufs += [_HeldBytes(held), OverflowableBuffer(self.adj.outbuf_overflow)]
            self.current_outbuf_count = 0
        else:
            self._copy(data)
        if is_first:
            self._in_flight = unacknowledged(self.socket)
        return is_first

    def _copy(self, data: Any) -> None:
        """Append data to the last buffer."""
        # A buffer that has held so much never shrinks.
        if self.current_outbuf_count >= self.adj.outbuf_high_watermark:
            self.outbufs.append(OverflowableBuffer(self.adj.outbuf_overflow))
            self.current_outbuf_count = 0
        self.outbufs[-1].append(data)
        self.current_outbuf_count += len(data)

    def _flush_outbufs_below_high_watermark(self) -> None:
        with self.outbuf_lock:
            while self.connected and self.total_outbufs_len > self.adj.outbuf_high_watermark:
                self.outbuf_lock.wait()

    def handle_write(self) -> None:
        with self.outbuf_lock:
            if self.total_outbufs_len:
                try:
                    self._flush_some()
                except OSError:
                    self.will_close = True
                self._in_flight = unacknowledged(self.socket)
                if self.total_outbufs_len <= self.adj.outbuf_high_watermark:
                    self.outbuf_lock.notify_all()
            if not self.total_outbufs_len and self.outbufs[0].buf is not None:
                # The buffer would keep what was sent until the connection is closed.
                self.outbufs[0].close()
                self.outbufs[0] = OverflowableBuffer(self.adj.outbuf_overflow)
                self.current_outbuf_count = 0
        if self.close_when_flushed and not self.total_outbufs_len:
            self.close_when_flushed = False
            self.will_close = True
        if self.will_close:
            self.handle_close()

    def _flush_some(self, do_close: bool = False) -> bool:
        """Send what is left, at most SEND_AT_ONCE bytes."""
        before: int = self.total_outbufs_len
        while self.total_outbufs_len and before - self.total_outbufs_len < SEND_AT_ONCE:
            buffer = self.outbufs[0]
            if not len(buffer):
                self.outbufs.pop(0).close()
                continue
            chunk = buffer.get(self.sendbuf_len)
            if not chunk:
                self.server.own_logger.warning(
                    "A file became shorter while it was sent to %s: the connection is closed",
                    self.peer,
                )
                self.will_close = True
                break
            if not (sent := self.send(chunk, do_close)):
                break
            buffer.skip(sent, True)
            self.total_outbufs_len -= sent
        while len(self.outbufs) > 1 and not len(self.outbufs[0]):
            self.outbufs.pop(0).close()
        if has_sent := bool(self.total_outbufs_len < before):
            self._last_activity = monotonic()
        return has_sent

    def check_received(self) -> bool:
        """Check whether the client has received some of its answer since the last check.

        The kernel accepts more only when much of its buffer is free, so this asks what was
        acknowledged."""
        before, self._in_flight = self._in_flight, unacknowledged(self.socket)
        if self._in_flight < before:
            self._last_activity = monotonic()
        return self._in_flight < before
